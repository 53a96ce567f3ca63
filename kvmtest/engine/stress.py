# SPDX-License-Identifier: GPL-2.0-only
"""vCPUs that send INIT-SIPI-SIPI to each other, round after round: each must arrive, and only once.

A BSP arrives by the reset vector and drops the SIPIs; an AP arrives by its SIPI.

In a round the vCPUs are paired at random; in each pair, one sends INIT-SIPI-SIPI while the other spins, is halted, or is not
even run. All pairs do so at the same time, each vCPU in a thread of its own. Who sends to whom, in which state, with which vector
and delays depends on nothing but the seed and the number of vCPUs.
"""

from __future__ import annotations

import os
import queue
import random
import threading
from collections.abc import Iterator
from typing import NamedTuple

from kvmtest import guests
from kvmtest.engine.error import TriggerError
from kvmtest.engine.machine import Machine
from kvmtest.guests import stress
from kvmtest.judge.evidence import Measured
from kvmtest.kvm import Exit, GuestMemory, KvmError, RunTimeout, Vcpu
from kvmtest.kvm.where import where
from kvmtest.scenario.program import MEASUREMENTS
from kvmtest.scenario.triggers import DATA, MSG_ADDR
from kvmtest.uapi.kvm import KVM_EXIT_IO
from kvmtest.x86 import cpuid

__all__ = ("Round", "Stopped", "arrivals", "schedule")

_MOST = 8
_RAM_SLOT, _ROM_SLOT, _RAM_SIZE = 1, 0, 0x40000
#: Pages of SIPI code, above the orders.
_VECTORS = range(0x10, 0x40)
_X2APIC = 0xC00
#: The most turns of the guest's delay loop.
_TURNS = 256
#: The activity of a target when the INIT comes: the last one is not run until everything is sent.
_STATES = ("spinning", "halted", "outside KVM_RUN")
#: No more rounds after so many that went wrong, since each takes a time-out.
_ENOUGH = 4


class Cycle(NamedTuple):
    """One INIT-SIPI-SIPI. ``delays`` are turns of a loop, after the INIT and after the first SIPI."""

    sender: int
    target: int
    state: str
    vector: int
    delays: tuple[int, int]

    def __str__(self) -> str:
        delays = f"delays {self.delays[0]} and {self.delays[1]}"
        return f"vcpu {self.sender} to vcpu {self.target} ({self.state}), vector {self.vector:02x}, {delays}"


Round = tuple[Cycle, ...]
#: Of a cycle, or of a vCPU that none was for: the item that it counts for, and what happened.
_Wrong = tuple[str, str]


class Stopped(TriggerError):
    """A guest did something else than its next word, so that there is nothing to count."""


def schedule(seed: int, vcpus: int, rounds: int) -> Iterator[Round]:
    """Yield the rounds: senders, targets and vectors. With one seed, more rounds only append."""
    rng = random.Random(f"{seed}/{vcpus}")
    for _ in range(rounds):
        order = list(range(vcpus))
        rng.shuffle(order)
        yield tuple(
            Cycle(s, t, rng.choice(_STATES), rng.choice(_VECTORS), (rng.randrange(_TURNS), rng.randrange(_TURNS)))
            for s, t in zip(order[::2], order[1::2], strict=False)
        )


class _Runner:
    """A thread that runs one vCPU whenever it is asked to. close() ends it."""

    def __init__(self, vcpu: Vcpu, timeout_s: float) -> None:
        self.vcpu = vcpu
        self.timeout_s = timeout_s
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._seen: queue.SimpleQueue[Exit | Exception] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"vcpu {vcpu.id}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while self._asked.get():
            try:
                with self.vcpu.vm.kvm.traced():
                    seen = self.vcpu.run(self.timeout_s)
                self._seen.put(seen)
            except Exception as error:  # handed to whoever waits for it
                self._seen.put(error)

    def start(self) -> None:
        """Let the vCPU run until its next exit."""
        self._asked.put(True)

    def wait(self) -> Exit | None:
        """The exit that start() leads to; None where there was none in time. Raises KvmError, RunStopped."""
        seen = self._seen.get()
        if isinstance(seen, RunTimeout):
            return None
        if isinstance(seen, Exception):
            raise seen
        return seen

    def close(self) -> None:
        """End the thread, whatever its vCPU does."""
        self._asked.put(False)
        if self._thread.is_alive():
            self.vcpu.kick()
            self._thread.join()


