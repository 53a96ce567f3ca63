# SPDX-License-Identifier: GPL-2.0-only
"""INIT, SIPI and SHUTDOWN in system management mode, entered by ioctl (host view) or by an SMI with a handler (guest view)."""

from __future__ import annotations

from errno import EINVAL

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import (
    DROPPED,
    FINDS,
    PLANTED,
    RESTARTS,
    SILENT,
    SIPI_VECTOR,
    WAITS,
    boot,
    init_received,
    pending,
    restarted,
    start,
)
from kvmtest.scenario.states import STATES
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import (
    A_SHUTDOWN,
    A_SMM_INHIBIT,
    KVM_API,
    LINUX_SHUTDOWN_SMM,
    S_SMM_INHIBIT,
    S_SMM_SHUTDOWN,
    S_VMX_ACTIVITY,
)
from kvmtest.uapi.kvm import (
    KVM_EXIT_SHUTDOWN,
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_SET_VCPU_EVENTS,
    KVM_VCPUEVENT_VALID_SMM,
    kvm_vcpu_events,
)

__all__ = ("GOES_ON", "LEFT", "SCENARIOS", "handler")

_TURNS = 1000
_IN_SMM = (PLANTED, *STATES["in-smm"].prepare)
_LATCH = (S_SMM_INHIBIT, A_SMM_INHIBIT)
_SIPI = (*_LATCH, S_VMX_ACTIVITY)
_ONLY_RESET = "by both manuals only RESET ends a shutdown in SMM; KVM has no such state, and its vendor modules differ"


def handler(then: str = "SMM_RSM") -> s.Step:
    """The SMI handler in SMRAM, which does ``then`` at its end."""
    return s.Load("smram", (("SMM_TOPIC", f"smm.{then}"), ("SMM_TURNS", _TURNS)))


def _in_handler(target: str = "bsp", then: str = "SMM_RSM", own: bool = False) -> tuple[s.Step, ...]:
    """From RESET to the handler's first word, by an SMI of the host's or of the vCPU's ``own``."""
    return (
        s.Load("smm", (("TOPIC", "TOPIC_SEND" if own else "TOPIC_WAIT"),)),
        handler(then),
        *boot(target),
        FINDS,
        *(() if own else (s.Send("smi", "ioctl-smi", judged=False),)),
        s.Until(s.Word("SMI")),
        s.Require(s.Is("events.smi_smm", 1), "the SMI handler runs, and KVM_GET_VCPU_EVENTS shows no SMM"),
    )


_LOOP = s.Expect(s.Word("VALUE", says="the SMI handler goes on"))
GOES_ON = (s.Send("init"), _LOOP, pending())
#: RSM leaves SMM before the INIT is accepted.
LEFT = s.Expect(s.Is("events.smi_smm", 0))


def _waits(sequence: str, what: s.Step, **smi: int) -> Scenario:
    """KVM_SET_VCPU_EVENTS with ``smi`` for a vCPU that waits for a SIPI, and what the KVM_RUN after it shows."""
    events = kvm_vcpu_events(flags=KVM_VCPUEVENT_VALID_SMM)
    for name, value in smi.items():
        setattr(events.smi, name, value)
    return Scenario(
        "none", "vcpu-events", sequence,
        (
            PLANTED, s.Set((("mp_state", KVM_MP_STATE_INIT_RECEIVED),)),
            s.Call(KVM_SET_VCPU_EVENTS, bytes(events), keep=True, kind="kvm_vcpu_events"), s.Expect(s.Answer(0)), what,
        ),
        (KVM_API,), needs=("smm",), undefined=SILENT,
    )  # fmt: skip


SCENARIOS = (
    Scenario("sipi", "msi", "in-smm-after-init", (*_IN_SMM, *DROPPED, *STATES["in-smm"].leave, *WAITS), _SIPI, needs=("smm",)),
    init_received("in-smm", _IN_SMM, ("smm",)),
    _waits("smm-in-wait-for-sipi", s.Expect(s.Fails(EINVAL)), smm=1),
    _waits("smi-in-wait-for-sipi", s.Expect(s.Quiet()), pending=1),
    Scenario("init", "msi", "after-rsm", (*_in_handler(), *GOES_ON, *restarted(LEFT)), _LATCH, "bsp", "guest", ("smm",)),
    Scenario(
        "init", "msi", "after-rsm-of-own-smi", (*_in_handler(own=True), *GOES_ON, *restarted(LEFT, apic_mode="x2apic")),
        _LATCH, "bsp", "guest", ("smm",),
    ),
    Scenario(
        "sipi", "msi", "in-smi-handler",
        (
            *_in_handler("ap"), s.Send("init", judged=False), s.Send("sipi", vector=SIPI_VECTOR),
            _LOOP, s.Expect(s.Quiet()), *WAITS, *start(),
        ),
        _SIPI, view="guest", needs=("smm",),
    ),
    Scenario(
        "shutdown", "triple-fault", "in-smm",
        (
            *_in_handler(then="SMM_SHUTDOWN"), s.Until(s.Word("VALUE")), s.Complete(), FINDS, s.Event("shutdown", "triple-fault"),
            s.Expect(s.Exit(KVM_EXIT_SHUTDOWN)), s.Observe(),
        ),
        (LINUX_SHUTDOWN_SMM, A_SHUTDOWN), "bsp", "guest", ("smm",),
    ),
    Scenario(
        "init", "msi", "in-smm-shutdown",
        (
            *_in_handler(then="SMM_SHUTDOWN"), s.Until(s.Word("VALUE")), s.Until(s.Exit(KVM_EXIT_SHUTDOWN)), s.Send("init"),
            s.Expect(RESTARTS.condition, ends=False), pending(0),
        ),
        (S_SMM_SHUTDOWN, A_SHUTDOWN), "bsp", "guest", ("smm",), undefined=_ONLY_RESET,
    ),
)  # fmt: skip
