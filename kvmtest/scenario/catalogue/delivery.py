# SPDX-License-Identifier: GPL-2.0-only
"""Acceptance of INIT and SIPI, and the targets that a message reaches."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import pending, ran, wait_for_sipi
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.step import Scenario
from kvmtest.scenario.triggers import signal
from kvmtest.spec.cite import (
    A_APIC_ENABLE,
    A_ICR,
    A_INIT_IPI,
    KVM_API,
    KVM_ERRATA,
    S_APIC_DISABLED,
    S_APIC_STATUS,
    S_ICR,
    S_INIT_DEASSERT,
    S_MP,
    S_MSI,
    S_VMX_ACTIVITY,
)
from kvmtest.uapi.kvm import (
    KVM_CAP_X2APIC_API,
    KVM_MP_STATE_HALTED,
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_MP_STATE_RUNNABLE,
    KVM_X2APIC_API_USE_32BIT_IDS,
)

__all__ = ("SCENARIOS",)

_FIRST, _SECOND = 0x10, 0x20
#: Software-disabled, as RESET leaves it.
_SVR_DISABLED = ("lapic.svr", 0xFF)
_RUNNING, _HALTED = ("mp_state", KVM_MP_STATE_RUNNABLE), ("mp_state", KVM_MP_STATE_HALTED)
_WAITING = ("mp_state", KVM_MP_STATE_INIT_RECEIVED)
_INIT = (s.Send("init"), s.Observe())
_32_BIT_IDS = ((KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS),)

_INIT_CITE = (S_MP, A_INIT_IPI)
_SIPI_CITE = (S_MP, S_VMX_ACTIVITY, A_INIT_IPI)
_BY_IPI = "the manuals say it of an INIT that an IPI de-asserts, and are silent on a message that does so"
_CREATION = "no manual speaks of a vCPU's creation; KVM's map of APIC ids lacks the newest until something renews it"


def _dropped(name: str, *state: tuple[str, int]) -> Scenario:
    """A SIPI that changes nothing, and is not kept for the INIT that follows."""
    steps = (*ran(*state), s.Send("sipi", vector=_FIRST), s.Expect(s.Same()), *_INIT)
    return Scenario("sipi", "msi", name, steps, _SIPI_CITE)


SCENARIOS = (
    Scenario("init", "msi", "in-wait-for-sipi", (*ran(_WAITING), *_INIT), (S_VMX_ACTIVITY, A_INIT_IPI)),
    Scenario("init", "msi", "halted", (*ran(_HALTED), *_INIT), _INIT_CITE),
    Scenario("init", "msi", "with-vector", (*ran(_RUNNING), s.Send("init", vector=0x55), s.Observe()), (S_ICR, A_INIT_IPI)),
    Scenario("init", "msi", "software-disabled-apic", (*ran(_RUNNING, _SVR_DISABLED), *_INIT), (S_APIC_DISABLED,)),
    Scenario(
        "init", "msi", "globally-disabled-apic",
        (*ran(_RUNNING, apic_mode="disabled"), s.Event("init", "msi"), signal(1, 0x500), s.Expect(s.Same())),
        (S_APIC_STATUS, A_APIC_ENABLE),
    ),
    Scenario(
        "init", "msi", "deasserted",
        (
            *ran(_RUNNING), s.Event("init", "msi"), s.Send("deassert", judged=False),
            s.Expect(s.Is(*_RUNNING)), s.Expect(s.Same()),
        ),
        (S_INIT_DEASSERT, S_MSI, A_ICR), undefined=_BY_IPI,
    ),
    Scenario(
        "init", "icr-xapic", "deasserted",
        (*ran(_RUNNING), s.Event("init", "icr-xapic"), s.Send("deassert", "icr-xapic", judged=False), s.Expect(s.Same())),
        (S_INIT_DEASSERT, S_ICR, A_ICR),
    ),
    Scenario("init", "msi", "over-sipi", (*ran(_WAITING), s.Send("sipi", vector=_FIRST, judged=False), *_INIT), _INIT_CITE),
    Scenario(
        "init", "msi", "by-first-run",
        (
            # No plant: KVM_RUN loads the FPU, and not every CPU loads what is planted in FOP, FIP and FDP. KVM_GET_VCPU_EVENTS
            # does not make KVM accept an INIT.
            s.Set((("rip", 0x1234), ("rdi", 0x55), ("cr2", 0x5000), ("cr3", 0x5000), ("dr3", 0x55))), s.Observe(), s.Send("init"),
            s.Require(s.Is("events.smi_latched_init", 1), "no INIT is pending on the vCPU that one was sent to"),
            s.Until(s.Is("events.smi_latched_init", 0), note="KVM_RUN leaves the INIT pending"), s.Observe(),
        ),
        (*_INIT_CITE, KVM_API),
    ),
    _dropped("running", _RUNNING),
    _dropped("halted", _HALTED),
    Scenario(
        "sipi", "msi", "second",
        (
            *wait_for_sipi(), s.Plant("sipi"), s.Observe(), s.Send("sipi", vector=_FIRST), s.Observe(),
            s.Send("sipi", vector=_SECOND), s.Expect(s.Same()),
        ),
        _SIPI_CITE,
    ),
    Scenario(
        "sipi", "msi", "after-pending-init",
        (
            # One after the other, and then both at once.
            *ran(_RUNNING), *_INIT, s.Send("sipi", vector=_FIRST), s.Observe(),
            s.Plant("a"), s.Set((_RUNNING,)), s.Send("init", judged=False), s.Send("sipi", vector=_FIRST), s.Expect(s.Same()),
        ),
        _SIPI_CITE,
    ),
    Scenario(
        "init", "msi", "to-newest-vcpu", (signal(1, 0x500), pending(), s.Expect(s.Is(*_WAITING))), _INIT_CITE,
        setup=Setup(heard=False, leaves="none"), undefined=_CREATION,
    ),
    Scenario(
        "init", "msi", "id-above-255",
        (
            *(s.Plant("a", who=who) for who in ("other", "target")), s.Observe("other"), s.Observe(), *_INIT,
            s.Expect(s.Same(), who="other"),
        ),
        (KVM_ERRATA, KVM_API), setup=Setup(ids=(0, 256), caps=_32_BIT_IDS),
    ),
)  # fmt: skip
