# SPDX-License-Identifier: GPL-2.0-only
"""INIT and SHUTDOWN while a nested guest of an SVM hypervisor runs, and INIT that VM_CR.R_INIT turns into #SX."""

from __future__ import annotations

from kvmtest.checks.check import Check, Observation, Stopped, Subject, Untestable
from kvmtest.checks.pending import TAKEN, is_pending, set_smi
from kvmtest.checks.smm import GOES_ON, add_smram, goes_on, need_smm
from kvmtest.checks.svm import LEFT, SvmStage, after_init, nested_flags
from kvmtest.guests import smm, svm
from kvmtest.kvm import KvmError, Vcpu
from kvmtest.spec.cite import (
    A_GIF,
    A_MACHINE_CHECK,
    A_R_INIT,
    A_SHUTDOWN_INTERCEPT,
    A_SMM_INHIBIT,
    A_SVM_INIT,
    A_SVME,
    KVM_API,
    LINUX_NESTED_SMM,
    LINUX_SHUTDOWN,
)
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import KVM_EXIT_SHUTDOWN, KVM_STATE_NESTED_GUEST_MODE, kvm_x86_mce

__all__ = ("CHECKS",)

_VM_CR, _R_INIT = 0xC0010114, 1 << 1
#: Bits of the VMCB's intercepts.
_INIT, _SHUTDOWN = 3, 31
#: Seconds for a nested guest to halt.
_WHILE_S = 0.02
#: MSRs that count on by themselves: TSC, MPERF, APERF, Hyper-V's VP run time and reference time.
_COUNTING = (0x10, 0xE7, 0xE8, 0x40000010, 0x40000020)
#: An uncorrected machine check (VAL UC EN PCC, and MCIP), which without CR4.MCE shuts the CPU down.
_MC_STATUS, _MCG_STATUS, _MC_BANKS, _MC_COUNT = 0xB2 << 56, 1 << 2, 0xFF, 4


def _intercepted(subject: Subject) -> str:
    stage = SvmStage(subject, svm.TOPIC_RUN, _INIT)
    stage.enter_l2()
    msi.init(subject.vcpu)
    return stage.then()


def _intercepted_in_hlt(subject: Subject) -> str:
    stage = SvmStage(subject, svm.TOPIC_RUN, _INIT, nested=svm.NESTED_HALT)
    stage.enter_l2()
    if (came := stage.run_for(_WHILE_S)) is not None:
        raise Stopped(f"the nested guest was to halt: {came}")
    msi.init(subject.vcpu)
    return stage.then()


def _over_get_mp_state(subject: Subject) -> str:
    """KVM_GET_MP_STATE lets KVM look at what is pending, too."""
    stage = SvmStage(subject, svm.TOPIC_RUN, _INIT)
    stage.enter_l2()
    msi.init(subject.vcpu)
    subject.vcpu.get_mp_state()
    pending = "pending" if is_pending(subject.vcpu) else "not pending"
    return f"{pending}, then {stage.then()}"


def _stays_pending(subject: Subject) -> str:
    stage = SvmStage(subject, svm.TOPIC_RUN, _INIT)
    stage.enter_l2()
    msi.init(subject.vcpu)
    stage.expect(svm.PORT_EXIT)
    pending = "pending" if is_pending(subject.vcpu) else "not pending"
    return f"{pending}, behind STGI: {stage.then()}"


def _restarts(subject: Subject) -> str:
    stage = SvmStage(subject, svm.TOPIC_RUN)
    stage.enter_l2()
    msi.init(subject.vcpu)
    said = stage.then()
    return f"{said}, {after_init(subject.vcpu).partition(', ')[2]}" if said == "INIT" else said


def _leaves_guest_mode(subject: Subject) -> str:
    stage = SvmStage(subject, svm.TOPIC_RUN)
    stage.enter_l2()
    msi.init(subject.vcpu)
    return after_init(subject.vcpu)


def _whole(vcpu: Vcpu) -> dict[str, object]:
    """All that ioctls show of a vCPU and that does not count on by itself."""
    vcpu.get_mp_state()
    msrs = vcpu.get_msrs([index for index in vcpu.vm.kvm.msr_index_list() if index not in _COUNTING])
    whole: dict[str, object] = {f"msr {index:#x}": value for index, value in msrs.items()}
    for structure in (vcpu.get_regs(), vcpu.get_sregs(), vcpu.get_debugregs(), vcpu.get_vcpu_events()):
        for name, *_ in structure._fields_:
            value = getattr(structure, name)
            whole[name] = value if isinstance(value, int) else bytes(value)
    whole["lapic"], whole["xsave"] = bytes(vcpu.get_lapic()), vcpu.get_xsave()
    whole["nested state"] = vcpu.get_nested_state()
    return whole


