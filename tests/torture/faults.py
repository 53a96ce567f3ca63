# SPDX-License-Identifier: GPL-2.0-only
"""Faults around `kvmtest run` on this machine: signals, disks, descriptors, limits, two at once."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from kvmtest.report import FORMATS
from tests.torture import rules
from tests.torture.child import Child, start

__all__ = ("KINDS", "Native", "SELECTORS")

#: Selectors to run: each takes some tenths of a second, together with some cases that run a guest, and a scenario. One has many
#: results, so that some time goes into writing them.
SELECTORS = (
    ("reset.create.guest.rdx", "init.msi.*.{cr*,lapic.*,runs,ram}/ap,intel,xapic,plant-*"),
    ("init.latched.*.{r*,cr*,cs.*,events.*,lapic.*}/*plant-a",),
    ("sipi.*.*.{cs.*,rip,cr*,delivered,runs}/*vector-01*", "none.*/*smm*"),
    ("init.{ioapic,split}/*plant-a*", "init.irqfd/*plant-b*"),
)
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOWN = ("--format", "text", "-o", "shown")
_SECONDS = re.compile(rb"\d+\.\d+")
_DONE = re.compile(rb"\[(\d+)/\d+\]")


class Native:
    """Runs on this machine's KVM in ``folder``, at moments that a seed decides."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[tuple[str, ...], tuple[rules.Verdicts, float]] = {}
        self._number = 0
        self.turn = 0
        #: Other folders, for all faults of a kind.
        self.besides: list[Path] = []

    def known(self, selectors: tuple[str, ...]) -> tuple[rules.Verdicts, float]:
        """The verdicts of quiet runs, and how long one takes."""
        if selectors not in self._known:
            runs, seconds = [], 0.0
            for _ in range(2):
                where = self.new()
                begin = time.monotonic()
                done = start(["run", *selectors, "--format", "json", "-o", "r.json"], where).end()
                seconds = time.monotonic() - begin
                rules.ended(done, (0, 1))
                runs += rules.report(where / "r.json")
                shutil.rmtree(where)
            self._known[selectors] = rules.quiet(runs), seconds
        return self._known[selectors]

    def new(self) -> Path:
        """An empty folder."""
        self._number += 1
        where = self.folder / str(self._number)
        where.mkdir()
        return where

    def over(self, where: Path, expected: set[str], mounts: bytes) -> None:
        """Nothing is left; the folder goes."""
        rules.nothing_left(where, expected, mounts)
        shutil.rmtree(where)


def _no_rich() -> None:
    """Show the progress as a line with numbers."""
    from kvmtest.report import terminal

    def none(out: object) -> object:
        raise ImportError

    terminal._Rich = none  # type: ignore[misc,assignment]


def _send(child: Child, rng: random.Random, pattern: str) -> None:
    def pause(least: float, most: float) -> None:
        child.read(rng.uniform(least, most))

    if pattern == "one":
        child.signal(rng.choice(ENDS))
    elif pattern == "double ctrl-c":
        child.signal(signal.SIGINT)
        # Half of them as soon as two can come, half from a millisecond to a second apart.
        child.read(rng.choice((0, 0.0002, 0.001)) if rng.random() < 0.5 else 10 ** rng.uniform(-3, 0))
        child.signal(signal.SIGINT)
    elif pattern == "sigterm":
        child.signal(signal.SIGTERM)
    elif pattern == "several":
        for _ in range(rng.randrange(2, 6)):
            child.signal(rng.choice(ENDS))
            time.sleep(rng.choice((0, 0.0005, 0.002, 0.02)))
    elif pattern == "much later":
        child.signal(rng.choice(ENDS))
        pause(1.6, 1.9)
        child.signal(rng.choice(ENDS))
    elif pattern == "stop":
        for _ in range(rng.randrange(1, 4)):
            child.signal(signal.SIGSTOP)
            time.sleep(rng.choice((0.01, 0.1, 1.1)))
            child.signal(signal.SIGCONT)
            pause(0, 0.1)
    elif pattern == "stop and end":
        child.signal(signal.SIGSTOP)
        child.signal(rng.choice(ENDS))
        time.sleep(rng.choice((0.001, 0.05)))
        child.signal(signal.SIGCONT)


PATTERNS = ("one", "double ctrl-c", "sigterm", "several", "much later", "stop", "stop and end")


