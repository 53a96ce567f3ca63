# SPDX-License-Identifier: GPL-2.0-only
"""A migration on the real /dev/kvm: what is saved and restored is there again, and a restore that is wrong shows as just that."""

from __future__ import annotations

import pytest

from kvmtest.engine import plan
from kvmtest.engine.machine import Machines
from kvmtest.kvm import GuestMemory
from kvmtest.model.record import Result
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import step as s
from kvmtest.scenario.orders import ORDERS
from kvmtest.scenario.setup import Setup
from kvmtest.state import saved
from kvmtest.uapi.kvm import KVM_CHECK_EXTENSION, KVM_SET_CLOCK, kvm_clock_data
from tests.cases import ran, the

PLANTED = the("init.latched.host/ap,intel,xapic,plant-a")
#: Items that this KVM may lose in any order: MSRs that KVM_GET_MSR_INDEX_LIST does not name, and bases that are two registers to
#: it.
ANYHOW = ("msr.osvw", "msr.vm_cr", "msr.fs_base", "msr.gs_base", "msr.tsc_aux")


def _migrated(case: plan.Case, machines: Machines, how: str = "before-kvm") -> list[Result]:
    results = [result for result in ran(case._replace(migrated=how), machines) if result.trigger == "migrate"]
    if {result.verdict for result in results} == {Verdict.SKIP}:
        pytest.skip(results[0].reason)
    return results


def _failing(results: list[Result]) -> set[str]:
    return {result.item for result in results if result.verdict is Verdict.FAIL and not result.item.startswith(ANYHOW)}


def _restored(monkeypatch: pytest.MonkeyPatch, *sections: str) -> None:
    """Let the order ``kvm`` write these sections."""
    monkeypatch.setitem(ORDERS, "kvm", ORDERS["kvm"]._replace(restore=sections))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mode", ["xapic", "x2apic", "disabled"])
def test_a_planted_vcpu_is_as_before_in_each_vmms_order(machines: Machines, order: str, mode: str) -> None:
    results = _migrated(PLANTED._replace(apic_mode=mode), machines, f"before-{order}")
    assert _failing(results) == set()
    assert sum(result.verdict is Verdict.PASS for result in results) > 150


#: Items that tell that a section was left out.
LEFT_OUT = {
    "sregs2": {"cr3", "cs.base", "gdt.base"},
    "lapic": {"lapic.svr", "lapic.tpr", "lapic.lvt_error"},
    "msrs": {"msr.lstar", "msr.pat", "msr.mtrr_def_type"},
    "xsave": {"xmm0", "st0", "mxcsr"},
    "regs": {"rax", "rip", "rflags"},
    "debugregs": {"dr0", "dr7"},
    "events": {"events.exception_pending", "events.nmi_masked"},
    "mp_state": {"mp_state"},
}


@pytest.mark.parametrize("section", LEFT_OUT)
def test_a_section_that_is_left_out_shows(machines: Machines, monkeypatch: pytest.MonkeyPatch, section: str) -> None:
    _restored(monkeypatch, *(name for name in ORDERS["kvm"].restore if name != section))
    # An AP that was never started is not runnable, and a new one is neither.
    assert LEFT_OUT[section] <= _failing(_migrated(PLANTED, machines))


@pytest.mark.parametrize(
    ("first", "second", "mode", "shows"),
    [
        # A pending exception is dropped (__set_regs()).
        ("events", "regs", "xapic", "events.exception_pending"),
        # CR8 has only the priority class of TPR.
        ("lapic", "sregs2", "xapic", "lapic.tpr"),
    ],
)
def test_a_wrong_order_shows(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, first: str, second: str, mode: str, shows: str
) -> None:
    order = [name for name in ORDERS["kvm"].restore if name != first]
    order.insert(order.index(second), first)
    _restored(monkeypatch, *order)
    assert shows in _failing(_migrated(PLANTED._replace(apic_mode=mode), machines))


