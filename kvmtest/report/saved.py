# SPDX-License-Identifier: GPL-2.0-only
"""Results that were saved: ``kvmtest.results/1``, its records one a line, or the documents of a lab's matrix."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from kvmtest import __version__
from kvmtest.engine.result import EVENTS, ID, SCHEMA, VERDICTS, VIEWS, CaseTime, Host, Result
from kvmtest.report.runs import MATRIX

if TYPE_CHECKING:
    from kvmtest.report import Writer

__all__ = ("Saved", "SavedError", "host", "load", "names", "parse", "read", "runs", "write")

_NOWHERE = Host("unknown", "unknown", "unknown", "unknown", {})
_LAB = ("emulator", "cpu", "kernel_source")
_OPTIONAL = ("planted", "expected", "observed", "deviation")


class SavedError(ValueError):
    """The file is not what it should be; one line that names it and says why."""


class Saved(NamedTuple):
    """One run. ``name`` is the file's, or that of a cell of a matrix; records one a line know nothing of their host.

    ``version`` is that of the kvmtest which ran, ``accel`` what made its CPU ("" where that is not said).
    """

    name: str
    host: Host
    started: str
    duration_s: float
    cases: tuple[CaseTime, ...]
    results: tuple[Result, ...]
    version: str = __version__
    accel: str = ""

    @property
    def ran(self) -> set[str]:
        """The names of the cases that ran, as far as times or results name them."""
        return {case.case for case in self.cases} | {result.case for result in self.results if result.view != "kernel"}

    @property
    def totals(self) -> Counter[str]:
        """Results by verdict."""
        return Counter(result.verdict for result in self.results)


class _Bad(ValueError):
    pass


_Parsed = TypeVar("_Parsed")


def load(path: str) -> list[Saved]:
    """The runs in the file ``path`` (- is standard input), of which only a matrix has several. Raises SavedError."""
    return parse(path, read(path), runs)


def read(path: str) -> bytes:
    """What is in the file ``path`` (- is standard input). Raises SavedError."""
    try:
        if path == "-":
            return sys.stdin.buffer.read()
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise SavedError(f"cannot read {path}: {error.strerror}") from None


def parse(path: str, contents: bytes, made: Callable[[str, str], _Parsed]) -> _Parsed:
    """What ``made`` makes of ``path`` and its text; any ValueError of it, also of json, is a SavedError of one line."""
    try:
        return made(path, contents.decode())
    except _Bad as error:
        raise SavedError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise SavedError(f"{path}: not UTF-8, so no JSON") from None
    except RecursionError:
        raise SavedError(f"{path}: nested too deep") from None
    except json.JSONDecodeError as error:
        raise SavedError(f"{path}: {error.msg} in line {error.lineno}: cut short, or no JSON") from None
    except ValueError as error:  # a number of more digits than Python converts
        raise SavedError(f"{path}: {str(error).partition(';')[0]}") from None


def names(found: Sequence[tuple[str, Saved]]) -> list[str]:
    """What to call runs that were found in files, each by a name of its own: as short as that allows."""
    folders = [os.path.dirname(path) for path, _ in found]
    try:
        shared = os.path.join(os.path.commonpath(folders), "")
    except ValueError:  # some absolute, some not
        shared = ""
    own = [run.name.removeprefix(shared).removesuffix(".jsonl").removesuffix(".json") for _, run in found]
    told = [n if own.count(n) == 1 or run.name == path else f"{path} {n}" for n, (path, run) in zip(own, found, strict=True)]
    return [name if told.count(name) == 1 else f"{name} ({told[: i + 1].count(name)})" for i, name in enumerate(told)]


def write(run: Saved, to: Writer) -> None:
    """Hand ``run`` to the writer ``to``, as if it went on now."""
    to.begin(run.host, run.started, len(run.cases))
    for result in run.results:
        to.result(result)
    for case in run.cases:
        to.case(case)
    to.end(run.duration_s, run.totals)


def runs(path: str, contents: str) -> list[Saved]:
    """The runs in a file ``path`` with ``contents``. Raises ValueError."""
    decoder = json.JSONDecoder(object_hook=_object, parse_constant=_no_constant)
    try:
        document = decoder.decode(contents)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        document = [decoder.decode(line) for line in contents.splitlines() if line.strip()]
    if isinstance(document, Result):
        document = [document]
    if isinstance(document, list):
        if not all(isinstance(record, Result) for record in document):
            raise _Bad("neither a document nor records of results")
        return [Saved(path, _NOWHERE, "", 0.0, (), tuple(document))]
    if not isinstance(document, dict):
        raise _Bad("neither a document nor records of results")
    if document.get("schema") == MATRIX:
        return [_cell(cell) for cell in _list(document, "cells")]
    return [_document(path, document)]


def _no_constant(name: str) -> NoReturn:
    raise _Bad(f"{name} is no number of JSON")


def _object(pairs: dict[str, Any]) -> Any:
    """A result at once, so that no dictionary of it is kept."""
    return _result(pairs) if "verdict" in pairs and "id" in pairs else pairs


def _result(pairs: dict[str, Any]) -> Result:
    name = pairs["id"]
    if not isinstance(name, str) or not ID.fullmatch(name):
        raise _Bad(f"{str(name)[:80]!r} is no result id")
    values: dict[str, Any] = {"case": "", **pairs}
    for field in Result._fields:
        value = values.get(field)
        if field == "cite":
            if not isinstance(value, list) or not all(isinstance(cite, str) for cite in value):
                raise _Bad(f"{name}: cite is no list of strings")
            values[field] = tuple(sys.intern(cite) for cite in value)
        elif isinstance(value, str):
            values[field] = sys.intern(value)
        elif value is not None or field not in _OPTIONAL:
            raise _Bad(f"{name}: {field} is no string")
    if name != ".".join(values[part] for part in ("event", "trigger", "view", "item")):
        raise _Bad(f"{name}: event, trigger, view and item say otherwise")
    for field, known in (("verdict", VERDICTS), ("event", EVENTS), ("view", VIEWS)):
        if values[field] not in known:
            raise _Bad(f"{name}: {field} {values[field][:40]!r} is none of {', '.join(known)}")
    return Result._make(values.get(field) for field in Result._fields)


def _document(name: str, document: Any) -> Saved:
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else document
        raise _Bad(f"schema {str(found)[:60]!r}, not {SCHEMA}")
    results = _list(document, "results")
    if not all(isinstance(result, Result) for result in results):
        raise _Bad("a result without id or verdict")
    cases = tuple(_case(case) for case in (_list(document, "cases") if "cases" in document else ()))
    started, duration_s = _string(document, "started"), _seconds(document.get("duration_s"))
    tool = document.get("tool")
    version = tool.get("version") if isinstance(tool, dict) else None
    if not isinstance(version, str):
        raise _Bad("tool.version is no string")
    where = host(document.get("host"))
    accel = document["host"].get("accel", "")
    if not isinstance(accel, str):
        raise _Bad("host.accel is no string")
    return Saved(name, where, started, duration_s, cases, tuple(results), version, accel)


def _cell(cell: Any) -> Saved:
    if not isinstance(cell, dict):
        raise _Bad("a cell that is no object")
    found = _document(_string(cell, "cell"), cell.get("document"))
    failed = cell.get("failed", "")
    if not isinstance(failed, str):
        raise _Bad("failed is no string")
    return found._replace(results=(*found.results, _failed(failed, bool(found.results)))) if failed else found


def _failed(reason: str, ran: bool) -> Result:
    """That a cell did not get to its end is an error, as it is where one runs alone."""
    item = "run" if ran else "boot"
    where = (f"none.lab.kernel.{item}", "none", "lab", "kernel", item, "")
    return Result(*where, None, None, None, "error", sys.intern(reason), (), None)


def _list(document: dict[str, Any], name: str) -> list[Any]:
    found = document.get(name)
    if not isinstance(found, list):
        raise _Bad(f"{name} is no list")
    return found


def _string(document: dict[str, Any], name: str) -> str:
    found = document.get(name)
    if not isinstance(found, str):
        raise _Bad(f"{name} is no string")
    return found


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise _Bad("duration_s is no number of seconds")
    return float(value)


def _case(case: Any) -> CaseTime:
    if not isinstance(case, dict):
        raise _Bad("a case that is no object")
    return CaseTime(_string(case, "case"), _seconds(case.get("duration_s")))


def host(said: Any) -> Host:
    """The ``host`` of a document. Raises ValueError."""
    if not isinstance(said, dict):
        raise _Bad("host is no object")
    parameters, lab = said.get("parameters"), said.get("lab")
    if not isinstance(parameters, dict) or not all(isinstance(value, str) for value in parameters.values()):
        raise _Bad("host.parameters is no object of strings")
    if lab is not None and not (isinstance(lab, dict) and all(isinstance(lab.get(n), str) for n in _LAB)):
        raise _Bad(f"host.lab has no {', '.join(_LAB)}")
    kernel, backend, vendor, model = (_string(said, name) for name in ("kernel", "backend", "cpu_vendor", "cpu_model"))
    return Host(kernel, backend, vendor, model, parameters, lab)