def signals(native: Native, rng: random.Random, pattern: str = "", format: str = "", sure: bool = False) -> str:
    """Signals at a random moment of a run, whose progress is watched."""
    pattern, format = pattern or rng.choice(PATTERNS), format or rng.choice(FORMATS)
    selectors = rng.choice(SELECTORS)
    known, seconds = native.known(selectors)
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    jobs = [] if rng.random() < 0.8 else ["--jobs", "2"]
    # The text that is asked for has a progress line, whatever else is written.
    shown = sure or rng.random() < 0.6
    asked = [*_SHOWN, "--report", f"{format}=main"] if shown else ["--format", format, "-o", "main"]
    words = ["run", *selectors, *jobs, *asked, "--report", "jsonl=lines"]
    child = start(words, where, terminal=True, prepare=_no_rich)
    child.read(rng.uniform(0, (0.8 if sure else 1.1) * seconds))
    _send(child, rng, pattern)
    done = child.end()
    counted = max(map(int, _DONE.findall(done.err)), default=0)
    if pattern == "stop" and done.status in (0, 1):
        besides: tuple[str, ...] = ("error", "skip", "info")
    else:
        besides = ()
    names = {"main", "lines"} & set(os.listdir(where))
    rules.ended(done, (0, 1, 130, *rules.unbegun(done, where)))
    if "main" in names:
        rules.whole(where / "main", format)
    if "lines" in names and (where / "lines").stat().st_size:
        runs = rules.report(where / "lines")
        rules.documented(done, runs)
        for run in runs:
            rules.same_verdicts(run, known, besides)
        cases = sum(1 for run in runs for one in run.observations if one.seconds is not None)
        rules.kept(counted, cases, done)
        rules.need_report(names, counted, done)
        if sure or rng.random() < 0.2:
            again = start(["report", "lines", "--format", format], where).end()
            # Seconds are rounded where they are saved, and again where they are shown.
            same = _SECONDS.sub(b"", again.out) == _SECONDS.sub(b"", (where / "main").read_bytes())
            rules.need(same, "each format has the same results", done.words)
    else:
        rules.kept(counted, 0, done)
    native.over(where, {*names, "shown"}, mounts)
    return f"signals, {pattern}, {format}{', ended before' if sure and done.status != 130 else ''}"


