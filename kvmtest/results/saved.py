# SPDX-License-Identifier: GPL-2.0-only
"""Saved results, read back: lines or a document, plain or gzipped. What is whole counts, also where the end is missing."""

from __future__ import annotations

import gc
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from kvmtest.model.case import Case
from kvmtest.model.host import Tool
from kvmtest.model.record import EVENTS, VIEWS, Block, Observation, Record
from kvmtest.model.run import Head, Run
from kvmtest.model.shard import Shard, ShardError
from kvmtest.model.value import Expected, parse
from kvmtest.model.verdict import Verdict
from kvmtest.results import fields as field
from kvmtest.results.lines import SCHEMA

__all__ = ("Loader", "SavedError", "load", "parsed", "read")

_ITEM = re.compile(r"[a-z0-9_.-]{1,200}")
_WORD = re.compile(r"[a-z0-9-]{1,100}")
_HEX = re.compile(r"0x[0-9a-f]{1,40000}")
#: Results of one observation, and of one run: far more than there are, far fewer than would exhaust a machine.
_MOST_RECORDS, _MOST_RESULTS = 100_000, 100_000_000
#: Bytes of a file, and of what a gzipped one unpacks to: thirty times what a matrix of eight cells has.
_MOST_BYTES = 1 << 30

_Made = TypeVar("_Made")


class SavedError(ValueError):
    """The file is invalid; one line that names it and says why."""


def load(path: str, note: Callable[[str], object] = lambda line: None) -> list[Run]:
    """The runs in the file ``path`` (- is standard input); ``note`` is called with what was left out. Raises SavedError."""
    return Loader(note).load(path)


def _no_constant(name: str) -> NoReturn:
    raise field.Bad(f"{name} is not a number of JSON")


#: One for all lines: json.loads() makes one for each.
_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def read(path: str) -> bytes:
    """Read the file ``path`` (- is standard input), and unpack it if it is gzipped. Raises SavedError."""
    try:
        if path == "-":
            contents = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with open(path, "rb") as file:
                contents = file.read(_MOST_BYTES + 1)
    except (OSError, AttributeError, ValueError) as error:  # standard input may be closed, and is then None
        raise SavedError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is closed'}") from None
    if len(contents) > _MOST_BYTES:
        raise SavedError(f"{path}: more than {_MOST_BYTES >> 30} GiB")
    return _unpacked(path, contents) if contents[:2] == b"\x1f\x8b" else contents


def _unpacked(path: str, contents: bytes) -> bytes:
    found = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(contents)) as file:
            while part := file.read1(1 << 20):
                found += part
                if len(found) > _MOST_BYTES:
                    raise SavedError(f"{path}: unpacks to more than {_MOST_BYTES >> 30} GiB")
    except EOFError:
        pass  # cut short: what came before counts
    except (OSError, zlib.error) as error:
        if not found:
            raise SavedError(f"{path}: {error}") from None
    return bytes(found)


def parsed(path: str, contents: bytes, made: Callable[[str, str], _Made]) -> _Made:
    """Return ``made`` of ``path`` and its text; turn any ValueError, also of json, into a SavedError of one line."""
    try:
        return made(path, contents.decode())
    except SavedError:
        raise
    except field.Bad as error:
        raise SavedError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise SavedError(f"{path}: not JSON: not UTF-8") from None
    except RecursionError:
        raise SavedError(f"{path}: nested too deep") from None
    except json.JSONDecodeError as error:
        raise SavedError(f"{path}: {error.msg} in line {error.lineno}: cut short, or not JSON") from None
    except ValueError as error:  # a number of more digits than Python converts
        raise SavedError(f"{path}: {str(error).partition(';')[0]}") from None


