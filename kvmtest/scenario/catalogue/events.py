# SPDX-License-Identifier: GPL-2.0-only
"""KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS, wake-up of a halted vCPU, and INIT while events are pending."""

from __future__ import annotations

from errno import EINVAL

from kvmtest.scenario import step as s
from kvmtest.scenario.access import SAY, WAIT, Access, apic, makes, says
from kvmtest.scenario.catalogue.common import RESTARTS, ran
from kvmtest.scenario.catalogue.smm import handler
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.step import Scenario
from kvmtest.scenario.triggers import raised
from kvmtest.spec.cite import A_APIC, A_HLT, KVM_API, S_APIC_INIT, S_HLT, S_INTERRUPT_ACCEPTANCE, S_IOAPIC, S_LVT, S_SINGLE_STEP
from kvmtest.uapi.kvm import (
    KVM_CAP_EXCEPTION_PAYLOAD,
    KVM_CAP_X86_TRIPLE_FAULT_EVENT,
    KVM_MP_STATE_HALTED,
    KVM_MP_STATE_RUNNABLE,
    KVM_SET_VCPU_EVENTS,
    KVM_VCPUEVENT_VALID_PAYLOAD,
    KVM_VCPUEVENT_VALID_TRIPLE_FAULT,
    kvm_vcpu_events,
)

__all__ = ("SCENARIOS",)

_DB, _BP, _TF, _BS = 1, 3, 0x102, 1 << 14
_INIT = (s.Observe(), s.Send("init"), RESTARTS, s.Observe())
_NO_LENGTH = "the API has no instruction length for a software exception, and KVM reports none; vmx_inject_exception() needs one"
#: Setups in which KVM reports pending exceptions apart from injected ones, and a pending triple fault; or does not.
_DEFAULT, _NO_PAYLOAD = Setup(), Setup(caps=((KVM_CAP_EXCEPTION_PAYLOAD, 0),))
_NEITHER = Setup(caps=((KVM_CAP_EXCEPTION_PAYLOAD, 0), (KVM_CAP_X86_TRIPLE_FAULT_EVENT, 0)))
_RUNNING = ("mp_state", KVM_MP_STATE_RUNNABLE)
_READY, _AWAKE = s.Word("READY"), s.Word("AWAKE")
_VECTOR = 0x55
#: Bit of the vector in the third 32 of a register, or the second 64.
_IN_32, _IN_64 = 1 << (_VECTOR & 31), 1 << (_VECTOR & 63)
#: Level-triggered, to APIC id 1.
_LEVEL = 1 << 56 | 1 << 15 | _VECTOR
_NMI_MODE = 0x400


def _single_step(name: str, setup: Setup, *shown: s.Step) -> Scenario:
    """A single step over the OUT that ends KVM_RUN: #DB is pending then, as guest code has it to come."""
    steps = (
        *makes(SAY), s.Until(_READY), s.Complete(), s.Set((("rip", "CODE+say"), ("rflags", _TF))), s.Until(_READY), s.Complete(),
        s.Event("none", "vcpu-events"), *shown, *_INIT,
    )  # fmt: skip
    return Scenario("init", "msi", name, steps, (KVM_API, S_SINGLE_STEP), "bsp", "host", setup=setup)


def _refused(name: str, flag: int, setup: Setup) -> Scenario:
    """A field of KVM_SET_VCPU_EVENTS that its capability has to be enabled for."""
    events = bytes(kvm_vcpu_events(flags=flag))
    steps = (
        *ran(_RUNNING), s.Call(KVM_SET_VCPU_EVENTS, events, keep=True, kind="kvm_vcpu_events"),
        s.Expect(s.Answer(-EINVAL)), s.Expect(s.Same()),
    )  # fmt: skip
    return Scenario("none", "vcpu-events", name, steps, (KVM_API,), setup=setup)


def _halted(*accesses: Access) -> tuple[s.Step, ...]:
    """To HLT with interrupts on."""
    return (*makes(*accesses, WAIT), s.Until(s.Is("mp_state", KVM_MP_STATE_HALTED)))


def _by_ioctl(name: str, value: int = 1) -> s.Step:
    return s.Set(((f"events.{name}", value),))


