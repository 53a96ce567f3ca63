# SPDX-License-Identifier: GPL-2.0-only
"""The lab's init: loads KVM, runs the engine on it, streams what cases show, powers off.

It is Python from its first instruction: mounting and loading modules are three system calls that ctypes, which the engine
needs anyway, can make; a shell would be one more thing to have and to start.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import marshal
import os
import struct
import sys
import threading
import time
from typing import Any, TypedDict

from kvmtest.lab.port import FwCfg, Port
from kvmtest.lab.stream import WAITS, Encoder

__all__ = ("MODULES", "Config", "main")

#: The folder of the modules.
MODULES = "/modules"
#: From linux/random.h.
_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207

_LOADED = "/sys/module"
_SYS_INIT_MODULE = 175
_POWER_OFF = 0x4321FEDC
_MOUNTS = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"))
_KMSG_RECORD = 8192
_HITS = 1 << 16
#: struct kvmcov_word: address, bits.
_WORD = struct.Struct("<QQ")
#: The recorder's module and file (`kvmtest/lab/kvmcov/kvmcov.c`).
RECORDER, KVMCOV = "kvmcov", "/proc/kvmcov"
#: Seconds of the guest's clock between two signs of life.
_BEAT_S = 2.0

_libc = ctypes.CDLL(None, use_errno=True)


class Config(TypedDict):
    """A cell's order: modules and their parameters in the order of loading, the cases, and the engine's options.

    ``job`` is a `kvmtest.lab.job.Job` to do instead of running cases, or None. ``coverage`` makes each case report what it
    executed of KVM's modules.
    """

    modules: list[tuple[str, str]]
    cases: list[tuple[Any, ...]]
    timeout_s: float
    stress_rounds: tuple[int, int]
    job: Any
    coverage: bool


class _Failed(Exception):
    """The reason why this cell has no results."""


class _Log:
    """The kernel's log from here on, sent line by line with the current case."""

    def __init__(self, out: Encoder) -> None:
        self._out = out
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._fd, 0, os.SEEK_END)

    def drain(self) -> None:
        """Send what is new."""
        while True:
            try:
                record = os.read(self._fd, _KMSG_RECORD)
            except BlockingIOError:
                return
            except BrokenPipeError:  # lines were overwritten before they were read
                self._out.line("L", "... lines lost ...")
                continue
            # "6,1234,5678,-;text", then lines of a dictionary that begin with a space
            text = record.decode("utf-8", "replace").partition(";")[2]
            self._out.line("L", text.partition("\n")[0])


class _Hits:
    """Coverage of KVM's modules, as the difference from the last record; they must be instrumented (`kvmtest.lab.instrument`)."""

    def __init__(self, out: Encoder) -> None:
        self._out = out
        self._ever: dict[int, int] = {}
        try:
            self._fd = os.open(KVMCOV, os.O_RDONLY)
        except OSError as error:
            raise _Failed(f"{KVMCOV}: {error.strerror}; these modules of KVM do not record what they execute") from None

    def sections(self, module: str) -> None:
        """Send where the code of ``module`` lies. Another module may have the place of what ran once, at its load."""
        where = f"{_LOADED}/{module}/sections"
        for name in sorted(os.listdir(where)):
            if "text" in name and ".init" not in name:
                with open(f"{where}/{name}", "rb") as file:
                    self._out.line("S", module, name, file.read().decode().strip())

    def drain(self) -> bytes:
        """Send what was executed since the last time, and return it: struct kvmcov_word each."""
        new = []
        while data := os.read(self._fd, _HITS):
            new.append(data)
        self._out.blob("K", b"".join(new))
        return b"".join(new)

    def new(self) -> bool:
        """Send what was executed since the last time. Return True if some of it had not been executed before."""
        found = False
        for address, bits in _WORD.iter_unpack(self.drain()):
            ever = self._ever.get(address, 0)
            if bits & ~ever:
                self._ever[address], found = ever | bits, True
        return found


def _mount() -> None:
    for kind, where in _MOUNTS:
        os.makedirs(where, exist_ok=True)
        if _libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None):
            raise _Failed(f"mount {where}: {os.strerror(ctypes.get_errno())}")


def _load(name: str, parameters: str, out: Encoder, log: _Log) -> None:
    out.line("M", name)
    out.flush()
    with open(f"{MODULES}/{name}.ko", "rb") as file:
        image = file.read()
    if _libc.syscall(_SYS_INIT_MODULE, image, ctypes.c_ulong(len(image)), parameters.encode()):
        error = os.strerror(ctypes.get_errno())
        log.drain()
        raise _Failed(f"{name}.ko does not load: {error}")
    log.drain()
    out.flush()


def _beat(out: Encoder) -> None:
    """Say that the main thread is there, not that this one is: an oops ends only the thread that it happens in.

    The kernel panics when the last thread of process 1 ends, so that this one's end is a last word.
    """
    main = f"/proc/self/task/{os.getpid()}/stat"
    while True:
        time.sleep(_BEAT_S)
        with open(main, "rb") as file:
            # "1 (python3) S ...": Z is one that has ended before the others of its process.
            if file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                return
        out.beat()


