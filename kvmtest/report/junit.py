# SPDX-License-Identifier: GPL-2.0-only
"""JUnit XML of the xunit2 family, as Jenkins, GitLab, labgrid and pytest read and write it: a test suite for each view of a
trigger, a test case for each result id. It is written at the end of the run: a suite begins with how many of its cases failed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TextIO
from xml.sax.saxutils import escape, quoteattr

from kvmtest.judge.findings import Finding
from kvmtest.model.case import Case
from kvmtest.model.record import Observation
from kvmtest.model.run import Head
from kvmtest.model.verdict import Verdict
from kvmtest.report import End
from kvmtest.report.finding import summary
from kvmtest.report.show import printable
from kvmtest.report.tally import Tally, Test

__all__ = ("Junit",)

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
#: The element of each verdict, and its type. What was listed and not seen (fixed) passes, and says so in its output.
_ELEMENTS = {
    Verdict.FAIL: ("failure", "fail"),
    Verdict.ERROR: ("error", "error"),
    Verdict.KNOWN: ("skipped", "xfail"),
    Verdict.SKIP: ("skipped", "skip"),
    Verdict.INFO: ("skipped", "info"),
}
#: An attribute is one line in a table.
_LONGEST = 400


def _attribute(text: str) -> str:
    text = printable(text)
    return quoteattr(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")


class Junit:
    """The writer of ``--format junit``."""

    def __init__(self, out: TextIO, runs: int = 1) -> None:
        self.out = out
        self._runs = runs
        self._begun = 0

    def begin(self, head: Head, cases: int) -> None:
        """The head, if this is the first run."""
        if not self._begun:
            self.out.write('<?xml version="1.0" encoding="utf-8"?>\n<testsuites name="kvmtest">\n')
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
        for where, tests in self._tally.tests(end.findings).items():
            self._suite(where, tests, end.findings)
        if self._begun == self._runs:
            self.out.write("</testsuites>\n")
        self.out.flush()

    def _suite(self, where: tuple[str, str, str], tests: Sequence[Test], findings: Sequence[Finding]) -> None:
        run, host = self._run, self._run.host
        elements = Counter(_ELEMENTS.get(test.verdict, ("",))[0] for test in tests)
        # Jenkins reads what is before the last dot of a class as its package, so a kernel's dots are replaced.
        name = ".".join([run.name.replace(".", "_"), *where] if self._runs > 1 else where)
        timestamp = f' timestamp="{run.started.removesuffix("Z")}"' if _TIME.fullmatch(run.started) else ""
        self.out.write(
            f'<testsuite name={_attribute(name)} tests="{len(tests)}" failures="{elements["failure"]}"'
            f' errors="{elements["error"]}" skipped="{elements["skipped"]}" time="{self._tally.seconds(where):.3f}"'
            f"{timestamp} hostname={_attribute(host.name or f'{host.kernel} {host.backend}')}>\n<properties>\n"
        )
        for key, value in self._properties().items():
            self.out.write(f"<property name={_attribute(key)} value={_attribute(value)}/>\n")
        self.out.write("</properties>\n")
        classname = _attribute(name)
        for test in tests:
            self._case(classname, test)
        shown = {id(finding) for test in tests for finding in test.findings}
        if lines := [f"finding: {found.verdict}: {summary(found)}" for found in findings if id(found) in shown]:
            self.out.write(f"<system-out>{escape(chr(10).join(lines))}</system-out>\n")
        self.out.write("</testsuite>\n")

    def _properties(self) -> dict[str, str]:
        host = self._run.host
        facts = {"kvmtest": self._run.tool.version, "kernel": host.kernel, "backend": host.backend}
        facts |= {"cpu_vendor": host.cpu_vendor, "cpu_model": host.cpu_model}
        facts |= {f"lab.{name}": str(value) for name, value in (host.lab or {}).items()}
        facts |= {"shard": str(self._run.shard)} if self._run.shard else {}
        return facts | {f"parameter.{name}": value for name, value in host.parameters.items() if not name.startswith("kvm.")}

    def _case(self, classname: str, test: Test) -> None:
        self.out.write(f"<testcase classname={classname} name={_attribute(test.item)}")
        verdict = test.verdict
        if verdict is Verdict.PASS:
            self.out.write("/>\n")
            return
        details = escape("\n".join(test.details(self._run.host)))
        if verdict is Verdict.FIXED:
            self.out.write(f"><system-out>fixed: {escape(test.why)}\n{details}</system-out></testcase>\n")
            return
        element, kind = _ELEMENTS[verdict]
        message = _attribute(test.why or self._values(test))
        self.out.write(f'><{element} type="{kind}" message={message}>{details}</{element}></testcase>\n')

    @staticmethod
    def _values(test: Test) -> str:
        return next((f"expected {seen.expected}, observed {seen.observed}" for seen in test.worst), "")