@pytest.mark.parametrize("section", ["irqchip", "clock"])
def test_a_device_that_is_left_out_shows(machines: Machines, monkeypatch: pytest.MonkeyPatch, section: str) -> None:
    """A redirection entry of the IOAPIC, and a clock that has run for days."""
    routed = s.Set((("ioapic.redirtbl5", 0x10055),), "vm", check=False)
    clock = s.Call(KVM_SET_CLOCK, bytes(kvm_clock_data(clock=10**15)), "vm", kind="kvm_clock_data")
    of = s.Scenario("none", "devices", "set", (routed, clock, s.Migrate("kvm")), ("a manual",))
    (case,) = plan.of_file(of._replace(vendors=("intel",)))
    assert {"irqchip", "clock"}.isdisjoint(_failing(ran(case, machines)))
    of_vm = saved.of_vm

    def unwritten(irqchip: str) -> dict[str, tuple[saved.Part, ...]]:
        # Another ioctl, which returns 0, instead of KVM_SET_*: nothing is written, and it is still looked at.
        found = of_vm(irqchip)
        return found | {section: tuple(part._replace(put=KVM_CHECK_EXTENSION) for part in found[section])}

    monkeypatch.setattr(saved, "of_vm", unwritten)
    assert section in _failing(ran(case, machines))


def test_one_msr_that_is_forgotten_shows_alone(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    msrs = saved._msrs
    monkeypatch.setattr(saved, "_msrs", lambda items: msrs([item for item in items if item != "msr.kernel_gs_base"]))
    assert _failing(_migrated(PLANTED, machines)) == {"msr.kernel_gs_base"}


def _deadline(order: str) -> plan.Case:
    """IA32_TSC_DEADLINE in the far future, and the timer in that mode."""
    steps = (
        s.Set((("lapic.lvt_timer", 1 << 18 | 0x55), ("lapic.svr", 0x1FF))),
        s.Set((("msr.tsc_deadline", 1 << 60),), why="KVM takes no deadline here"),
        s.Migrate(order),
    )
    of = s.Scenario("none", "deadline", "armed", steps, ("a manual",), needs=("tsc-deadline",), setup=Setup(leaves="deadline"))
    return plan.of_file(of)[0]


@pytest.mark.parametrize("order", ORDERS)
def test_a_deadline_is_lost_only_where_it_is_written_before_the_timers_mode(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    results = ran(_deadline(order), machines)
    if {result.verdict for result in results} == {Verdict.SKIP}:
        pytest.skip(results[0].reason)
    assert _failing(results) == set()
    of = ORDERS[order]
    restore = (*(name for name in of.restore if name != "lapic"), "lapic")
    monkeypatch.setitem(ORDERS, order, of._replace(restore=restore))
    assert _failing(ran(_deadline(order), machines)) >= {"msr.tsc_deadline"}


def test_memory_that_is_not_copied_shows(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    case = the("init.msi.guest/bsp,intel,xapic,plant-guest-long,in-loop")
    good = ran(case._replace(migrated="after-kvm"), machines)
    if {result.verdict for result in good} == {Verdict.SKIP}:
        pytest.skip(good[0].reason)
    monkeypatch.setattr(GuestMemory, "read", lambda self, gpa, length: bytes(length))
    bad = ran(case._replace(migrated="after-kvm"), machines)
    passing = [sum(result.verdict is Verdict.PASS and result.view == "guest" for result in each) for each in (good, bad)]
    assert passing[0] > 100 and not passing[1]


def test_a_refused_section_is_a_failure_and_ends_the_case(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    of_vcpu = saved.of_vcpu

    def illegal(*args: object) -> dict[str, tuple[saved.Part, ...]]:
        # KVM_SET_LAPIC instead of KVM_SET_MP_STATE: no such activity state.
        found = of_vcpu(*args)  # type: ignore[arg-type]
        (part,) = found["regs"]
        return found | {"mp_state": (part._replace(put=found["mp_state"][0].put, kind="kvm_regs"),)}

    monkeypatch.setattr(saved, "of_vcpu", illegal)
    results = ran(PLANTED._replace(migrated="before-kvm"), machines)
    assert [(result.item, result.verdict, result.observed) for result in results] == [
        ("refused", Verdict.FAIL, "KVM_SET_MP_STATE: EINVAL")
    ]


@pytest.mark.parametrize("how", ["before-kvm", "after-qemu"])
def test_a_running_vcpu_is_taken_out_of_kvm_run_and_goes_on(machines: Machines, how: str) -> None:
    case = the("init.msi.host/bsp,intel,xapic,plant-guest-long,in-loop")
    results = ran(case._replace(migrated=how), machines)
    assert {result.verdict for result in results if result.event == "init"} >= {Verdict.PASS}
    assert not [result for result in results if result.verdict is Verdict.ERROR]


def test_a_case_leaves_the_machine_that_is_kept_as_it_was(machines: Machines) -> None:
    kept = machines.kept(PLANTED.setup)
    _migrated(PLANTED, machines)
    assert machines.kept(PLANTED.setup) is kept and not kept.vm.closed
    assert {str(result.verdict) for result in ran(PLANTED, machines)} >= {"pass"}
