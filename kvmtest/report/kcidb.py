# SPDX-License-Identifier: GPL-2.0-only
"""A report of KernelCI, KCIDB's I/O schema v5.3: a test for each result id, an issue for each deviation that is listed.

The checkout and the build that it names are stand-ins: kvmtest knows a kernel by its release. ``kvmtest report --build`` puts
the tests to one that was submitted, ``--origin`` says by whom.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, TextIO

from kvmtest.model.case import Case
from kvmtest.model.record import Observation
from kvmtest.model.run import Head
from kvmtest.model.verdict import Verdict
from kvmtest.report import End
from kvmtest.report.finding import summary, title
from kvmtest.report.show import printable
from kvmtest.report.tally import Tally, Test

__all__ = ("ORIGIN", "Kcidb")

ORIGIN = "kvmtest"
VERSION = {"major": 5, "minor": 3}
#: A known deviation is a failure with an incident of a known issue, by which KCIDB distinguishes it from a new one.
_STATUS = {
    Verdict.PASS: "PASS",
    Verdict.FAIL: "FAIL",
    Verdict.ERROR: "ERROR",
    Verdict.KNOWN: "FAIL",
    Verdict.FIXED: "PASS",
    Verdict.SKIP: "SKIP",
    Verdict.INFO: "DONE",
}
_TIME = re.compile(r"\d{4}-(0\d|1[0-2])-([0-2]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ")
_DOTS = re.compile(r"\.+")
#: In characters, of the schema.
_LONGEST_EXCERPT = 16384


class Kcidb:
    """The writer of ``--format kcidb``. ``origin`` is the CI system's name; ``build`` the id of the build, "" for a stand-in."""

    def __init__(self, out: TextIO, runs: int = 1) -> None:
        self.out = out
        self.origin = ORIGIN
        self.build = ""
        self._runs = runs
        self._begun = 0
        self._written = 0
        self._builds: dict[str, dict[str, Any]] = {}
        self._checkouts: dict[str, dict[str, Any]] = {}
        self._issues: dict[str, dict[str, Any]] = {}
        self._incidents: list[dict[str, Any]] = []
        self._ids: Counter[str] = Counter()

    def begin(self, head: Head, cases: int) -> None:
        """The head, if this is the first run."""
        if not self._begun:
            self.out.write(json.dumps({"version": VERSION})[:-1] + ',\n"tests": [')
        self._begun += 1
        self._run = head
        self._tally = Tally()

    def case(self, case: Case) -> None:
        """Nothing: a case has no test of its own."""

    def observed(self, seen: Sequence[Observation]) -> None:
        """Count it."""
        self._tally.observed(seen)

    def end(self, end: End) -> None:
        """The run's tests; after the last run what they refer to."""
        started = self._run.started
        build = self.build or self._stand_in()
        shared: dict[str, Any] = {"origin": self.origin, "build_id": build, "environment": self._environment()}
        if _TIME.fullmatch(started):
            shared["start_time"] = started
        shard = [str(self._run.shard)] if self._run.shard else []
        run = self._id("run", json.dumps(self._run.host), started, f"{end.duration_s:.6f}", *shard)
        self._ids[run] += 1  # one file twice
        for tests in self._tally.tests(end.findings).values():
            for test in tests:
                found = self._test(test, f"{run} {self._ids[run]}") | shared
                self.out.write((",\n" if self._written else "\n") + json.dumps(found))
                self._written += 1
        if self._begun == self._runs:
            rest = {"checkouts": self._checkouts, "builds": self._builds, "issues": self._issues}
            lists = {name: list(found.values()) for name, found in rest.items()} | {"incidents": self._incidents}
            self.out.write("\n],\n" + json.dumps(lists)[1:] + "\n")
        self.out.flush()

    def _id(self, *parts: str) -> str:
        """Of this origin and the same whenever the report is made again, so that it is submitted but once."""
        digest = hashlib.sha256("\0".join(parts).encode(errors="backslashreplace")).hexdigest()
        return f"{self.origin}:{digest[:40]}"

    def _stand_in(self) -> str:
        kernel = printable(self._run.host.kernel)
        name = f"{self.origin}:{kernel}"
        comment = f"Linux {kernel}, source unknown"
        self._checkouts[name] = {"id": name, "origin": self.origin, "comment": comment}
        self._builds[name] = {**self._checkouts[name], "checkout_id": name, "architecture": "x86_64"}
        return name

    def _environment(self) -> dict[str, Any]:
        host = self._run.host
        where = f", {host.lab['emulator']}" if host.lab else ""
        misc: dict[str, Any] = {"host": host.name} if host.name else {}
        misc |= {"backend": host.backend, "cpu_vendor": host.cpu_vendor, "cpu_model": host.cpu_model}
        # kvm.ko's own are many and say little here.
        misc["parameters"] = {name: value for name, value in host.parameters.items() if value and not name.startswith("kvm.")}
        if host.lab:
            misc["lab"] = host.lab
        if self._runs > 1:
            misc["run"] = self._run.name
        comment = printable(f"KVM {host.backend} of Linux {host.kernel} on {host.cpu_model}{where}")
        return {"comment": comment, "misc": _printable(misc)}

    def _test(self, test: Test, run: str) -> dict[str, Any]:
        verdict = test.verdict
        name = self._id(run, test.id)
        found: dict[str, Any] = {
            "id": name,
            "path": _DOTS.sub(".", f"kvmtest.{test.id}").strip("."),
            "status": _STATUS[verdict],
            "misc": {"verdict": verdict, "cases": dict(test.counts)},
        }
        if test.findings:
            found["misc"]["findings"] = [summary(finding) for finding in test.findings]
        if why := test.why or next(map(title, test.findings), ""):
            found["comment"] = why
        if details := "\n".join(test.details(self._run.host)):
            found["log_excerpt"] = details[:_LONGEST_EXCERPT]
        if verdict in (Verdict.KNOWN, Verdict.FIXED):
            self._incident(test, name, verdict is Verdict.KNOWN)
        return found

    def _incident(self, test: Test, name: str, present: bool) -> None:
        seen = test.worst[0]
        deviation = printable(seen.deviation or seen.reason)
        issue = self._id("deviation", deviation)
        self._issues[issue] = {
            "id": issue,
            "version": 1,
            "origin": self.origin,
            "culprit": {"code": True, "tool": False, "harness": False},
            "comment": f"{printable(seen.reason)} [{deviation}]",
            "misc": {"deviation": deviation},
        }
        incident = {"id": self._id("incident", name), "origin": self.origin, "issue_id": issue, "issue_version": 1}
        self._incidents.append({**incident, "test_id": name, "present": present})


def _printable(value: Any) -> Any:
    """``value`` with its strings printable: a database accepts neither a NUL nor half a surrogate pair."""
    if isinstance(value, dict):
        return {printable(str(key)): _printable(item) for key, item in value.items()}
    return printable(value) if isinstance(value, str) else value
