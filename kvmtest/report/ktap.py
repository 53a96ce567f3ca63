# SPDX-License-Identifier: GPL-2.0-only
"""KTAP version 1, as Documentation/dev-tools/ktap.rst of the kernel says: nested by event, trigger and view, one test per id.

It is written at the end of the run: a plan and the worst of an id's cases are known only then.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TextIO, TypeVar

from kvmtest.model.case import Case
from kvmtest.model.record import Observation
from kvmtest.model.run import Head
from kvmtest.model.verdict import Verdict
from kvmtest.report import End
from kvmtest.report.finding import summary
from kvmtest.report.show import printable
from kvmtest.report.tally import Tally, Test

__all__ = ("Ktap",)

_Child = TypeVar("_Child")
_Views = Mapping[str, Sequence[Test]]

#: Result and directive of each verdict. "ok" with XFAIL or XPASS is what kselftest prints; parsers that know neither count it
#: as no failure. What is only recorded (info) was not judged, so it is no "ok" of its own.
_LINES = {
    Verdict.PASS: ("ok", ""),
    Verdict.FAIL: ("not ok", ""),
    Verdict.ERROR: ("not ok", "ERROR"),
    Verdict.KNOWN: ("ok", "XFAIL"),
    Verdict.FIXED: ("ok", "XPASS"),
    Verdict.SKIP: ("ok", "SKIP"),
    Verdict.INFO: ("ok", "SKIP not judged:"),
}
#: Texts at which kunit.py considers the kernel halted and stops reading, anywhere in a line.
_HALTED = re.compile("(List of all partitions|Kernel panic - not syncing: VFS|reboot):")


def _safe(text: str) -> str:
    """``text`` after a directive: "#" begins one."""
    return _HALTED.sub(r"\1\\:", printable(text).replace("#", r"\#"))


def _name(text: str) -> str:
    """The name of a run. A name must not contain "#": kunit.py does not accept such a line as a result, escaped or not."""
    return _HALTED.sub(r"\1", printable(text)).replace("#", "_").strip()


def _remark(text: str) -> str:
    return "# " + _HALTED.sub(r"\1\\:", printable(text))


class Ktap:
    """The writer of ``--format ktap``."""

    def __init__(self, out: TextIO, runs: int = 1) -> None:
        self.out = out
        self._runs = runs
        self._begun = 0

    def begin(self, head: Head, cases: int) -> None:
        """The head, if this is the first of several runs."""
        if not self._begun and self._runs > 1:
            self.out.write(f"KTAP version 1\n1..{self._runs}\n")
        self._begun += 1
        self._run = head
        self._tally = Tally()

    def case(self, case: Case) -> None:
        """Nothing."""

    def observed(self, seen: Sequence[Observation]) -> None:
        """Count it."""
        self._tally.observed(seen)

    def end(self, end: End) -> None:
        """All of the run."""
        host = self._run.host
        totals = ", ".join(f"{count} {verdict}" for verdict, count in end.totals.items() if count) or "none"
        cut = {None: ", cut short", True: ", interrupted", False: ""}[end.interrupted]
        head = [f"kvmtest {self._run.tool.version} {self._run.started}", f"kernel {host.kernel}, backend {host.backend}"]
        head += [f"shard {self._run.shard}"] * (self._run.shard is not None)
        head += [f"host {host.name}"] * bool(host.name) + [f"CPU {host.cpu_vendor}, {host.cpu_model}"]
        if host.lab:
            head.append(f"lab {host.lab['emulator']}, CPU {host.lab['cpu']}, kernel {host.lab['kernel_source']}")
        head.append(f"results of cases: {totals}, in {end.duration_s:.1f} s{cut}")
        head += [f"finding: {found.verdict}: {summary(found)}" for found in end.findings]
        tests: dict[str, dict[str, dict[str, list[Test]]]] = {}
        for (event, trigger, view), found in self._tally.tests(end.findings).items():
            tests.setdefault(event, {}).setdefault(trigger, {})[view] = found
        nested = self._runs > 1
        counts = self._nest(int(nested), tests, self._event, head)
        if nested:
            self._parent(0, self._begun, self._run.name, counts)
        self.out.flush()

    def _event(self, depth: int, number: int, name: str, triggers: Mapping[str, _Views]) -> Counter[Verdict]:
        return self._parent(depth, number, name, self._nest(depth + 1, triggers, self._trigger))

    def _trigger(self, depth: int, number: int, name: str, views: _Views) -> Counter[Verdict]:
        return self._parent(depth, number, name, self._nest(depth + 1, views, self._view))

    def _view(self, depth: int, number: int, name: str, tests: Sequence[Test]) -> Counter[Verdict]:
        items = {test.item: test for test in tests}
        return self._parent(depth, number, name, self._nest(depth + 1, items, self._test))

    def _test(self, depth: int, number: int, name: str, test: Test) -> Counter[Verdict]:
        for line in test.details(self._run.host):
            self._line(depth, _remark(f"{name}: {line}"))
        verdict = test.verdict
        result, directive = _LINES[verdict]
        # A failure has its reason above: one that begins with SKIP must not stand where a directive does.
        said = f" # {directive} {_safe(test.why)}".rstrip() if directive else ""
        self._line(depth, f"{result} {number} {name}{said}")
        return Counter({verdict: 1})

    def _nest(
        self,
        depth: int,
        children: Mapping[str, _Child],
        write: Callable[[int, int, str, _Child], Counter[Verdict]],
        head: Iterable[str] = (),
    ) -> Counter[Verdict]:
        """The tests of one level, below its version and plan; how many of each verdict."""
        self._line(depth, "KTAP version 1")
        self._line(depth, f"1..{len(children)}")
        for line in head:
            self._line(depth, _remark(line))
        counts: Counter[Verdict] = Counter()
        for number, (name, child) in enumerate(children.items(), 1):
            counts += write(depth, number, name, child)
        return counts

    def _parent(self, depth: int, number: int, name: str, counts: Counter[Verdict]) -> Counter[Verdict]:
        """The result of tests that hold others."""
        result = "not ok" if any(verdict.unexpected for verdict in counts) else "ok"
        only = "" if counts.keys() - {Verdict.SKIP, Verdict.INFO} else " # SKIP nothing in it could be judged"
        self._line(depth, f"{result} {number} {_name(name) or number}{only}")
        return counts

    def _line(self, depth: int, text: str) -> None:
        self.out.write(f"{'  ' * depth}{text}\n")
