# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest.results/2`` as one JSON document: the same contents, with shared parts in tables by number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO

from kvmtest.model.case import Case
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.run import Head
from kvmtest.results.lines import SCHEMA, case_fields, compact, head_fields, record_fields, spans

__all__ = ("Document",)


class Document:
    """Gathers runs, and writes them as one document. Parts that several runs share are written once."""

    def __init__(self) -> None:
        self._cites: dict[str, int] = {}
        self._cases: dict[Case, int] = {}
        self._records: dict[Record, int] = {}
        self._blocks: dict[Block, list[int]] = {}
        self._runs: list[dict[str, Any]] = []

    def begin(self, head: Head) -> None:
        """A run begins."""
        self._runs.append(head_fields(head) | {"results": []})

    def case(self, case: Case) -> None:
        """A case begins."""
        self._cases.setdefault(case, len(self._cases))

    def observed(self, seen: Iterable[Observation]) -> None:
        """Rows of the run: case, event, trigger, view, records, and seconds where they are known."""
        rows = self._runs[-1]["results"]
        for one in seen:
            case = None if one.case is None else self._cases.setdefault(one.case, len(self._cases))
            numbers = (number for block in one.blocks for number in self._numbers(block))
            row = [case, one.event, one.trigger, one.view, spans(numbers)]
            rows.append(row if one.seconds is None else [*row, float(f"{one.seconds:.4g}")])

    def end(self, fields: dict[str, Any]) -> None:
        """The run is over."""
        self._runs[-1] |= fields

    def write(self, out: TextIO) -> None:
        """Write the document: a table's entry, or a run's row, a line."""
        out.write(f'{{"schema": "{SCHEMA}",\n')
        out.write(f'"cites": {_array(self._cites)},\n')
        out.write(f'"cases": {_array(case_fields(case) for case in self._cases)},\n')
        cites = self._cites
        records = (record_fields(record, [cites[said] for said in record.cite]) for record in self._records)
        out.write(f'"records": {_array(records)},\n"runs": [')
        for number, run in enumerate(self._runs):
            rows = run.pop("results")
            out.write("," * bool(number) + "\n" + compact(run)[:-1] + f', "results": {_array(rows)}}}')
        out.write("\n]}\n")
        out.flush()

    def _numbers(self, block: Block) -> list[int]:
        found = self._blocks.get(block)
        if found is None:
            found = self._blocks[block] = [self._record(record) for record in block.records]
        return found

    def _record(self, record: Record) -> int:
        for said in record.cite:
            self._cites.setdefault(said, len(self._cites))
        return self._records.setdefault(record, len(self._records))


def _array(values: Iterable[Any]) -> str:
    return "[" + ",".join(f"\n{compact(value)}" for value in values) + "]"
