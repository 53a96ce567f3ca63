# SPDX-License-Identifier: GPL-2.0-only
"""The VMs that cases run on: built as a setup says, kept while that changes nothing."""

from __future__ import annotations

import os
import queue
import threading
import time
from functools import cached_property

from kvmtest.engine import making
from kvmtest.engine.making import SetupError
from kvmtest.kvm import CpuidEntry, Kvm, KvmError, Vcpu, Vm
from kvmtest.model.host import Host
from kvmtest.scenario.needs import NEEDS
from kvmtest.scenario.program import Program
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.vm import lower
from kvmtest.state import saved
from kvmtest.state.inside import GUEST_PLANTS, GuestPlant
from kvmtest.state.layout import Layout
from kvmtest.state.plant import Plant, Planter
from kvmtest.state.sections import Snapshot
from kvmtest.state.snapshot import Reader, Unread, missing_sections
from kvmtest.state.values import NEW
from kvmtest.state.vmm_reset import Reset
from kvmtest.x86 import cpuid, msr

__all__ = ("Machine", "Machines", "SetupError", "Target")

#: The limit of machines that wait to be closed: each has some file descriptors.
_CLOSING = 8


class Target:
    """One vCPU of a machine, with its reader and planter.

    ``baseline`` is its state right after creation and KVM_SET_CPUID2, which is read unless it is known as that of a ``new`` one;
    plants are made once and kept. ``like`` is another one of the same VM. Raises Unread where that state cannot be read whole.
    """

    def __init__(
        self,
        vcpu: Vcpu,
        layout: Layout,
        xcr0: int,
        like: Target | None = None,
        *,
        x2apic_ids: bool = False,
        new: Snapshot | None = None,
    ) -> None:
        self.vcpu = vcpu
        self.layout = layout
        self.reader: Reader = Reader(vcpu, layout, like.reader if like else None)
        self.baseline: Snapshot = new or self.reader.read()
        for section in layout.by_section:
            if why := self.baseline.lost(layout, section):
                raise Unread(f"a new vCPU: {why}")
        self._planter = Planter(vcpu, layout, self.baseline, xcr0, x2apic_ids=x2apic_ids)
        self._plants: dict[tuple[str, str], Plant] = {}
        self._reset: Reset | None = None
        self._saved: dict[tuple[str, ...], dict[str, tuple[saved.Part, ...]]] = {}

    @property
    def reset(self) -> Reset:
        """The writer that restores the vCPU's state at creation."""
        if self._reset is None:
            self._reset = Reset(self.vcpu, self.layout, self.baseline)
        return self._reset

    def saved(self, apart: tuple[str, ...]) -> dict[str, tuple[saved.Part, ...]]:
        """The sections that can be saved of it, with these MSRs ``apart``: those of any vCPU like it."""
        if apart not in self._saved:
            self._saved[apart] = saved.of_vcpu(self.vcpu, self.reader, self.reset.read_only, apart)
        return self._saved[apart]

    def plant(self, name: str, apic_mode: str) -> Plant:
        """The plant ``name`` with the local APIC in ``apic_mode``."""
        key = (name, apic_mode)
        if key not in self._plants:
            if name in GUEST_PLANTS:
                base, new = self.plant("a", apic_mode), self.plant(NEW, apic_mode)
                self._plants[key] = GuestPlant(name, self.layout, base, new, apic_mode)
            else:
                self._plants[key] = self._planter.make(name, apic_mode)
        return self._plants[key]


class Machine:
    """A VM with the vCPUs of ``setup``, made by ``program``, or by that of ``like`` as a copy of it.

    Raises SetupError, KvmError, Unread; close() frees everything.
    """

    def __init__(self, machines: Machines, setup: Setup, like: Machine | None = None) -> None:
        self.setup = setup
        self._machines = machines
        self.program: Program
        self.leaves: list[CpuidEntry]
        self._born = time.monotonic()
        self.vm: Vm = machines.kvm.create_vm()
        try:
            self._build(machines, like)
        except BaseException:
            self.vm.close()
            raise

    def _build(self, machines: Machines, first: Machine | None) -> None:
        vm, setup = self.vm, self.setup
        for need in (need for name in setup.needs for need in NEEDS[name]):
            there = vm.check_extension(need.cap)
            if not there or there & need.flags != need.flags:
                raise SetupError(need.why)
        self.program = first.program if first else lower(setup, making.Host(vm, machines.supported))
        vcpus, self.leaves = making.make(vm, self.program, machines.supported)
        layout = machines.layout(setup, vcpus[0])
        self.targets: list[Target] = []
        for number, vcpu in enumerate(vcpus):
            like = self.targets[0] if self.targets else None
            new = first.targets[number].baseline if first else None
            self.targets.append(Target(vcpu, layout, machines.xcr0, like, x2apic_ids=setup.x2apic_ids, new=new))

    @cached_property
    def cpuid(self) -> tuple[int | None, int, bool | None]:
        """The parts of the vCPUs' CPUID that rules depend on: CPUID.1:EAX, the number of PMU counters, and ExtApicSpace."""
        signature = next((leaf.eax for leaf in self.leaves if leaf.function == 1), None)
        return signature, cpuid.gp_counters(self.leaves), cpuid.extended_apic(self.leaves)

    @property
    def supported(self) -> list[CpuidEntry]:
        """The entries of KVM_GET_SUPPORTED_CPUID."""
        return self._machines.supported

    def cycles(self) -> int:
        """Return an upper bound for the TSC of a vCPU that counts from 0, now and in the next second or two."""
        try:
            khz = self.targets[0].vcpu.get_tsc_khz()
        except KvmError:  # where the host's TSC is not stable; no CPU is faster
            khz = 10_000_000
        return int((time.monotonic() - self._born) * 1000 * khz) + (1 << 32)

    def target(self, name: str) -> Target:
        """The ``bsp`` or the ``ap``, of several the last."""
        aps = [target for target in self.targets if target.vcpu.id != self.setup.boot_id]
        return self.targets[self.setup.boot_id] if name == "bsp" else aps[-1]

    def kept(self, id: int) -> Target:
        """The vCPU with this ``id`` in the machine that is kept for this setup."""
        return next(target for target in self._machines.kept(self.setup).targets if target.vcpu.id == id)

    def another(self) -> Machine:
        """A new one, made as this one was. Raises SetupError, KvmError, Unread."""
        return Machine(self._machines, self.setup, self)

    def release(self) -> None:
        """Close it, at the latest when the run ends."""
        self._machines.release(self)

    def close(self) -> None:
        """Free the VM; may be called again."""
        self.vm.close()