SCENARIOS = (
    _single_step(
        "exception-pending", _DEFAULT,
        s.Expect(s.Is("events.exception_pending", 1)), s.Expect(s.Is("events.exception_injected", 0)),
        s.Expect(s.Is("events.exception_nr", _DB), "events.exception_pending"), s.Expect(s.Is("events.exception_has_payload", 1)),
        s.Expect(s.Is("dr6", 0, _BS)),
    ),
    # Without the capability the payload is delivered, and what is pending reads as injected; the field `pending` is not valid.
    _single_step(
        "exception-pending-untold", _NO_PAYLOAD,
        s.Expect(s.Is("events.exception_injected", 1)), s.Expect(s.Is("dr6", _BS, _BS)),
    ),
    # INT3 that is being delivered while a VMM looks: it comes, by its event or by its instruction anew.
    Scenario(
        "none", "vcpu-events", "breakpoint-injected",
        (
            *makes(SAY), s.Until(_READY), s.Complete(), s.Set((("rip", "CODE+breakpoint"),)),
            s.Set((("events.exception_nr", _BP), ("events.exception_injected", 1)), check=False),
            s.Event("none", "vcpu-events"),
            s.Expect(s.Words((s.Word("FAULT", _BP << 24, "exception {:#x}", mask=0xFF000000),)), "delivered"),
        ),
        (KVM_API,), "bsp", "guest", undefined=_NO_LENGTH, vendors=("amd",),
    ),
    _refused("payload-without-capability", KVM_VCPUEVENT_VALID_PAYLOAD, _NO_PAYLOAD),
    _refused("triple-fault-without-capability", KVM_VCPUEVENT_VALID_TRIPLE_FAULT, _NEITHER),
    # KVM_GET_SREGS shows an interrupt that was acknowledged, and KVM_SET_SREGS accepts it.
    Scenario(
        "init", "msi", "interrupt-in-sregs",
        (
            *ran(_RUNNING), s.Event("none", "set-sregs"), s.Set((("events.interrupt_injected", 0),)),
            s.Set((("interrupt_bitmap1", _IN_64),), check=False), s.Expect(s.Is("events.interrupt_injected", 1)),
            s.Expect(s.Is("events.interrupt_nr", _VECTOR), "events.interrupt_injected"), s.Observe(), s.Send("init"), s.Observe(),
            s.Expect(s.Is("interrupt_bitmap1", 0), "pending"),
        ),
        (KVM_API,),
    ),
    # An event that a VMM makes pending wakes a halted vCPU.
    Scenario(
        "nmi", "vcpu-events", "wakes-from-hlt",
        (
            *_halted(), s.Event("nmi", "vcpu-events"), _by_ioctl("nmi_pending"), s.Expect(s.Word("NMI"), "delivered"),
            s.Expect(s.Word("NMI"), "runs"), s.Expect(_AWAKE, "runs"),
        ),
        (S_HLT, A_HLT, KVM_API), "bsp", "guest",
    ),
    Scenario(
        "none", "vcpu-events", "smi-wakes-from-hlt",
        (
            *_halted(), handler(), _by_ioctl("smi_pending"), s.Expect(s.Word("smram.SMI"), "delivered"),
            s.Expect(s.Is("events.smi_smm", 1)),
        ),
        (S_HLT, A_HLT, KVM_API), "bsp", "guest", ("smm",),
    ),
    # A level-triggered interrupt sets its bit of TMR, an edge clears it; INIT forgets both.
    Scenario(
        "init", "msi", "level-triggered",
        (
            *ran(_RUNNING, ("lapic.svr", 0x1FF), ("lapic.irr2", 0), ("lapic.tmr2", 0)),
            s.Event("none", "ioapic"), *raised(_LEVEL),
            s.Expect(s.Is("lapic.irr2", _IN_32, _IN_32)), s.Expect(s.Is("lapic.tmr2", _IN_32, _IN_32)),
            s.Observe(), s.Send("init"), s.Observe(),
        ),
        (S_INTERRUPT_ACCEPTANCE, S_IOAPIC, A_APIC),
    ),
    # LINT0 that delivers NMIs, as a watchdog has it: INIT masks it.
    Scenario(
        "init", "msi", "lint0-is-nmi",
        (*ran(_RUNNING, ("lapic.lvt_lint0", _NMI_MODE)), s.Send("init"), s.Observe()),
        (S_APIC_INIT, S_LVT, A_APIC),
    ),
    Scenario(
        "none", "apic-access", "lint0-is-nmi-and-masked",
        (
            *makes(*(apic("xapic", *one) for one in (("svr", 0x1FF), ("lvt_lint0", _NMI_MODE), ("lvt_lint0",)))),
            s.Event("none", "apic-access"), *says(("lapic.lvt_lint0", _NMI_MODE), _READY),
            s.Expect(s.Is("lapic.lvt_lint0", _NMI_MODE)),
        ),
        (S_LVT, A_APIC), "bsp", "guest",
    ),
)  # fmt: skip
