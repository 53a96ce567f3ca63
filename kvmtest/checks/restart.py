# SPDX-License-Identifier: GPL-2.0-only
"""Where a vCPU goes on after INIT, and out of what: guest code shows it."""

from __future__ import annotations

from kvmtest.checks.check import Check, Observation, Stopped, Subject, Untestable
from kvmtest.checks.stage import Stage
from kvmtest.guests import behaviour
from kvmtest.kvm.where import where
from kvmtest.model.value import MP_STATES
from kvmtest.spec.cite import (
    A_FIRST,
    A_INIT_IPI,
    A_SHUTDOWN,
    A_SKINIT,
    A_T1,
    KVM_API,
    S_DF,
    S_FIRST,
    S_IDTR,
    S_MP,
    S_T1,
    S_V8086,
    S_VMX_ABORT,
)
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import KVM_CAP_X86_TRIPLE_FAULT_EVENT, KVM_EXIT_SHUTDOWN, KVM_VCPUEVENT_VALID_TRIPLE_FAULT

__all__ = ("CHECKS",)

#: How long a vCPU that must execute nothing, or that must get somewhere, is run.
_WHILE_S = 0.005
_CR0_PE, _RFLAGS_VM, _RFLAGS_IOPL = 1, 1 << 17, 3 << 12
_RBX = 0x5555
#: Turns of the guest's loop in which an interrupt comes.
_LVT_MASKED, _TURNS = 1 << 16, 1000
#: A table other than the one at 0, which holds a whole table, and the limits of the former: with and without entry FFH.
_OTHER_TABLE, _WHOLE, _SHORT = 0x8000, 0x3FF, 0x1F


def _first_instruction(subject: Subject) -> str:
    stage = Stage(subject, behaviour.TOPIC_SPIN)
    stage.boot()
    msi.init(subject.vcpu)
    port, _ = stage.next()
    return "the one at FFFFFFF0" if port == behaviour.PORT_RESET else f"one that writes to port {port:#x}"


def _executes_nothing(subject: Subject) -> str:
    stage = Stage(subject, behaviour.TOPIC_SPIN)
    stage.boot()
    if seen := stage.until(stage.count):
        raise Stopped(f"the guest does not count, so that nothing shows when it stops: {seen} ({where(subject.vcpu)})")
    before = stage.count()
    msi.init(subject.vcpu)
    exit_ = stage.run_for(_WHILE_S)
    ran = exit_ or ("nothing" if stage.count() == before else "the old loop")
    return f"{MP_STATES.get(subject.vcpu.get_mp_state(), 'unknown')}, ran {ran}"


def _out_of_shutdown(subject: Subject) -> str | Observation:
    stage = Stage(subject, behaviour.TOPIC_SHUTDOWN)
    stage.boot()
    down = stage.run()
    if down.reason != KVM_EXIT_SHUTDOWN:
        raise Stopped(f"the guest's triple fault did not shut it down: {down} ({where(subject.vcpu)})")
    stage.set(TOPIC=behaviour.TOPIC_HALT)
    msi.init(subject.vcpu)
    exit_ = stage.listen()
    if exit_ is None:
        return Observation("executes nothing", where(subject.vcpu))
    return "restarted" if exit_.port == behaviour.PORT_RESET else f"went on with {exit_}"


def _triple_fault_event(subject: Subject) -> Observation:
    vcpu = subject.vcpu
    if not vcpu.vm.check_extension(KVM_CAP_X86_TRIPLE_FAULT_EVENT):
        raise Untestable("KVM_CAP_X86_TRIPLE_FAULT_EVENT is not there")
    stage = Stage(subject, behaviour.TOPIC_HALT)
    regs = vcpu.get_regs()
    regs.rbx = _RBX
    vcpu.set_regs(regs)
    events = vcpu.get_vcpu_events()
    events.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT
    events.triple_fault.pending = 1
    vcpu.set_vcpu_events(events)
    if not vcpu.get_vcpu_events().triple_fault.pending:
        raise Stopped("KVM_SET_VCPU_EVENTS left no triple fault pending")
    name = stage.run().name
    left = "one still pending" if vcpu.get_vcpu_events().triple_fault.pending else "none pending"
    # No manual rules the rest: it is KVM that sees no SHUTDOWN intercept here, and so makes no INIT of it with SVM.
    return Observation(f"{name}, {left}", f"RBX is {'kept' if vcpu.get_regs().rbx == _RBX else 'lost'}")


