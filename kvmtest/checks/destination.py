# SPDX-License-Identifier: GPL-2.0-only
"""Whom a message reaches: the newest vCPU of a VM, and vCPUs of the same APIC id."""

from __future__ import annotations

import errno

from kvmtest.checks.check import Check, Subject, Untestable
from kvmtest.checks.delivery import seen
from kvmtest.checks.lapic import write
from kvmtest.checks.own import as_guest, heard, own_vm
from kvmtest.kvm import KvmError, Vcpu
from kvmtest.spec.cite import A_INIT_IPI, KVM_API, KVM_ERRATA, S_MP
from kvmtest.triggers import msi
from kvmtest.triggers.error import TriggerError
from kvmtest.uapi.kvm import (
    KVM_CAP_MAX_VCPU_ID,
    KVM_CAP_X2APIC_API,
    KVM_MP_STATE_UNINITIALIZED,
    KVM_X2APIC_API_USE_32BIT_IDS,
)

__all__ = ("CHECKS",)

_ID = 0x20
_FAR = 256


def _newest(subject: Subject) -> str:
    with own_vm(subject) as vm:
        vcpu = [vm.create_vcpu(id) for id in (0, 1)][-1]
        try:
            msi.init(vcpu)
        except TriggerError:
            return f"lost, {seen(vcpu)}"
        except KvmError as error:
            # KVM_SIGNAL_MSI returns -1 as it is where there is no destination: EPERM.
            if error.errno != errno.EPERM:
                raise
            return f"lost, {seen(vcpu)}"
        return f"received, {seen(vcpu)}"


def _above_255(subject: Subject) -> str:
    """INIT to the 32-bit id 256, all of whose xAPIC id's 8 bits are vCPU 0's."""
    caps = ((KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS),)
    if subject.vcpu.vm.check_extension(KVM_CAP_MAX_VCPU_ID) <= _FAR:
        raise Untestable(f"KVM_CAP_MAX_VCPU_ID does not reach {_FAR}")
    with own_vm(subject, caps=caps) as vm:
        near, far = (as_guest(subject, vm.create_vcpu(id)) for id in (0, _FAR))
        for vcpu in (near, far):
            vcpu.set_mp_state(KVM_MP_STATE_UNINITIALIZED)
        msi.init(heard(far))
        return _reached(near, far)


def _reached(*vcpus: Vcpu) -> str:
    """Which of these new APs, or of those made to look like one, an INIT has reached."""
    ids = [vcpu.id for vcpu in vcpus if vcpu.get_mp_state() != KVM_MP_STATE_UNINITIALIZED]
    return f"reaches {' and '.join(f'vCPU {id}' for id in ids) or 'none of them'}"


def _same_id(subject: Subject, flags: int) -> str:
    """INIT to APIC id 1, which vCPUs 1 and 2 have in xAPIC mode."""
    caps = ((KVM_CAP_X2APIC_API, flags),) if flags else ()
    with own_vm(subject, caps=caps) as vm:
        vcpus = [as_guest(subject, vm.create_vcpu(id)) for id in (0, 1, 2)]
        write(vcpus[2], _ID, 1 << 24)
        msi.init(vcpus[1])
        return _reached(*vcpus[1:])


def _one_byte(subject: Subject) -> str:
    return _same_id(subject, 0)


def _32_bit(subject: Subject) -> str:
    return _same_id(subject, KVM_X2APIC_API_USE_32BIT_IDS)


_CREATION = "no manual speaks of a vCPU's creation; KVM's map of APIC ids lacks the newest until something renews it"
_UNIQUE = "the manuals want APIC ids to be unique; KVM's errata tell what is expected here"

CHECKS = (
    Check(
        "init", "msi", "to-newest-vcpu", (), "received, INIT_RECEIVED f000:fff0", _newest, (S_MP, A_INIT_IPI), _CREATION,
        alone=True,
    ),
    Check("init", "msi", "id-above-255", (), "reaches vCPU 256", _above_255, (KVM_ERRATA, KVM_API), alone=True),
    Check("init", "msi", "same-apic-id", (), "reaches vCPU 1 and vCPU 2", _one_byte, (KVM_ERRATA,), _UNIQUE, alone=True),
    Check("init", "msi", "same-apic-id-32-bit-ids", (), "reaches vCPU 1", _32_bit, (KVM_ERRATA, KVM_API), _UNIQUE, alone=True),
)  # fmt: skip
