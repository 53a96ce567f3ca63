# SPDX-License-Identifier: GPL-2.0-only
"""A VM with an SVM hypervisor in it (guests/svm.S), and what KVM_GET_NESTED_STATE tells of SVM."""

from __future__ import annotations

import ctypes

from kvmtest.checks.check import Stopped, Subject, Untestable
from kvmtest.checks.delivery import seen
from kvmtest.checks.l1 import CR0, CR4, EFER, Hypervisor
from kvmtest.checks.pending import is_pending
from kvmtest.guests import svm
from kvmtest.kvm import Vcpu
from kvmtest.uapi.kvm import (
    KVM_CAP_NESTED_STATE,
    KVM_STATE_NESTED_FORMAT_SVM,
    KVM_STATE_NESTED_GIF_SET,
    KVM_STATE_NESTED_GUEST_MODE,
    kvm_nested_state,
)

__all__ = ("LEFT", "TURNS", "SvmStage", "after_init", "need_svm", "nested_flags", "set_gif", "set_svme")

#: What `after_init` says of SVM when it has been left.
LEFT = "not in guest mode, GIF set, EFER 0x0"
#: Turns of the guest's loops: enough for ticks of the host's timer to come in between.
TURNS = 2000000

_SVM_LEAF, _SVM_BIT = 0x80000001, 1 << 2


def nested_flags(vcpu: Vcpu) -> int:
    """The flags of KVM_GET_NESTED_STATE. Raises KvmError."""
    return int(kvm_nested_state.from_buffer_copy(vcpu.get_nested_state()).flags)


def set_gif(vcpu: Vcpu, value: bool) -> None:
    """KVM_SET_NESTED_STATE outside of guest mode, with GIF set or clear. Raises KvmError."""
    flags = KVM_STATE_NESTED_GIF_SET if value else 0
    vcpu.set_nested_state(
        bytes(kvm_nested_state(flags=flags, format=KVM_STATE_NESTED_FORMAT_SVM, size=ctypes.sizeof(kvm_nested_state)))
    )


def need_svm(vcpu: Vcpu) -> None:
    """Raises Untestable where this vCPU has no SVM, KvmError."""
    leaf = next((leaf for leaf in vcpu.get_cpuid2() if leaf.function == _SVM_LEAF), None)
    if not leaf or not leaf.ecx & _SVM_BIT:
        raise Untestable("KVM offers the guest no SVM (kvm_amd does with nested=1)")
    if not vcpu.vm.check_extension(KVM_CAP_NESTED_STATE):
        raise Untestable("KVM_CAP_NESTED_STATE is not there")


def set_svme(vcpu: Vcpu, value: bool) -> None:
    """Write EFER.SVME by KVM_SET_SREGS. Raises KvmError."""
    sregs = vcpu.get_sregs()
    sregs.efer = sregs.efer & ~svm.EFER_SVME | (svm.EFER_SVME if value else 0)
    vcpu.set_sregs(sregs)


def after_init(vcpu: Vcpu) -> str:
    """Where the vCPU is behind an INIT, and what is left of SVM. Raises KvmError."""
    where_ = seen(vcpu)
    flags, efer = nested_flags(vcpu), vcpu.get_sregs().efer
    gif = "set" if flags & KVM_STATE_NESTED_GIF_SET else "clear"
    guest = "in" if flags & KVM_STATE_NESTED_GUEST_MODE else "not in"
    return f"{where_}, {guest} guest mode, GIF {gif}, EFER {efer:#x}"


class SvmStage(Hypervisor):
    """The hypervisor, and the VMCB with these bits of the intercepts at 00CH."""

    def __init__(self, subject: Subject, topic: int, *intercepts: int, nested: int | None = None) -> None:
        need_svm(subject.vcpu)
        super().__init__(subject, svm, topic)
        self.ram.write(svm.VMCB, svm.vmcb(*intercepts, efer=EFER | svm.EFER_SVME, cr0=CR0, cr4=CR4))
        self.set(ARG_NESTED=svm.NESTED_SPIN if nested is None else nested, ARG_TURNS=TURNS)

    def start_l1(self) -> None:
        """To the hypervisor's READY. Raises Stopped."""
        self.enter(efer=svm.EFER_SVME)
        self.expect(svm.PORT_READY)

    def enter_l2(self) -> None:
        """To the nested guest's first word, and behind that OUT. Raises Stopped."""
        self.start_l1()
        self.expect(svm.PORT_NESTED)
        self.vcpu.complete_io()
        if not nested_flags(self.vcpu) & KVM_STATE_NESTED_GUEST_MODE:
            raise Stopped("the nested guest runs, and KVM_GET_NESTED_STATE shows no guest mode")

    def then(self) -> str:
        """What comes next, of whichever of the two guests."""
        exit_ = self.listen()
        if exit_ is None:
            return f"no exit, {'INIT pending' if is_pending(self.vcpu) else 'no INIT pending'}"
        value = int.from_bytes(exit_.data[:4], "little")
        says = {
            svm.PORT_RESET: "INIT",
            svm.PORT_EXIT: f"#VMEXIT({value:X}h)",
            svm.PORT_LEFT: f"{value} turns without INIT",
            svm.PORT_VALUE: f"{value} turns",
            svm.PORT_NESTED: "the nested guest goes on",
            svm.PORT_FAULT: f"exception {value >> 24}, error code {value & 0xFFFFFF}",
        }
        return says.get(exit_.port, str(exit_))