class _Closer:
    """Closes machines while the run goes on: to free a VM, KVM waits for grace periods of RCU, mostly asleep.

    Where there is one CPU, as in the lab's cells, each is closed at once: another thread would only take turns with the run.
    """

    def __init__(self) -> None:
        self._waiting: queue.Queue[Machine | None] = queue.Queue(_CLOSING)
        self._errors: list[BaseException] = []
        self._thread: threading.Thread | None = None

    def close(self, machine: Machine) -> None:
        """Close ``machine``, now or soon."""
        if len(os.sched_getaffinity(0)) < 2:
            machine.close()
            return
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="closer", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # this process may have no more threads, or no more memory
                machine.close()
                return
            self._thread = thread
        self._waiting.put(machine)

    def end(self) -> None:
        """Wait until all are closed. Raises what went wrong with the first that could not be."""
        if self._thread:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None
        if self._errors:
            errors, self._errors = self._errors, []
            raise errors[0]

    def _run(self) -> None:
        while machine := self._waiting.get():
            try:
                machine.close()
            except BaseException as error:  # for end()
                self._errors.append(error)


class Machines:
    """Makes machines and keeps those that may be used again, one per setup.

    RESET can be seen only once in the life of a vCPU, and a guest that ran has changed its memory: such cases use a
    ``fresh`` one. What INIT and SIPI by ioctl do does not depend on what was done to the vCPU before, since a plant
    writes all of its state.
    """

    def __init__(self, kvm: Kvm, host: Host) -> None:
        self.kvm = kvm
        self.host = host
        self._layouts: dict[tuple[bool, str, bool], Layout] = {}
        self._kept: dict[Setup, Machine] = {}
        self._closer = _Closer()

    @cached_property
    def supported(self) -> list[CpuidEntry]:
        """The leaves of KVM_GET_SUPPORTED_CPUID. Raises KvmError."""
        return self.kvm.supported_cpuid()

    @cached_property
    def xcr0(self) -> int:
        """The components of XCR0 that it names. Raises KvmError."""
        return cpuid.xcr0_mask(self.supported)

    def fresh(self, setup: Setup) -> Machine:
        """A machine that nothing has happened to; the caller closes or releases it. Raises SetupError, KvmError, Unread."""
        return Machine(self, setup)

    def release(self, machine: Machine) -> None:
        """Close a fresh machine, at the latest in close()."""
        self._closer.close(machine)

    def kept(self, setup: Setup) -> Machine:
        """The machine kept for ``setup``, of those with many vCPUs the last one. Raises SetupError, KvmError, Unread."""
        if setup not in self._kept:
            # A vCPU needs a file descriptor, and a process has 1024 by default.
            for other in [s for s in self._kept if setup.many and s.many]:
                self._kept.pop(other).close()
            self._kept[setup] = Machine(self, setup)
        return self._kept[setup]

    def drop(self, setup: Setup) -> None:
        """Free the machine kept for ``setup``, if there is one: the next case makes a new one."""
        if setup in self._kept:
            self.release(self._kept.pop(setup))

    def close(self) -> None:
        """Free all machines, kept and dropped."""
        try:
            while self._kept:
                self._kept.popitem()[1].close()
        finally:
            self._closer.end()

    @staticmethod
    def has_cpuid(setup: Setup) -> bool:
        """Return True if the vCPUs have CPUID."""
        return bool(setup.vendor) and setup.leaves != "none"

    def layout(self, setup: Setup, vcpu: Vcpu) -> Layout:
        """The layout of vCPUs like this one: which MSRs can be read is found by reading each."""
        key = (setup.irqchip != "none", setup.vendor + setup.leaves, setup.mce)
        if key not in self._layouts:
            listed = set(self.kvm.msr_index_list())
            # With ignore_msrs every MSR seems to be there.
            blind = self.host.parameters.get("kvm.ignore_msrs", "N") in ("Y", "1")
            wanted = listed if blind else listed | {known.index for known in msr.MSRS}
            readable = vcpu.get_msrs(sorted(wanted))
            components = cpuid.xsave_components(self.supported)
            leaves = tuple((leaf.function, leaf.index) for leaf in vcpu.get_cpuid2()) if self.has_cpuid(setup) else ()
            self._layouts[key] = Layout(tuple(readable), components, missing_sections(vcpu), leaves, frozenset(listed))
        return self._layouts[key]
