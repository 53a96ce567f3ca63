# SPDX-License-Identifier: GPL-2.0-only
"""Checks of where a vCPU goes on fail for one that goes on elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import restart
from kvmtest.kvm import Exit, Vcpu
from kvmtest.model.record import Result
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import KVM_EXIT_HLT

Judge = Callable[..., Result]
real_init = msi.init


def _elsewhere(vcpu: Vcpu) -> None:
    """INIT, and then execution begins at 0100:0000."""
    real_init(vcpu)
    vcpu.get_mp_state()
    sregs, regs = vcpu.get_sregs(), vcpu.get_regs()
    sregs.cs.selector, sregs.cs.base, regs.rip = 0x100, 0x1000, 0
    vcpu.set_sregs(sregs)
    vcpu.set_regs(regs)


def _nothing(vcpu: Vcpu) -> None:
    vcpu.get_mp_state()


def _once_booted(monkeypatch: pytest.MonkeyPatch, init: Callable[[Vcpu], None]) -> None:
    """INIT as it is for booting, and ``init`` from then on."""
    boot = restart.Stage.boot

    def booted(stage: restart.Stage) -> None:
        boot(stage)
        monkeypatch.setattr(msi, "init", init)

    monkeypatch.setattr(restart.Stage, "boot", booted)


@pytest.mark.parametrize(
    ("name", "init", "observed"),
    [
        ("first-instruction", _elsewhere, "one that writes to port 0xf3"),
        ("out-of-shutdown", _elsewhere, "went on with KVM_EXIT_IO out port=0xf3 size=4 count=1 data=00 01 00 00"),
        ("executes-nothing", _nothing, "RUNNABLE, ran the old loop"),
    ],
)
def test_a_vcpu_that_goes_on_elsewhere_fails(
    name: str, init: Callable[[Vcpu], None], observed: str, judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    _once_booted(monkeypatch, init)
    result = judged(f"init.msi.guest.{name}")
    assert (result.verdict, result.observed) == ("fail", observed)


@pytest.mark.parametrize("name", ["first-instruction", "out-of-shutdown"])
def test_an_init_that_never_came_is_no_pass(name: str, judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    _once_booted(monkeypatch, _nothing)
    assert judged(f"init.msi.guest.{name}", timeout_s=0.05).verdict in ("error", "fail")


def test_a_table_that_stays_where_it_was_fails(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(vcpu: Vcpu) -> None:
        real_init(vcpu)
        vcpu.get_mp_state()
        sregs = vcpu.get_sregs()
        sregs.idt.base, sregs.idt.limit = 0x8000, 0x3FF
        vcpu.set_sregs(sregs)

    _once_booted(monkeypatch, init)
    result = judged("init.msi.guest.vector-ff")
    assert (result.verdict, result.observed) == ("fail", "through the old table")


@pytest.mark.parametrize(("init", "verdict"), [(real_init, "pass"), (_nothing, "fail")])
def test_a_mode_that_init_does_not_leave_fails(
    init: Callable[[Vcpu], None], verdict: str, judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    if judged("init.msi.guest.leaves-virtual-8086").verdict == "skip":
        # A KVM that does not keep RFLAGS.VM keeps RFLAGS.ID in its place.
        monkeypatch.setattr(restart, "_RFLAGS_VM", 1 << 21)
    _once_booted(monkeypatch, init)
    assert judged("init.msi.guest.leaves-virtual-8086").verdict == verdict


def test_a_triple_fault_that_is_not_told_fails(
    judged: Judge, untestable_here: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    id = "shutdown.vcpu-events.host.triple-fault"
    untestable_here(id)
    monkeypatch.setattr(restart.Stage, "run", lambda stage: Exit(KVM_EXIT_HLT))
    result = judged(id)
    assert (result.verdict, result.observed) == ("fail", "KVM_EXIT_HLT, one still pending")
    monkeypatch.setattr(Vcpu, "set_vcpu_events", lambda vcpu, events: None)
    assert judged(id).verdict == "error"
