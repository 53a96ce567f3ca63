# SPDX-License-Identifier: GPL-2.0-only
"""The engine on a real /dev/kvm: no check can pass without its event, and reuse of a VM changes nothing."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from kvmtest import triggers
from kvmtest.engine import guest, host, plan
from kvmtest.engine.cycle import Cycle
from kvmtest.engine.machine import Machine, Machines, SetupError
from kvmtest.engine.run import run
from kvmtest.guests import GuestMissing, load
from kvmtest.kvm import Kvm, KvmError
from kvmtest.model.record import Result
from kvmtest.state.guest_view import Report
from kvmtest.state.snapshot import Reader, Snapshot
from tests.cases import CASES, by_item, by_view, judged, ran

MSI = CASES["init.msi.host/ap,intel,xapic,plant-a"]
SIPI = CASES["sipi.msi.host/ap,intel,xapic,plant-sipi,vector-9f"]


def _verdicts(results: list[Result]) -> Counter[str]:
    return Counter(result.verdict for result in results)


def test_each_kind_of_case_proves_something(machines: Machines) -> None:
    for prefix in dict.fromkeys(case.prefix for case in CASES.values() if not case.check):
        case = next(c for c in CASES.values() if c.prefix == prefix and not c.check)
        if case.event == "shutdown" and machines.host.backend not in ("vmx", "svm"):
            continue  # nothing is known of what it leaves
        verdicts = _verdicts(ran(case, machines))
        assert verdicts["pass"] > 20, (case.name, verdicts)


@pytest.mark.parametrize("trigger", sorted(triggers.INIT))
def test_a_trigger_that_sends_nothing_is_an_error(
    trigger: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(triggers.INIT, trigger, lambda vcpu: None)
    view = "guest" if trigger == "broadcast" else "host"
    case = next(c for c in CASES.values() if c.event == "init" and c.road == trigger and c.view == view and not c.check)
    results = ran(case, machines)
    assert _verdicts(results).keys() == {"error"}
    assert "left no trace" in results[0].reason or "no INIT is pending" in results[0].reason


@pytest.mark.parametrize("trigger", sorted(triggers.SIPI))
def test_a_sipi_that_is_not_sent_is_an_error(trigger: str, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(triggers.SIPI, trigger, lambda vcpu, vector: None)
    case = next(c for c in CASES.values() if c.event == "sipi" and c.road == trigger and not c.check)
    assert _verdicts(ran(case, machines)).keys() == {"error"}


NONE = CASES["none.mp-state.host/ap,intel,xapic,plant-a"]


def test_what_is_no_event_changes_the_activity_state_alone(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    results = by_item(NONE, machines)
    assert {r.verdict for r in results.values()} == {"pass", "skip", "info"}
    assert (results["mp_state"].planted, results["mp_state"].observed) == ("HALTED", "INIT_RECEIVED")
    monkeypatch.setitem(triggers.NONE, "mp-state", triggers.INIT["latched"])
    failed = {r.item for r in ran(NONE, machines) if r.verdict == "fail"}
    assert {"rbx", "cr0", "lapic.svr", "dr7", "events.exception_pending"} <= failed
    monkeypatch.setitem(triggers.NONE, "mp-state", lambda vcpu: None)
    assert _verdicts(ran(NONE, machines)).keys() == {"error"}


def test_a_trigger_that_kvm_refuses_is_an_error_with_errno(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(vcpu: object) -> None:
        raise KvmError(22, 0, "made up")

    monkeypatch.setitem(triggers.INIT, "msi", refuse)
    results = ran(MSI, machines)
    assert _verdicts(results).keys() == {"error"} and "EINVAL" in results[0].reason


def test_a_reader_that_sees_zeros_makes_the_run_fail(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[Reader], Snapshot] = Reader.read
    calls = []

    def zeros(reader: Reader) -> Snapshot:
        calls.append(reader)
        snapshot = real(reader)
        if len(calls) % 2:
            return snapshot
        return Snapshot({name: bytes(len(data)) for name, data in snapshot.sections.items()}, {})

    machines.kept(MSI.setup)
    monkeypatch.setattr(Reader, "read", zeros)
    failed = {r.item for r in ran(MSI, machines) if r.verdict == "fail"}
    assert {"rdx", "rip", "cr0", "dr6", "cs.limit", "lapic.svr", "xmm0", "msr.star"} <= failed


def test_a_plant_that_does_not_arrive_is_no_pass(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """XMM registers left as they were at creation: "unchanged" is then not proven."""
    cycle = Cycle(MSI, machines.kept(MSI.setup), machines.host)
    assert cycle.plant
    target = cycle.target
    xsave = next(buf for buf in cycle.plant.buffers if buf.section == "xsave")
    xsave.data.raw = target.baseline.sections["xsave"]
    results = {r.item: r for r in judged(MSI, machines.host, cycle.observe(), *cycle.bases)}
    assert results["xmm0"].verdict == "skip" and results["xmm0"].reason.startswith("KVM kept")


def test_a_case_run_again_says_the_same(machines: Machines) -> None:
    cycle = Cycle(MSI, machines.kept(MSI.setup), machines.host)
    first, *_, again = (judged(MSI, machines.host, cycle.observe(), *cycle.bases) for _ in range(4))
    assert _comparable(first) == _comparable(again)


def _comparable(results: list[Result]) -> dict[tuple[str, str], tuple[str, str | None]]:
    """Verdicts and observed values, without those of counters, and of the PPR.

    kvm_apic_set_state() computes that before it has counted what is in service: it depends on the KVM_SET_LAPIC before.
    """
    moving = ("msr.tsc", "lapic.timer_current", "lapic.ppr", "msr.kvm_", "msr.hv_", "msr.0x")
    return {
        (r.case, r.id): (r.verdict, r.observed)
        for r in results
        if not r.item.startswith(moving)
    }


def test_reusing_a_vm_changes_nothing(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases of all kinds, one behind the other on kept VMs, against each on a VM of its own."""
    cases = [c for c in CASES.values() if c.event != "reset" and not c.check and c.setup.vcpus == 2]
    cases = random.Random(1).sample(cases, 60)
    kept = [r for case in cases for r in ran(case, machines)]
    made: list[Machine] = []

    def fresh(self: Machines, setup: plan.Setup) -> Machine:
        for machine in made:
            machine.close()
        made[:] = [Machine(self, setup)]
        return made[0]

    monkeypatch.setattr(Machines, "kept", fresh)
    alone = [r for case in cases for r in ran(case, machines)]
    made[0].close()
    assert _comparable(kept) == _comparable(alone)


