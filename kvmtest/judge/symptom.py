# SPDX-License-Identifier: GPL-2.0-only
"""The way in which one record departs: what items that depart by one cause have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from kvmtest.model.record import Record
from kvmtest.model.verdict import Verdict
from kvmtest.spec.effects import COUNTED
from kvmtest.spec.untouched import COUNTERS

__all__ = ("Symptom", "symptoms")

#: Addresses (CS:IP without 0x), sizes, times and ids in a reason.
_NUMBER = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]+:[0-9a-f]+\b|\d+(?:\.\d+)?")


class Symptom(NamedTuple):
    """``kind`` is one of

    * ``kept``: every judged bit is as it was planted,
    * ``zeroed``: every judged bit is 0,
    * ``value``: another value, of what counts by itself or is not a number of bits,
    * ``bits``: one bit, ``bit``, differs from the expected value while others are right, or wrong in another way,
    * ``disagree``: the guest reads another value than the host,
    * ``behaves``: a behaviour was another than expected, ``text`` says which, and what it was, without its numbers,
    * ``deviation``: a listed deviation explains it, ``text`` its commit or function,
    * ``reason``: there is no value to say more than the reason, ``text`` without its numbers.
    """

    kind: str
    bit: int = 0
    text: str = ""


def symptoms(record: Record, view: str) -> Iterator[Symptom]:
    """The symptoms of a record that departs: one, or one for each wrong bit."""
    if record.deviation is not None:
        yield Symptom("deviation", text=record.deviation)
        return
    if record.verdict is Verdict.ERROR or record.observed is None:
        yield Symptom("reason", text=_NUMBER.sub("N", record.reason.split("\n", 1)[0]))
        return
    if view == "views":
        yield Symptom("disagree")
        return
    if isinstance(record.observed, str):
        yield Symptom("behaves", text=f"{record.item}: {_NUMBER.sub('N', record.observed)}")
        return
    wrong = record.differing
    if not wrong or record.item in COUNTERS or record.item in COUNTED:
        yield Symptom("value")
        return
    mask = -1 if record.expected is None or record.expected.mask is None else record.expected.mask
    if isinstance(record.planted, int) and record.planted & mask and not (record.observed ^ record.planted) & mask:
        yield Symptom("kept")
    elif not record.observed & mask:
        yield Symptom("zeroed")
    else:
        yield from (Symptom("bits", bit) for bit in range(wrong.bit_length()) if wrong >> bit & 1)
