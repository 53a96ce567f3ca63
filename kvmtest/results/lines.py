# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest.results/2`` as JSON lines: the one encoding of results, for files, for streams and for the lab.

Six types of line, each with a key of its own, each whole, none referring to a later one. Numbers are local to a file.

| line | holds |
|---|---|
| ``run`` | tool, host, time: begins a run; what follows belongs to it |
| ``cite`` | a citation |
| ``case`` | name and parameters, written when the case begins; its number alone where it has begun before |
| ``record`` | a judgement: item, verdict, planted, expected, mask, formula, observed, reason, cite, deviation |
| ``of`` | an observation of a case (null: of none): event, trigger, view, and the numbers of its records, spans inclusive |
| ``end`` | how the run ended: duration, totals, findings |

An absent key is nothing; without ``mask`` all bits are judged.
``{"of": 7, "same": 2}`` repeats the last two observations of case 7.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kvmtest.model.case import Case
from kvmtest.model.host import Host
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.run import Head
from kvmtest.model.value import text
from kvmtest.model.verdict import VERDICTS, Verdict

__all__ = ("SCHEMA", "Lines", "case_fields", "compact", "end_fields", "head_fields", "host_fields", "record_fields", "spans")

SCHEMA = "kvmtest.results/2"
#: JSON without spaces.
compact = json.JSONEncoder(separators=(",", ":")).encode


def host_fields(host: Host) -> dict[str, Any]:
    """The fields of a ``host``."""
    return {key: value for key, value in host._asdict().items() if value or key not in ("lab", "name", "accel")}


def head_fields(head: Head) -> dict[str, Any]:
    """The fields of a ``run`` line, without its number."""
    name = {"name": head.name} if head.name else {}
    shard = {"shard": str(head.shard)} if head.shard else {}
    return name | {"tool": head.tool._asdict(), "host": host_fields(head.host), "started": head.started} | shard


def case_fields(case: Case) -> dict[str, Any]:
    """The fields of a ``case`` line, without its number."""
    return {"name": case.name} | ({"params": dict(case.params)} if case.params else {})


def record_fields(record: Record, cite: Sequence[int | str]) -> dict[str, Any]:
    """The fields of a ``record`` line, without its number; ``cite`` are its citations, or their numbers."""
    item, expected = record.item, record.expected
    fields: dict[str, Any] = {"item": item, "verdict": record.verdict}
    if record.planted is not None:
        fields["planted"] = text(item, record.planted)
    if expected is not None:
        fields["expected"] = [text(item, value) for value in expected.values]
        if expected.mask is not None:
            fields["mask"] = f"{expected.mask:#x}"
        if expected.formula:
            fields["formula"] = expected.formula
    if record.observed is not None:
        fields["observed"] = text(item, record.observed)
    if record.reason:
        fields["reason"] = record.reason
    if cite:
        fields["cite"] = list(cite)
    if record.deviation is not None:
        fields["deviation"] = record.deviation
    return fields


def end_fields(
    duration_s: float, interrupted: bool | None, totals: Counter[Verdict], findings: Iterable[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The fields of an ``end`` line, without its number; for a run that was cut short its end is unknown."""
    counts = {verdict: totals[verdict] for verdict in VERDICTS}
    ended = {} if interrupted is None else {"duration_s": round(duration_s, 6), "interrupted": interrupted}
    return ended | {"totals": counts, "findings": list(findings)}


def spans(numbers: Iterable[int]) -> list[int | list[int]]:
    """``numbers`` in order, those that count up as one ``[first, last]``."""
    found: list[int | list[int]] = []
    first = last = -2
    for number in numbers:
        if number == last + 1:
            last = number
            continue
        if last >= 0:
            found.append(first if first == last else [first, last])
        first = last = number
    if last >= 0:
        found.append(first if first == last else [first, last])
    return found


class Lines:
    """Turns a run into lines for ``write``, each with its line end."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._runs = -1
        self._cites: dict[str, int] = {}
        self._cases: dict[Case, int] = {}
        self._records: dict[Record, int] = {}
        self._blocks: dict[Block, list[int]] = {}
        self._spans: dict[tuple[Block, ...], str] = {}
        self._running: Case | None = None
        #: Case -> what its last observations were, and those of the time that it runs now.
        self._last: dict[Case, list[tuple[object, ...]]] = {}

    def begin(self, head: Head) -> None:
        """Begin a run; numbers continue."""
        self._runs += 1
        self._running = None
        self._last.clear()
        self._write(compact({"schema": SCHEMA, "run": self._runs} | head_fields(head)) + "\n")

    def case(self, case: Case) -> None:
        """A case begins."""
        if case == self._running:
            return
        self._running = case
        number = self._cases.get(case)
        if number is None:
            number = self._cases[case] = len(self._cases)
            self._write(compact({"case": number} | case_fields(case)) + "\n")
        else:
            self._write(f'{{"case":{number}}}\n')

    def observed(self, seen: Sequence[Observation]) -> None:
        """Write the observations of one run of a case, or those of no case."""
        what = [(one.event, one.trigger, one.view, one.blocks) for one in seen]
        case = seen[0].case if seen else None
        if case is not None and what and self._last.get(case) == what:
            self._write(f'{{"of":{self._number_of(case)},"same":{len(seen)}{_took(seen[-1].seconds)}}}\n')
            return
        if case is not None:
            self._last[case] = list(what)
        for one in seen:
            where = "null" if one.case is None else self._number_of(one.case)
            records = self._spans.get(one.blocks)
            if records is None:
                numbers = (number for block in one.blocks for number in self._numbers(block))
                records = self._spans[one.blocks] = compact(spans(numbers))
            head = f'"event":"{one.event}","trigger":"{one.trigger}","view":"{one.view}"'
            self._write(f'{{"of":{where},{head},"records":{records}{_took(one.seconds)}}}\n')

    def end(self, fields: dict[str, Any]) -> None:
        """The run is over, with the fields that `end_fields` gives."""
        self._write(compact({"end": self._runs} | fields) + "\n")

    def _number_of(self, case: Case) -> int:
        if case not in self._cases:
            self.case(case)
        return self._cases[case]

    def _numbers(self, block: Block) -> list[int]:
        found = self._blocks.get(block)
        if found is None:
            found = self._blocks[block] = [self._record(record) for record in block.records]
        return found

    def _record(self, record: Record) -> int:
        number = self._records.get(record)
        if number is None:
            cite = [self._cite(said) for said in record.cite]
            number = self._records[record] = len(self._records)
            self._write(compact({"record": number} | record_fields(record, cite)) + "\n")
        return number

    def _cite(self, said: str) -> int:
        number = self._cites.get(said)
        if number is None:
            number = self._cites[said] = len(self._cites)
            self._write(compact({"cite": number, "text": said}) + "\n")
        return number


def _took(seconds: float | None) -> str:
    return "" if seconds is None else f',"s":{seconds:.4g}'
