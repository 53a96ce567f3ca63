# SPDX-License-Identifier: GPL-2.0-only
"""A lab without emulators: programs of their names that say what a guest would, and a kernel that is none."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from kvmtest.lab.kernels import Kernel

_ROOT = Path(__file__).parents[2]
#: Takes where to write from QEMU's arguments; what to say is Python in $FAKE: `say` and `console` say it, and `ran` what came of
#: an expectation of the plan, which `case`, `show` and `done` say one by one.
_FAKE = f"""#!{sys.executable}
import os, sys, time
sys.path.insert(0, {str(_ROOT)!r})
from kvmtest.engine.plan import plan
from kvmtest.judge.evidence import Again, Played, Untried
from kvmtest.lab.relay import Sender
from kvmtest.lab.stream import Encoder
from kvmtest.scenario.looks import looks
if "--version" in sys.argv:
    print("QEMU emulator version 9.9.9")
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
cases = {{}}
for one in plan():
    first, *more = looks(one.scenario) if one.scenario else (None,)
    if first and not more:
        cases.setdefault((f"{{first.event}}.{{first.trigger}}.{{first.view}}.{{first.item}}", one.setup.vendor), one)
    elif first and one.sequence == "bsp-flag":
        cases[f"{{first.event}}.{{first.trigger}}.{{first.view}}.{{first.item}}", one.setup.vendor] = one
def case(id, vendor="intel"):
    global look
    look = cases[id, vendor].look()
    out.case(look.case.name, look.view)
def seen(evidence):
    sender.judging(look, None, (), evidence)
def told(value=None):
    number = looks(look.scenario)[0].step
    return Played(((number, look.scenario.steps[number].condition.value if value is None else value),))
def show(verdict):
    seen(Untried(verdict, "because") if verdict in ("skip", "error") else told(1 if verdict == "fail" else None))
def done(seconds="0.1"):
    out.line("c", seconds)
    out.flush()
def ran(check, verdict, vendor="intel"):
    case(check, vendor)
    show(verdict)
    done()
exec(os.environ["FAKE"])
"""
#: A guest that does what it should.
GOOD = """
begin()
for check, verdict in (("init.msi.host.lapic.lvt_lint0", "pass"), ("init.msi.host.lapic.version", "fail")):
    case(check)
    show(verdict)
    done("0.5")
say("E")
"""


@pytest.fixture(scope="session")
def lab_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of its own for all tests: the initramfs in it is built once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def fake(tmp_path: Path, lab_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
    return tmp_path


@pytest.fixture
def kernel(fake: Path) -> Kernel:
    """A kernel for the fake emulator: a bzImage by its header, and modules by their .modinfo."""
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x600).to_bytes(2, "little")
    image[0x800:0x81E] = b"9.9.9-fake (me@here) #1 SMP\0\0\0"
    (fake / "bzImage").write_bytes(image)
    modules = fake / "modules"
    modules.mkdir()
    for name, depends in (("kvm", "irqbypass"), ("kvm-amd", "kvm,ccp"), ("irqbypass", ""), ("ccp", "")):
        (modules / f"{name}.ko").write_bytes(f"\0license=GPL\0depends={depends}\0name={name}\0".encode())
    return Kernel("fake", "9.9.9-fake", str(fake / "bzImage"), str(modules), "made up")