class _StressVm:
    """The stress guest on ``vcpus``, each at rest after the first arrival."""

    def __init__(self, machine: Machine, vcpus: int, timeout_s: float) -> None:
        vm = machine.vm
        image = guests.load(stress.NAME)
        self.ram: GuestMemory = vm.add_memory(_RAM_SLOT, 0, _RAM_SIZE)
        vm.add_memory(_ROM_SLOT, guests.ROM_GPA, len(image)).write(guests.ROM_GPA, image)
        for vector in _VECTORS:
            self.ram.write(vector << 12, stress.page())
        for id in range(len(vm.vcpus), vcpus):
            vm.create_vcpu(id).set_cpuid2(cpuid.for_guest(machine.leaves, machine.setup.vendor, id))
        self.vcpus = vm.vcpus[:vcpus]
        for vcpu in self.vcpus:
            sregs = vcpu.get_sregs()
            sregs.apic_base |= _X2APIC
            vcpu.set_sregs(sregs)
            # The BSP arrives by the reset vector.
            self.restart(vcpu, timeout_s)
        self.counted = [self.arrived(id) for id in range(vcpus)]
        if self.counted != [1] * vcpus:
            raise Stopped(f"the guest counts {self.counted} arrivals of vCPUs that each arrived once")

    def restart(self, vcpu: Vcpu, timeout_s: float) -> None:
        """INIT and SIPI by the host, and see the vCPU arrive. Raises Stopped, KvmError."""
        _send(vcpu, DATA["init"])
        if vcpu.get_mp_state():
            _send(vcpu, DATA["sipi"] | _VECTORS[0])
        try:
            seen = vcpu.run(timeout_s)
        except RunTimeout as error:
            raise Stopped(str(error)) from error
        if _port(seen) != stress.PORT_ARRIVED:
            raise Stopped(f"the guest stopped: {seen} ({where(vcpu)})")

    def order(self, id: int, **words: int) -> None:
        """Write orders of vCPU ``id`` (DO, DESTINATION, ...)."""
        for name, value in words.items():
            self.ram.write_int(stress.ORDERS + id * stress.ORDER_SIZE + getattr(stress, name), value, 4)

    def arrived(self, id: int) -> int:
        """Return how often vCPU ``id`` has arrived."""
        return self.ram.read_int(stress.ORDERS + id * stress.ORDER_SIZE + stress.ARRIVED, 4)

    def came_by(self, id: int) -> int:
        """CS of the last arrival."""
        return self.ram.read_int(stress.ORDERS + id * stress.ORDER_SIZE + stress.ARRIVED_CS, 4)


def _send(vcpu: Vcpu, data: int) -> None:
    if vcpu.vm.signal_msi(MSG_ADDR | vcpu.id << 12, data) <= 0:
        raise Stopped(f"KVM_SIGNAL_MSI with data {data:#x} reached no vCPU with APIC id {vcpu.id}")


def _port(seen: Exit | None) -> int:
    return seen.port if seen is not None and seen.reason == KVM_EXIT_IO else 0


