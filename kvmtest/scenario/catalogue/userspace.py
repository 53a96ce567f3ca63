# SPDX-License-Identifier: GPL-2.0-only
"""INIT beside what a VMM has asked KVM for: an interrupt window, EOIs, a page for the TPR, a dirty ring."""

from __future__ import annotations

from errno import EINVAL

from kvmtest.scenario import step as s
from kvmtest.scenario.access import OPEN, READY, SAY, Access, apic, cr0, cr4, makes, says, store
from kvmtest.scenario.catalogue.common import RESTARTS, SIPI_VECTOR, ran, wait_for_sipi
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.states import debug
from kvmtest.scenario.step import Scenario
from kvmtest.scenario.triggers import raised, split
from kvmtest.spec.cite import A_APIC, A_PRIORITY, A_T1, KVM_API, S_APIC_INIT, S_INTERRUPT_ACCEPTANCE, S_PRIORITIES, S_T1, S_X2APIC
from kvmtest.uapi.irq import kvm_tpr_access_ctl, kvm_vapic_addr
from kvmtest.uapi.kvm import (
    KVM_CAP_DIRTY_LOG_RING,
    KVM_CAP_DISABLE_QUIRKS,
    KVM_CAP_X2APIC_API,
    KVM_EXIT_DIRTY_RING_FULL,
    KVM_EXIT_IOAPIC_EOI,
    KVM_EXIT_IRQ_WINDOW_OPEN,
    KVM_EXIT_SHUTDOWN,
    KVM_EXIT_TPR_ACCESS,
    KVM_GUESTDBG_ENABLE,
    KVM_GUESTDBG_SINGLESTEP,
    KVM_INTERRUPT,
    KVM_IRQ_LINE_STATUS,
    KVM_MP_STATE_RUNNABLE,
    KVM_SET_LAPIC,
    KVM_SET_MSRS,
    KVM_SET_VAPIC_ADDR,
    KVM_TPR_ACCESS_REPORTING,
    KVM_X2APIC_API_USE_32BIT_IDS,
    KVM_X86_QUIRK_CD_NW_CLEARED,
    kvm_interrupt,
    kvm_lapic_state,
)
from kvmtest.x86.msr import index_of

__all__ = ("SCENARIOS",)

_VECTOR, _LEVEL, _RTC = 0x60, 1 << 15, 8
_OPENS, _EOI = s.Exit(KVM_EXIT_IRQ_WINDOW_OPEN), s.Exit(KVM_EXIT_IOAPIC_EOI)
_INJECTS = s.Call(KVM_INTERRUPT, bytes(kvm_interrupt(_VECTOR)), kind="kvm_interrupt")
_TAKEN = s.Word("TAKEN", _VECTOR)
_NONE, _SPLIT, _FULL = Setup("none"), Setup("split"), Setup()
_INIT = (s.Observe(), s.Send("init"), RESTARTS, s.Observe())
_ON, _EOI_WRITTEN = apic("xapic", "svr", 0x1FF), apic("xapic", 0xB0, 0)
_ARRIVES = split(0, _LEVEL | _VECTOR)
_IN_IRR = 1 << (_VECTOR & 31)
#: Words of the page that KVM keeps the TPR in.
_PAGE, _TPR, _CR4_PGE = 0x3000, 0x50, 1 << 7
_VAPIC = s.Call(KVM_SET_VAPIC_ADDR, bytes(kvm_vapic_addr(_PAGE)), kind="kvm_vapic_addr")
_REPORTS = s.Call(KVM_TPR_ACCESS_REPORTING, bytes(kvm_tpr_access_ctl(enabled=1)), kind="kvm_tpr_access_ctl")
_TPR_ACCESS = s.Exit(KVM_EXIT_TPR_ACCESS)
#: CR0: CD NW ET PE, and without the first two.
_NO_CACHES, _PROTECTED = 0x60000011, 0x11
_RUNNING = ("mp_state", KVM_MP_STATE_RUNNABLE)
#: A ring of 4,096 entries, of which KVM keeps 64 back, and with a page-modification log 512 more.
_RING = Setup(caps=((KVM_CAP_DIRTY_LOG_RING, 1 << 16),))
_LOGGED, _SLOT = 1 << 20, 10
#: A VMM that writes this MSR has KVM write to the memory that it names: three times. Of so many, in as many calls, 4,032 come.
_WRITES, _CALLS = 224, 6
_WALL_CLOCK = index_of("kvm_wall_clock_new")
_WRITE = _WALL_CLOCK.to_bytes(8, "little") + _LOGGED.to_bytes(8, "little")
_FILLS = s.Call(KVM_SET_MSRS, _WRITES.to_bytes(8, "little") + _WRITE * _WRITES, kind="kvm_msrs")
_NO_ROOM = s.Expect(s.Exit(KVM_EXIT_DIRTY_RING_FULL), "exits")
#: CR0 with protection and paging; beyond all memory of the VM.
_PAGING, _NOWHERE = 0x80000011, 1 << 30
_NO_ERROR = "the API names no error for an id that is not the vCPU's"