def _whole_state(subject: Subject) -> Observation:
    """The same hypervisor gets INIT once with its nested guest running and once without."""
    vcpu, stage = subject.vcpu, SvmStage(subject, svm.TOPIC_RUN)
    stage.enter_l2()
    msi.init(vcpu)
    nested = _whole(vcpu)
    stage.set(TOPIC=svm.TOPIC_SPIN)
    stage.start_l1()
    vcpu.complete_io()
    msi.init(vcpu)
    alone = _whole(vcpu)
    differ = [name for name in alone if nested.get(name) != alone[name]]
    return Observation(f"{len(differ)} differ", ", ".join(differ))


def _r_init(subject: Subject, stage: SvmStage) -> Observation:
    vcpu = subject.vcpu
    if not vcpu.set_msrs({_VM_CR: _R_INIT}) or not vcpu.get_msrs([_VM_CR]).get(_VM_CR, 0) & _R_INIT:
        raise Untestable("KVM keeps no VM_CR.R_INIT")
    msi.init(vcpu)
    said = stage.then()
    return Observation(said, "KVM keeps VM_CR.R_INIT and looks at it nowhere (svm_set_vm_cr())" if said == "INIT" else "")


def _r_init_in_host(subject: Subject) -> Observation:
    stage = SvmStage(subject, svm.TOPIC_SPIN)
    stage.start_l1()
    return _r_init(subject, stage)


def _r_init_in_guest(subject: Subject) -> Observation:
    stage = SvmStage(subject, svm.TOPIC_RUN)
    stage.enter_l2()
    return _r_init(subject, stage)


def _shutdown_intercepted(subject: Subject) -> str:
    stage = SvmStage(subject, svm.TOPIC_RUN, _SHUTDOWN, nested=svm.NESTED_SHUTDOWN)
    stage.enter_l2()
    return stage.then()


def _shutdown(subject: Subject) -> str:
    stage = SvmStage(subject, svm.TOPIC_RUN, nested=svm.NESTED_SHUTDOWN)
    stage.enter_l2()
    down = stage.run()
    if down.reason != KVM_EXIT_SHUTDOWN:
        return str(down)
    return f"{down.name}, {after_init(subject.vcpu)}"


def _machine_check(subject: Subject, *intercepts: int) -> str:
    """A shutdown that KVM itself finds due, where the CPU reports none."""
    vcpu = subject.vcpu
    stage = SvmStage(subject, svm.TOPIC_RUN, *intercepts)
    vcpu.x86_setup_mce(vcpu.vm.kvm.mce_cap_supported() & ~_MC_BANKS | _MC_COUNT)
    stage.enter_l2()
    vcpu.x86_set_mce(kvm_x86_mce(status=_MC_STATUS, mcg_status=_MCG_STATUS))
    return stage.then()


def _machine_check_intercepted(subject: Subject) -> str:
    return _machine_check(subject, _SHUTDOWN)


def _machine_check_not_intercepted(subject: Subject) -> str:
    said = _machine_check(subject)
    return f"{said}, {'in' if nested_flags(subject.vcpu) & KVM_STATE_NESTED_GUEST_MODE else 'not in'} guest mode"


def _svme_cleared(subject: Subject) -> str:
    stage = SvmStage(subject, svm.TOPIC_RUN, nested=svm.NESTED_SVME)
    stage.start_l1()
    said = stage.then()
    return f"{said}, {after_init(subject.vcpu).partition(', ')[2]}"


def _smi(subject: Subject, *intercepts: int) -> str:
    """An SMI interrupts the nested guest; RSM leads back to it, and INIT comes then."""
    stage = SvmStage(subject, svm.TOPIC_RUN, *intercepts)
    smram = add_smram(subject.vcpu)
    stage.enter_l2()
    subject.vcpu.smi()
    stage.expect(smm.PORT_SMI)
    msi.init(subject.vcpu)
    said = goes_on(stage, smram)
    return stage.then() if said == GOES_ON else said


def _taken_after_rsm(subject: Subject) -> str:
    said = _smi(subject)
    return f"{said}, {after_init(subject.vcpu).partition(', ')[2]}" if said == "INIT" else said


