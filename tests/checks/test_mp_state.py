# SPDX-License-Identifier: GPL-2.0-only
"""What KVM_SET_MP_STATE does, on a KVM that does otherwise as well."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

from kvmtest.checks import Subject, Untestable, mp_state
from kvmtest.engine import host
from kvmtest.engine.machine import Machines
from kvmtest.engine.plan import Setup
from kvmtest.kvm import Kvm, KvmError, Vcpu
from kvmtest.model.record import Result
from kvmtest.uapi.kvm import KVM_SET_MP_STATE
from tests.cases import judged_check

CHECKS = {check.id: check for check in mp_state.CHECKS}
JUDGED = [check for check in mp_state.CHECKS if not check.undefined and not check.alone]


@pytest.fixture
def ap(kvm: Kvm) -> Iterator[Vcpu]:
    machines = Machines(kvm, host.detect())
    target = machines.kept(Setup("full", "intel")).target("ap")
    target.plant("a", "xapic").write(target.vcpu)
    yield target.vcpu
    machines.close()


@pytest.mark.parametrize("id", [id for id, check in CHECKS.items() if not check.alone])
def test_none_fails_here(id: str, ap: Vcpu) -> None:
    assert judged_check(CHECKS[id], CHECKS[id].observe(Subject(ap))).verdict in ("pass", "info")


@pytest.mark.parametrize("check", [c for c in JUDGED if c.name != "without-irqchip"], ids=lambda c: c.id)
def test_a_kvm_that_drops_the_state_fails(check: mp_state.Check, ap: Vcpu, monkeypatch: pytest.MonkeyPatch) -> None:
    ap.set_mp_state(1)
    monkeypatch.setattr(ap, "set_mp_state", lambda state: None)
    if check.name == "discarded-by-init":
        monkeypatch.setattr(mp_state.msi, "init", lambda vcpu: None)
    assert judged_check(check, check.observe(Subject(ap))).verdict == "fail"


def test_a_kvm_that_takes_all_without_an_irqchip_fails(ap: Vcpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vcpu, "set_mp_state", lambda vcpu, state: None)
    check = CHECKS["none.mp-state.host.without-irqchip"]
    assert judged_check(check, check.observe(Subject(ap))).verdict == "fail"


def test_another_errno_is_told(ap: Vcpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(state: int) -> None:
        raise KvmError(errno.EBUSY, KVM_SET_MP_STATE, "made up")

    monkeypatch.setattr(ap, "set_mp_state", refuse)
    assert CHECKS["none.mp-state.host.of-no-x86"].observe(Subject(ap)).startswith("5: EBUSY, 6: EBUSY")


def test_a_start_elsewhere_or_none_fails(judged: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    real = mp_state.mp_state.sipi

    def sipi(vcpu: Vcpu, vector: int) -> None:
        real(vcpu, vector)
        vcpu.get_mp_state()
        regs = vcpu.get_regs()
        regs.rip = 0x20
        vcpu.set_regs(regs)

    monkeypatch.setattr(mp_state.mp_state, "sipi", sipi)
    result = judged("sipi.mp-state.guest.run")
    assert (result.verdict, result.observed) == ("fail", "runs something else")
    monkeypatch.setattr(mp_state.mp_state, "sipi", lambda vcpu, vector: None)
    result = judged("sipi.mp-state.guest.run", timeout_s=0.05)
    assert (result.verdict, result.observed) == ("fail", "runs nothing")


def test_orders_and_answers_are_recorded(ap: Vcpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def observe(id: str) -> object:
        return CHECKS[id].observe(Subject(ap))

    monkeypatch.setattr(mp_state.latched, "init", lambda vcpu: None)
    assert observe("init.latched.host.over-init-received") != CHECKS["init.latched.host.over-init-received"].expected
    monkeypatch.setattr(mp_state, "KVM_VCPUEVENT_VALID_SIPI_VECTOR", 0)
    assert observe("sipi.mp-state.host.vector-behind-state") == "RUNNABLE 9e00:0000"

    monkeypatch.setattr(ap, "set_mp_state", lambda state: None)
    assert observe("none.mp-state.host.ap-reset-hold") != "taken, reads back"


def test_a_kick_that_is_left_is_told(ap: Vcpu, monkeypatch: pytest.MonkeyPatch) -> None:
    check, real = CHECKS["sipi.msi.host.earlier-kick"], mp_state.msi.sipi

    def sipi(vcpu: Vcpu, vector: int) -> None:
        real(vcpu, vector)
        vcpu.get_mp_state()
        mp_state.msi.send(vcpu, 0x300)

    monkeypatch.setattr(mp_state.msi, "sipi", sipi)
    assert check.observe(Subject(ap)) == "RUNNABLE"
    monkeypatch.setattr(mp_state.msi, "send", lambda vcpu, data: None)
    ap.set_mp_state(0)
    with pytest.raises(Untestable):
        check.observe(Subject(ap))
