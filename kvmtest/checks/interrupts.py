# SPDX-License-Identifier: GPL-2.0-only
"""INIT against what is pending beside it, and what may come while a vCPU waits for a SIPI."""

from __future__ import annotations

from kvmtest.checks.check import Check, Observation, Stopped, Subject, Untestable
from kvmtest.checks.delivery import seen, set_svr
from kvmtest.checks.stage import Stage
from kvmtest.guests import behaviour
from kvmtest.kvm import Vcpu
from kvmtest.kvm.where import where
from kvmtest.spec.cite import A_APIC, A_INIT_IPI, A_PRIORITY, S_APIC_INIT, S_PRIORITY, S_VMX_ACTIVITY
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import KVM_CAP_X86_SMM

__all__ = ("CHECKS",)

_VECTOR = 0x61
#: Message data: delivery mode NMI.
_NMI = 0x400
_IRR, _TPR, _SVR_ENABLED = 0x200, 0x80, 0x1FF
#: A priority class above the vector's.
_ABOVE = 0x90
_LVT_MASKED = 1 << 16
_RFLAGS_IF, _X2APIC = 1 << 9, 0xC00
#: Turns of the guest's loop in which an interrupt would come, and seconds for a vCPU that must stay where it is.
_TURNS, _WHILE_S = 1000, 0.005
#: SP of a handler that an NMI calls before the restarted guest has set its own: three words below 0.
_SP_OF_RESET = 0xFFFA
#: In SMM a vCPU of KVM sees another address space, number 1 (KVM API, KVM_SET_USER_MEMORY_REGION).
_SMRAM_SLOT, _SMBASE, _SMRAM_SIZE = 1 << 16 | 8, 0x30000, 0x10000


def _stage(subject: Subject) -> Stage:
    """The guest at READY, its interrupts masked and nothing armed."""
    stage = Stage(subject, behaviour.TOPIC_INTERRUPT)
    stage.set(ARG_LVT=_LVT_MASKED, ARG_LIMIT=_TURNS)
    stage.boot()
    return stage


def _round(stage: Stage) -> int:
    """From READY to the next one; how many interrupts came."""
    came = stage.expect(behaviour.PORT_VALUE)
    stage.expect(behaviour.PORT_LEFT)
    stage.expect(behaviour.PORT_READY)
    return came


def _pend(vcpu: Vcpu) -> None:
    """An interrupt, requested and seen to be."""
    msi.send(vcpu, _VECTOR)
    if not vcpu.get_lapic().regs[_IRR + (_VECTOR >> 5 << 4) + (_VECTOR >> 3 & 3)] & 1 << (_VECTOR & 7):
        raise Stopped("the interrupt is not requested in the local APIC's IRR")


def _forgotten(subject: Subject) -> str:
    stage = _stage(subject)
    _pend(subject.vcpu)
    if _round(stage) != 1:
        raise Stopped("the interrupt does not come even without INIT")
    _pend(subject.vcpu)
    stage.restart()
    stage.expect(behaviour.PORT_READY)
    return f"{_round(stage)} interrupts"


def _below_tpr(subject: Subject) -> Observation:
    """On VT-x the interrupt sets the TPR threshold, which an INIT that clears TPR has to take back."""
    vcpu, stage = subject.vcpu, _stage(subject)
    _pend(vcpu)
    state = vcpu.get_lapic()
    state.regs[_TPR] = _ABOVE
    vcpu.set_lapic(state)
    msi.init(vcpu)
    seen = stage.listen()
    if seen is None:
        return Observation("executes nothing", where(vcpu))
    return Observation("restarts" if seen.port == behaviour.PORT_RESET else f"goes on with {seen}")


def _before_interrupt(subject: Subject) -> str:
    vcpu, stage = subject.vcpu, _stage(subject)
    _pend(vcpu)
    if _round(stage) != 1:
        raise Stopped("the interrupt does not come even without INIT")
    _pend(vcpu)
    regs = vcpu.get_regs()
    regs.rflags |= _RFLAGS_IF
    vcpu.set_regs(regs)
    msi.init(vcpu)
    port, _ = stage.next()
    return "INIT first" if port == behaviour.PORT_RESET and not stage.count() else "the interrupt first"


def _with_nmi(subject: Subject) -> tuple[str, str]:
    """Which came first, and what became of the NMI."""
    vcpu, stage = subject.vcpu, _stage(subject)
    vcpu.nmi()
    stage.expect(behaviour.PORT_NMI)
    _round(stage)
    vcpu.nmi()
    if not vcpu.get_vcpu_events().nmi.pending:
        raise Stopped("KVM_NMI left no NMI pending")
    msi.init(vcpu)
    port, _ = stage.next()
    if port == behaviour.PORT_NMI:
        kept = vcpu.get_regs().rsp & 0xFFFF == _SP_OF_RESET
        return ("INIT first", "kept") if kept else ("the NMI first", "came before")
    return "INIT first", "kept" if _nmi_comes(stage) else "dropped"


def _nmi_comes(stage: Stage) -> bool:
    """Whether an NMI comes on the way to READY and through the wait behind it."""
    for _ in range(4):
        port, _ = stage.next()
        if port == behaviour.PORT_NMI:
            return True
        if port == behaviour.PORT_LEFT:
            break
    return False


