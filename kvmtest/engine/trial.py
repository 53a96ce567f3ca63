# SPDX-License-Identifier: GPL-2.0-only
"""Execute a reproducer on a VM that it makes itself, and return what it observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from kvmtest.emit.repro import Check, Leaf, Repro
from kvmtest.emit.several import Several, bits
from kvmtest.engine import making
from kvmtest.engine.runner import Player, meets
from kvmtest.judge.evidence import Exited, Played
from kvmtest.kvm import Kvm, KvmError, Vcpu
from kvmtest.scenario import program as p
from kvmtest.x86 import xsave
from kvmtest.x86.cpuid import CpuidEntry

__all__ = ("HANGS", "Outcome", "Trials", "Tried")

#: The least time limit of a guest in seconds, and the multiple of the time that it needed.
_LEAST_S, _TIMES = 0.05, 5
#: Errors of a program without some of its parts.
_ERRORS = (KvmError, LookupError, TypeError, ValueError, making.SetupError)
_LEAF, _REGISTERS = 40, {"eax": 12, "ebx": 16, "ecx": 20, "edx": 24}


class Outcome(NamedTuple):
    """``verdict`` is ``pass``, ``fail``, or ``skip`` or ``error`` if it did not finish, with ``why``.

    ``observed`` are the values of its checks, None for what could not be read; without checks the result of the last op.
    """

    verdict: str
    why: str = ""
    observed: tuple[Any, ...] = ()


#: Of a reproducer that the kernel under test does not survive.
HANGS = Outcome("error", "the kernel hangs")


class Tried:
    """Outcomes of reproducers that were run one after the other. ``known`` ones are not run again: the same
    search needs the same ones. ``progress`` is called with None when one begins to run, and with its outcome.
    """

    def __init__(self, known: Iterable[Outcome] = (), progress: Callable[[Outcome | None], None] = lambda outcome: None) -> None:
        self._known = iter(known)
        self._progress = progress

    def outcome(self, run: Callable[[], Outcome]) -> Outcome:
        """Return the outcome of the next one; ``run`` runs it if necessary."""
        for known in self._known:
            return known
        self._progress(None)
        found = run()
        self._progress(found)
        return found


class _Vcpu:
    """As much of a machine's vCPU as ops of a reproducer need."""

    layout = reader = None

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu


class _Machine:
    """As much of a machine as ops of a reproducer need, of a VM that ``program`` makes."""

    def __init__(self, kvm: Kvm, program: p.Program, supported: list[CpuidEntry]) -> None:
        self._kvm, self._program, self.supported = kvm, program, supported
        self.vm = kvm.create_vm()
        try:
            self.targets = [_Vcpu(vcpu) for vcpu in making.make(self.vm, program, supported).vcpus]
        except BaseException:
            self.vm.close()
            raise

    def another(self) -> _Machine:
        """A new one, made as this one was."""
        return _Machine(self._kvm, self._program, self.supported)

    def close(self) -> None:
        """Free the VM."""
        self.vm.close()

    release = close


class Trials:
    """Runs reproducers on ``kvm``; ``timeout_s`` bounds each wait, in seconds. ``count`` says how many were run.

    ``hasten`` has those that follow wait as long as what was run needs, several times over: most of what is left out of a guest
    makes it run astray. The outcomes of some may be known already (``tried``).
    """

    def __init__(self, kvm: Kvm, timeout_s: float = 1.0, tried: Tried | None = None) -> None:
        self._kvm, self._timeout_s, self._tried = kvm, timeout_s, tried or Tried()
        self._supported: list[CpuidEntry] = kvm.supported_cpuid()
        self.count = 0
        self._took_s = timeout_s

    def hasten(self) -> None:
        """From here on wait no longer for an exit than the slowest one of the last reproducer explains."""
        self._timeout_s = min(self._timeout_s, max(_LEAST_S, _TIMES * self._took_s))

    def idle(self, repro: Repro) -> frozenset[int]:
        """The numbers of the ops of its body that write values which are there already."""
        asked: list[tuple[int, p.Op]] = []
        for at, (_, op) in enumerate(repro.body.ops):
            if isinstance(op, p.Put):
                mask = op.mask & (1 << 8 * op.place.size) - 1
                asked.append((-1 - at, p.Compare(op.place, (op.value & mask,), p.Otherwise("", ""), mask)))
            asked.append((at, op))
        try:
            played, _ = self._play(repro._replace(body=repro.body._replace(ops=tuple(asked))))
        except _ERRORS:
            return frozenset()
        tests = dict(asked)
        there = ((number, value, tests.get(number)) for number, value in played.evidence if number < 0)
        return frozenset(-1 - number for number, value, test in there if isinstance(test, p.Compare) and meets(value, test))

    def run(self, repro: Repro) -> Outcome:
        """Execute it once, on a new VM."""
        self.count += 1
        return self._tried.outcome(partial(self._run, repro))

    def _run(self, repro: Repro) -> Outcome:
        try:
            played, player = self._play(repro)
        except _ERRORS as error:
            return Outcome("error", str(error) or type(error).__name__)
        if played.end and (repro.checks or played.end.verdict != "fail"):
            return Outcome(played.end.verdict, played.end.why)
        if not repro.checks:
            return Outcome("fail" if played.end else "pass", "", (_plain(played.evidence[-1][1]),) if played.evidence else ())
        values = tuple(observed(check, player.buffers) for check in repro.checks)
        if None in values:
            return Outcome("error", "not read")
        ok = all(holds(check, value) for check, value in zip(repro.checks, values, strict=True) if value is not None)
        return Outcome("pass" if ok else "fail", "", values)

    def _play(self, repro: Repro) -> tuple[Played, Player]:
        machine: Any = _Machine(self._kvm, repro.vm, self._supported)
        try:
            player = Player(repro.body, machine, self._timeout_s)
            played = player.run()
            self._took_s = player.slowest_s
            return played, player
        finally:
            machine.close()


def _plain(result: Any) -> Any:
    """Return an op's result without the parts that differ each time."""
    return result[:3] if isinstance(result, Exited) else result


def holds(check: Check, value: int) -> bool:
    """Return True if ``value`` satisfies ``check``."""
    return any(not (value ^ wanted) & check.mask for wanted in check.values)


def observed(check: Check, buffers: dict[str, Any]) -> int | None:
    """Return the value of the item of ``check`` in ``buffers``; None if it is not there."""
    place = check.place
    if isinstance(place, Several):
        return bits(id for id, one in place.of if meets(_masked(one, buffers), one))
    data = bytes(buffers[place.buffer])
    if isinstance(place, Leaf):
        return _register(place, data)
    if check.component is not None:
        bv = int.from_bytes(data[xsave.XSTATE_BV_OFFSET : xsave.XSTATE_BV_OFFSET + 8], "little")
        if not bv >> check.component & 1:
            return check.init
    return int.from_bytes(data[place.offset : place.offset + place.size], "little") - check.ahead


def _masked(test: p.Compare, buffers: dict[str, Any]) -> int:
    place = test.place
    data = bytes(buffers[place.buffer])[place.offset : place.offset + place.size]
    return int.from_bytes(data, "little") & test.mask & (1 << 8 * place.size) - 1


def _register(leaf: Leaf, data: bytes) -> int | None:
    count = int.from_bytes(data[:4], "little")
    for at in range(8, 8 + _LEAF * count, _LEAF):
        function, index = (int.from_bytes(data[at + i : at + i + 4], "little") for i in (0, 4))
        if (function, index) == (leaf.function, leaf.index):
            at += _REGISTERS[leaf.register]
            return int.from_bytes(data[at : at + 4], "little")
    return None