class _Tables:
    """The numbered things of one file."""

    def __init__(self, same: dict[tuple[int, ...], Block]) -> None:
        self._same = same
        self.cites: list[str] = []
        self.cases: list[Case] = []
        self.records: list[Record] = []
        self.blocks: dict[tuple[int, int], Block] = {}
        self._single: dict[int, Block] = {}

    def block(self, span: Any) -> Block:
        """The records of one span, or of one number."""
        if type(span) is int and (known := self._single.get(span)):
            return known
        first, last = span if isinstance(span, list) and len(span) == 2 else (span, span)
        if type(first) is not int or type(last) is not int or not 0 <= first <= last < len(self.records):
            raise field.Bad(f"records {str(span)[:60]} of {len(self.records)}")
        found = self.blocks.get((first, last))
        if found is None:
            records = tuple(self.records[first : last + 1])
            found = self.blocks[first, last] = self._same.setdefault(tuple(map(id, records)), Block(records))
            if first == last:
                self._single[first] = found
        return found


class Loader:
    """Reads files; parts that several files share are kept once."""

    def __init__(self, note: Callable[[str], object] = lambda line: None) -> None:
        self._note = note
        self._same: dict[Any, Any] = {}
        #: By what a file says of it: its fields, and its citations.
        self._records: dict[tuple[str, tuple[str, ...]], Record] = {}
        #: By the records, of which each is there once.
        self._blocks: dict[tuple[int, ...], Block] = {}

    def load(self, path: str) -> list[Run]:
        """The runs in the file ``path`` (- is standard input). Raises SavedError."""
        return self.runs(path, read(path))

    def runs(self, path: str, contents: bytes) -> list[Run]:
        """The runs in ``contents`` of the file ``path``. Raises SavedError."""
        # Nothing that is made here is a cycle; looking for some takes most of the time, the more files were read before.
        collects = gc.isenabled()
        gc.disable()
        try:
            return parsed(path, contents, self._runs)
        finally:
            if collects:
                gc.enable()

    def _runs(self, path: str, contents: str) -> list[Run]:
        if not contents.strip():
            raise field.Bad("empty: the run that was to write it was cut short before its first line")
        try:
            head = json.loads(contents[: contents.find("\n") + 1])
        except json.JSONDecodeError:
            head = None
        if isinstance(head, dict) and "run" in head:
            return list(self._lines(path, contents))
        return self._document(path, _DECODER.decode(contents))

    # Lines

    def _lines(self, path: str, contents: str) -> Iterator[Run]:
        tables, run = _Tables(self._blocks), None
        for number, line in enumerate(contents.split("\n"), 1):
            if not line.strip(" \t\r\0"):
                continue
            try:
                fields = _DECODER.decode(line)
            except json.JSONDecodeError as error:
                rest = contents.split("\n", number)[number:]
                if any(more.strip(" \t\r\0") for more in rest):
                    raise field.Bad(f"{error.msg} in line {number}: not JSON") from None
                self._note(f"{path}: the last line is cut short and left out")
                break
            if not isinstance(fields, dict):
                raise field.Bad(f"line {number} is not an object")
            if "run" in fields:
                if run:
                    yield run.made()
                run = _Reading(path, self, tables, self._head(fields))
            elif run is None:
                raise field.Bad(f"line {number} comes before any run")
            else:
                run.line(fields)
        if run is None:
            raise field.Bad("no run in it")
        if run.ended is None:
            self._note(f"{path}: cut short: it does not say how the run ended")
        yield run.made()

    def _head(self, fields: dict[str, Any]) -> Head:
        if fields.get("schema") != SCHEMA:
            raise field.Bad(f"schema {str(fields.get('schema'))[:60]!r}, not {SCHEMA}")
        return _head(fields)

    # A document

    def _document(self, path: str, document: Any) -> list[Run]:
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            found = document.get("schema") if isinstance(document, dict) else document
            raise field.Bad(f"schema {str(found)[:60]!r}, not {SCHEMA}")
        tables = _Tables(self._blocks)
        tables.cites = [field.string(said, "a citation") for said in field.items(document, "cites")]
        tables.cases = [self.case(field.members(fields, "a case")) for fields in field.items(document, "cases")]
        tables.records = [self.record(field.members(fields, "a record"), tables) for fields in field.items(document, "records")]
        runs = []
        for fields in field.items(document, "runs"):
            run = _Reading(path, self, tables, _head(field.members(fields, "a run")))
            run.cases = dict.fromkeys(tables.cases)
            for row in field.items(fields, "results"):
                if not isinstance(row, list) or len(row) not in (5, 6):
                    raise field.Bad(f"row {str(row)[:60]} of the results")
                run.observation(*row)
            if "interrupted" in fields:
                run.end(fields)
            runs.append(run.made(len(field.items(document, "runs")) == 1))
        if not runs:
            raise field.Bad("no run in it")
        return runs

    # Numbered objects

    def kept(self, value: _Made) -> _Made:
        """The one object that equals ``value``."""
        found: _Made = self._same.setdefault(value, value)
        return found

    def case(self, fields: dict[str, Any]) -> Case:
        """The case that ``fields`` describe."""
        params = field.members(fields.get("params", {}), "params")
        if not all(isinstance(value, str | int) and not isinstance(value, bool) for value in params.values()):
            raise field.Bad("a case's params are neither numbers nor strings")
        return self.kept(Case(field.string(fields.get("name"), "a case's name"), tuple(params.items())))

    def record(self, fields: dict[str, Any], tables: _Tables) -> Record:
        """The record that ``fields`` describe."""
        numbers = field.items(fields, "cite", ())
        try:
            cite = tuple([tables.cites[field.index(number)] for number in numbers])
        except IndexError:
            raise field.Bad(f"{str(fields.get('item'))[:80]}: a citation that is not defined") from None
        # Most records of a file are in the one before, too.
        said = (repr({**fields, "cite": None}), cite)
        found = self._records.get(said)
        if found is None:
            found = self._records[said] = self._record(fields, cite)
        return found

    def _record(self, fields: dict[str, Any], cite: tuple[str, ...]) -> Record:
        item = fields.get("item")
        if not isinstance(item, str) or not _ITEM.fullmatch(item):
            raise field.Bad(f"{str(item)[:80]!r} is not an item")
        try:
            verdict = Verdict(str(fields.get("verdict")))
        except ValueError:
            raise field.Bad(f"{item}: verdict {str(fields.get('verdict'))[:40]!r} is not one of {', '.join(Verdict)}") from None
        deviation = fields.get("deviation")
        return self.kept(
            Record(
                item,
                verdict,
                field.value(item, fields, "planted"),
                self._expected(item, fields),
                field.value(item, fields, "observed"),
                field.string(fields.get("reason", ""), f"{item}: reason"),
                cite,
                None if deviation is None else field.string(deviation, f"{item}: deviation"),
            )
        )

    def _expected(self, item: str, fields: dict[str, Any]) -> Expected | None:
        if "expected" not in fields:
            return None
        said = field.items(fields, "expected")
        if not said or not all(isinstance(value, str) for value in said):
            raise field.Bad(f"{item}: expected is not a list of strings")
        mask = fields.get("mask")
        if mask is not None and (not isinstance(mask, str) or not _HEX.fullmatch(mask)):
            raise field.Bad(f"{item}: mask is not a hex string")
        values = tuple([value for value in (parse(item, one) for one in said) if value is not None])
        formula = field.string(fields.get("formula", ""), f"{item}: formula")
        return self.kept(Expected(values, None if mask is None else int(mask, 16), formula))


