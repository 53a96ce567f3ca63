# SPDX-License-Identifier: GPL-2.0-only
"""A user's own list of what is known: a TOML file of waivers, applied to observations.

    [[known]]
    selector = "init.*.host.cr2"     # as kvmtest run accepts it, or as a report prints it
    value = "0x5000"                 # optional: only this observed value
    reason = "our L0 keeps CR2 across INIT"
    bug = "https://bugs.example.org/1234"
    until = 2027-01-31               # optional: the last day on which it applies

A ``fail`` or an ``error`` that a waiver matches becomes ``known``, by its reason and its bug. One that expired is not applied.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kvmtest.model.record import Block, Observation, Record, Result
from kvmtest.model.select import SelectorError, parse, takes
from kvmtest.model.value import Value
from kvmtest.model.value import parse as value_of
from kvmtest.model.verdict import Verdict

__all__ = ("Waiver", "WaiverError", "Waivers", "load")

_KEYS: dict[str, type | tuple[type, ...]] = {
    "selector": str,
    "value": (str, int),
    "reason": str,
    "bug": str,
    "until": datetime.date,
}
_NEEDED = ("selector", "reason", "bug")
#: More bytes than anybody lists failures in.
_LONGEST = 1 << 20


class WaiverError(ValueError):
    """The file is not a list of waivers; one line that names it, and where it is wrong."""


class Waiver(NamedTuple):
    """One entry: the results that it matches, and why they are known."""

    selector: str
    reason: str
    bug: str
    value: str | None = None
    until: datetime.date | None = None

    def matches(self, result: Result) -> bool:
        """``result`` is one that a waiver may excuse, and this one does."""
        if not result.verdict.unexpected or not takes((self.selector,), result.id, result.case):
            return False
        return self.value is None or _wanted(result.item, self.value) == result.record.observed


def _wanted(item: str, said: str) -> Value | None:
    """The value that a file says, hex digits in either case and with leading zeros."""
    try:
        return int(said, 16) if said[:2].lower() == "0x" else value_of(item, said)
    except ValueError:
        return said


def load(path: str, today: datetime.date) -> Waivers:
    """The waivers in the file ``path``, on the day ``today``. Raises WaiverError."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        raise WaiverError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > _LONGEST:
        raise WaiverError(f"{path}: more than {_LONGEST >> 20} MiB")
    try:
        contents = tomllib.loads(data.decode())
    except tomllib.TOMLDecodeError as error:
        raise WaiverError(f"{path}: {error}") from None
    except (UnicodeDecodeError, RecursionError, ValueError):  # of a number with more digits than Python converts
        raise WaiverError(f"{path}: no TOML in UTF-8, or nested too deep") from None
    entries = contents.pop("known", None)
    if contents or not isinstance(entries, list) or not entries:
        more = "".join(f", not {key}" for key in contents)[:60]
        raise WaiverError(f"{path}: expected [[known]] entries and nothing else{more}")
    return Waivers([_waiver(f"{path}: entry {number}", entry) for number, entry in enumerate(entries, 1)], today)


def _waiver(where: str, entry: Any) -> Waiver:
    if not isinstance(entry, dict):
        raise WaiverError(f"{where} is not a table")
    for key, value in entry.items():
        if key not in _KEYS:
            raise WaiverError(f"{where}: {key[:40]!r} is not one of {', '.join(_KEYS)}")
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool | datetime.datetime):
            raise WaiverError(f"{where}: {key} is not a {'date' if key == 'until' else 'string'}")
    for key in _NEEDED:
        if not str(entry.get(key, "")).strip():
            raise WaiverError(f"{where} has no {key}")
    value = entry.get("value")
    if isinstance(value, int):
        entry["value"] = f"{value:#x}"
    try:
        parse(entry["selector"])
    except SelectorError as error:
        raise WaiverError(f"{where}: {error}") from None
    return Waiver(**entry)


class Waivers:
    """Waivers, and which of them were of use."""

    def __init__(self, waivers: Iterable[Waiver], today: datetime.date) -> None:
        self._all = list(waivers)
        self._today = today
        self._matched: set[int] = set()

    def apply(self, observations: Iterable[Observation]) -> list[Observation]:
        """``observations`` with what is waived ``known``; those that nothing is waived of are the same objects."""
        return [self._applied(seen) for seen in observations]

    def said(self) -> Iterator[str]:
        """Lines on what expired, though it would still match, and on what matched nothing in all that was shown so far."""
        for number, waiver in enumerate(self._all):
            if number not in self._matched:
                yield f"the waiver of {waiver.selector} ({waiver.bug}) matched nothing"
            elif self._expired(waiver):
                yield f"the waiver of {waiver.selector} ({waiver.bug}) expired on {waiver.until}, and is not applied"

    def _expired(self, waiver: Waiver) -> bool:
        return waiver.until is not None and waiver.until < self._today

    def _applied(self, seen: Observation) -> Observation:
        if not any(not block.counts.keys().isdisjoint((Verdict.FAIL, Verdict.ERROR)) for block in seen.blocks):
            return seen
        blocks = []
        for block in seen.blocks:
            records = tuple([self._record(Result(seen, record)) for record in block.records])
            blocks.append(block if records == block.records else Block(records))
        return seen if blocks == list(seen.blocks) else seen._replace(blocks=tuple(blocks))

    def _record(self, result: Result) -> Record:
        record = result.record
        for number, waiver in enumerate(self._all):
            if waiver.matches(result):
                self._matched.add(number)
                if not self._expired(waiver):
                    reason = f"{waiver.reason}; {record.reason}" if record.reason else waiver.reason
                    return record._replace(verdict=Verdict.KNOWN, reason=reason, deviation=waiver.bug)
        return record
