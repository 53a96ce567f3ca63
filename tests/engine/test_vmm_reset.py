# SPDX-License-Identifier: GPL-2.0-only
"""A reset that leaves anything unreset, in any order of its ioctls, is reported."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from kvmtest.engine import guest, plan
from kvmtest.engine.machine import Machines
from kvmtest.model.record import Result
from kvmtest.state.guest_view import Report
from kvmtest.state.vmm_reset import Reset, orders
from tests.cases import CASES, by_view, ran, the

HOST = the("reset.vmm-reset.host/ap,full-irqchip,intel,xapic,plant-a")
GUEST = the("reset.vmm-reset.guest/bsp,full-irqchip,intel,xapic,plant-a")


def _run(case: plan.Case, machines: Machines) -> dict[tuple[str, str], Result]:
    return by_view(case, machines)


def _failed(case: plan.Case, machines: Machines) -> set[str]:
    return {r.item for r in ran(case, machines) if r.verdict == "fail"}


def _leave_out(monkeypatch: pytest.MonkeyPatch, section: str, when: tuple[str, ...] | None = None, said: str = "") -> None:
    """KVM does not take ``section``: in order ``when`` or always, with the error ``said`` or without one."""
    real = Reset.write

    def write(reset: Reset, order: Iterable[str]) -> dict[str, str]:
        order = tuple(order)
        if when in (None, order):
            refused = real(reset, [name for name in order if name != section])
            return refused | ({section: said} if said else {})
        return real(reset, order)

    monkeypatch.setattr(Reset, "write", write)


def test_a_used_vcpu_is_proven_to_have_been_used(machines: Machines) -> None:
    results = _run(HOST, machines)
    rbx = results["host", "rbx"]
    assert (rbx.verdict, rbx.expected) == ("pass", "0x0") and rbx.planted not in (None, "0x0")
    state = results["host", "mp_state"]
    assert (state.planted, state.expected, state.verdict) == ("HALTED", "UNINITIALIZED", "pass")
    # A register that cannot be another than on a new vCPU proves nothing.
    assert results["host", "lapic.id"].verdict == "skip"


@pytest.mark.parametrize(("said", "verdict"), [("", "fail"), ("KVM_SET_DEBUGREGS: made up", "error")])
def test_a_section_that_is_not_restored_is_reported(
    said: str, verdict: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that KVM took fails; of one that it refused nothing is known but the errno."""
    _leave_out(monkeypatch, "debugregs", said=said)
    results = _run(HOST, machines)
    shown = {item for (_, item), r in results.items() if r.verdict == verdict}
    assert shown >= {"dr0", "dr1", "dr2", "dr3", "dr6", "dr7"} and "rbx" not in shown
    assert results["host", "dr7"].reason == said


@pytest.mark.parametrize("case", [HOST, GUEST], ids=lambda case: case.view)
def test_cpuid_goes_by_the_section_that_it_follows(
    case: plan.Case, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of the XSAVE area says no more of a KVM that refused XCR0 than XCR0 does."""
    _leave_out(monkeypatch, "xcrs", said="KVM_SET_XCRS: made up")
    results = _run(case, machines)
    size = results[case.view, "cpuid.d.ebx"]
    if size.verdict == "skip":
        pytest.skip(size.reason)
    assert (size.verdict, size.reason) == ("error", "KVM_SET_XCRS: made up")
    assert not [item for (_, item), r in results.items() if r.verdict == "fail" and item.startswith(("xcr", "cpuid"))]


def test_the_order_that_leaves_something_is_named(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = machines.kept(HOST.setup).target("ap").reset.sections
    wrong = orders(sections)[-1]
    _leave_out(monkeypatch, "xcrs", when=wrong)
    xcr0 = _run(HOST, machines)["host", "xcr0"]
    assert xcr0.verdict == "fail" and xcr0.reason == f"orders {'>'.join(wrong)} of {len(orders(sections))}"


def test_a_reset_that_writes_nothing_is_an_error(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reset, "write", lambda reset, order: {})
    for case in (HOST, GUEST):
        results = ran(case, machines)
        assert {r.verdict for r in results} == {"error"} and "was not written" in results[0].reason


def test_guest_code_says_the_same_as_on_a_new_vcpu(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    results = _run(GUEST, machines)
    assert {r.verdict for r in results.values()} <= {"pass", "skip", "info"}
    assert results["guest", "cr0"].verdict == results["guest", "rbx"].verdict == results["views", "cr0"].verdict == "pass"
    _leave_out(monkeypatch, "debugregs")
    assert {"dr0", "dr6"} <= _failed(GUEST, machines)


def test_a_guest_that_reported_something_else_when_it_was_new_fails(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    real, reports = guest.Reporter.report, []

    def otherwise(*args: object) -> Report:
        reports.append(real(*args))  # type: ignore[arg-type]
        if len(reports) == 1:
            return reports[0]._replace(values=reports[0].values | {"rbx": 0x77})
        return reports[-1]

    monkeypatch.setattr(guest.Reporter, "report", otherwise)
    assert _failed(GUEST, machines) == {"rbx"}


def test_a_guest_that_reported_nothing_when_it_was_new_is_an_error(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    real, reports = guest.Reporter.report, []

    def silent(*args: object) -> Report:
        reports.append(real(*args))  # type: ignore[arg-type]
        return reports[-1] if len(reports) > 1 else Report({}, {}, "said nothing")

    monkeypatch.setattr(guest.Reporter, "report", silent)
    shown = [r for (view, _), r in _run(GUEST, machines).items() if view == "guest"]
    assert {r.verdict for r in shown} == {"error"} and shown[0].reason == "said nothing"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.trigger == "vmm-reset" and not case.sequence])
def test_every_case_proves_something(name: str, machines: Machines) -> None:
    verdicts = [r.verdict for r in ran(CASES[name], machines)]
    # Not every KVM takes what the planting guests start from.
    refused = CASES[name].plant.startswith("guest-") and set(verdicts) == {"skip"}
    assert refused or verdicts.count("pass") > 20 and "error" not in verdicts
