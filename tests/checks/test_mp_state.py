# SPDX-License-Identifier: GPL-2.0-only
"""What KVM_SET_MP_STATE does, on a KVM that does otherwise as well."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from kvmtest.checks import Subject, mp_state
from kvmtest.engine import host
from kvmtest.engine.judge import judge_check
from kvmtest.engine.machine import Machines
from kvmtest.engine.plan import Setup
from kvmtest.kvm import Kvm, KvmError, Vcpu
from kvmtest.uapi.kvm import KVM_SET_MP_STATE

CHECKS = {check.id: check for check in mp_state.CHECKS}
JUDGED = [check for check in mp_state.CHECKS if not check.undefined]


@pytest.fixture
def ap(kvm: Kvm) -> Iterator[Vcpu]:
    machines = Machines(kvm, host.detect())
    target = machines.kept(Setup("full", "intel")).target("ap")
    target.plant("a", "xapic").write(target.vcpu)
    yield target.vcpu
    machines.close()


@pytest.mark.parametrize("id", CHECKS)
def test_none_fails_here(id: str, ap: Vcpu) -> None:
    assert judge_check(CHECKS[id], "case", CHECKS[id].observe(Subject(ap))).verdict in ("pass", "info")


@pytest.mark.parametrize("check", [c for c in JUDGED if c.name != "without-irqchip"], ids=lambda c: c.id)
def test_a_kvm_that_drops_the_state_fails(check: mp_state.Check, ap: Vcpu, monkeypatch: pytest.MonkeyPatch) -> None:
    ap.set_mp_state(1)
    monkeypatch.setattr(ap, "set_mp_state", lambda state: None)
    if check.name == "discarded-by-init":
        monkeypatch.setattr(mp_state.msi, "init", lambda vcpu: None)
    assert judge_check(check, "case", check.observe(Subject(ap))).verdict == "fail"


def test_a_kvm_that_takes_all_without_an_irqchip_fails(ap: Vcpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vcpu, "set_mp_state", lambda vcpu, state: None)
    check = CHECKS["none.mp-state.host.without-irqchip"]
    assert judge_check(check, "case", check.observe(Subject(ap))).verdict == "fail"


def test_another_errno_is_told(ap: Vcpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(state: int) -> None:
        raise KvmError(errno.EBUSY, KVM_SET_MP_STATE, "made up")

    monkeypatch.setattr(ap, "set_mp_state", refuse)
    assert CHECKS["none.mp-state.host.of-no-x86"].observe(Subject(ap)).startswith("5: EBUSY, 6: EBUSY")