class _Reading:
    """One run, while it is read."""

    def __init__(self, path: str, loader: Loader, tables: _Tables, head: Head) -> None:
        self._path = path
        self._loader = loader
        self._tables = tables
        self._head = head
        self._observations: list[Observation] = []
        self._last: dict[Case, list[Observation]] = {}
        self._results = 0
        self.cases: dict[Case, None] = {}
        self.ended: dict[str, Any] | None = None

    def line(self, fields: dict[str, Any]) -> None:
        """One line that is no ``run``."""
        tables = self._tables
        if "cite" in fields and "record" not in fields:
            tables.cites.append(field.string(fields.get("text"), "a citation"))
        elif "case" in fields:
            if "name" in fields:
                tables.cases.append(self._loader.case(fields))
            self.cases[self._case(fields["case"])] = None
        elif "record" in fields:
            tables.records.append(self._loader.record(fields, tables))
        elif "same" in fields:
            self._again(fields)
        elif "of" in fields:
            keys = ("event", "trigger", "view", "records", "s")
            self.observation(fields["of"], *(fields.get(key) for key in keys))
        elif "end" in fields:
            self.end(fields)
        # A type of line that this version does not know says nothing to it.

    def observation(self, of: Any, event: Any, trigger: Any, view: Any, records: Any, seconds: Any = None) -> None:
        """One observation."""
        if event not in EVENTS:
            raise field.Bad(f"event {str(event)[:40]!r} is not one of {', '.join(EVENTS)}")
        if view not in VIEWS:
            raise field.Bad(f"view {str(view)[:40]!r} is not one of {', '.join(VIEWS)}")
        if not isinstance(trigger, str) or not _WORD.fullmatch(trigger):
            raise field.Bad(f"{str(trigger)[:80]!r} is not a trigger")
        if not isinstance(records, list):
            raise field.Bad("records is not a list")
        case = None if of is None else self._case(of)
        blocks = tuple([self._tables.block(span) for span in records])
        count = sum(len(block.records) for block in blocks)
        self._results += count
        if count > _MOST_RECORDS or self._results > _MOST_RESULTS:
            raise field.Bad(f"{self._results} results")
        made = Observation(case, event, sys.intern(trigger), view, blocks, None if seconds is None else field.seconds(seconds))
        self._observations.append(made)
        if case is not None:
            self.cases.setdefault(case)
            self._last.setdefault(case, []).append(made)

    def _again(self, fields: dict[str, Any]) -> None:
        case, count = self._case(fields.get("of")), fields["same"]
        before = self._last.get(case, [])
        if type(count) is not int or not 0 < count <= len(before):
            raise field.Bad(f"{str(count)[:40]} observations again, of {len(before)}")
        seconds = None if "s" not in fields else field.seconds(fields["s"])
        again = before[-count:]
        self._results += sum(len(block.records) for one in again for block in one.blocks)
        if self._results > _MOST_RESULTS:
            raise field.Bad(f"{self._results} results")
        self._observations += [*again[:-1], again[-1]._replace(seconds=seconds)]

    def end(self, fields: dict[str, Any]) -> None:
        """Read the end of a run; its totals are recomputed."""
        field.seconds(fields.get("duration_s"))
        if not isinstance(fields.get("interrupted"), bool):
            raise field.Bad("interrupted is neither true nor false")
        self.ended = fields

    def made(self, only: bool = True) -> Run:
        """The run. ``only`` is whether every case of the tables is its own."""
        ran = {one.case for one in self._observations}
        cases = tuple(case for case in self.cases if only or case in ran)
        ended = self.ended
        duration = field.seconds(ended["duration_s"]) if ended else 0.0
        interrupted: bool | None = ended["interrupted"] if ended else None
        head = self._head if self._head.name else self._head._replace(name=self._path)
        return Run(head, cases, tuple(self._observations), duration, interrupted)

    def _case(self, number: Any) -> Case:
        try:
            return self._tables.cases[field.index(number)]
        except IndexError:
            raise field.Bad(f"case {number} is not there") from None


def _head(fields: dict[str, Any]) -> Head:
    tool = field.members(fields.get("tool"), "tool")
    version = field.string(tool.get("version"), "tool.version")
    name = field.string(fields.get("name", ""), "name")
    started = field.string(fields.get("started"), "started")
    return Head(Tool(version), field.host(fields.get("host")), started, name, _shard(fields.get("shard")))


def _shard(said: Any) -> Shard | None:
    try:
        return None if said is None else Shard.parse(field.string(said, "shard"))
    except ShardError as error:
        raise field.Bad(f"shard {error}") from None
