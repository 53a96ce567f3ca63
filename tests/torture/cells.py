# SPDX-License-Identifier: GPL-2.0-only
"""Faults of the lab: guests that lie, die and hang in an emulator that is none, signals to it, and cells of a real kernel."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from kvmtest.lab import limits
from kvmtest.lab.qemu import Qemu
from kvmtest.report import FORMATS
from tests.lab import conftest as fakes
from tests.lab.debs import deb
from tests.lab.rpms import rpm
from tests.torture import rules
from tests.torture.child import Child, Ended, start
from tests.torture.faults import ENDS, Native
from tests.torture.files import in_bytes

__all__ = ("KINDS",)

#: The release of the kernel that is none.
_RELEASE = "9.9.9-fake"
#: A guest's three cases, with places between them.
_PARTS = (
    "begin()",
    "case('init.msi.host.ram')",
    "show('pass')",
    "done('0.5')",
    "case('init.msi.host.halted')",
    "show('fail')",
    "done('0.5')",
    'say("E")',
)
#: Faults at one of these places: Python in the emulator.
_EVENTS = (
    "",
    "time.sleep(0.3)",
    "os.kill(os.getpid(), 9)",
    "os.kill(os.getpid(), 11)",
    "os.kill(os.getpid(), 15)",
    "os.kill(os.getpid(), 19)",
    "os._exit(3)",
    "time.sleep(90)",
    "while True: pass",
    "while True:\n    time.sleep(0.1)\n    out.beat()",
    "parallel.write(os.urandom(300))",
    "parallel.write(b'x')",
    "serial.write(os.urandom(5000))",
    "serial.write(b'\\x1b]0;title\\x07' * 10)",
    "for _ in range(32): serial.write(b'x' * 2**20)",
    "console('[ 9.0] Kernel panic - not syncing: \\x1b[31mred')\ntime.sleep(90)",
    "console('[ 9.0] kernel BUG at x86.c:1!')\ntime.sleep(90)",
    "say('L', 'WARNING: CPU: 0 PID: 1 at \\x1b[2J x86.c:1')",
    "say('L', 'watchdog: BUG: soft lockup - CPU#0 stuck for 26s!')",
    "say('X', 'kvm.ko does not load: \\x1b[31m')",
    "say('Z', 'what')",
    "say('C', 'init.msi/nothing', 'host')",
    "say('c', 'nan')",
    "say('N', '-5')",
    "say('H', '\\x1b[31m', 'svm', 'x', 'y')",
    "out.blob('O', ([], ('Nothing', [])))\nout.flush()",
    "out.blob('O', tuple(range(50)))\nout.flush()",
    "deep = ()\nfor _ in range(900): deep = ('tuple', [deep])\nout.blob('O', ([], deep))\nout.flush()",
    "parallel.close()",
    "serial.close()",
    "os.unlink(paths['parallel'])",
)


class _Lab:
    """An emulator that is none, and a kernel for it."""

    def __init__(self) -> None:
        self.home: Path | None = None
        self.known: rules.Verdicts = {}

    def fill(self, native: Native) -> Path:
        """Make them, once."""
        if self.home:
            return self.home
        self.home = home = native.new().rename(native.folder.parent / f"{native.folder.name}-lab")
        native.besides.append(home)
        (home / "bin").mkdir()
        qemu = home / "bin" / "qemu-system-x86_64"
        qemu.write_text(fakes._FAKE)
        qemu.chmod(0o755)
        fakes.made_kernel(home)
        where = native.new()
        done = self.start(where, "\n".join(_PARTS), ["--format", "json", "-o", "main"]).end()
        rules.ended(done, (1,))
        self.known = rules.quiet(rules.report(where / "main"))
        rules.need(len(self.known) == 3, "a cell of a fake guest", self.known)
        return home

    def start(self, where: Path, script: str, words: list[str], verb: str = "run", package: str = "") -> Child:
        """A lab of that guest; of a ``package``, which is unpacked into a cache of its own."""
        assert self.home
        cache = str(where / "cache" if package else self.home)
        environment = {"PATH": f"{self.home / 'bin'}:{os.environ['PATH']}", "XDG_CACHE_HOME": cache, "FAKE": script}
        kernel = ["--kernel", package or str(self.home / "bzImage")]
        modules = [] if package.endswith((".deb", ".rpm")) else ["--modules", str(self.home / "modules")]
        command = ["lab", verb, "--backend", "svm", *kernel, *modules, "--fresh-boot", *words]
        return start(command, where, environment=environment, prepare=_prepare)


def _prepare() -> None:
    """Know the fake guest's scenarios, and wait less long for it."""
    fakes.SCENARIOS.update(fakes.MADE_UP)
    fakes._forget()
    limits._ASLEEP_S, limits._DYING_S = 2.0, 0.3  # type: ignore[misc]
    Qemu.boot_s, Qemu.silence_s, Qemu.case_s = 3.0, 1.0, 2.0


