# SPDX-License-Identifier: GPL-2.0-only
"""One virtual machine. Sections named are those of Documentation/virt/kvm/api.rst."""

from __future__ import annotations

import os
from collections.abc import Iterable
from ctypes import byref, c_uint64, memmove, sizeof
from types import TracebackType
from typing import TYPE_CHECKING

from ..uapi.caps import KVM_CAP_SPLIT_IRQCHIP
from ..uapi.consts import KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQFD_FLAG_DEASSIGN
from ..uapi.ioctls import (
    KVM_CHECK_EXTENSION,
    KVM_CREATE_IRQCHIP,
    KVM_CREATE_PIT2,
    KVM_CREATE_VCPU,
    KVM_ENABLE_CAP,
    KVM_GET_CLOCK,
    KVM_GET_IRQCHIP,
    KVM_GET_PIT2,
    KVM_GET_STATS_FD,
    KVM_GET_TSC_KHZ,
    KVM_IRQ_LINE,
    KVM_IRQ_LINE_STATUS,
    KVM_IRQFD,
    KVM_SET_BOOT_CPU_ID,
    KVM_SET_CLOCK,
    KVM_SET_GSI_ROUTING,
    KVM_SET_IDENTITY_MAP_ADDR,
    KVM_SET_IRQCHIP,
    KVM_SET_PIT2,
    KVM_SET_TSC_KHZ,
    KVM_SET_TSS_ADDR,
    KVM_SET_USER_MEMORY_REGION,
    KVM_SIGNAL_MSI,
)
from ..uapi.irq import (
    kvm_irq_level,
    kvm_irq_routing,
    kvm_irq_routing_entry,
    kvm_irqchip,
    kvm_irqfd,
    kvm_msi,
    kvm_pit_config,
    kvm_pit_state2,
)
from ..uapi.structs import kvm_clock_data, kvm_enable_cap, kvm_userspace_memory_region
from .check import structure, unsigned
from .ioctl import ioctl
from .memory import GuestMemory
from .stats import read_stats
from .vcpu import Vcpu

if TYPE_CHECKING:
    from .system import Kvm

__all__ = ["Vm", "irqchip_route", "msi_route"]


def msi_route(gsi: int, address_lo: int, data: int, address_hi: int = 0) -> kvm_irq_routing_entry:
    """An entry for Vm.set_gsi_routing(): GSI `gsi` sends this MSI."""
    unsigned(32, gsi=gsi, address_lo=address_lo, data=data, address_hi=address_hi)
    entry = kvm_irq_routing_entry(gsi, KVM_IRQ_ROUTING_MSI)
    entry.u.msi.address_lo = address_lo
    entry.u.msi.address_hi = address_hi
    entry.u.msi.data = data
    return entry


def irqchip_route(gsi: int, irqchip: int, pin: int) -> kvm_irq_routing_entry:
    """An entry for Vm.set_gsi_routing(): GSI `gsi` is `pin` of chip KVM_IRQCHIP_* `irqchip`."""
    unsigned(32, gsi=gsi, irqchip=irqchip, pin=pin)
    entry = kvm_irq_routing_entry(gsi, KVM_IRQ_ROUTING_IRQCHIP)
    entry.u.irqchip.irqchip = irqchip
    entry.u.irqchip.pin = pin
    return entry