def _intercepted_after_rsm(subject: Subject) -> str:
    return _smi(subject, _INIT)


def _smm_leaves_guest_mode(subject: Subject) -> str:
    vcpu = subject.vcpu
    need_smm(vcpu)
    stage = SvmStage(subject, svm.TOPIC_RUN)
    stage.enter_l2()
    try:
        set_smi(vcpu, smm=1)
    except KvmError as error:
        return error.name
    guest = "in" if nested_flags(vcpu) & KVM_STATE_NESTED_GUEST_MODE else "not in"
    return f"in SMM, {guest} guest mode"


_SX = "exception 30, error code 1"
_UNDEFINED_SVME = "the APM leaves undefined what a guest's clearing of EFER.SVME does"
_WHERE_LEFT = "the CPU is shut down, and no manual says where userspace finds the state then"
_NO_MANUAL = "no manual speaks of it: userspace asks for what a CPU cannot be in"

CHECKS = (
    Check(
        "init", "l2", "intercepted", ("E-19",), "#VMEXIT(63h)", _intercepted, (A_SVM_INIT,),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "l2", "intercepted-in-hlt", ("E-19", "E-24"), "#VMEXIT(63h)", _intercepted_in_hlt, (A_SVM_INIT,),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "l2", "intercepted-by-get-mp-state", ("E-19",), "pending, then #VMEXIT(63h)", _over_get_mp_state,
        (A_SVM_INIT, KVM_API), target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "l2", "intercepted-stays-pending", ("E-19",), "pending, behind STGI: INIT", _stays_pending, (A_SVM_INIT, A_GIF),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "l2", "restarts", ("E-21",), f"INIT, {LEFT}", _restarts, (A_SVM_INIT,),
        target="bsp", view="guest", alone=True,
    ),
    Check("init", "l2", "leaves-guest-mode", ("E-21",), f"{TAKEN}, {LEFT}", _leaves_guest_mode, (A_SVM_INIT,), alone=True),
    Check("init", "l2", "whole-state", ("E-21",), "0 differ", _whole_state, (A_SVM_INIT,), alone=True),
    Check(
        "init", "r-init", "in-host", ("E-20",), _SX, _r_init_in_host, (A_SVM_INIT, A_R_INIT),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "r-init", "in-l2", ("E-20",), _SX, _r_init_in_guest, (A_SVM_INIT, A_R_INIT),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "shutdown", "l2", "intercepted", ("E-22",), "#VMEXIT(7Fh)", _shutdown_intercepted,
        (A_SHUTDOWN_INTERCEPT,), target="bsp", view="guest", alone=True,
    ),
    Check(
        "shutdown", "l2", "not-intercepted", ("E-22",), f"KVM_EXIT_SHUTDOWN, RUNNABLE f000:fff0, {LEFT}", _shutdown,
        (A_SHUTDOWN_INTERCEPT, LINUX_SHUTDOWN), target="bsp", view="guest", alone=True,
    ),
    Check(
        "shutdown", "l2", "intercepted-machine-check", ("E-22",), "#VMEXIT(7Fh)", _machine_check_intercepted,
        (A_SHUTDOWN_INTERCEPT, A_MACHINE_CHECK), target="bsp", view="guest", alone=True,
    ),
    Check(
        "shutdown", "l2", "not-intercepted-machine-check", ("E-22",), "", _machine_check_not_intercepted,
        (A_SHUTDOWN_INTERCEPT, A_MACHINE_CHECK), _WHERE_LEFT, target="bsp", view="guest", alone=True,
    ),
    Check(
        "shutdown", "l2", "svme-cleared", (), "", _svme_cleared, (A_SVME,), _UNDEFINED_SVME,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "smm", "taken-after-rsm-to-l2", ("E-15", "E-21"), f"INIT, {LEFT}", _taken_after_rsm, (A_SMM_INHIBIT, A_SVM_INIT),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "smm", "intercepted-after-rsm-to-l2", ("E-15", "E-19"), "#VMEXIT(63h)", _intercepted_after_rsm,
        (A_SMM_INHIBIT, A_SVM_INIT), target="bsp", view="guest", alone=True,
    ),
    Check(
        "none", "l2", "smm-leaves-guest-mode", ("E-15",), "in SMM, not in guest mode", _smm_leaves_guest_mode,
        (LINUX_NESTED_SMM,), _NO_MANUAL, alone=True,
    ),
)  # fmt: skip
