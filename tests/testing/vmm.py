# SPDX-License-Identifier: GPL-2.0-only
"""A VMM as small as one can be: it uses vCPUs again, and saves and restores them; bugs can be planted in both."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from kvmtest.kvm import Kvm, Vcpu, Vm

#: MSRs that a guest leaves something in.
MSRS = {
    "star": 0xC0000081,
    "lstar": 0xC0000082,
    "cstar": 0xC0000083,
    "sfmask": 0xC0000084,
    "kernel_gs_base": 0xC0000102,
    "sysenter_cs": 0x174,
    "sysenter_esp": 0x175,
    "sysenter_eip": 0x176,
    "pat": 0x277,
}
#: In the order of writing: KVM_SET_SREGS writes CR8, of which TPR has more bits.
_ORDER = ("sregs", "regs", "lapic", "debugregs", "xcrs", "xsave", "vcpu_events", "mp_state")
_WRONG = ("lapic", *(section for section in _ORDER if section != "lapic"))

Saved = dict[str, Any]


class Vmm:
    """A VM with one vCPU; ``bugs`` are "forgotten" (the debug registers), "order" (the local APIC first) and "msr" (one left)."""

    def __init__(self, kvm: Kvm, bugs: Collection[str] = ()) -> None:
        self._kvm, self._bugs = kvm, bugs
        self.vm, self.vcpu = self.new()
        self._first = self.save()

    def new(self) -> tuple[Vm, Vcpu]:
        """A new VM, and its vCPU."""
        vm = self._kvm.create_vm()
        vm.create_irqchip()
        vcpu = vm.create_vcpu(0)
        vcpu.set_cpuid2(self._kvm.supported_cpuid())
        return vm, vcpu

    def save(self) -> Saved:
        """All that this VMM writes back."""
        saved: Saved = {section: getattr(self.vcpu, f"get_{section}")() for section in reversed(_ORDER)}
        indexes = [index for name, index in MSRS.items() if "msr" not in self._bugs or name != "kernel_gs_base"]
        return saved | {"msrs": self.vcpu.get_msrs(indexes)}

    def _write(self, saved: Saved) -> None:
        for section in _WRONG if "order" in self._bugs else _ORDER:
            if section != "debugregs" or "forgotten" not in self._bugs:
                getattr(self.vcpu, f"set_{section}")(saved[section])
        self.vcpu.set_msrs(saved["msrs"])

    def use(self) -> None:
        """Leave in the vCPU what a guest may have left."""
        regs, sregs, debugregs, lapic = (getattr(self.vcpu, f"get_{name}")() for name in ("regs", "sregs", "debugregs", "lapic"))
        regs.rbx = 0x1234
        debugregs.db[0] = 0x5000
        sregs.cr2, sregs.cr8 = 0x6000, 2
        lapic.regs[0x80] = 0x2F
        # KVM_SET_LAPIC comes last, so that TPR has all its bits.
        self.vcpu.set_regs(regs)
        self.vcpu.set_sregs(sregs)
        self.vcpu.set_debugregs(debugregs)
        self.vcpu.set_msrs({MSRS["kernel_gs_base"]: 0x7000, MSRS["cstar"]: 0x8000, MSRS["sfmask"]: 0x200})
        self.vcpu.set_lapic(lapic)

    def reset(self) -> None:
        """Make the used vCPU a new one again."""
        self._write(self._first)

    def move(self) -> None:
        """Save the vCPU, and go on in a new one."""
        saved = self.save()
        self.vm.close()
        self.vm, self.vcpu = self.new()
        self._write(saved)

    def close(self) -> None:
        """Free the VM."""
        self.vm.close()
