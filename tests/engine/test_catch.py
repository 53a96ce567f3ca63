# SPDX-License-Identifier: GPL-2.0-only
"""Catching a vCPU at something: each state is reached, and one that is not reached is an error."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from kvmtest import triggers
from kvmtest.engine import catch, guest, plan
from kvmtest.engine.cycle import Cycle
from kvmtest.engine.machine import Machines
from kvmtest.kvm import Vcpu
from kvmtest.state import inside
from kvmtest.state.guest_view import Report
from kvmtest.triggers.error import TriggerError
from tests.cases import by_item, ran

CAUGHT = [case for case in plan.plan() if case.state and case.setup.vendor == "intel" and case.view == "host"]


@pytest.mark.parametrize("case", [c for c in CAUGHT if c.event == "init"], ids=lambda case: case.name)
def test_an_event_that_does_not_come_is_an_error(
    case: plan.Case, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(triggers.INIT, case.trigger, lambda vcpu: None)
    results = ran(case, machines, 0.1)
    verdicts = Counter(result.verdict for result in results)
    if verdicts.keys() == {"skip"}:
        pytest.skip(results[0].reason)
    assert verdicts.keys() == {"error"}, verdicts


@pytest.mark.parametrize("target", ["bsp", "ap"])
def test_a_running_vcpu_takes_its_init(target: str, machines: Machines) -> None:
    case = next(c for c in CAUGHT if (c.plant, c.state, c.target) == ("guest-long", "in-loop", target))
    results = by_item(case, machines)
    assert results["rip"].observed == "0xfff0" and results["cs.base"].observed == "0xffff0000"
    assert results["mp_state"].observed == ("RUNNABLE" if target == "bsp" else "INIT_RECEIVED")
    assert results["cr0"].verdict == results["xmm0"].verdict == "pass"
    assert threading.active_count() == 1


def test_a_boot_processor_that_leaves_its_loop_elsewhere_has_not_restarted(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of an INIT it is kicked out of KVM_RUN."""
    case = next(c for c in CAUGHT if (c.plant, c.state, c.target) == ("guest-long", "in-loop", "bsp"))

    monkeypatch.setitem(triggers.INIT, case.trigger, Vcpu.kick)
    with pytest.raises(TriggerError, match="did not restart: KVM_EXIT_INTR"):
        Cycle(case, machines.kept(case.setup), machines.host).observe()


def test_a_loop_that_is_not_reached_is_told(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that leaves KVM_RUN instead of looping."""
    real = inside.resume
    monkeypatch.setattr(inside, "resume", lambda vcpu, end: real(vcpu, "in"))
    case = next(c for c in CAUGHT if (c.plant, c.state, c.target) == ("guest-long", "in-loop", "ap"))
    with pytest.raises(TriggerError, match="did not come to its loop"):
        Cycle(case, machines.kept(case.setup), machines.host).observe()
    assert threading.active_count() == 1


@pytest.mark.parametrize("state", ["in-hlt", "in-port-read", "in-mmio-read"])
def test_a_guest_that_does_something_else_is_told(
    state: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = inside.resume
    monkeypatch.setattr(inside, "resume", lambda vcpu, end: real(vcpu, "in" if end == "hlt" else "ud"))
    case = next(c for c in CAUGHT if (c.plant, c.state, c.target) == ("guest-long", state, "ap"))
    with pytest.raises(TriggerError, match="the guest was to"):
        Cycle(case, machines.kept(case.setup), machines.host).observe()


def test_a_vcpu_that_has_never_run_has_a_vm_of_its_own(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(c for c in CAUGHT if (c.state, c.target) == (catch.NEVER_RUN, "ap"))
    monkeypatch.delattr(Machines, "kept")
    assert Counter(result.verdict for result in ran(case, machines))["pass"] > 100


def test_guest_debugging_ends_with_its_case(machines: Machines) -> None:
    """The next case of the same vCPU is not the host's any more: no KVM_EXIT_DEBUG, DR7 is the guest's."""
    case = next(c for c in CAUGHT if (c.state, c.target) == ("guest-debug", "ap"))
    results = by_item(case, machines)
    assert (results["dr7"].observed, results["dr7"].verdict) == ("0x400", "pass")
    after = by_item(case._replace(state="in-loop"), machines)
    assert after["dr7"].planted != "0x400" and after["dr7"].verdict == "pass"


def test_a_guest_that_does_not_shut_down_is_told(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catch.STATES, "at-triple-fault", catch.STATES["irq-requested"])
    case = next(c for c in CAUGHT if (c.event, c.target) == ("shutdown", "ap"))
    target = machines.kept(case.setup).target("ap")
    target.plant("guest-long", "xapic").write(target.vcpu)
    inside.resume(target.vcpu, "in")
    with pytest.raises(TriggerError, match="was to shut down"):
        triggers.SHUTDOWN["triple-fault"](target.vcpu)


@pytest.mark.parametrize("target", ["bsp", "ap"])
def test_a_guest_that_does_not_come_out_of_a_shutdown_is_one_error(
    target: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where KVM makes an INIT of it, as on SVM; all other items say why they have no value."""
    said = "an exception at CS:IP f000:fff0 after 0 of 31 port writes"
    monkeypatch.setattr(guest.Reporter, "report", lambda *args: Report({}, {}, said))
    monkeypatch.setattr(machines, "host", machines.host._replace(backend="svm"))
    case = next(c for c in plan.plan() if (c.event, c.view, c.target, c.check) == ("shutdown", "guest", target, ""))
    for view in ("guest", "views"):
        results = [r for r in ran(case, machines) if r.view == view]
        assert [r.item for r in results if r.verdict == "error"] == ["rip"]
        assert {r.verdict for r in results} == {"error", "skip"}
        assert all(said in r.reason and "did not come out of SHUTDOWN" in r.reason for r in results)
