# SPDX-License-Identifier: GPL-2.0-only
"""Wall time and peak memory of ``kvmtest report`` in each format, of results made up: 10,000 and as many as a whole run has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

from kvmtest.engine.result import VERDICTS
from kvmtest.report import FORMATS

SIZES = (10_000, 226_000)
_CASES = 8


def write(path: str, count: int) -> None:
    """A document of ``count`` results: one in fifty needs attention, one in three was not tried."""
    results = []
    for number in range(count):
        item, case = divmod(number, _CASES)
        verdict = VERDICTS[item % 7] if item % 50 == 0 else ("skip" if item % 3 == 0 else "pass")
        where = ("init", f"trigger{item // 700}", "host", f"msr.x{item % 700}")
        values = {"planted": hex(number), "expected": "0x0", "observed": "0x0" if verdict == "pass" else hex(number)}
        results.append(
            dict(zip(("event", "trigger", "view", "item"), where, strict=True))
            | {"id": ".".join(where), "case": f"init.{where[1]}.host/ap,plant-{case}", "verdict": verdict}
            | values
            | {"reason": "" if verdict in ("pass", "fail") else f"because of {item % 40}"}
            | {"cite": ["SDM vol. 3"], "deviation": None}
        )
    host = {"kernel": "6.1.0", "backend": "svm", "cpu_vendor": "AuthenticAMD", "cpu_model": "EPYC", "parameters": {}}
    document = {"schema": "kvmtest.results/1", "tool": {"name": "kvmtest", "version": "0"}, "host": host}
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**document, "started": "2026-01-01T00:00:00Z", "duration_s": 1, "results": results}, file)


def main() -> None:
    """Print a line for each size and format."""
    with tempfile.TemporaryDirectory() as folder:
        for count in SIZES:
            path = os.path.join(folder, "results.json")
            write(path, count)
            for name in FORMATS:
                out = os.path.join(folder, "out")
                begin = time.perf_counter()
                child = subprocess.Popen([sys.executable, "-m", "kvmtest", "report", path, "--format", name, "-o", out])
                _, status, usage = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
                seconds = time.perf_counter() - begin
                size = os.path.getsize(out) / 1e6
                told = f"{seconds:6.2f} s, peak memory {usage.ru_maxrss / 1024:4.0f} MB, {size:6.1f} MB"
                print(f"report of {count:7,} results, {name:5} {told}, exit status {child.returncode}")


if __name__ == "__main__":
    main()
