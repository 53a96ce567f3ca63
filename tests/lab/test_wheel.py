# SPDX-License-Identifier: GPL-2.0-only
"""The wheel in an initramfs that has KVM's modules and Python's standard library, and nothing else, not even a shell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kvmtest.lab import initramfs, kernels, modules
from kvmtest.lab.error import LabError
from kvmtest.lab.qemu import Qemu
from kvmtest.lab.start import Cpu
from tests.wheel import ROOT, built, unpacked

pytestmark = pytest.mark.lab

_WHERE, _MODULES = "/wheel", "/modules"
#: Parts of the standard library that Debian has in packages of their own, or that run no program of others.
_WITHOUT = {"__pycache__", "test", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "site-packages", "dist-packages"}
#: Process 1: mounts, loads KVM, runs the command line as a user would, says its exit status, and ends the machine.
_INIT = """#!{python} -ISB
import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
for kind, where in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")):
    os.makedirs(where, exist_ok=True)
    libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None)
out = os.open("/dev/ttyS0", os.O_RDWR)
def say(text):
    os.write(out, f"{{text}}\\n".encode())
try:
    for name in {names}:
        with open(f"{modules}/{{name}}.ko", "rb") as file:
            image = file.read()
        if libc.syscall(175, image, ctypes.c_ulong(len(image)), b""):
            say(f"{{name}} does not load: {{os.strerror(ctypes.get_errno())}}")
    for words in {commands}:
        command = [{python!r}, "-SB", "-m", "kvmtest", *words]
        done = subprocess.run(command, env={{"PYTHONPATH": {where!r}}}, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        say(f"exit status {{done.returncode}} of {{' '.join(words)}}")
finally:
    say("over")
    libc.reboot(0x4321FEDC)
"""
_COMMANDS = (("--version",), ("doctor",), ("run", "init.msi.host.{cr0,cr3,rip}/ap,intel,xapic,plant-a"))


def _python(archive: initramfs._Archive) -> str:
    """Add the interpreter with the whole standard library, compiled as an installed one is; its path."""
    python = initramfs._python()
    archive.copy(python)
    loader = initramfs._interpreter(initramfs._read(python))
    assert loader
    archive.copy(loader)
    for path in initramfs._libraries(initramfs._needed()[1]):
        archive.copy(path)
    library = os.path.dirname(os.__file__)
    for where, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in _WITHOUT and not name.startswith("config-")]
        for name in names:
            path = os.path.join(where, name)
            if name.endswith(".py"):
                archive.add(f"{path}c", initramfs._compiled(path, path, 2))
            elif name.endswith(".so"):
                archive.copy(path)
    return python


def _initrd(wheel: Path, needed: list[modules.Module]) -> bytes:
    archive = initramfs._Archive()
    python = _python(archive)
    for path in sorted(wheel.rglob("*")):
        if path.is_file():
            archive.add(f"{_WHERE}/{path.relative_to(wheel)}", path.read_bytes())
    for module in needed:
        archive.add(f"{_MODULES}/{module.name}.ko", module.image)
    names = [module.name for module in needed]
    init = _INIT.format(python=python, names=names, modules=_MODULES, where=_WHERE, commands=_COMMANDS)
    archive.add("/init", init.encode())
    return archive.pack()


def test_the_wheel_runs_with_python_alone(tmp_path: Path) -> None:
    wheel = unpacked(built(ROOT, "wheel", tmp_path), tmp_path / "wheel")
    emulator = Qemu("svm", Cpu())
    try:
        kernel = kernels.find("bookworm")
        emulator.check()
    except LabError as error:
        pytest.skip(str(error))
    initrd, serial = tmp_path / "initrd", tmp_path / "serial"
    initrd.write_bytes(_initrd(wheel, modules.closure("kvm_amd", kernel.modules, "")))
    started = emulator.prepare(str(tmp_path), kernel.image, str(initrd), str(serial), os.devnull, "")
    subprocess.run(started.command, timeout=900, check=True, stdin=subprocess.DEVNULL, env=os.environ | started.environment)
    said = serial.read_text(errors="replace").replace("\r", "")
    assert "\nover\n" in said, said
    assert "does not load" not in said and "exit status 0 of --version\n" in said and "exit status 0 of doctor\n" in said, said
    assert f"kvm_amd of Linux {kernel.release}" in said and "3 results in " in said, said
    assert f"exit status 0 of {' '.join(_COMMANDS[-1])}\n" in said, said
