# SPDX-License-Identifier: GPL-2.0-only
"""Wall time and peak memory of ``kvmtest report`` in each format, of results made up: 10,000 and as many as a whole run has."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from kvmtest.model.case import Case
from kvmtest.model.host import Host, Tool
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.run import Head, Run
from kvmtest.model.value import Expected
from kvmtest.model.verdict import VERDICTS, Verdict
from kvmtest.report import FORMATS, writer
from kvmtest.report.play import Gatherer, play

SIZES = (10_000, 226_000)
_CASES, _ITEMS = 8, 700


def _record(number: int) -> Record:
    """One in fifty needs attention, one in three was not tried."""
    verdict = VERDICTS[number % 7] if number % 50 == 0 else (Verdict.SKIP if number % 3 == 0 else Verdict.PASS)
    observed = 0 if verdict is Verdict.PASS else number
    reason = "" if verdict in (Verdict.PASS, Verdict.FAIL) else f"because of {number % 40}"
    return Record(f"msr.x{number % _ITEMS}", verdict, number, Expected((0,)), observed, reason, ("SDM vol. 3",))


def write(path: str, count: int) -> None:
    """A run of ``count`` results; each trigger's cases show the same."""
    seen = []
    for at in range(0, count // _CASES, _ITEMS):
        trigger, last = f"trigger{at // _ITEMS}", min(at + _ITEMS, count // _CASES)
        block = Block(tuple(_record(number) for number in range(at, last)))
        cases = [Case(f"init.{trigger}/ap,plant-{number}", (("target", "ap"),)) for number in range(_CASES)]
        seen += [Observation(case, "init", trigger, "host", (block,), 0.001) for case in cases]
    host = Host("6.1.0", "svm", "AuthenticAMD", "EPYC", {})
    run = Run(Head(Tool("0"), host, "2026-01-01T00:00:00Z"), tuple(one.case for one in seen if one.case), tuple(seen), 1.0)
    with open(path, "w", encoding="utf-8") as file:
        play(run, Gatherer(writer("jsonl", file, 1)))


def show() -> None:
    """Print a line for each size and format."""
    with tempfile.TemporaryDirectory() as folder:
        for count in SIZES:
            path = os.path.join(folder, "results.jsonl")
            write(path, count)
            for name in FORMATS:
                out = os.path.join(folder, "out")
                begin = time.perf_counter()
                child = subprocess.Popen([sys.executable, "-m", "kvmtest", "report", path, "--format", name, "-o", out])
                _, status, usage = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
                seconds = time.perf_counter() - begin
                size = os.path.getsize(out) / 1e6
                reported = f"{seconds:6.2f} s, peak memory {usage.ru_maxrss / 1024:4.0f} MB, {size:6.1f} MB"
                print(f"report of {count:7,} results, {name:5} {reported}, exit status {child.returncode}")
