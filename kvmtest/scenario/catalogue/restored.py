# SPDX-License-Identifier: GPL-2.0-only
"""Restored state must be in effect, not only read back: paging, timers, interrupts, the FPU, and pending events."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.bounds import timer
from kvmtest.scenario.catalogue.common import FINDS, LISTENS, boot, pending, reported, turn
from kvmtest.scenario.catalogue.paging import LONG, NEW_TABLES, OLD, OLD_TABLES, REAL, SAYS, tables
from kvmtest.scenario.catalogue.paging import NEW as NEW_PAGE
from kvmtest.scenario.hypervisor import IN_L2
from kvmtest.scenario.hypervisor import svm as hypervisor
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.states import gif
from kvmtest.scenario.step import Scenario
from kvmtest.scenario.triggers import raised
from kvmtest.spec.cite import A_MODES, KVM_API, S_IA32E, S_INTERRUPT_ACCEPTANCE, S_PRIORITIES
from kvmtest.state.values import NEW
from kvmtest.uapi.kvm import KVM_NMI, KVM_SET_FPU, KVM_STATE_NESTED_GIF_SET, kvm_fpu

__all__ = ("SCENARIOS",)

#: CR0 with protection, and with paging besides; CR4.PAE; EFER.LME and LMA.
_PE, _PG, _PAE, _LMA = 0x11, 1 << 31, 1 << 5, 0x500


def _maps(page: int) -> s.Step:
    return s.Expect(s.Is("translation.physical", page), "memory", says=SAYS)


#: KVM_SET_SREGS into 64-bit mode, to other tables, and out of it: KVM_TRANSLATE goes by the mode that the vCPU has.
_PAGING = Scenario(
    "none", "set-sregs", "into-64-bit-mode-and-back",
    (
        s.Load("behaviour"), s.Poke(OLD_TABLES, tables(OLD_TABLES, LONG, OLD)),
        s.Poke(NEW_TABLES, tables(NEW_TABLES, LONG, NEW_PAGE)), s.Plant(NEW), _maps(REAL),
        s.Set((("cr0", _PG | _PE), ("cr3", OLD_TABLES), ("cr4", _PAE), ("efer", _LMA)), check=False), _maps(OLD),
        s.Set((("cr3", NEW_TABLES),), check=False), _maps(NEW_PAGE),
        s.Set((("cr0", _PE), ("cr4", 0), ("efer", 0)), check=False), _maps(REAL),
    ),
    (KVM_API, S_IA32E, A_MODES), vendors=("intel",),
)  # fmt: skip

#: Values for KVM_SET_FPU, which ignores MXCSR.
_FCW, _FSW, _FTW, _FOP, _FIP, _FDP = 0x27F, 0x3900, 0xFF, 0x5A5, 0x5A5A1234, 0xA5A54321
_ST = {f"st{i}": bytes([0x51 + i]) * 10 for i in range(8)}
_XMM = {f"xmm{i}": bytes([0x61 + i]) * 16 for i in range(16)}
_FPU: dict[str, int] = {
    "fcw": _FCW, "fsw": _FSW, "ftw": _FTW, "fop": _FOP, "fip": _FIP, "fdp": _FDP,
    **{name: int.from_bytes(data, "little") for name, data in (_ST | _XMM).items()},
}  # fmt: skip


def _fpu() -> bytes:
    made = kvm_fpu(fcw=_FCW, fsw=_FSW, ftwx=_FTW, last_opcode=_FOP, last_ip=_FIP, last_dp=_FDP)
    for place, data in zip((*made.fpr, *made.xmm), (*_ST.values(), *_XMM.values()), strict=True):
        place[: len(data)] = data
    return bytes(made)


def _written_fpu(sequence: str, *before: s.Step) -> Scenario:
    """KVM_SET_FPU alone, in the XSAVE state that is there ``before``."""
    steps: tuple[s.Step, ...] = (
        *before, FINDS, s.Call(KVM_SET_FPU, _fpu(), kind="kvm_fpu"),
        *(s.Expect(s.Is(item, value), ends=False) for item, value in _FPU.items()), s.Expect(s.Same((*_FPU, "mxcsr"))),
    )  # fmt: skip
    return Scenario("none", "set-fpu", sequence, steps, (KVM_API,), vendors=("intel",), fresh=not before)


def _interrupts(sequence: str, came: int, *items: tuple[str, int]) -> Scenario:
    """KVM_SET_LAPIC with interrupts that were requested or in service, in a guest that listens: an interrupt ``came``."""
    steps = (LISTENS, *boot("bsp"), *turn(0), s.Set(items, check=False), *reported(came))
    cite = (KVM_API, S_INTERRUPT_ACCEPTANCE, S_PRIORITIES)
    return Scenario("none", "set-lapic", sequence, steps, cite, "bsp", "guest", vendors=("intel",))


#: Vector 60H in IRR, and 70H in ISR.
_REQUESTED, _SERVED = ("lapic.irr3", 1), ("lapic.isr3", 1 << 16)
#: A redirection entry for vector 60H, masked and level-triggered.
_LEVEL = 1 << 16 | 1 << 15 | 0x60

SCENARIOS = (
    _PAGING,
    # Over x87 and SSE state, and over none: XSTATE_BV is 0.
    _written_fpu("alone-over-a", s.Plant("a"), FINDS, s.SetBits("xsave.xstate_bv", 3)),
    _written_fpu("alone-on-new-vcpu"),
    _interrupts("requested", 1, _REQUESTED),
    _interrupts("requested-below-one-in-service", 0, _REQUESTED, _SERVED),
    # 128 times as long as with the divider that the local APIC has had.
    timer("one-shot-divided-by-128", 0x60, 4_000_000, 4_000_000, 0, 0xA),
    # A level-triggered line at a pin that is masked: the IOAPIC keeps the request.
    Scenario("none", "irq-line", "at-masked-pin-migrated", (*raised(_LEVEL)[:-1], s.Migrate()), (KVM_API,), vendors=("amd",)),
    # A VMM writes that no NMI is pending, and one is there that has not been processed yet.
    Scenario(
        "none", "vcpu-events", "over-ioctl-nmi",
        (s.Plant(NEW), s.Call(KVM_NMI), s.Plant(NEW, only=("events",)), s.Expect(s.Is("events.nmi_pending", 0))),
        (KVM_API,), vendors=("amd",), fresh=False,
    ),
    # And that no INIT is.
    Scenario(
        "none", "vcpu-events", "latched-init-taken-back",
        (
            s.Plant("a"), s.Set((("events.smi_smm", 1),)), s.Send("init", judged=False), s.Settle(),
            s.Until(s.Is("events.smi_latched_init", 1), note="no INIT is pending", run=False),
            s.Set((("events.smi_latched_init", 0),), check=False), pending(0),
        ),
        (KVM_API,), needs=("smm",), vendors=("amd",),
    ),
    Scenario(
        "none", "nested-state", "out-of-svm-l2",
        (
            *hypervisor("TOPIC_RUN"), s.Until(s.Word("NESTED")), s.Complete(), IN_L2, gif(True),
            s.Expect(s.Is("nested.flags", KVM_STATE_NESTED_GIF_SET)),
        ),
        (KVM_API,), "bsp", needs=("svm",), setup=Setup(), vendors=("amd",),
    ),
)  # fmt: skip