def _before_nmi(subject: Subject) -> str:
    return _with_nmi(subject)[0]


def _nmi_behind_init(subject: Subject) -> str:
    return _with_nmi(subject)[1]


def _with_smi(subject: Subject) -> str:
    vcpu = subject.vcpu
    if not vcpu.vm.check_extension(KVM_CAP_X86_SMM):
        raise Untestable("KVM_CAP_X86_SMM is not there: this KVM has no SMM")
    stage = _stage(subject)
    at = behaviour.AT_SMI
    smram = vcpu.vm.add_memory(_SMRAM_SLOT, _SMBASE, _SMRAM_SIZE)
    smram.write(_SMBASE + 0x8000, behaviour.page()[at : at + behaviour.AT_SMI_SIZE])
    vcpu.smi()
    stage.expect(behaviour.PORT_SMI)
    _round(stage)
    vcpu.smi()
    msi.init(vcpu)
    first, _ = stage.next()
    second, _ = stage.next()
    if first == behaviour.PORT_SMI:
        return "SMI, then INIT" if second == behaviour.PORT_RESET else "SMI, INIT lost"
    return "INIT, then SMI" if second == behaviour.PORT_SMI else "INIT, SMI dropped"


def _waiting(subject: Subject) -> Stage:
    """An AP in wait-for-SIPI whose local APIC (in x2APIC mode) and flags would let an interrupt in."""
    vcpu = subject.vcpu
    sregs = vcpu.get_sregs()
    sregs.apic_base |= _X2APIC
    vcpu.set_sregs(sregs)
    stage = Stage(subject, behaviour.TOPIC_INTERRUPT)
    stage.set(ARG_LVT=_LVT_MASKED, ARG_LIMIT=_TURNS)
    msi.init(vcpu)
    vcpu.get_mp_state()
    set_svr(vcpu, _SVR_ENABLED)
    regs = vcpu.get_regs()
    regs.rflags |= _RFLAGS_IF
    vcpu.set_regs(regs)
    return stage


def _interrupt_while_waiting(subject: Subject) -> str:
    stage = _waiting(subject)
    _pend(subject.vcpu)
    return _stays(stage)


def _nmi_while_waiting(subject: Subject) -> str:
    stage = _waiting(subject)
    msi.send(subject.vcpu, _NMI)
    return _stays(stage)


def _stays(stage: Stage) -> str:
    """Whether the vCPU makes no exit, and that a SIPI does start it then."""
    if (came := stage.run_for(_WHILE_S)) is not None:
        return f"ran: {came}"
    after = seen(stage.vcpu)
    msi.sipi(stage.vcpu, behaviour.CODE >> 12)
    ports = [stage.next()[0], stage.next()[0]]
    if behaviour.PORT_SIPI not in ports:
        raise Stopped("a SIPI did not start the vCPU behind this, so that nothing shows that it waited for one")
    return after


def _nmi_behind_sipi(subject: Subject) -> Observation:
    stage = _waiting(subject)
    msi.send(subject.vcpu, _NMI)
    stage.run_for(_WHILE_S)
    msi.sipi(subject.vcpu, behaviour.CODE >> 12)
    port, _ = stage.next()
    kept = port == behaviour.PORT_NMI or _nmi_comes(stage)
    return Observation("kept, and taken after the SIPI" if kept else "dropped")


_PRIORITY = (S_PRIORITY, A_PRIORITY)
_WAITING = "INIT_RECEIVED f000:fff0"
_NOT_SAID = "neither manual says whether INIT leaves an NMI that was pending before it"
_HELD = "the APM holds an NMI pending until the SIPI; the SDM blocks it and does not say whether it is kept"
_ONE_CLASS = "the SDM's table puts SMI and INIT into one class, and does not say that one outlives the other"

CHECKS = (
    Check(
        "init", "msi", "interrupt-forgotten", ("E-25",), "0 interrupts", _forgotten, (S_APIC_INIT, A_APIC),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "interrupt-below-tpr", ("E-2", "E-25"), "restarts", _below_tpr, (S_APIC_INIT, A_APIC),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "before-interrupt", ("E-14",), "INIT first", _before_interrupt, _PRIORITY,
        target="bsp", view="guest", alone=True,
    ),
    Check("init", "msi", "before-nmi", ("E-14",), "INIT first", _before_nmi, _PRIORITY, target="bsp", view="guest", alone=True),
    Check(
        "init", "msi", "earlier-nmi", ("E-14",), "", _nmi_behind_init, _PRIORITY, _NOT_SAID,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "beside-smi", ("E-14",), "SMI, then INIT", _with_smi, _PRIORITY, _ONE_CLASS,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "interrupt-while-waiting", ("E-26",), _WAITING, _interrupt_while_waiting, (S_VMX_ACTIVITY, A_INIT_IPI),
        view="guest", alone=True,
    ),
    Check(
        "init", "msi", "nmi-while-waiting", ("E-26",), _WAITING, _nmi_while_waiting, (S_VMX_ACTIVITY, A_INIT_IPI),
        view="guest", alone=True,
    ),
    Check(
        "sipi", "msi", "earlier-nmi", ("E-26",), "", _nmi_behind_sipi, (S_VMX_ACTIVITY, A_INIT_IPI), _HELD,
        view="guest", alone=True,
    ),
)  # fmt: skip