def _play(stress_vm: _StressVm, runners: list[_Runner], cycles: Round) -> None:
    """Send the events of a round and wait until all vCPUs are at rest."""
    for cycle in cycles:
        stress_vm.order(cycle.target, DO=stress.DO_HALT if cycle.state == "halted" else stress.DO_SPIN)
        first, second = cycle.delays
        destination = stress_vm.vcpus[cycle.target].id
        sending = {"DESTINATION": destination, "VECTOR": cycle.vector, "DELAY_SIPI": first, "DELAY_SECOND": second}
        stress_vm.order(cycle.sender, DO=stress.DO_SEND, **sending)
        if cycle.state != _STATES[-1]:
            runners[cycle.target].start()
    for cycle in cycles:
        runners[cycle.sender].start()
    sent = [runners[cycle.sender].wait() for cycle in cycles]
    for cycle in cycles:
        if cycle.state == _STATES[-1]:
            runners[cycle.target].start()
    came = [runners[cycle.target].wait() for cycle in cycles]
    for cycle, seen, arrival in zip(cycles, sent, came, strict=True):
        if _port(seen) != stress.PORT_SENT:
            vcpu = stress_vm.vcpus[cycle.sender]
            what = f"the sender did not finish: {seen or 'no exit in time'} ({where(vcpu)}); {cycle}"
            raise Stopped(what) from None if seen else TimeoutError()
        if arrival is not None and _port(arrival) != stress.PORT_ARRIVED:
            raise Stopped(f"the target stopped: {arrival} ({where(stress_vm.vcpus[cycle.target])}); {cycle}")


def _wrong(stress_vm: _StressVm, cycles: Round) -> list[_Wrong]:
    """List the events of a round that were lost, came twice, or reached another vCPU; then update the counts."""
    found: list[_Wrong] = []
    by_target = {cycle.target: cycle for cycle in cycles}
    for id, vcpu in enumerate(stress_vm.vcpus):
        # KVM decides here about what is still pending.
        vcpu.get_mp_state()
        came, stress_vm.counted[id] = stress_vm.arrived(id) - stress_vm.counted[id], stress_vm.arrived(id)
        cycle = by_target.get(id)
        if cycle is None:
            if came:
                found.append(("astray", f"vcpu {id} arrived {came} times without a message to it"))
            continue
        entry = 0xF000 if id == 0 else cycle.vector << 8
        if came < 1:
            found.append(("lost", f"lost: {cycle}"))
        elif came > 1:
            found.append(("doubled", f"arrived {came} times: {cycle}"))
        elif stress_vm.came_by(id) != entry:
            found.append(("astray", f"arrived with CS {stress_vm.came_by(id):04x}: {cycle}"))
    return found


def arrivals(machine: Machine, timeout_s: float, rounds: int, seed: int) -> Measured:
    """Count the ``lost``, ``doubled`` and ``astray`` INIT-SIPI-SIPI sequences in ``rounds``. Raises Stopped, KvmError."""
    vcpus = max(2, min(_MOST, len(os.sched_getaffinity(0))))
    stress_vm = _StressVm(machine, vcpus, timeout_s)
    bad: list[_Wrong] = []
    sent = 0
    runners: list[_Runner] = []
    try:
        runners += (_Runner(vcpu, timeout_s) for vcpu in stress_vm.vcpus)
        for number, cycles in enumerate(schedule(seed, vcpus, rounds)):
            try:
                _play(stress_vm, runners, cycles)
            except (Stopped, KvmError) as error:
                raise Stopped(f"round {number} of seed {seed}, {vcpus} vCPUs: {error}") from error
            sent += len(cycles)
            found = _wrong(stress_vm, cycles)
            bad += [(item, f"round {number}: {what}") for item, what in found]
            if len(bad) >= _ENOUGH:
                break
            for cycle in cycles if found else ():
                stress_vm.restart(stress_vm.vcpus[cycle.target], timeout_s)
                stress_vm.counted[cycle.target] = stress_vm.arrived(cycle.target)
    finally:
        for runner in runners:
            runner.close()
    about = f"seed {seed}, {vcpus} vCPUs, {sent} sent"
    by_item = {name: [what for item, what in bad if item == name] for name in MEASUREMENTS["arrivals"]}
    return Measured({item: (len(what), "; ".join((about, *what))) for item, what in by_item.items()})