class Vm:
    """A VM and what belongs to it: `vcpus` in the order of their creation, memory, event descriptors.

    Made by Kvm.create_vm(). Every method that is an ioctl raises KvmError if KVM refuses it.
    """

    def __init__(self, kvm: Kvm, fd: int) -> None:
        self.fd = fd
        self.kvm = kvm
        self.vcpus: list[Vcpu] = []
        self.memory: list[GuestMemory] = []
        self._eventfds: list[int] = []

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION (4.4) on the VM; the value may differ from that of /dev/kvm."""
        return ioctl(self.fd, KVM_CHECK_EXTENSION, cap, f"vm, cap {cap}")

    def enable_cap(self, cap: int, *args: int, flags: int = 0) -> int:
        """KVM_ENABLE_CAP (4.37) on the VM, with at most four 64-bit `args`."""
        unsigned(32, cap=cap, flags=flags)
        unsigned(64, **{f"args[{number}]": arg for number, arg in enumerate(args)})
        if len(args) > 4:
            raise ValueError(f"args: {len(args)}, of which there are four at most")
        request = kvm_enable_cap(cap, flags, args)
        return ioctl(self.fd, KVM_ENABLE_CAP, byref(request), f"vm, cap {cap}, args {list(args)}")

    def create_vcpu(self, id: int) -> Vcpu:
        """KVM_CREATE_VCPU (4.7): a vCPU with APIC id `id`, in the state that RESET leaves."""
        unsigned(32, id=id)
        fd = ioctl(self.fd, KVM_CREATE_VCPU, id, f"vm, vcpu {id}")
        vcpu = Vcpu(self, id, fd)
        self.vcpus.append(vcpu)
        return vcpu

    # Interrupt controllers

    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP (4.24): PIC, IOAPIC and local APICs in KVM. Before the first vCPU."""
        ioctl(self.fd, KVM_CREATE_IRQCHIP, 0, "vm")

    def split_irqchip(self, pins: int = 24) -> None:
        """KVM_ENABLE_CAP (4.37) of KVM_CAP_SPLIT_IRQCHIP: only local APICs in KVM; `pins` routes for IOAPICs."""
        self.enable_cap(KVM_CAP_SPLIT_IRQCHIP, pins)

    def create_pit2(self, flags: int = 0) -> None:
        """KVM_CREATE_PIT2 (4.71): an 8254 in KVM, after KVM_CREATE_IRQCHIP. `flags` is KVM_PIT_SPEAKER_DUMMY or 0."""
        ioctl(self.fd, KVM_CREATE_PIT2, byref(kvm_pit_config(flags)), "vm")

    def get_pit2(self) -> kvm_pit_state2:
        """KVM_GET_PIT2 (4.72)."""
        state = kvm_pit_state2()
        ioctl(self.fd, KVM_GET_PIT2, byref(state), "vm")
        return state

    def set_pit2(self, state: kvm_pit_state2) -> None:
        """KVM_SET_PIT2 (4.73)."""
        structure(kvm_pit_state2, state=state)
        ioctl(self.fd, KVM_SET_PIT2, byref(state), "vm")

    def get_irqchip(self, chip: int) -> kvm_irqchip:
        """KVM_GET_IRQCHIP (4.26) of chip KVM_IRQCHIP_*."""
        state = kvm_irqchip(chip)
        ioctl(self.fd, KVM_GET_IRQCHIP, byref(state), f"vm, chip {chip}")
        return state

    def set_irqchip(self, state: kvm_irqchip) -> None:
        """KVM_SET_IRQCHIP (4.27) of chip `state.chip_id`."""
        structure(kvm_irqchip, state=state)
        ioctl(self.fd, KVM_SET_IRQCHIP, byref(state), f"vm, chip {state.chip_id}")

    def irq_line(self, gsi: int, level: int) -> None:
        """KVM_IRQ_LINE (4.25): drive GSI `gsi` to `level`, 0 or 1."""
        unsigned(32, gsi=gsi, level=level)
        ioctl(self.fd, KVM_IRQ_LINE, byref(kvm_irq_level(irq=gsi, level=level)), f"vm, gsi {gsi}")

    def irq_line_status(self, gsi: int, level: int) -> int:
        """KVM_IRQ_LINE_STATUS (4.25): as irq_line(); returns how many vCPUs accepted the interrupt, 0 or less if it was lost."""
        unsigned(32, gsi=gsi, level=level)
        request = kvm_irq_level(irq=gsi, level=level)
        ioctl(self.fd, KVM_IRQ_LINE_STATUS, byref(request), f"vm, gsi {gsi}")
        return int(request.status)

    def signal_msi(self, addr_lo: int, data: int, addr_hi: int = 0) -> int:
        """KVM_SIGNAL_MSI (4.71): send an MSI; returns the number of vCPUs that accepted it, 0 if the guest blocked it."""
        unsigned(32, addr_lo=addr_lo, data=data, addr_hi=addr_hi)
        request = kvm_msi(addr_lo, addr_hi, data)
        return ioctl(self.fd, KVM_SIGNAL_MSI, byref(request), f"vm, address {addr_hi:#x}:{addr_lo:#x}, data {data:#x}")

    def set_gsi_routing(self, entries: Iterable[kvm_irq_routing_entry]) -> None:
        """KVM_SET_GSI_ROUTING (4.52): replace the whole table; see irqchip_route() and msi_route()."""
        table = list(entries)
        for entry in table:
            structure(kvm_irq_routing_entry, entries=entry)
        header = sizeof(kvm_irq_routing)
        step = sizeof(kvm_irq_routing_entry)
        buffer = (c_uint64 * ((header + step * len(table)) // 8))(len(table))
        for index, entry in enumerate(table):
            memmove(byref(buffer, header + step * index), byref(entry), step)
        ioctl(self.fd, KVM_SET_GSI_ROUTING, buffer, f"vm, {len(table)} entries")

    def irqfd(self, gsi: int) -> int:
        """KVM_IRQFD (4.75): a new eventfd; writing to it triggers `gsi`. Closed with the VM, or by irqfd_deassign()."""
        unsigned(32, gsi=gsi)
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            ioctl(self.fd, KVM_IRQFD, byref(kvm_irqfd(fd, gsi)), f"vm, gsi {gsi}")
        except BaseException:
            os.close(fd)
            raise
        self._eventfds.append(fd)
        return fd

    def irqfd_deassign(self, gsi: int, fd: int) -> None:
        """KVM_IRQFD (4.75) with KVM_IRQFD_FLAG_DEASSIGN: undo irqfd() and close its descriptor."""
        ioctl(self.fd, KVM_IRQFD, byref(kvm_irqfd(fd, gsi, KVM_IRQFD_FLAG_DEASSIGN)), f"vm, gsi {gsi}")
        if fd in self._eventfds:
            self._eventfds.remove(fd)
            os.close(fd)

    # Set-up

    def set_boot_cpu_id(self, id: int) -> None:
        """KVM_SET_BOOT_CPU_ID (4.41): which vCPU is the BSP. Before the first vCPU."""
        unsigned(32, id=id)
        ioctl(self.fd, KVM_SET_BOOT_CPU_ID, id, f"vm, vcpu {id}")

    def set_tss_addr(self, addr: int) -> None:
        """KVM_SET_TSS_ADDR (4.36): three pages of guest-physical memory, below 4 GiB, that KVM on Intel needs."""
        unsigned(64, addr=addr)
        ioctl(self.fd, KVM_SET_TSS_ADDR, addr, f"vm, address {addr:#x}")

    def set_identity_map_addr(self, addr: int) -> None:
        """KVM_SET_IDENTITY_MAP_ADDR (4.40): one page like those of KVM_SET_TSS_ADDR. Before the first vCPU."""
        unsigned(64, addr=addr)
        ioctl(self.fd, KVM_SET_IDENTITY_MAP_ADDR, byref(c_uint64(addr)), f"vm, address {addr:#x}")

    def add_memory(self, slot: int, gpa: int, size: int, flags: int = 0) -> GuestMemory:
        """KVM_SET_USER_MEMORY_REGION (4.35): `size` zeroed bytes at guest-physical `gpa`; both multiples of 4096.

        `flags` are KVM_MEM_*. Raises ValueError if `size` is not a positive multiple of 4096, or something fits no field.
        """
        unsigned(32, slot=slot, flags=flags)
        unsigned(64, gpa=gpa, size=size)
        if size <= 0 or size % 4096:
            raise ValueError(f"size {size:#x} is not a positive multiple of 4096")
        memory = GuestMemory(slot, gpa, size, flags)
        try:
            self._set_memory(memory, size)
        except BaseException:
            memory.close()
            raise
        self.memory.append(memory)
        return memory

    def memory_at(self, gpa: int) -> GuestMemory | None:
        """The memory that the guest sees at guest-physical `gpa`, or None where there is no slot."""
        return next((memory for memory in self.memory if 0 <= gpa - memory.gpa < memory.size), None)

    def remove_memory(self, memory: GuestMemory) -> None:
        """KVM_SET_USER_MEMORY_REGION (4.35) with size 0: remove a slot and close its memory."""
        self._set_memory(memory, 0)
        self.memory.remove(memory)
        memory.close()

    def _set_memory(self, memory: GuestMemory, size: int) -> None:
        region = kvm_userspace_memory_region(memory.slot, memory.flags, memory.gpa, size, memory.address)
        what = f"vm, slot {memory.slot}, gpa {memory.gpa:#x}, size {size:#x}"
        ioctl(self.fd, KVM_SET_USER_MEMORY_REGION, byref(region), what)

    # Clocks

    def get_clock(self) -> kvm_clock_data:
        """KVM_GET_CLOCK (4.29): kvmclock in ns."""
        clock = kvm_clock_data()
        ioctl(self.fd, KVM_GET_CLOCK, byref(clock), "vm")
        return clock

    def set_clock(self, clock: kvm_clock_data) -> None:
        """KVM_SET_CLOCK (4.30)."""
        structure(kvm_clock_data, clock=clock)
        ioctl(self.fd, KVM_SET_CLOCK, byref(clock), "vm")

    def get_tsc_khz(self) -> int:
        """KVM_GET_TSC_KHZ (4.56) on the VM: the TSC frequency of new vCPUs, in kHz."""
        return ioctl(self.fd, KVM_GET_TSC_KHZ, 0, "vm")

    def set_tsc_khz(self, khz: int) -> None:
        """KVM_SET_TSC_KHZ (4.55) on the VM. Before the first vCPU."""
        ioctl(self.fd, KVM_SET_TSC_KHZ, khz, f"vm, {khz} kHz")

    # Statistics

    def stats_fd(self) -> int:
        """KVM_GET_STATS_FD (4.133): a descriptor to read binary statistics from; the caller closes it."""
        return ioctl(self.fd, KVM_GET_STATS_FD, 0, "vm")

    def stats(self) -> dict[str, list[int]]:
        """KVM_GET_STATS_FD (4.133): every statistic of the VM, by name."""
        return read_stats(self.stats_fd())

    @property
    def closed(self) -> bool:
        """True once close() was called."""
        return self.fd < 0

    def close(self) -> None:
        """Close the vCPUs, the VM, its eventfds and its memory. Can be called again."""
        for vcpu in self.vcpus:
            vcpu.close()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        while self._eventfds:
            os.close(self._eventfds.pop())
        for memory in self.memory:
            memory.close()

    def __enter__(self) -> Vm:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_eventfds"):
            self.close()