def _case(
    id: str, sequence: str, cite: tuple[str, ...], *steps: s.Step,
    setup: Setup = _FULL, target: str = "bsp", vendor: str = "intel",
) -> Scenario:  # fmt: skip
    event, trigger = id.split(".")
    return Scenario(event, trigger, sequence, steps, cite, target, "guest", setup=setup, vendors=(vendor,))


def _to_itself(vector: int) -> Access:
    return apic("xapic", "icr", 1 << 18 | 1 << 14 | vector)


def _other_id() -> bytes:
    """The state of a local APIC whose 32-bit id is not the vCPU's."""
    state = kvm_lapic_state()
    state.regs[0x20] = 0x55
    return bytes(state)


SCENARIOS = (
    # With IF clear there is no window, and after STI there is one, in which the interrupt comes.
    _case(
        "none.interrupt-window", "without-irqchip", (KVM_API,),
        *makes(SAY, OPEN), s.Window(), s.Event("none", "interrupt-window"), s.Expect(READY), s.Expect(_OPENS), _INJECTS,
        s.Window(asked=False), *says(_TAKEN, READY), setup=_NONE,
    ),
    # INIT clears IF, and the restarted guest gets to its word.
    _case(
        "init.msi", "interrupt-window-asked-for", (KVM_API, S_T1, A_T1),
        *makes(SAY, SAY), s.Until(READY), s.Window(), *_INIT, s.Expect(READY, "runs"), setup=_SPLIT,
    ),
    _case(
        "init.msi", "interrupt-window-asked-for-while-waiting", (KVM_API,),
        *makes(SAY)[:-1], *wait_for_sipi(), s.Set((("rflags", 0x202),)), s.Observe(), s.Window(), s.Event("init", "msi"),
        s.Expect(s.Quiet()), s.Send("sipi", vector=SIPI_VECTOR), s.Expect(s.Word("SIPI")), s.Expect(READY),
        setup=_SPLIT, target="ap",
    ),
    # The VMM's IOAPIC is notified of the EOI of a level-triggered interrupt; none is in service after INIT.
    _case(
        "none.ioapic-eoi", "split-irqchip", (KVM_API,),
        *makes(_ON, SAY, OPEN, _EOI_WRITTEN), s.Until(READY), *_ARRIVES, s.Event("none", "ioapic-eoi"), *says(_TAKEN),
        s.Expect(_EOI, "exits"), *says(READY), setup=_SPLIT, vendor="amd",
    ),
    _case(
        "init.msi", "level-triggered-in-service", (KVM_API, S_APIC_INIT, A_APIC),
        # Before the guest has written EOI there is no exit for one.
        *makes(_ON, SAY, OPEN, SAY, _ON, _EOI_WRITTEN), s.Until(READY), *_ARRIVES, s.Until(_TAKEN),
        s.Event("none", "ioapic-eoi"), s.Expect(READY, "runs"), *_INIT, s.Expect(READY, "runs"), setup=_SPLIT, vendor="amd",
    ),
    # The interrupt of the RTC, of which KVM counts who gets it and who has acknowledged it.
    Scenario(
        "none", "irq-line", "rtc",
        (
            *ran(_RUNNING, ("lapic.svr", 0x1FF), ("lapic.irr3", 0), ("lapic.isr3", 0)),
            *raised(1 << 56 | _VECTOR, _RTC, KVM_IRQ_LINE_STATUS), s.Expect(s.Is("lapic.irr3", _IN_IRR, _IN_IRR)),
        ),
        (KVM_API, S_INTERRUPT_ACCEPTANCE), vendors=("intel",),
    ),
    # The guest has its TPR in the page, which KVM reads after it ran the vCPU.
    _case(
        "init.msi", "tpr-in-vapic-page", (S_APIC_INIT, A_APIC),
        *makes(_ON, store(_PAGE, _TPR), SAY), _VAPIC, s.Until(READY),
        s.Require(s.Is("lapic.tpr", _TPR), "not testable here: this KVM does not read TPR from the page", skip=True),
        *_INIT, s.Until(READY), s.Expect(s.Is("lapic.tpr", 0)), vendor="amd",
    ),
    # An interrupt in service blocks those of no higher priority, also if the page shows both.
    _case(
        "none.vapic-addr", "interrupt-in-service", (S_PRIORITIES, A_PRIORITY),
        *makes(
            _ON, store(_PAGE, 0), SAY, _to_itself(_VECTOR + 1), OPEN, _to_itself(_VECTOR), OPEN, SAY, _EOI_WRITTEN, OPEN, SAY,
        ),
        s.Until(READY), _VAPIC, s.Event("none", "vapic-addr"), *says(s.Word("TAKEN", _VECTOR + 1), READY, _TAKEN, READY),
        vendor="amd",
    ),
    # A VMM that asks for it is notified of an access to the TPR through memory.
    _case(
        "none.tpr-access", "read", (KVM_API,),
        *makes(_ON, SAY, apic("xapic", "tpr"), SAY), s.Until(READY), _REPORTS, s.Event("none", "tpr-access"),
        s.Expect(_TPR_ACCESS, "exits"), setup=_SPLIT, vendor="amd",
    ),
    _case(
        "init.msi", "dirty-ring", (S_T1, A_T1, KVM_API),
        *makes(SAY), s.Until(READY), *_INIT, setup=_RING,
    ),
    # INIT is for the vCPU, the ring for the VMM: it stays as full as it was.
    Scenario(
        "init", "msi", "dirty-ring-full",
        (
            s.Plant("a"), s.Fill(_LOGGED, bytes(0x1000), _SLOT, logged=True), *[_FILLS] * _CALLS, s.Set((_RUNNING,)),
            s.Event("none", "dirty-ring"), _NO_ROOM, s.Observe(), s.Send("init"), s.Observe(), _NO_ROOM,
        ),
        (KVM_API, S_T1, A_T1), "bsp", setup=_RING, vendors=("intel",),
    ),
    # With shadow paging KVM enters the guest without page tables, and cancels what it was about to inject.
    _case(
        "init.msi", "tpr-in-vapic-page-without-page-tables", (S_APIC_INIT, A_APIC),
        *makes(_ON, store(_PAGE, _TPR), SAY, SAY), _VAPIC, s.Until(READY),
        s.Set((("cr3", _NOWHERE), ("cr0", _PAGING)), check=False),
        s.Require(s.Exit(KVM_EXIT_SHUTDOWN), "not testable here: the guest goes on without page tables", skip=True),
        # The state of KVM's MMU after a shutdown with paging is tested by in-shutdown.
        s.Set((("cr3", 0), ("cr0", _PROTECTED)), check=False), *_INIT,
        s.Expect(READY, "runs"), s.Expect(s.Is("lapic.tpr", 0)), vendor="amd",
    ),
    # KVM clears CD and NW for the CPU, unless a VMM wants no such thing; a guest reads its own in any case.
    _case(
        "init.msi", "caches-disabled", (S_T1, A_T1, KVM_API),
        *makes(cr0(_NO_CACHES), SAY, cr0(_PROTECTED), SAY), s.Until(READY), s.Expect(s.Is("cr0", _NO_CACHES), "cr0"),
        *says(READY), s.Expect(s.Is("cr0", _PROTECTED), "cr0"), *_INIT, vendor="amd",
        setup=Setup(caps=((KVM_CAP_DISABLE_QUIRKS, KVM_X86_QUIRK_CD_NW_CLEARED),)),
    ),
    _case(
        "init.msi", "global-pages", (S_T1, A_T1),
        *makes(cr4(_CR4_PGE), SAY, cr4(0), cr4(_CR4_PGE)), s.Until(READY),
        s.Require(s.Is("cr4", _CR4_PGE, _CR4_PGE), "no CR4.PGE"), s.Until(READY), *_INIT, vendor="amd",
    ),
    # The flag by which KVM steps is none of the guest's.
    Scenario(
        "init", "msi", "single-stepped",
        (*ran(_RUNNING), debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP), s.Send("init"), s.Observe(), debug(0)),
        (S_T1, A_T1, KVM_API), setup=Setup(mce=True), vendors=("amd",),
    ),
    Scenario(
        "none", "set-lapic", "other-id-with-32-bit-ids",
        (
            *ran(_RUNNING, apic_mode="x2apic"), s.Call(KVM_SET_LAPIC, _other_id(), keep=True, kind="kvm_lapic_state"),
            s.Expect(s.Answer(-EINVAL), undefined=_NO_ERROR), s.Expect(s.Same()),
        ),
        (S_X2APIC, KVM_API), setup=Setup(caps=((KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS),)), vendors=("intel",),
    ),
)  # fmt: skip
