# SPDX-License-Identifier: GPL-2.0-only
"""The CPU time of a whole run beside that of its own ioctls, and its growth with the number of vCPUs.

Run as a program it is one ``kvmtest run`` with measured.c in place of the two ways to KVM, and prints what it found as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from kvmtest.engine import host, machine, native
from kvmtest.kvm import Kvm, KvmError, vcpu
from kvmtest.kvm import ioctl as calls
from kvmtest.scenario.setup import Setup
from kvmtest.uapi import ioctls
from tests.bench.commands import ROOT, spread

__all__ = ("growth", "show")

_ROUNDS, _PARTS = 5, 6
_REQUESTS, _KVMIO = 256, 0xAE
#: Numbers of vCPUs.
_SIZES = (1, 4, 16, 64, 256, 1024)


class Measured:
    """measured.c, built into ``folder``."""

    def __init__(self, folder: str) -> None:
        path = os.path.join(folder, "measured.so")
        source = os.path.join(os.path.dirname(__file__), "measured.c")
        if not os.path.exists(path):
            subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", path, source], check=True)
        self._loaded = ctypes.CDLL(path, use_errno=True)
        self._loaded.measured_overhead.restype = ctypes.c_double
        self._ns = (ctypes.c_ulong * _REQUESTS).in_dll(self._loaded, "measured_ns")
        self._calls = (ctypes.c_ulong * _REQUESTS).in_dll(self._loaded, "measured_calls")

    def install(self) -> None:
        """Replace the runner and ioctl(2) of this process."""
        run, one = self._loaded.measured_run, self._loaded.measured_ioctl
        run.argtypes, run.restype = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64), ctypes.c_uint64
        one.argtypes, one.restype = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p), ctypes.c_int
        native.library = lambda: run  # type: ignore[assignment]
        calls.raw_ioctl = vcpu.raw_ioctl = one

    def found(self) -> dict[str, Any]:
        """Seconds of CPU of this process without what measuring took, and of the ioctls; those of each request."""
        each, usage = self._loaded.measured_overhead() / 1e9, resource.getrusage(resource.RUSAGE_SELF)
        requests = {name: value for name, value in vars(ioctls).items() if isinstance(value, int)}
        names = {value & 0xFF: name for name, value in requests.items() if value >> 8 & 0xFF == _KVMIO}
        asked = [nr for nr in range(_REQUESTS) if self._calls[nr]]
        parts = {names.get(nr, hex(nr)): self._ns[nr] / 1e9 - self._calls[nr] * each for nr in asked}
        return {
            "cpu": usage.ru_utime + usage.ru_stime - 2 * sum(self._calls) * each,
            "ioctls": sum(parts.values()),
            "calls": sum(self._calls),
            "parts": parts,
        }


def show() -> None:
    """Print what whole runs take beside their own ioctls."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(_ROUNDS + 1):
            command = [sys.executable, "-m", "tests.bench.own", folder]
            out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
            found.append(json.loads(out.splitlines()[-1]))
    del found[0]  # it builds, and fills caches
    ratio = spread([one["cpu"] / one["ioctls"] for one in found])
    whole, own = (spread([one[what] for one in found]) for what in ("cpu", "ioctls"))
    print(f"run: {whole} s of CPU, of its {found[0]['calls']:,} ioctls {own} s: ratio {ratio}")
    parts = {name: statistics.median(one["parts"].get(name, 0.0) for one in found) for name in found[0]["parts"]}
    for name in sorted(parts, key=lambda name: -parts[name])[:_PARTS]:
        print(f"  {name:24} {parts[name]:.2f} s")


def growth() -> None:
    """Print what it takes to make VMs of more and more vCPUs, and to read all of each vCPU, per vCPU."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder, Kvm() as kvm:
        measured = Measured(folder)
        measured.install()
        machines = machine.Machines(kvm, host.detect())
        for count in _SIZES:
            before, begin, memory = measured.found(), time.perf_counter(), _resident()
            try:
                made = machines.fresh(Setup(vendor="amd", vcpus=count))
            except (KvmError, machine.SetupError) as error:
                print(f"{count:5} vCPUs: {error}")
                continue
            for target in made.targets:
                target.reader.read()
            wall, after, grown = time.perf_counter() - begin, measured.found(), _resident() - memory
            made.close()
            cpu, own = (1000 * (after[what] - before[what]) / count for what in ("cpu", "ioctls"))
            per = f"{1000 * wall / count:.2f} ms, {cpu:.2f} ms of CPU, of it ioctls {own:.2f} ms, {grown / count:.2f} MB"
            print(f"{count:5} vCPUs: {per} each")
        machines.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _resident() -> float:
    """The memory of this process, in MB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def _child() -> None:
    from kvmtest import cli

    measured = Measured(sys.argv[1])
    measured.install()
    cli.main(["run", "-o", os.devnull, *sys.argv[2:]])
    print(json.dumps(measured.found()))


if __name__ == "__main__":
    _child()