_LAB = _Lab()


def _emulators(child: Child) -> list[int]:
    """The processes below it: the emulator has a session of its own."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1]) == child.pid:
                found.append(int(pid))
    return found


def _disturb(child: Child, rng: random.Random) -> str:
    """Signals to kvmtest or to its emulator, at a random moment."""
    what = rng.choice(("", "", "signal", "several signals", "emulator"))
    if what:
        child.read(rng.uniform(0, 3))
    if what == "emulator":
        for pid in _emulators(child):
            number = rng.choice((signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGSEGV))
            with contextlib.suppress(OSError):
                # One that only tells its version has a quarter of an hour: it is not stopped.
                runs = b"-chardev" in Path(f"/proc/{pid}/cmdline").read_bytes()
                os.kill(pid, number if runs else signal.SIGKILL)
    elif what:
        for _ in range(1 if what == "signal" else rng.randrange(2, 5)):
            child.signal(rng.choice(ENDS))
            child.read(rng.choice((0, 0.001, 0.02)))
    return what


def _check(where: Path, known: rules.Verdicts, done: Ended) -> None:
    for name in ("main", "lines"):
        path = where / name
        if name == "lines" and path.exists() and path.stat().st_size:
            runs = rules.report(path)
            if done.status == 130:
                rules.need(any(run.interrupted for run in runs), "130 is an interrupted report", done.words)
            elif done.status in (0, 1):
                rules.need(not any(run.interrupted for run in runs), "a whole report is not interrupted", done.words)
            for run in runs:
                guest = run._replace(observations=tuple(one for one in run.observations if one.view != "kernel"))
                # What a guest sends may be lies: errors of its own, never another verdict.
                rules.same_verdicts(guest, known, ("error", "skip"))


def guests(native: Native, rng: random.Random) -> str:
    """A guest that does something it should not, and signals."""
    _LAB.fill(native)
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    parts = list(_PARTS)
    for _ in range(rng.choice((1, 1, 2))):
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(_EVENTS))
    format, verb = rng.choice(FORMATS), "matrix" if rng.random() < 0.2 else "run"
    child = _LAB.start(where, "\n".join(parts), ["--format", format, "-o", "main", "--report", "jsonl=lines"], verb)
    what = _disturb(child, rng)
    done = child.end()
    rules.ended(done, (0, 1, 3, 130, *rules.unbegun(done, where)))
    if (where / "main").exists() and (format != "text" or verb == "run"):
        rules.whole(where / "main", format)
    _check(where, _LAB.known, done)
    native.over(where, {"main", "lines"}, mounts)
    return f"guests, {verb}{', ' if what else ''}{what}"


#: Names of members of a package that lead elsewhere.
_ELSEWHERE = (
    "../../x.ko",
    f"lib/modules/{_RELEASE}/{'../' * 7}x.ko",
    "/tmp/torture-x.ko",
    f"lib/modules/{_RELEASE}/../../../x.ko",
    "boot/../../vmlinuz-x",
    "boot/\x1b[31m",
)


def _package(path: Path, home: Path, rng: random.Random) -> None:
    """A kernel in a package at ``path`` or a bare one, as it should be or with members that should not be there."""
    image = (home / "bzImage").read_bytes()
    kept = {f"boot/vmlinuz-{_RELEASE}": image}
    for module in (home / "modules").iterdir():
        kept[f"lib/modules/{_RELEASE}/kernel/{module.name}"] = module.read_bytes()
    if rng.random() < 0.6:
        kept[rng.choice(_ELSEWHERE)] = b"x"
    if path.suffix == ".deb":
        size = rng.choice(("", "", "", "-60", "0", "9" * 10, "x"))
        deb(path, kept, size=size, link=rng.choice(("", "", f"lib/modules/{_RELEASE}/link", "boot")))
    elif path.suffix == ".rpm":
        rpm(path, kept, rng.choice(("gzip", "xz", "zstd", "none")))
    else:
        path.write_bytes(image)


def packages(native: Native, rng: random.Random) -> str:
    """A package or an image of a kernel, changed."""
    home, where = _LAB.fill(native), native.new()
    name, mounts = rng.choice(("own.deb", "kernel-9.9.9-1.x86_64.rpm", "vmlinuz")), Path("/proc/mounts").read_bytes()
    _package(where / name, home, rng)
    if changed := rng.random() < 0.5:
        (where / name).write_bytes(in_bytes((where / name).read_bytes(), rng))
    # What is packed for each guest is not made anew for each package.
    shutil.copytree(home / "kvmtest" / "initramfs", where / "cache" / "kvmtest" / "initramfs", copy_function=os.link)
    words = ["--format", "jsonl", "-o", "main"]
    done = _LAB.start(where, "\n".join(_PARTS), words, package=str(where / name)).end()
    rules.ended(done, (0, 1, 2, 3))
    stray = [path for pattern in ("x.ko", "vmlinuz-x", ".new-*") for path in where.rglob(pattern)]
    stray += [path for path in (Path("/tmp/torture-x.ko"),) if path.exists()]
    rules.need(not stray, "no file elsewhere", stray)
    native.over(where, {"main", "cache", name}, mounts)
    return f"packages, {name.rpartition('.')[2]}{', changed' if changed else ''}"


def real(native: Native, rng: random.Random) -> str:
    """A cell of a real kernel, with signals to it and its emulator."""
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    words = ["lab", "run", "--backend", "svm", "--kernel", rng.choice(("5.10", "6.1", "6.12", "7.2"))]
    words += ["init.msi/ap,intel,xapic,plant-*", *["--fresh-boot"] * (rng.random() < 0.3)]
    child = start([*words, "--format", rng.choice(FORMATS), "-o", "main", "--report", "jsonl=lines"], where)
    child.read(rng.uniform(0, 30))
    what = rng.choice(("signal", "several signals", "kill", "stop and go", "nothing"))
    if what in ("kill", "stop and go"):
        for pid in _emulators(child):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if what == "kill" else signal.SIGSTOP)
                if what != "kill":
                    child.read(rng.uniform(0.1, 5))
                    os.kill(pid, signal.SIGCONT)
    elif what != "nothing":
        for _ in range(1 if what == "signal" else 3):
            child.signal(rng.choice(ENDS))
            child.read(rng.choice((0, 0.001, 0.02)))
    done = child.end()
    rules.ended(done, (0, 1, 3, 130, *rules.unbegun(done, where)))
    if (where / "lines").exists() and (where / "lines").stat().st_size:
        for run in rules.report(where / "lines"):
            rules.documented(done, [run])
            wrong = [one for one in run.results if one.verdict in ("fail", "error")]
            bad = [one for one in wrong if one.verdict == "fail" or not one.id.startswith("none.lab")]
            rules.need(not bad, "no other verdict", bad[:1])
    native.over(where, {"main", "lines"}, mounts)
    return f"real cells, {what}"


KINDS: dict[str, tuple[int, Callable[[Native, random.Random], str]]] = {
    "guests": (4, guests),
    "packages": (3, packages),
    "real": (2, real),
}
