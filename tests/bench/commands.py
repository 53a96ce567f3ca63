# SPDX-License-Identifier: GPL-2.0-only
"""Wall time, CPU time and peak memory of whole commands as a user waits for them, of this tree or beside those of another."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kvmtest.lab.emulator import for_backend
from kvmtest.lab.error import LabError
from kvmtest.lab.start import Cpu

__all__ = ("compare", "show")

ROOT = Path(__file__).parents[2]
_ONE = "init.latched.host/bsp,amd,x2apic,plant-b"
_FEW = "init.msi.host.cr3"
#: By name: the backend whose emulator it needs, the number of rounds, and the arguments.
_COMMANDS = {
    "kvmtest --help": ("", 5, ("--help",)),
    "one case": ("", 5, ("run", _ONE)),
    "run": ("", 5, ("run",)),
    "run --jobs 2": ("", 5, ("run", "--jobs", "2")),
    "lab: one selector, svm": ("svm", 5, ("lab", "run", "--backend", "svm", "--kernel", "7.2", _FEW)),
    "lab: one selector, vmx": ("vmx", 1, ("lab", "run", "--backend", "vmx", "--kernel", "7.2", _FEW)),
    "lab: the plan, svm": ("svm", 1, ("lab", "run", "--backend", "svm", "--kernel", "7.2")),
    "lab: the plan, vmx": ("vmx", 1, ("lab", "run", "--backend", "vmx", "--kernel", "7.2")),
}


class Cost(NamedTuple):
    """Seconds of wall time, seconds of CPU time of all processes, and the largest of them in MB."""

    wall: float
    cpu: float
    peak: float


def _run(tree: Path, arguments: Sequence[str]) -> Cost:
    """Run kvmtest of ``tree``. Raises SystemExit if it could not do what it was asked for."""
    # A new tree would be compiled anew at each start.
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "kvmtest", *arguments], cwd=tree, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=given | {"PYTHONPATH": str(tree)},
    )  # fmt: skip
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1):
        raise SystemExit(f"bench: kvmtest {' '.join(arguments)} of {tree} ended with status {child.returncode}")
    return Cost(time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _there(backend: str) -> bool:
    """Return True if the emulator that a command needs is installed, or none is needed."""
    try:
        if backend:
            for_backend(backend, Cpu()).check()
    except LabError:
        return False
    return True


def _measured(trees: Sequence[Path]) -> Iterator[tuple[str, list[list[Cost]]]]:
    """Of each command the costs in each tree, which take turns; the first round is for caches alone, if there are several."""
    for name, (backend, rounds, arguments) in _COMMANDS.items():
        if not _there(backend):
            print(f"{name}: not measured: the emulator is not installed")
            continue
        costs: list[list[Cost]] = [[] for _ in trees]
        for number in range(rounds + (rounds > 1)):
            for tree, found in zip(trees, costs, strict=True):
                cost = _run(tree, arguments)
                if number or rounds == 1:
                    found.append(cost)
        yield name, costs


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the least and the largest of several."""
    median = f"{statistics.median(values):.{digits}f}"
    return median if len(values) == 1 else f"{median} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def show() -> None:
    """Print the costs of each command."""
    for name, (costs,) in _measured([ROOT]):
        wall, cpu, peak = zip(*costs, strict=True)
        print(f"{name:24} {spread(wall)} s, {spread(cpu)} s of CPU, {max(peak):.0f} MB")


@contextmanager
def _checkout(revision: str) -> Iterator[Path]:
    """The tree of a revision of this repository, with its guests. Raises SystemExit where there is none."""
    with tempfile.TemporaryDirectory(prefix="kvmtest-bench-") as folder:
        packed = subprocess.run(["git", "-C", ROOT, "archive", revision, "--"], capture_output=True, check=False)
        if packed.returncode:
            raise SystemExit(f"bench: {packed.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
        subprocess.run(["make", "-s", "-C", os.path.join(folder, "guests")], check=True, stdout=subprocess.DEVNULL)
        yield Path(folder)


def compare(revision: str) -> None:
    """Print how many times the costs of a ``revision`` each command takes here, both measured in turn."""
    if not shutil.which("git"):
        raise SystemExit("bench: git is missing: apt-get install git")
    with _checkout(revision) as old:
        for name, (now, then) in _measured([ROOT, old]):
            medians = [Cost(*map(statistics.median, zip(*costs, strict=True))) for costs in (now, then)]
            ratios = (f"{what} {ours / theirs:.2f}" for what, ours, theirs in zip(Cost._fields, *medians, strict=True))
            print(f"{name:24} {', '.join(ratios)}")
