# SPDX-License-Identifier: GPL-2.0-only
"""A lab without emulators: programs of their names that say what a guest would, and a kernel that is none."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.engine import plan
from kvmtest.lab import matrix
from kvmtest.lab.kernels import Kernel
from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue import SCENARIOS
from kvmtest.scenario.step import Scenario

_ROOT = Path(__file__).parents[2]
#: More cases than there are: the fake guest runs the same ones, whatever is selected.
_NEVER_SHARED = 1 << 20

def _made_up(name: str) -> Scenario:
    """A scenario that has one item, of that name, which is as it should be where mp_state is 1."""
    expected = s.Expect(s.Is("mp_state", 1), name, says=((1, "this"), (2, "that")))
    return Scenario("init", "msi", name, (expected,), ("a manual",))


#: Scenarios of which the fake guest reports.
MADE_UP = {f"init.msi/{name}": _made_up(name) for name in ("ram", "halted", "vector-ignored")}
#: The command line, which knows these scenarios too.
KVMTEST = (sys.executable, str(Path(__file__)))
#: Takes where to write from QEMU's arguments; what to say is Python in $FAKE: `say` and `console` say it, and `ran` what came of
#: a scenario with one item, which `case`, `show` and `done` say one by one.
_FAKE = f"""#!{sys.executable}
import os, sys, time
sys.path.insert(0, {str(_ROOT)!r})
from kvmtest.engine.plan import plan
from kvmtest.judge.evidence import Again, Played, Untried
from kvmtest.lab.relay import Sender
from kvmtest.lab.stream import Encoder
from kvmtest.scenario.catalogue import SCENARIOS
from kvmtest.scenario.looks import looks
from tests.lab.conftest import MADE_UP
SCENARIOS.update(MADE_UP)
if "--version" in sys.argv:
    print("QEMU emulator version 9.9.9")
    sys.exit()
if "help" in sys.argv:
    print("Available CPUs:", "  EPYC                  (alias configured by machine type)", "  qemu64", sep="\\n")
    print("", "Recognized CPUID flags:", "  fpu", sep="\\n")
    sys.exit()
paths = {{a.split(",")[1].removeprefix("id="): a.split("path=")[1] for a in sys.argv if a.startswith("file,id=")}}
serial, parallel = (open(paths[name], "wb", buffering=0) for name in ("serial", "parallel"))
out = Encoder(parallel.write)
def console(text):
    serial.write(text.encode() + b"\\n")
def say(*line):
    out.line(*line)
    out.flush()
def begin(release="9.9.9-fake"):
    say("B", release)
    say("M", "kvm")
    say("H", release, "svm", "AuthenticAMD", "A CPU", "npt=Y", "kvm.x=")
    say("N", "2")
sender = Sender(out)
reported = [case for case in plan() if case.sequence in ("ram", "halted", "vector-ignored", "no-debug-store")]
cases = {{(case.prefix + "." + looks(case.scenario)[0].item, case.setup.vendor): case for case in reported}}
def case(id, vendor="intel"):
    global look
    look = cases[id, vendor].look()
    out.case(look.case.name, look.view)
def seen(evidence):
    sender.judging(look, None, (), evidence)
def read(value):
    seen(Played(((0, value),)))
def show(verdict):
    if verdict in ("skip", "error"):
        seen(Untried(verdict, "because"))
    else:
        read(2 if verdict == "fail" else 1)
def done(seconds="0.1"):
    out.line("c", seconds)
    out.flush()
def ran(id, verdict, vendor="intel"):
    case(id, vendor)
    show(verdict)
    done()
exec(os.environ["FAKE"])
"""
#: A guest that does what it should.
GOOD = """
begin()
for id, verdict in (("init.msi.host.ram", "pass"), ("init.msi.host.halted", "fail")):
    case(id)
    show(verdict)
    done("0.5")
say("E")
"""


@pytest.fixture(scope="session")
def lab_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of its own for all tests: the initramfs in it is built once."""
    return tmp_path_factory.mktemp("cache")


def _forget() -> None:
    """Have the plan made again, of the scenarios that there are now."""
    plan._plan.cache_clear()
    plan.looks.cache_clear()


@pytest.fixture
def fake(tmp_path: Path, lab_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a QEMU that runs $FAKE, first on PATH; an empty folder for temporary files."""
    programs = tmp_path / "bin"
    programs.mkdir()
    qemu = programs / "qemu-system-x86_64"
    qemu.write_text(_FAKE)
    qemu.chmod(qemu.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(lab_cache))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("FAKE", GOOD)
    monkeypatch.setattr(matrix, "_FEWEST", _NEVER_SHARED)
    for name, scenario in MADE_UP.items():
        monkeypatch.setitem(SCENARIOS, name, scenario)
    _forget()
    yield tmp_path
    monkeypatch.undo()
    _forget()


@pytest.fixture
def kernel(fake: Path) -> Kernel:
    """A kernel for the fake emulator."""
    return made_kernel(fake)


def made_kernel(folder: Path) -> Kernel:
    """A kernel in ``folder``: a bzImage by its header, and modules by their .modinfo."""
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x600).to_bytes(2, "little")
    image[0x800:0x81E] = b"9.9.9-fake (me@here) #1 SMP\0\0\0"
    (folder / "bzImage").write_bytes(image)
    modules = folder / "modules"
    modules.mkdir()
    for name, depends in (("kvm", "irqbypass"), ("kvm-amd", "kvm,ccp"), ("irqbypass", ""), ("ccp", "")):
        (modules / f"{name}.ko").write_bytes(f"\0license=GPL\0depends={depends}\0name={name}\0".encode())
    return Kernel("fake", "9.9.9-fake", str(folder / "bzImage"), str(modules), "made up")


if __name__ == "__main__":
    SCENARIOS.update(MADE_UP)
    matrix._FEWEST = _NEVER_SHARED
    sys.exit(main())
