# SPDX-License-Identifier: GPL-2.0-only
"""Registers of a new vCPU that depend on the VM's quirks and on its CPUID, or on its having none."""

from __future__ import annotations

from kvmtest.checks.check import Check, Observation, Stopped, Subject, Untestable
from kvmtest.checks.own import as_guest, heard, own_vm
from kvmtest.checks.stage import Stage
from kvmtest.guests import behaviour
from kvmtest.kvm import Vcpu
from kvmtest.spec.cite import A_SYSTEM, A_T1, KVM_API, S_MISC_ENABLE, S_T1
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import (
    KVM_CAP_DISABLE_QUIRKS2,
    KVM_EXIT_INTERNAL_ERROR,
    KVM_EXIT_IO,
    KVM_X86_QUIRK_STUFF_FEATURE_MSRS,
)
from kvmtest.x86.msr import name_of

__all__ = ("CHECKS",)

_PLANT = 0x55
_DS, _RDTSCP, _RDPID = 1 << 21, 1 << 27, 1 << 22
_MISC_ENABLE, _TSC_AUX, _AUX = 0x1A0, 0xC0000103, 0x1234
#: What the quirk fills in (KVM API), without IA32_VMX_CR0_FIXED1 and CR4_FIXED1, which it does not rule.
_FEATURE_MSRS = [i for i in (0x8B, 0xCE, 0x10A, 0x345, *range(0x480, 0x493)) if i not in (0x487, 0x489)]


def _offers(subject: Subject, function: int, register: str, bit: int) -> bool:
    leaf = next((leaf for leaf in subject.vcpu.get_cpuid2() if leaf.function == function and not leaf.index), None)
    return leaf is not None and bool(getattr(leaf, register) & bit)


def _rdx(vcpu: Vcpu) -> str:
    regs = vcpu.get_regs()
    regs.rdx = _PLANT
    vcpu.set_regs(regs)
    msi.init(heard(vcpu))
    vcpu.get_mp_state()
    return f"{vcpu.get_regs().rdx:#x}"


def _no_cpuid(subject: Subject) -> str:
    with own_vm(subject) as vm:
        return _rdx(vm.create_vcpu(0))


def _no_leaf_1(subject: Subject) -> str:
    with own_vm(subject) as vm:
        vcpu = vm.create_vcpu(0)
        vcpu.set_cpuid2(leaf._replace(eax=0) for leaf in subject.vcpu.get_cpuid2() if leaf.function == 0)
        return _rdx(vcpu)


def _misc_enable(subject: Subject) -> str:
    if subject.vendor != "intel":
        raise Untestable("IA32_MISC_ENABLE is a register of Intel's CPUs")
    if _offers(subject, 1, "edx", _DS):
        raise Untestable("the guest's CPUID offers the debug store, so that BTS or PEBS may be there")
    value = subject.vcpu.get_msrs([_MISC_ENABLE]).get(_MISC_ENABLE)
    if value is None:
        raise Untestable("KVM_GET_MSRS refuses IA32_MISC_ENABLE")
    bts, pebs = ("unavailable" if value & bit else "available" for bit in (1 << 11, 1 << 12))
    return f"BTS {bts}, PEBS {pebs}"


def _features(subject: Subject, *caps: tuple[int, int]) -> dict[int, int]:
    """The feature MSRs of a new vCPU that are not 0."""
    with own_vm(subject, caps=caps) as vm:
        return {index: value for index, value in as_guest(subject, vm.create_vcpu(0)).get_msrs(_FEATURE_MSRS).items() if value}


def _unquirked_features(subject: Subject) -> str:
    if not subject.vcpu.vm.check_extension(KVM_CAP_DISABLE_QUIRKS2) & KVM_X86_QUIRK_STUFF_FEATURE_MSRS:
        raise Untestable("this KVM has no KVM_X86_QUIRK_STUFF_FEATURE_MSRS")
    if not _features(subject):
        raise Untestable("nothing to tell: with the quirk the feature MSRs are 0, too")
    left = _features(subject, (KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_STUFF_FEATURE_MSRS))
    return ", ".join(f"{name_of(index)} {value:#x}" for index, value in left.items()) or "all 0"


def _aux(subject: Subject, topic: int, name: str) -> Observation:
    """Nothing but KVM_SET_CPUID2 and KVM_SET_MSRS comes before the guest's first instruction: no EFER is written."""
    stage = Stage(subject, topic)
    if subject.vcpu.set_msrs({_TSC_AUX: _AUX}) != 1:
        raise Untestable("KVM_SET_MSRS refuses IA32_TSC_AUX")
    stage.expect(behaviour.PORT_RESET)
    stage.expect(behaviour.PORT_READY)
    exit_ = stage.run()
    if exit_.reason == KVM_EXIT_INTERNAL_ERROR:
        raise Untestable(f"this KVM emulates the guest's code and does not know {name}")
    if exit_.reason != KVM_EXIT_IO or exit_.port not in (behaviour.PORT_VALUE, behaviour.PORT_FAULT):
        raise Stopped(f"the guest stopped: {exit_}")
    if exit_.port == behaviour.PORT_FAULT:
        return Observation("an exception")
    return Observation(f"{int.from_bytes(exit_.data[:4], 'little'):#x}")


def _rdtscp(subject: Subject) -> Observation:
    if not _offers(subject, 0x80000001, "edx", _RDTSCP):
        raise Untestable("the guest's CPUID has no RDTSCP")
    return _aux(subject, behaviour.TOPIC_RDTSCP, "RDTSCP")


def _rdpid(subject: Subject) -> Observation:
    if not _offers(subject, 7, "ecx", _RDPID):
        raise Untestable("the guest's CPUID has no RDPID")
    return _aux(subject, behaviour.TOPIC_RDPID, "RDPID")


_SIGNATURE, _TSC_AUX_CITE = (S_T1, A_T1), (S_T1, A_SYSTEM)
_NO_SIGNATURE = "EDX holds the signature of CPUID.1, and the vCPU has no CPUID.1; KVM promises 600H since v5.15"

CHECKS = (
    Check("init", "msi", "rdx-without-cpuid", (), "0x600", _no_cpuid, _SIGNATURE, _NO_SIGNATURE, alone=True),
    Check("init", "msi", "rdx-without-leaf-1", (), "0x600", _no_leaf_1, _SIGNATURE, _NO_SIGNATURE, alone=True),
    Check(
        "reset", "create", "misc-enable-unavailable", (), "BTS unavailable, PEBS unavailable", _misc_enable, (S_MISC_ENABLE,),
        alone=True,
    ),
    Check("reset", "create", "feature-msrs-unquirked", (), "all 0", _unquirked_features, (KVM_API,), alone=True),
    Check(
        "reset", "create", "tsc-aux-by-rdtscp", (), f"{_AUX:#x}", _rdtscp, _TSC_AUX_CITE,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "reset", "create", "tsc-aux-by-rdpid", (), f"{_AUX:#x}", _rdpid, _TSC_AUX_CITE,
        target="bsp", view="guest", alone=True,
    ),
)  # fmt: skip