def _virtual_8086(subject: Subject) -> str:
    vcpu, stage = subject.vcpu, Stage(subject, behaviour.TOPIC_SPIN)
    stage.boot()
    regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    sregs.cr0 |= _CR0_PE
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        segment = getattr(sregs, name)
        segment.base, segment.limit, segment.type, segment.dpl = segment.selector << 4, 0xFFFF, 3, 3
    regs.rflags |= _RFLAGS_VM | _RFLAGS_IOPL
    vcpu.set_sregs(sregs)
    vcpu.set_regs(regs)
    if not vcpu.get_regs().rflags & _RFLAGS_VM:
        raise Untestable(f"KVM kept RFLAGS {vcpu.get_regs().rflags:#x} when {regs.rflags:#x}, virtual-8086 mode, was planted")
    exit_ = stage.until(stage.count)
    if exit_ or not vcpu.get_regs().rflags & _RFLAGS_VM:
        raise Stopped(f"the guest does not run in virtual-8086 mode: {exit_ or 'RFLAGS.VM is 0'} ({where(vcpu)})")
    msi.init(vcpu)
    vcpu.get_mp_state()
    if vcpu.get_regs().rflags & _RFLAGS_VM or vcpu.get_sregs().cr0 & _CR0_PE:
        return "VM or PE is still set"
    stage.start()
    return "real-address mode"


def _idt(subject: Subject) -> str:
    vcpu, stage = subject.vcpu, Stage(subject, behaviour.TOPIC_INTERRUPT)
    stage.set(ARG_LVT=_LVT_MASKED, ARG_LIMIT=_TURNS)
    stage.ram.write(_OTHER_TABLE, behaviour.vector_table(ff=behaviour.AT_FF_OTHER))
    stage.boot()
    _set_idt(subject, _WHOLE)
    msi.send(vcpu, 0xFF)
    if stage.next() != (behaviour.PORT_VALUE, behaviour.TABLE_OTHER):
        raise Stopped(f"an interrupt did not go through the planted table at {_OTHER_TABLE:#x}")
    _set_idt(subject, _SHORT)
    idt = vcpu.get_sregs().idt
    if (idt.base, idt.limit) != (_OTHER_TABLE, _SHORT):
        raise Untestable(f"KVM kept IDTR {idt.base:#x}, limit {idt.limit:#x} where another one was planted")
    stage.restart()
    stage.expect(behaviour.PORT_READY)
    msi.send(vcpu, 0xFF)
    port, value = stage.word()
    if port == behaviour.PORT_FAULT:
        return "an exception"
    if port != behaviour.PORT_VALUE or not value:
        raise Stopped("the restarted guest gets no interrupt")
    return "through 0:03FC" if value == behaviour.TABLE_0 else "through the old table"


def _set_idt(subject: Subject, limit: int) -> None:
    sregs = subject.vcpu.get_sregs()
    sregs.idt.base, sregs.idt.limit = _OTHER_TABLE, limit
    subject.vcpu.set_sregs(sregs)


def _vmx_abort(subject: Subject) -> str:
    raise Untestable(
        "only a nested guest can bring about a VMX abort, and KVM makes a triple fault of it"
        " (nested_vmx_abort() in arch/x86/kvm/vmx/nested.c)"
    )


def _skinit(subject: Subject) -> str:
    raise Untestable("KVM emulates no SKINIT: it raises #UD in the guest (skinit_interception() in arch/x86/kvm/svm/svm.c)")


_BSP = "bsp"
_INIT = (S_MP, S_FIRST, A_FIRST)

CHECKS = (
    Check(
        "init", "msi", "first-instruction", ("E-2",), "the one at FFFFFFF0", _first_instruction, _INIT,
        target=_BSP, view="guest", alone=True,
    ),
    Check(
        "init", "msi", "executes-nothing", ("E-1",), "INIT_RECEIVED, ran nothing", _executes_nothing, (S_MP, A_INIT_IPI),
        view="guest", alone=True,
    ),
    Check(
        "init", "msi", "out-of-shutdown", ("E-22",), "restarted", _out_of_shutdown, (S_DF, A_SHUTDOWN),
        target=_BSP, view="guest", alone=True,
    ),
    Check(
        "init", "msi", "leaves-virtual-8086", ("E-29",), "real-address mode", _virtual_8086, (S_V8086, S_T1, A_T1),
        view="guest", alone=True,
    ),
    Check(
        "init", "msi", "vector-ff", (), "through 0:03FC", _idt, (S_T1, S_IDTR, A_T1),
        target=_BSP, view="guest", alone=True,
    ),
    Check(
        "shutdown", "vcpu-events", "triple-fault", (), "KVM_EXIT_SHUTDOWN, none pending", _triple_fault_event, (KVM_API, S_DF),
        target=_BSP, alone=True,
    ),
    Check("init", "msi", "out-of-vmx-abort", ("E-23",), "no effect", _vmx_abort, (S_VMX_ABORT,)),
    Check("sipi", "msi", "after-skinit", ("E-30",), "GIF clear", _skinit, (A_SKINIT,)),
)  # fmt: skip
