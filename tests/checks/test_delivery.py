# SPDX-License-Identifier: GPL-2.0-only
"""Each check can fail: what it looks for is made to go the other way, on a real vCPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kvmtest.checks import Check, Subject, delivery
from kvmtest.engine import plan
from kvmtest.engine.machine import Machines
from kvmtest.kvm import Exit, Vcpu
from kvmtest.triggers import msi, sender
from kvmtest.triggers.error import TriggerError
from tests.cases import judged_check, ran

WAITING, RUNNABLE = 2, 0


CHECKS: dict[str, Check] = {check.id: check for check in delivery.CHECKS}


def _do_nothing(vcpu: Vcpu) -> None:
    vcpu.get_mp_state()


def _lose_sipi(vcpu: Vcpu, vector: int) -> None:
    vcpu.get_mp_state()


def _accept_any_sipi(vcpu: Vcpu, vector: int) -> None:
    """A CPU that starts wherever it is told to, in whatever state."""
    vcpu.set_mp_state(WAITING)
    msi.send(vcpu, 0x600 | vector)
    vcpu.get_mp_state()


def _init_that_lets_an_old_sipi_in(vcpu: Vcpu) -> None:
    msi.send(vcpu, msi.INIT)
    vcpu.get_mp_state()
    msi.send(vcpu, 0x610)


@pytest.mark.parametrize("id", [check.id for check in delivery.CHECKS if not check.undefined and not check.alone])
def test_a_check_fails_on_a_vcpu_that_behaves_otherwise(
    id: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = CHECKS[id]
    case = next(case for case in plan.plan() if f"{case.prefix}.{case.check}" == id)
    target = machines.kept(case.setup).target("ap")
    target.plant("a", "xapic").write(target.vcpu)
    real = delivery.run_at
    wrong: dict[str, tuple[object, str, object]] = {
        "in-wait-for-sipi": (msi, "init", lambda vcpu: vcpu.set_mp_state(RUNNABLE)),
        "vector-ignored": (msi, "send", lambda vcpu, data: None),
        "deassert-ignored": (sender, "send", lambda vcpu, icr, x2apic: msi.init(vcpu)),
        "not-kept-for-later": (msi, "init", _init_that_lets_an_old_sipi_in),
        "behind-pending-init": (msi, "sipi", _lose_sipi),
    }
    other = (msi, "sipi", _accept_any_sipi) if check.event == "sipi" else (msi, "init", _do_nothing)

    def set_up(vcpu: Vcpu, *args: int) -> None:
        # Properly, and only then the vCPU begins to misbehave.
        real(vcpu, *args)
        monkeypatch.setattr(*wrong.get(check.name, other))

    monkeypatch.setattr(delivery, "run_at", set_up)
    assert judged_check(check, check.observe(Subject(target.vcpu))).verdict == "fail"


def test_a_message_that_reaches_nobody_is_no_pass(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    check = CHECKS["sipi.msi.host.dropped-when-running"]
    case = next(case for case in plan.plan() if case.check == check.name)
    target = machines.kept(case.setup).target("ap")

    def lost(vcpu: Vcpu, vector: int) -> None:
        raise TriggerError("reached nobody")

    real = delivery.run_at

    def set_up(vcpu: Vcpu, *args: int) -> None:
        real(vcpu, *args)
        monkeypatch.setattr(msi, "sipi", lost)

    monkeypatch.setattr(delivery, "run_at", set_up)
    (result,) = ran(case, machines)
    assert result.verdict == "error" and "reached nobody" in result.reason
    assert target.vcpu.id == 1


@pytest.mark.parametrize(
    ("run", "observed"),
    [(lambda vcpu: Exit(10), "left pending, INIT_RECEIVED f000:fff0"), (None, "taken, RUNNABLE f000:fff0")],
)
def test_a_new_vcpu_whose_run_does_not_take_the_init_fails(
    run: object, observed: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = "init.msi.host.by-run-of-new-vcpu"
    case = next(case for case in plan.plan() if f"{case.prefix}.{case.check}" == id)

    def taken_for_a_bsp(vcpu: Vcpu) -> Exit:
        vcpu.get_mp_state()
        vcpu.set_mp_state(RUNNABLE)
        return Exit(10)

    monkeypatch.setattr(Vcpu, "run_once", run or taken_for_a_bsp)
    (result,) = ran(case, machines)
    assert (result.verdict, result.observed) == ("fail", observed)


def test_a_run_that_blocks_is_ended(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vCPU that waits for a SIPI does not come back by itself."""
    case = next(case for case in plan.plan() if case.check == "by-run-of-new-vcpu")
    real = msi.init

    def taken(vcpu: Vcpu) -> None:
        real(vcpu)
        vcpu.get_mp_state()
        real(vcpu)
        monkeypatch.setattr(vcpu, "get_vcpu_events", lambda: SimpleNamespace(smi=SimpleNamespace(latched_init=1)))

    monkeypatch.setattr(msi, "init", taken)
    (result,) = ran(case, machines, timeout_s=0.05)
    assert (result.verdict, result.reason) == ("fail", "KVM_RUN ends with KVM_EXIT_INTR")