def _load_all(config: Config, out: Encoder, log: _Log) -> _Hits | None:
    """Load the modules; return the recorder of their coverage, if requested."""
    hits = None
    for name, parameters in config["modules"]:
        _load(name, parameters, out, log)
        if config["coverage"] and name == RECORDER:
            hits = _Hits(out)
        elif hits:
            hits.sections(name)
            hits.drain()
    if config["coverage"] and not hits:
        raise _Failed("these modules of KVM do not record what they execute")
    return hits


def _run(config: Config, out: Encoder, log: _Log, hits: _Hits | None) -> None:
    from kvmtest.engine import doctor, host, plan, run
    from kvmtest.lab import relay
    from kvmtest.scenario.program import StressRounds
    from kvmtest.spec.logged import fatal

    cases = [plan.Case.unpacked(packed) for packed in config["cases"]]
    facts = host.detect()
    out.line("H", *facts[:4], *(f"{name}={value}" for name, value in facts.parameters.items()))
    out.line("N", str(len(cases)))
    out.flush()
    try:
        kvm = doctor.open_kvm("/dev/kvm")
    except doctor.Unusable as error:
        raise _Failed(str(error)) from None
    if job := config["job"]:
        with kvm:
            _do(job, kvm, facts, cases, config["timeout_s"], out, log, hits)
        if hits:
            hits.drain()
            out.flush()
        return
    cases.sort(key=lambda case: fatal(case.name, facts.backend, facts.version))
    judging = relay.Sender(out).judging
    rounds = StressRounds(*config["stress_rounds"])
    # A run leaves some 10 MB in cycles; collecting them costs a twentieth of the time.
    gc.disable()
    with kvm:
        for done in run.run(kvm, facts, cases, config["timeout_s"], lambda case: out.case(case.name, case.view), rounds, judging):
            log.drain()
            if hits:
                hits.drain()
            out.line("c", f"{done.seconds:.6f}")
    log.drain()
    out.flush()


def _do(
    job: Any, kvm: Any, facts: Any, cases: list[Any], timeout_s: float, out: Encoder, log: _Log, hits: _Hits | None
) -> None:
    from kvmtest.lab.job import execute, fuzz, reproduce

    def between() -> bool:
        log.drain()
        return bool(hits and hits.new())

    if "fuzz" in job:
        fuzz(job, kvm, facts, out, between)
    elif job["programs"]:
        execute(job, out, log.drain)
    else:
        reproduce(job, kvm, facts, cases, timeout_s, out)
    log.drain()
    out.flush()


def _ordered(port: Port) -> Config:
    """Prepare for any cell, say so, and wait for an order. A waiting guest is saved, and continues here when it is restored."""
    from kvmtest.engine import doctor, host, plan, run  # noqa: F401
    from kvmtest.lab import relay  # noqa: F401
    from kvmtest.scenario import catalogue  # noqa: F401

    inbox = FwCfg()
    out = Encoder(port.write)
    out.line(WAITS)
    out.flush()
    config: Config
    config, modules, now, seed = marshal.loads(inbox.order())
    os.makedirs(MODULES, exist_ok=True)
    for name, image in modules.items():
        with open(f"{MODULES}/{name}.ko", "wb") as file:
            file.write(image)
    # Its clock stood still while it was kept, and others that were restored from the same file have the same random numbers.
    time.clock_settime(time.CLOCK_REALTIME, now)
    with open("/dev/urandom", "wb") as random:
        fcntl.ioctl(random, _RNDADDENTROPY, struct.pack(f"ii{len(seed)}s", len(seed) * 8, len(seed), seed))
        with contextlib.suppress(OSError):  # where it has not been seeded at all yet; it will be, also by what it just got
            fcntl.ioctl(random, _RNDRESEEDCRNG)
    return config


def main(config: Config | None) -> None:
    """Run the cell that ``config`` describes, or wait for an order, as process 1. Does not return."""
    try:
        _mount()
        port = Port()
        out = Encoder(port.write)
        try:
            if config is None:
                config = _ordered(port)
                out = Encoder(port.write)
            out.line("B", os.uname().release)
            out.flush()
            # The permission for the port goes to a thread that is started now.
            threading.Thread(target=_beat, args=(out,), daemon=True).start()
            log = _Log(out)
            _run(config, out, log, _load_all(config, out, log))
        except _Failed as failed:
            out.line("X", str(failed))
        except Exception as error:
            import traceback

            traceback.print_exc()
            out.line("X", f"{type(error).__name__}: {error}")
        else:
            out.line("E")
        out.flush()
    except BaseException as error:
        sys.stderr.write(f"kvmtest: {error}\n")
    finally:
        sys.stderr.flush()
        _libc.reboot(ctypes.c_uint(_POWER_OFF))
