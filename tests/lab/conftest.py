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
#: Takes where to write from QEMU's arguments; what to say is Python in $FAKE, with `say` and `console` to say it.
_FAKE = f"""#!{sys.executable}
import os, sys, time
sys.path.insert(0, {str(_ROOT)!r})
from kvmtest.lab.stream import Encoder
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
def result(item, verdict, case="init.msi.host/x"):
    values = ("0x1", "0x0", "0x0", verdict, "", ("A manual",), None)
    out.result((f"init.msi.host.{{item}}", "init", "msi", "host", item, case, *values))
def begin():
    say("B", "9.9.9-fake")
    say("M", "kvm")
    say("H", "9.9.9-fake", "svm", "AuthenticAMD", "A CPU", "npt=Y", "kvm.x=")
    say("N", "2")
exec(os.environ["FAKE"])
"""
#: A guest that does what it should.
GOOD = """
begin()
for i in range(2):
    out.case("init.msi.host/x", "init.msi.host")
    result("cr3", "pass")
    result("cr0", "fail" if i else "pass")
    out.line("c", "0.5")
    out.flush()
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
