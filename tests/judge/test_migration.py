# SPDX-License-Identifier: GPL-2.0-only
"""Migrations, with made-up evidence: what one changes is a failure of its own, and of nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from kvmtest.engine import plan
from kvmtest.judge import migration
from kvmtest.judge.evidence import Ended, Played
from kvmtest.model.host import Host
from kvmtest.model.record import Result
from kvmtest.scenario import step as s
from kvmtest.state.guest_view import Report
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from tests.cases import NOBODY, judged, the
from tests.judge.made import LAYOUT, NEW, basis, filled

CASE = the("init.msi.host/ap,intel,xapic,plant-a,migrated-before-kvm")
#: Without what older kernels are known for.
NEWEST = NOBODY._replace(kernel="7.2.0")
USED = filled(0x5A, events_smi_latched_init=0, lapic_lvt_timer=0x10000)
#: The saved values of counters: less than what is read afterwards.
TSC, TIMER = 0x5A5A_0000, 0x100
AFTER = USED.put(LAYOUT, "msr.tsc", TSC + 5000).put(LAYOUT, "lapic.timer_current", TIMER - 5)


#: The differences of the three chips, and the clock before and after.
DEVICES = ((0, 0), (0, 0), (0, 0), 1000, 1200)


def _step(case: plan.Case, kind: type) -> int:
    assert case.scenario
    return next(number for number, step in enumerate(case.scenario.steps) if isinstance(step, kind))


def _results(
    before: Snapshot = USED,
    after: Snapshot = AFTER,
    *,
    saved: tuple[int, ...] = (TSC, TIMER),
    devices: tuple[Any, ...] = DEVICES,
    case: plan.Case = CASE,
    host: Host = NEWEST,
) -> dict[str, Result]:
    """By item, what a vCPU that was migrated and nothing else showed."""
    at = _step(case, s.Migrate)
    evidence: tuple[Any, ...] = tuple((at, value) for value in (80, *saved, before, 0, 0, 80, *devices, after))
    of = basis(case)
    results = judged(case, host, Played(evidence), of._replace(ctx=of.ctx._replace(host=host)))
    return {result.item: result for result in results if result.trigger == "migrate"}


def test_a_vcpu_that_is_as_before_passes() -> None:
    results = _results()
    assert "fail" not in {str(result.verdict) for result in results.values()}
    assert {results[item].verdict for item in ("rax", "refused", "irqchip", "clock")} == {"pass"}
    assert results["rax"].id == "none.migrate.host.rax"


@pytest.mark.parametrize("item", ["rax", "cr3", "dr7", "events.nmi_masked", "mp_state", "lapic.svr", "msr.pat", "apic_base"])
def test_an_item_that_is_otherwise_fails_alone(item: str) -> None:
    wrong = AFTER.put(LAYOUT, item, (AFTER.get(LAYOUT, item) or 0) ^ 1)
    results = _results(after=wrong)
    assert [name for name, result in results.items() if result.verdict == "fail"] == [item]


def test_what_a_new_vcpu_has_too_shows_nothing_unless_it_is_lost() -> None:
    bare = filled(0)
    assert _results(bare, bare)["rax"].verdict == "skip"
    assert _results(bare, bare.put(LAYOUT, "rax", 7))["rax"].verdict == "fail"


@pytest.mark.parametrize(
    ("tsc", "verdict"), [(TSC, "pass"), (TSC + 5000, "pass"), (TSC - 1, "fail"), (5000, "fail"), (TSC + (1 << 41), "fail")]
)
def test_the_tsc_goes_on_from_what_was_saved(tsc: int, verdict: str) -> None:
    after = AFTER.put(LAYOUT, "msr.tsc", tsc)
    assert _results(after=after)["msr.tsc"].verdict == verdict
    # Older kernels may drop what is written first to a new vCPU.
    assert _results(after=after, host=NOBODY)["msr.tsc"].verdict == ("known" if tsc < TSC else verdict)


@pytest.mark.parametrize(("left", "verdict"), [(TIMER, "pass"), (0, "pass"), (TIMER + 1, "fail"), (1 << 30, "fail")])
def test_a_timer_counts_on_from_what_was_saved(left: int, verdict: str) -> None:
    assert _results(after=AFTER.put(LAYOUT, "lapic.timer_current", left))["lapic.timer_current"].verdict == verdict


def test_a_periodic_timer_may_have_begun_again() -> None:
    periodic = USED.put(LAYOUT, "lapic.lvt_timer", 0x20055).put(LAYOUT, "lapic.timer_initial", 0x1000)
    for left, verdict in ((0x800, "pass"), (0x1001, "fail")):
        after = periodic.put(LAYOUT, "msr.tsc", TSC).put(LAYOUT, "lapic.timer_current", left)
        assert _results(periodic, after)["lapic.timer_current"].verdict == verdict


def test_what_an_order_cannot_keep_is_not_asked_of_it() -> None:
    tpr = AFTER.get(LAYOUT, "lapic.tpr") or 0
    wrong = AFTER.put(LAYOUT, "lapic.tpr", tpr & ~0xF)
    for order, verdict in (("kvm", "fail"), ("qemu", "pass")):
        case = CASE._replace(migrated=f"before-{order}")
        assert _results(after=wrong, case=case)["lapic.tpr"].verdict == verdict
        assert _results(after=AFTER.put(LAYOUT, "lapic.tpr", tpr ^ 0x10), case=case)["lapic.tpr"].verdict == "fail"


@pytest.mark.parametrize(
    ("cr4", "ecx", "stale"),
    [
        (0, 0, ()),
        (1 << 18, 1 << 27, ()),
        (0, 1 << 27, ("cpuid.1.ecx",)),
        (1 << 18, 0, ("cpuid.1.ecx",)),
        (1 << 22, 0, ("cpuid.7.ecx",)),
    ],
)
def test_a_bit_of_cpuid_is_excused_only_where_it_did_not_follow_cr4(cr4: int, ecx: int, stale: tuple[str, ...]) -> None:
    layout = Layout((), {}, {}, ((0x1, 0), (0x7, 0)))
    places = [layout.fields[item] for item in ("cr4", "cpuid.1.ecx", "cpuid.7.ecx")]
    saved = Snapshot({place.section: bytes(place.offset + place.size) for place in places}, {})
    saved = saved.put(layout, "cr4", cr4).put(layout, "cpuid.1.ecx", ecx)
    assert migration._stale(layout, saved) == stale


def test_a_payload_belongs_to_a_pending_exception() -> None:
    for pending, verdict in ((1, "fail"), (0, "info")):
        before = USED.put(LAYOUT, "events.exception_has_payload", 1).put(LAYOUT, "events.exception_pending", pending)
        after = before.put(LAYOUT, "events.exception_has_payload", 0).put(LAYOUT, "msr.tsc", TSC)
        assert _results(before, after)["events.exception_has_payload"].verdict == verdict


def test_an_msr_that_kvm_does_not_list_is_judged_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for listed, verdict in (((0x10, 0x277, 0xDA0), "fail"), ((0x10, 0x277), "info")):
        layout = Layout((0x10, 0x277, 0xDA0), {}, LAYOUT.missing_sections, (), listed)
        before, after = (Snapshot(one.sections, {}) for one in (USED, AFTER))
        at = _step(CASE, s.Migrate)
        evidence = tuple((at, value) for value in (TSC, TIMER, before, *DEVICES, after.put(layout, "msr.xss", 0)))
        results = judged(CASE, NOBODY, Played(evidence), basis(CASE)._replace(layout=layout))
        assert {result.item: str(result.verdict) for result in results}["msr.xss"] == verdict


@pytest.mark.parametrize(
    ("devices", "item", "shown"),
    [
        (((0, 0), (3, 9), (0, 0), 0, 0), "irqchip", "3 bytes of KVM_IRQCHIP_PIC_SLAVE, from 0x9 on"),
        (((0, 0), (0, 0), (1, 0x20), 0, 0), "irqchip", "1 bytes of KVM_IRQCHIP_IOAPIC, from 0x20 on"),
        ((*DEVICES[:3], 1000, 999), "clock", "-1 ns from the saved value"),
        ((*DEVICES[:3], 1000, 10**15), "clock", "+999999999999000 ns from the saved value"),
    ],
)
def test_devices_are_as_they_were_saved(devices: tuple[Any, ...], item: str, shown: str) -> None:
    results = _results(devices=devices)
    assert [name for name, result in results.items() if result.verdict == "fail"] == [item]
    assert results[item].observed == shown


def test_a_vm_without_an_irqchip_has_none_to_show() -> None:
    assert _results(devices=(7, 8))["irqchip"].verdict == "skip"


def test_what_kvm_refuses_ends_the_case() -> None:
    at = _step(CASE, s.Migrate)
    for why, answer, shown in (
        ("KVM_SET_SREGS2", -22, "KVM_SET_SREGS2: EINVAL"),
        ("KVM_SET_MSRS tsc star pat", 1, "KVM_SET_MSRS: star"),
    ):
        seen = Played(((at, TSC), (at, TIMER), (at, USED), (at, answer)), Ended(at, "fail", why))
        (result,) = judged(CASE, NOBODY, seen, basis(CASE))
        assert (result.item, str(result.verdict), result.observed) == ("refused", "fail", shown)


def test_what_the_migration_lost_the_event_is_not_blamed_for() -> None:
    """INIT leaves MSRs alone: what a migration loses of one is not a failure of INIT."""
    assert CASE.scenario
    looks = [number for number, step in enumerate(CASE.scenario.steps) if isinstance(step, s.Observe)]
    at = _step(CASE, s.Migrate)
    lost = AFTER.put(LAYOUT, "msr.pat", 0)
    reset = NEW.put(LAYOUT, "mp_state", 2).put(LAYOUT, "msr.tsc", TSC + 9000)
    evidence = ((looks[0], USED), *((at, value) for value in (TSC, TIMER, USED, *DEVICES, lost)), (looks[1], reset))
    by_id = {result.id: str(result.verdict) for result in judged(CASE, NOBODY, Played(evidence), basis(CASE))}
    assert by_id["none.migrate.host.msr.pat"] == "fail"
    assert by_id["init.msi.host.msr.pat"] != "fail"
    # INIT has to keep what it has not lost.
    assert by_id["init.msi.host.msr.star"] == "fail"


def test_a_guest_that_an_emulator_stops_after_ss_was_restored_reports_what_it_could() -> None:
    tcg = NOBODY._replace(cpu_model="QEMU TCG CPU version 2.5+")
    said = Report({"rax": 0}, {"pkru": "no PKU"}, "an exception at LIDT")
    real = USED.put(LAYOUT, "cr0", 0x10).put(LAYOUT, "ss.dpl", 3)
    left = migration.reported(said, tcg, LAYOUT, real)
    assert not left.problem and left.values == said.values and left.missing["pkru"] == "no PKU"
    assert "SS.DPL" in left.missing["gdt.base"] and "rax" not in left.missing
    # It has no reason to on another CPU, with another SS, or in protected mode.
    assert migration.reported(said, NOBODY, LAYOUT, real) == said
    assert migration.reported(said, tcg, LAYOUT, real.put(LAYOUT, "ss.dpl", 0)) == said
    assert migration.reported(said, tcg, LAYOUT, real.put(LAYOUT, "cr0", 0x11)) == said
