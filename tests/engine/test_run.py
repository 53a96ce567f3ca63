# SPDX-License-Identifier: GPL-2.0-only
"""The engine on a real /dev/kvm: no check can pass without its event, and reuse of a VM changes nothing."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from kvmtest.engine import guest, host, native, plan
from kvmtest.engine.bind import BoundCase
from kvmtest.engine.machine import Machine, Machines, SetupError
from kvmtest.engine.run import run
from kvmtest.guests import GuestMissing, load
from kvmtest.kvm import Kvm, KvmError
from kvmtest.kvm import ioctl as calls
from kvmtest.model.record import Result
from kvmtest.scenario.lower import lower
from kvmtest.scenario.program import Program
from kvmtest.scenario.triggers import DATA, TRIGGERS, Steps
from kvmtest.state.guest_view import Report
from kvmtest.state.sections import Snapshot
from kvmtest.state.snapshot import Reader
from kvmtest.uapi.kvm import KVM_SIGNAL_MSI
from tests.cases import CASES, by_item, by_view, judged, ran, the

pytestmark = pytest.mark.usefixtures("steps_anew")

MSI = the("init.msi.host/ap,intel,xapic,plant-a")
SIPI = the("sipi.msi.host/ap,intel,xapic,plant-sipi,vector-9f")


def _verdicts(results: list[Result]) -> Counter[str]:
    return Counter(result.verdict for result in results)


def _sends(monkeypatch: pytest.MonkeyPatch, trigger: str, steps: Callable[..., Steps]) -> None:
    monkeypatch.setitem(TRIGGERS, trigger, TRIGGERS[trigger]._replace(steps=steps))


KINDS = {case.prefix: case for case in CASES.values() if not case.sequence}


@pytest.mark.parametrize("case", KINDS.values(), ids=lambda case: str(case.prefix))
def test_each_kind_of_case_proves_something(case: plan.Case, machines: Machines) -> None:
    results = ran(case, machines)
    verdicts = _verdicts(results)
    if verdicts.keys() == {"skip"}:
        pytest.skip(results[0].reason)
    if case.event == "shutdown" and machines.host.backend not in ("vmx", "svm"):
        pytest.skip("nothing is known of what it leaves")
    assert verdicts["pass"] > 20 and not verdicts["error"], (case.name, verdicts)


#: A case of each way to send each event. Of a shutdown the exit is the proof, not what it leaves.
WAYS = {
    (case.event, case.trigger_name): case
    for case in CASES.values()
    if case.trigger_name in TRIGGERS and case.event != "shutdown" and not case.sequence and not case.migrated
}


@pytest.mark.parametrize("way", sorted(WAYS), ids=".".join)
def test_a_trigger_that_sends_nothing_is_an_error(
    way: tuple[str, str], machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = WAYS[way]
    _sends(monkeypatch, case.trigger_name, lambda send, to: ())
    # A broadcast is sent by a guest's code: INIT level de-assert, which KVM ignores.
    monkeypatch.setattr("kvmtest.scenario.items.broadcast_icr", lambda: 0xC0000 | DATA["deassert"])
    results = ran(case, machines, 0.2)
    if _verdicts(results).keys() == {"skip"}:
        pytest.skip(results[0].reason)
    assert _verdicts(results).keys() == {"error"}, _verdicts(results)


NONE = the("none.mp-state.host/ap,intel,xapic,plant-a")


def test_what_is_no_event_changes_the_activity_state_alone(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    results = by_item(NONE, machines)
    assert {r.verdict for r in results.values()} == {"pass", "skip", "info"}
    assert (results["mp_state"].planted, results["mp_state"].observed) == ("HALTED", "INIT_RECEIVED")
    _sends(monkeypatch, "mp-state", TRIGGERS["latched"].steps)
    failed = {r.item for r in ran(NONE, machines) if r.verdict == "fail"}
    assert {"rbx", "cr0", "lapic.svr", "dr7", "events.exception_pending"} <= failed
    _sends(monkeypatch, "mp-state", lambda send, to: ())
    assert _verdicts(ran(NONE, machines)).keys() == {"error"}


def test_a_trigger_that_kvm_refuses_is_an_error(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    real = calls.raw_ioctl

    def refuse(fd: int, request: int, argument: Any = None) -> int:
        result: int = real(-1 if request == KVM_SIGNAL_MSI else fd, request, argument)
        return result

    monkeypatch.setattr(calls, "raw_ioctl", refuse)
    monkeypatch.setattr(native, "library", lambda: None)
    results = ran(MSI, machines)
    assert _verdicts(results).keys() == {"error"} and "reached no vCPU" in results[0].reason


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
    monkeypatch.setattr(native, "library", lambda: None)
    failed = {r.item for r in ran(MSI, machines) if r.verdict == "fail"}
    assert {"rdx", "rip", "cr0", "dr6", "cs.limit", "lapic.svr", "xmm0", "msr.star"} <= failed


def test_a_plant_that_does_not_arrive_is_no_pass(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """XMM registers left as they were at creation: "unchanged" is then not proven."""
    new = machines.kept(MSI.setup).target("ap").baseline.sections["xsave"]

    def lowered(*args: Any) -> Program:
        program = lower(*args)
        (name,) = (name for name in program.buffers if name.startswith("plant_xsave"))
        program.buffers[name] = program.buffers[name]._replace(contents=new)
        return program

    monkeypatch.setattr("kvmtest.engine.bind.lower", lowered)
    results = by_item(MSI, machines)
    assert results["xmm0"].verdict == "skip" and "was planted, but KVM_GET_* returned" in results["xmm0"].reason


def test_a_case_run_again_says_the_same(machines: Machines) -> None:
    bound = BoundCase(MSI, machines.kept(MSI.setup), machines.host)
    first, *_, again = (judged(MSI, machines.host, bound.observe(), *bound.bases) for _ in range(4))
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
    """Cases of all kinds, one after the other on kept VMs, against each on a VM of its own."""
    cases = [c for c in CASES.values() if c.event != "reset" and not c.sequence and c.setup.vcpus == 2]
    cases = random.Random(1).sample(cases, 60)
    kept = [r for case in cases for r in ran(case, machines)]
    made: list[Machine] = []

    def fresh(self: Machines, setup: plan.Setup) -> Machine:
        made.append(Machine(self, setup))
        return made[-1]

    monkeypatch.setattr(Machines, "kept", fresh)
    alone = []
    for case in cases:
        alone += ran(case, machines)
        # A case that migrates asks for one more.
        while made:
            made.pop().close()
    assert _comparable(kept) == _comparable(alone)


def test_views_that_differ_fail(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that saw one bit of RBX otherwise than the host."""
    case = the("sipi.msi.guest/ap,intel,xapic,plant-sipi,vector-01")
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
    case = the("reset.create.host/bsp,split-irqchip,intel")
    results = ran(case, machines)
    assert _verdicts(results).keys() == {"skip"} and results[0].reason


