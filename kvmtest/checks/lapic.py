# SPDX-License-Identifier: GPL-2.0-only
"""The local APIC's registers where the VM's quirks, capabilities and machine-check banks rule what RESET and INIT leave."""

from __future__ import annotations

from functools import partial

from kvmtest.checks.check import Check, Stopped, Subject, Untestable
from kvmtest.checks.own import as_guest, heard, own_vm
from kvmtest.kvm import Vcpu
from kvmtest.spec.cite import KVM_API, S_APIC_INIT, S_APIC_RESET, S_APIC_VERSION, S_LVT
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import (
    KVM_CAP_DISABLE_QUIRKS,
    KVM_CAP_X2APIC_API,
    KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST,
    KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST,
    KVM_X86_QUIRK_LINT0_REENABLED,
)

__all__ = ("CHECKS", "read", "write")

_VERSION, _LVT_CMCI, _LVT_LINT0 = 0x30, 0x2F0, 0x350
_PLANT = 0x55
_MCG_CMCI_P, _BANKS = 1 << 10, 4


def read(vcpu: Vcpu, at: int) -> int:
    """The register at offset ``at`` of the local APIC."""
    return int.from_bytes(bytes(vcpu.get_lapic().regs[at : at + 4]), "little")


def write(vcpu: Vcpu, at: int, value: int) -> None:
    """Write the register at offset ``at`` of the local APIC. Raises Stopped where KVM keeps another value."""
    lapic = vcpu.get_lapic()
    lapic.regs[at : at + 4] = list(value.to_bytes(4, "little"))
    vcpu.set_lapic(lapic)
    if (kept := read(vcpu, at)) != value:
        raise Stopped(f"KVM kept {kept:#x} when {value:#x} was planted at offset {at:#x} of the local APIC")


def _init(vcpu: Vcpu) -> None:
    msi.init(heard(vcpu))
    vcpu.get_mp_state()


def _unquirked_lint0(subject: Subject, *, init: bool) -> str:
    if not subject.vcpu.vm.check_extension(KVM_CAP_DISABLE_QUIRKS):
        raise Untestable("KVM_CAP_DISABLE_QUIRKS is not there")
    with own_vm(subject, caps=((KVM_CAP_DISABLE_QUIRKS, KVM_X86_QUIRK_LINT0_REENABLED),)) as vm:
        vcpu = as_guest(subject, vm.create_vcpu(0))
        if init:
            write(vcpu, _LVT_LINT0, _PLANT)
            _init(vcpu)
        return f"{read(vcpu, _LVT_LINT0):#x}"


def _cmci(subject: Subject, *, init: bool) -> str:
    vcpu = subject.vcpu
    if subject.vendor != "intel":
        raise Untestable("AMD's local APIC has no LVT entry for CMCI")
    supported = vcpu.vm.kvm.mce_cap_supported()
    if not supported & _MCG_CMCI_P:
        raise Untestable("KVM_X86_GET_MCE_CAP_SUPPORTED has no MCG_CMCI_P")
    vcpu.x86_setup_mce(_MCG_CMCI_P | _BANKS)
    if init:
        write(vcpu, _LVT_CMCI, _PLANT)
        _init(vcpu)
    return f"{read(vcpu, _LVT_CMCI):#x}, {(read(vcpu, _VERSION) >> 16 & 0xFF) + 1} LVT entries"


def _eoi_broadcast(subject: Subject, *, init: bool) -> str:
    flags = {
        "enabled": KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST,
        "disabled": KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST,
    }
    # A VM with a full irqchip is told less.
    if not all(subject.vcpu.vm.kvm.check_extension(KVM_CAP_X2APIC_API) & flag for flag in flags.values()):
        raise Untestable("this KVM's KVM_CAP_X2APIC_API says nothing of suppressing EOI broadcasts")
    told = []
    for name, flag in flags.items():
        with own_vm(subject, "split", ((KVM_CAP_X2APIC_API, flag),)) as vm:
            vcpu = as_guest(subject, vm.create_vcpu(0))
            if init:
                _init(vcpu)
            told.append(f"{name}: {read(vcpu, _VERSION) >> 24 & 1}")
    return ", ".join(told)


_LINT0 = (S_APIC_RESET, S_APIC_INIT, S_LVT, KVM_API)
_CMCI_CITE, _EOI = (S_APIC_RESET, S_APIC_INIT, S_LVT, S_APIC_VERSION), (KVM_API, S_APIC_VERSION)
_MASKED, _SEVEN, _AS_TOLD = "0x10000", "0x10000, 7 LVT entries", "enabled: 1, disabled: 0"

CHECKS = tuple(
    Check(event, trigger, name, (), expected, partial(observe, init=event == "init"), cite, alone=True)
    for event, trigger in (("reset", "create"), ("init", "msi"))
    for name, expected, observe, cite in (
        ("lint0-unquirked", _MASKED, _unquirked_lint0, _LINT0),
        ("lvt-cmci", _SEVEN, _cmci, _CMCI_CITE),
        ("eoi-broadcast", _AS_TOLD, _eoi_broadcast, _EOI),
    )
)
