# SPDX-License-Identifier: GPL-2.0-only
"""``make bench``: full INIT cycles a second of the engine beside a C program that issues the same ioctls and keeps nothing.

A cycle is planted, read, sent an INIT and read again. The engine runs it by its C code, the same and judged, and in Python alone.
The C program's list is recorded from the engine's own ioctls, so they cannot drift apart. All run in turn, several times; the
medians are compared. Then what a whole run takes beside its own ioctls, more and more vCPUs, whole commands and reports.
``--compare REVISION`` measures the commands alone, in turn with those of another revision, and prints ratios.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from kvmtest.engine import host, machine, native, plan
from kvmtest.engine.bind import BoundCase
from kvmtest.judge.cache import Cache
from kvmtest.judge.cases import judge
from kvmtest.kvm import Kvm
from kvmtest.kvm import ioctl as ioctl_module
from kvmtest.uapi import kvm as uapi
from tests.bench import commands, own, reports
from tests.bench.commands import spread
from tests.cases import the

CYCLES, ROUNDS = 1500, 7
CASES = ("init.msi.host/ap,intel,xapic,plant-a", "init.latched.host/bsp,amd,x2apic,plant-b")
#: Ways to run a cycle: with the engine's C code or without, with judging or without.
WAYS = {"engine": (True, False), "engine, judged": (True, True), "engine in Python": (False, False)}
#: Asked once while the VM is built, of no effect on it.
_QUESTIONS = (uapi.KVM_CHECK_EXTENSION, uapi.KVM_GET_SUPPORTED_CPUID, uapi.KVM_GET_MSR_INDEX_LIST)


def _size(request: int) -> int:
    return request >> 16 & 0x3FFF


class Recorder:
    """Takes the place of the C library's ioctl and writes down what passes."""

    def __init__(self, real: Callable[..., int]) -> None:
        self.real = real
        self.lines: list[str] = []
        self.when = "S"
        self.names: dict[int, str] = {}

    def __call__(self, fd: int, request: int, arg: Any) -> int:
        line = self._line(fd, request, arg)
        result = self.real(fd, request, arg)
        if request == uapi.KVM_CREATE_VM and result >= 0:
            self.names[result] = "v"
        elif request == uapi.KVM_CREATE_VCPU and result >= 0:
            self.names[result] = str(arg)
        if result >= 0 and request not in _QUESTIONS:
            self.lines.append(line)
        return result

    def _line(self, fd: int, request: int, arg: Any) -> str:
        head = f"{self.when} {self.names.get(fd, 'k')} {request:x}"
        if not _size(request) or isinstance(arg, int) and arg < 1 << 32:
            return f"{head} i {arg or 0:x}"
        address = arg if isinstance(arg, int) else ctypes.addressof(arg._obj if hasattr(arg, "_obj") else arg)
        return f"{head} b {ctypes.string_at(address, self._length(request, address)).hex()}"

    @staticmethod
    def _length(request: int, address: int) -> int:
        count = ctypes.c_uint32.from_address(address).value
        if request in (uapi.KVM_GET_MSRS, uapi.KVM_SET_MSRS):
            return 8 + 16 * count
        if request in (uapi.KVM_SET_CPUID2, uapi.KVM_GET_CPUID2):
            return 8 + 40 * count
        if request == uapi.KVM_GET_NESTED_STATE:
            return ctypes.c_uint32.from_address(address + 4).value
        return max(_size(request), 4096 if request in (uapi.KVM_GET_XSAVE, uapi.KVM_SET_XSAVE) else 0)


def _record(case: plan.Case, path: str) -> int:
    """Write the ioctls of one cycle of ``case``, and those that lead to it; how many a cycle has."""
    real = ioctl_module.raw_ioctl
    recorder = Recorder(real)
    ioctl_module.raw_ioctl = recorder  # type: ignore[assignment]
    try:
        with Kvm() as kvm:
            built = machine.Machines(kvm, host.detect())
            recorder.lines.clear()
            bound = _bound(case, built, by_c=False)
            bound.observe()
            recorder.when = "C"
            assert not bound.observe().end
            built.close()
    finally:
        ioctl_module.raw_ioctl = real
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(recorder.lines) + "\n")
    return sum(line.startswith("C") for line in recorder.lines)


def _bound(case: plan.Case, built: machine.Machines, by_c: bool) -> BoundCase:
    """The case, with nothing done yet but the preparations."""
    library = native.library
    try:
        if not by_c:
            native.library = lambda: None  # type: ignore[assignment]
        return BoundCase(case, built.kept(case.setup), built.host)
    finally:
        native.library = library


def _engine(case: plan.Case, by_c: bool, judged: bool) -> float:
    with Kvm() as kvm:
        built = machine.Machines(kvm, host.detect())
        bound = _bound(case, built, by_c)
        cache, look = Cache(), case.look()
        for count in (CYCLES // 10, CYCLES):
            begin = time.perf_counter()
            for _ in range(count):
                seen = bound.observe()
                if judged:
                    judge(cache, look, built.host, bound.bases, seen)
        rate = CYCLES / (time.perf_counter() - begin)
        built.close()
    return rate


def _replay(program: str, path: str) -> float:
    out = subprocess.run([program, path, str(CYCLES)], check=True, capture_output=True, text=True).stdout
    return float(out.split()[0])


def _rates(folder: str) -> None:
    program = os.path.join(folder, "replay")
    source = os.path.join(os.path.dirname(__file__), "replay.c")
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True)
    for case in map(the, CASES):
        path = os.path.join(folder, "list")
        count = _record(case, path)
        rates: dict[str, list[float]] = {name: [] for name in ("C, the same ioctls", *WAYS)}
        for _ in range(ROUNDS):
            rates["C, the same ioctls"].append(_replay(program, path))
            for name, way in WAYS.items():
                rates[name].append(_engine(case, *way))
        print(f"{case.name}: {count} ioctls a cycle")
        floor = statistics.median(rates["C, the same ioctls"])
        for name, found in rates.items():
            print(f"  {name:20} {spread(found, 0):>22} INIT cycles/s   ratio {statistics.median(found) / floor:.2f}")


def main() -> int:
    """Print the figures; 0, or 3 where this machine cannot run them."""
    if not shutil.which("gcc"):
        print("bench: gcc is missing: apt-get install gcc libc6-dev")
        return 3
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("bench: /dev/kvm is missing or not accessible; kvmtest doctor says why")
        return 3
    if not native.library():
        print("bench: guests/runner.c is not built: make guests")
        return 3
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--compare", metavar="REVISION", help="print ratios to another revision, of whole commands")
    if revision := parser.parse_args().compare:
        commands.compare(revision)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        _rates(folder)
    own.show()
    own.growth()
    commands.show()
    reports.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
