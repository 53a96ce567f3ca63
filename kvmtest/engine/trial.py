# SPDX-License-Identifier: GPL-2.0-only
"""Execute a reproducer on a VM that it makes itself, and say what it showed."""

from __future__ import annotations

from typing import Any, NamedTuple

from kvmtest.emit.repro import Check, Leaf, Repro
from kvmtest.engine import making
from kvmtest.engine.runner import Player
from kvmtest.judge.evidence import Exited
from kvmtest.kvm import Kvm, KvmError, Vcpu, Vm
from kvmtest.x86 import xsave
from kvmtest.x86.cpuid import CpuidEntry

__all__ = ("Outcome", "Trials")

#: Seconds that a guest is given at least, and how many times what it took.
_LEAST_S, _TIMES = 0.05, 5
_LEAF, _REGISTERS = 40, {"eax": 12, "ebx": 16, "ecx": 20, "edx": 24}


class Outcome(NamedTuple):
    """``verdict`` is ``pass``, ``fail``, or ``skip`` or ``error`` where it did not come to its end, with ``why``.

    ``observed`` are the values of its checks, None for what could not be read; without checks what the last op told.
    """

    verdict: str
    why: str = ""
    observed: tuple[Any, ...] = ()


class _Vcpu:
    """As much of a machine's vCPU as ops of a reproducer need."""

    layout = reader = None

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu


class _Machine:
    """As much of a machine as ops of a reproducer need."""

    def __init__(self, vm: Vm, vcpus: list[Vcpu]) -> None:
        self.vm, self.targets = vm, [_Vcpu(vcpu) for vcpu in vcpus]


class Trials:
    """Runs reproducers on ``kvm``; ``timeout_s`` bounds each wait, in seconds. ``count`` says how many were run.

    ``hasten`` has those that follow wait as long as what was run needs, several times over: most of what is left out of a guest
    makes it run astray.
    """

    def __init__(self, kvm: Kvm, timeout_s: float = 1.0) -> None:
        self._kvm, self._timeout_s = kvm, timeout_s
        self._supported: list[CpuidEntry] = kvm.supported_cpuid()
        self.count = 0
        self._took_s = timeout_s

    def hasten(self) -> None:
        """From here on wait no longer for an exit than the slowest one of the last reproducer explains."""
        self._timeout_s = min(self._timeout_s, max(_LEAST_S, _TIMES * self._took_s))

    def run(self, repro: Repro) -> Outcome:
        """Execute it once, on a new VM."""
        self.count += 1
        vm = self._kvm.create_vm()
        try:
            vcpus = making.make(vm, repro.vm, self._supported).vcpus
            machine: Any = _Machine(vm, vcpus)
            player = Player(repro.body, machine, self._timeout_s)
            played = player.run()
            self._took_s = player.slowest_s
        except (KvmError, LookupError, TypeError, ValueError, making.SetupError) as error:
            return Outcome("error", str(error) or type(error).__name__)
        finally:
            vm.close()
        if played.end and (repro.checks or played.end.verdict != "fail"):
            return Outcome(played.end.verdict, played.end.why)
        if not repro.checks:
            return Outcome("fail" if played.end else "pass", "", (_plain(played.told[-1][1]),) if played.told else ())
        values = tuple(observed(check, player.buffers) for check in repro.checks)
        if None in values:
            return Outcome("error", "not read")
        ok = all(holds(check, value) for check, value in zip(repro.checks, values, strict=True) if value is not None)
        return Outcome("pass" if ok else "fail", "", values)


def _plain(told: Any) -> Any:
    """What an op told, without what differs each time."""
    return told[:3] if isinstance(told, Exited) else told


def holds(check: Check, value: int) -> bool:
    """Whether ``value`` is one that ``check`` asks for."""
    return any(not (value ^ wanted) & check.mask for wanted in check.values)


def observed(check: Check, buffers: dict[str, Any]) -> int | None:
    """What the item of ``check`` holds in ``buffers``; None where it is not there."""
    place = check.place
    data = bytes(buffers[place.buffer])
    if isinstance(place, Leaf):
        return _register(place, data)
    if check.component is not None:
        bv = int.from_bytes(data[xsave.XSTATE_BV_OFFSET : xsave.XSTATE_BV_OFFSET + 8], "little")
        if not bv >> check.component & 1:
            return check.init
    return int.from_bytes(data[place.offset : place.offset + place.size], "little") - check.ahead


def _register(leaf: Leaf, data: bytes) -> int | None:
    count = int.from_bytes(data[:4], "little")
    for at in range(8, 8 + _LEAF * count, _LEAF):
        function, index = (int.from_bytes(data[at + i : at + i + 4], "little") for i in (0, 4))
        if (function, index) == (leaf.function, leaf.index):
            at += _REGISTERS[leaf.register]
            return int.from_bytes(data[at : at + 4], "little")
    return None