def test_views_that_differ_fail(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that saw one bit of RBX otherwise than the host."""
    case = CASES["sipi.msi.guest/ap,intel,xapic,plant-sipi,vector-01"]
    before = {(r.view, r.item) for r in ran(case, machines) if r.verdict == "fail"}
    assert ("views", "rbx") not in before
    real = guest.Reporter.report

    def otherwise(*args: Any) -> Report:
        report = real(*args)
        return report._replace(values=report.values | {"rbx": report.values["rbx"] ^ 1})

    monkeypatch.setattr(guest.Reporter, "report", otherwise)
    after = {(r.view, r.item) for r in ran(case, machines) if r.verdict == "fail"}
    assert {item for view, item in after - before if view == "views"} == {"rbx"}


def test_sipi_changes_cs_and_rip_only(machines: Machines) -> None:
    results = by_item(SIPI, machines)
    assert results["cs.selector"].observed == "0x9f00" and results["cs.base"].observed == "0x9f000"
    assert results["rip"].observed == "0x0" and results["mp_state"].observed == "RUNNABLE"
    assert results["rbx"].verdict == results["xmm7"].verdict == "pass"


def test_a_host_that_cannot_build_the_vm_skips(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Machines, setup: plan.Setup) -> Machine:
        raise SetupError("KVM_CAP_SPLIT_IRQCHIP is not there")

    monkeypatch.setattr(Machines, "fresh", refuse)
    case = next(c for c in CASES.values() if c.setup.irqchip == "split")
    results = ran(case, machines)
    assert _verdicts(results).keys() == {"skip"} and results[0].reason


def test_a_vm_that_kvm_fails_to_make_is_an_error(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Kvm, type: int = 0) -> None:
        raise KvmError(12, 0, "made up")

    monkeypatch.setattr(Kvm, "create_vm", fail)
    for case in (MSI, CASES["reset.create.host/bsp,no-irqchip,intel"]):
        results = ran(case, machines)
        assert _verdicts(results).keys() == {"error"} and "ENOMEM" in results[0].reason


def test_a_guest_that_is_not_built_skips_its_cases(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> bytes:
        raise GuestMissing("run 'make guests'")

    monkeypatch.setattr("kvmtest.guests.load", missing)
    results = ran(CASES["reset.create.guest/bsp,full-irqchip,intel"], machines)
    assert _verdicts(results).keys() == {"skip"} and "make guests" in results[0].reason


def test_a_guest_that_stops_early_is_an_error_for_the_rest(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that spins after its first values: the time-out ends it, what it said is judged."""
    image = bytearray(load("spine"))
    image[0xFFF0 + 3 : 0xFFF0 + 5] = b"\xeb\xfe"  # behind the OUT at the reset vector
    monkeypatch.setattr("kvmtest.guests.load", lambda name: bytes(image))
    results = by_view(CASES["reset.create.guest/bsp,full-irqchip,intel"], machines, 0.05)
    for view in ("guest", "views"):
        cr0 = results[view, "cr0"]
        assert results[view, "rax"].verdict == "pass"
        assert cr0.verdict == "error" and "no exit within" in cr0.reason


def test_a_whole_run(kvm: Kvm) -> None:
    """It frees what it takes, times each case, and shows each item of each view, whatever other cases have shown."""
    before = len(os.listdir("/proc/self/fd"))
    begun: list[plan.Case] = []
    cases = list(CASES.values())
    done = list(run(kvm, host.detect(), cases, started=begun.append))
    assert len(os.listdir("/proc/self/fd")) == before
    assert [one.case for one in done] == begun == cases and all(one.seconds > 0 for one in done)
    for case, seen, _ in done:
        assert [one.view for one in seen] == [view.view for view in plan.views(case)]
        for one in seen:
            items = [record.item for record in one.records]
            assert len(items) == len(set(items)) and set(items) >= set(plan.items(case)), case.name
            assert one.case and one.case.name == case.name and one.case.get("target") == case.target


def test_a_run_that_is_dropped_in_the_middle_frees_its_vms(kvm: Kvm) -> None:
    before = len(os.listdir("/proc/self/fd"))
    steps = run(kvm, host.detect(), [MSI, SIPI])
    next(steps)
    steps.close()
    assert len(os.listdir("/proc/self/fd")) == before