def each(native: Native, rng: random.Random) -> str:
    """SIGTERM and a double Ctrl-C by turns, in each format by turns, while it runs."""
    native.turn += 1
    return signals(native, rng, ("sigterm", "double ctrl-c")[native.turn % 2], FORMATS[native.turn // 2 % len(FORMATS)], True)


def killed(native: Native, rng: random.Random) -> str:
    """SIGKILL at a random moment: the lines that were written count, and hold what the progress line had counted."""
    selectors = rng.choice(SELECTORS)
    known, seconds = native.known(selectors)
    where = native.new()
    child = start(["run", *selectors, *_SHOWN, "--report", "jsonl=main"], where, terminal=True, prepare=_no_rich)
    child.read(rng.uniform(0, seconds))
    child.signal(signal.SIGKILL)
    done = child.end()
    counted = max(map(int, _DONE.findall(done.err)), default=0)
    rules.ended(done, (-signal.SIGKILL, 0, 1))
    cases = 0
    if (where / "main").exists() and (where / "main").stat().st_size:
        (run,) = rules.report(where / "main")
        rules.same_verdicts(run, known)
        rules.documented(done, [run])
        cases = sum(1 for one in run.observations if one.seconds is not None)
    rules.kept(counted, cases, done)
    shutil.rmtree(where)
    return "killed"


def early(native: Native, rng: random.Random) -> str:
    """A signal while the interpreter starts and imports, or at the very end."""
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    number = rng.choice(ENDS)
    child = start(["list", "--ids", "cr3"], where, anew=True)
    child.read(rng.uniform(0.02, 1))
    child.signal(number)
    done = child.end()
    # Before a line of this package runs, a signal does what it does to any program in Python.
    first = done.status in (-number, 1) and b"kvmtest/" not in done.err and b"kvmtest: " not in done.err
    if not first:
        rules.ended(done, (0, 130))
    native.over(where, set(), mounts)
    return f"signals while it starts, {number.name}"


class _Small:
    """A disk of so many KiB, where this process may mount one."""

    def __init__(self, where: Path, kib: int, read_only: bool = False) -> None:
        self.path = where / "disk"
        self.path.mkdir()
        options = f"size={kib}k" + ",ro" * read_only
        command = ["mount", "-t", "tmpfs", "-o", options, "torture", str(self.path)]
        self.mounted = not subprocess.run(command, capture_output=True, check=False).returncode

    def close(self) -> None:
        """Unmount it and remove its folder."""
        if self.mounted:
            subprocess.run(["umount", str(self.path)], check=True)
        shutil.rmtree(self.path)


def disk(native: Native, rng: random.Random) -> str:
    """A report to a full or a read-only disk, with an old report on it, and another report elsewhere."""
    format, kind = rng.choice(FORMATS), rng.choice(("full", "full", "read-only", "/dev/full"))
    selectors = rng.choice(SELECTORS)
    known, _ = native.known(selectors)
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    small = _Small(where, rng.choice((4, 8, 16, 32, 64, 128, 512)), kind == "read-only")
    try:
        old = b"what was there before\n"
        path = Path("/dev/full") if kind == "/dev/full" or not small.mounted else small.path / "r"
        if kind == "full" and small.mounted:
            path.write_bytes(old)
        words = ["run", *selectors, "--format", format, "-o", str(path), "--report", "json=other.json"]
        done = start(words, where).end()
        rules.ended(done, (0, 1, 2))
        if kind == "full" and small.mounted:
            if done.status == 2 and format != "jsonl":
                rules.need(path.read_bytes() == old, "what was there before stays", done.words)
            elif done.status != 2:
                rules.whole(path, format)
            rules.need(os.listdir(small.path) == ["r"], "no file beside the reports", os.listdir(small.path))
        else:
            rules.need(done.status == 2 and b"cannot write" in done.err, "what cannot be written is said", done.words, done.err)
        if (where / "other.json").exists():
            for run in rules.report(where / "other.json"):
                rules.same_verdicts(run, known)
                rules.need(run.interrupted is False, "another report is whole", done.words)
        else:
            rules.need(kind == "read-only", "another report is written", done.words)
    finally:
        small.close()
    native.over(where, {"other.json"}, mounts)
    return f"disk, {kind}, {format}"


def closed(native: Native, rng: random.Random) -> str:
    """Standard streams that are closed, or whose reader leaves."""
    selectors, format = rng.choice(SELECTORS), rng.choice(FORMATS)
    known, _ = native.known(selectors)
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    to_file = rng.random() < 0.5
    words = ["run", *selectors, "--format", format, *(["-o", "main"] if to_file else []), "--report", "json=r.json"]
    if leaves := rng.random() < 0.4:
        numbers: list[int] = []
        child = start(words, where)
        child.read(rng.uniform(0, 0.5))
        child.stop_reading()
    else:
        numbers = [n for n in range(3) if rng.random() < 0.5]
        child = start(words, where, closed=numbers)
    done = child.end()
    lost = 1 in numbers and not to_file
    rules.ended(done, (2,) if lost else (0, 1))
    (run,) = rules.report(where / "r.json")
    rules.same_verdicts(run, known)
    if to_file:
        rules.whole(where / "main", format)
    native.over(where, {"r.json", "main"}, mounts)
    return f"streams, {'reader leaves' if leaves else 'closed ' + ' '.join(map(str, numbers))}"


_LIMITS = {
    "descriptors": (resource.RLIMIT_NOFILE, (5, 8, 9, 10, 12, 16, 24, 32, 48)),
    "file size": (resource.RLIMIT_FSIZE, (0, 100, 4096, 20000)),
    "memory": (resource.RLIMIT_AS, (150 << 20, 200 << 20, 260 << 20, 400 << 20)),
    "signals": (resource.RLIMIT_SIGPENDING, (0, 1)),
    "locked memory": (resource.RLIMIT_MEMLOCK, (0,)),
    "stack": (resource.RLIMIT_STACK, (64 << 10, 256 << 10)),
}


def limits(native: Native, rng: random.Random) -> str:
    """A run that may have little of something."""
    kind = rng.choice(list(_LIMITS))
    number, values = _LIMITS[kind]
    selectors = rng.choice(SELECTORS)
    known, _ = native.known(selectors)
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    done = start(["run", *selectors, "--format", "json", "-o", "r.json"], where, limits=[(number, rng.choice(values))]).end()
    rules.ended(done, (0, 1, 2, 3))
    if (where / "r.json").exists():
        for run in rules.report(where / "r.json"):
            rules.same_verdicts(run, known, ("error", "skip", "info"))
    native.over(where, {"r.json"}, mounts)
    return f"limits, {kind}"


def two(native: Native, rng: random.Random) -> str:
    """Two at once, that write to the same file."""
    selectors, format = rng.choice(SELECTORS), rng.choice(("json", "junit", "ktap", "html", "kcidb", "text"))
    native.known(selectors)
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    words = ["run", *selectors, "--format", format, "-o", "main"]
    children = [start(words, where) for _ in range(2)]
    done = [child.end() for child in children]
    for one in done:
        rules.ended(one._replace(left=[]), (0, 1))
    rules.whole(where / "main", format)
    native.over(where, {"main"}, mounts)
    return f"two at once, {format}"


KINDS: dict[str, tuple[int, Callable[[Native, random.Random], str]]] = {
    "signals": (10, signals),
    "each": (0, each),
    "killed": (2, killed),
    "early": (1, early),
    "disk": (3, disk),
    "closed": (3, closed),
    "limits": (3, limits),
    "two": (1, two),
}