def test_a_vm_that_kvm_fails_to_make_is_an_error(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Kvm, type: int = 0) -> None:
        raise KvmError(12, 0, "made up")

    monkeypatch.setattr(Kvm, "create_vm", fail)
    for case in (MSI, the("reset.create.host/bsp,no-irqchip,intel")):
        results = ran(case, machines)
        assert _verdicts(results).keys() == {"error"} and "ENOMEM" in results[0].reason


def test_a_guest_that_is_not_built_skips_its_cases(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> bytes:
        raise GuestMissing("run 'make guests'")

    monkeypatch.setattr("kvmtest.guests.load", missing)
    results = ran(the("reset.create.guest/bsp,full-irqchip,intel"), machines)
    assert _verdicts(results).keys() == {"skip"} and "make guests" in results[0].reason


def test_a_guest_that_stops_early_is_an_error_for_the_rest(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that spins after its first values: the time-out ends it, what it said is judged."""
    image = bytearray(load("spine"))
    image[0xFFF0 + 3 : 0xFFF0 + 5] = b"\xeb\xfe"  # after the OUT at the reset vector
    monkeypatch.setattr("kvmtest.guests.load", lambda name: bytes(image))
    results = by_view(the("reset.create.guest/bsp,full-irqchip,intel"), machines, 0.05)
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
        wanted = dict(plan.looks(case))
        # A story ends at the first of its expectations that does not hold, and may not come to a later event.
        cut = case.sequence and any(record.verdict == "fail" for one in seen for record in one.records)
        shown = sorted(one.prefix for one in seen)
        assert shown == sorted(wanted) or cut and len(shown) == len(set(shown)) and set(shown) < set(wanted), case.name
        for one in seen:
            items = [record.item for record in one.records]
            ended = case.sequence and any(record.verdict != "pass" for record in one.records)
            assert len(items) == len(set(items)) and (ended or set(items) >= set(wanted[one.prefix])), case.name
            assert one.case and one.case.name == case.name and one.case.get("target") == case.target


def test_a_run_that_is_dropped_in_the_middle_frees_its_vms(kvm: Kvm) -> None:
    before = len(os.listdir("/proc/self/fd"))
    steps = run(kvm, host.detect(), [MSI, SIPI])
    next(steps)
    steps.close()
    assert len(os.listdir("/proc/self/fd")) == before
