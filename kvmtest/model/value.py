# SPDX-License-Identifier: GPL-2.0-only
"""Values of items: integers and texts inside, hex and names in files and reports."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ("MP_STATES", "Expected", "Value", "differing", "parse", "text")

#: A register's value, or what a behaviour was seen to be.
Value = int | str

#: <linux/kvm.h>, KVM_MP_STATE_*.
MP_STATES = {0: "RUNNABLE", 1: "UNINITIALIZED", 2: "INIT_RECEIVED", 3: "HALTED", 4: "SIPI_RECEIVED", 9: "AP_RESET_HOLD"}
_MP_STATE_OF = {name: value for value, name in MP_STATES.items()}
#: Hex as `text` writes it. Anything else is a text, also where it begins as a number.
_HEX = re.compile(r"0x(?:0|[1-9a-f][0-9a-f]*)")
#: Longer than any register: 8192 bytes of AMX tile data.
_LONGEST = 2 + 2 * 8192


def text(item: str, value: Value | None) -> str | None:
    """``value`` as results have it: lower-case hex without leading zeros, the name of an ``mp_state``, or the text itself."""
    if not isinstance(value, int):
        return value
    if item == "mp_state" and value in MP_STATES:
        return MP_STATES[value]
    return f"{value:#x}"


def parse(item: str, said: str | None) -> Value | None:
    """The value that `text` gave ``said``."""
    if said is None:
        return None
    if item == "mp_state" and said in _MP_STATE_OF:
        return _MP_STATE_OF[said]
    return int(said, 16) if len(said) <= _LONGEST and _HEX.fullmatch(said) else said


class Expected(NamedTuple):
    """The values that a rule allows in one case: one, or several alternatives.

    ``mask`` has the judged bits set; None judges all of them. ``formula`` is the name of the formula that gave the value.
    """

    values: tuple[Value, ...]
    mask: int | None = None
    formula: str = ""

    def allows(self, observed: Value) -> bool:
        """``observed`` equals one of the values in all judged bits."""
        return any(not _differ(value, observed, self.mask) for value in self.values)


def _differ(a: Value, b: Value, mask: int | None) -> int:
    """The bits of ``mask`` in which two numbers differ; 1 for texts that do."""
    if isinstance(a, int) and isinstance(b, int):
        return a ^ b if mask is None else (a ^ b) & mask
    return int(a != b)


def differing(expected: Expected | None, observed: Value | None) -> int:
    """The judged bits in which ``observed`` differs from the one expected value; 0 where they are no numbers."""
    if expected is None or len(expected.values) != 1 or not isinstance(observed, int):
        return 0
    (value,) = expected.values
    return _differ(value, observed, expected.mask) if isinstance(value, int) else 0
