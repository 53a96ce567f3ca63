# SPDX-License-Identifier: GPL-2.0-only
"""The triggers that run the vCPU's own code: INIT to itself, shutdown, INIT out of it."""

from __future__ import annotations

import pytest

from kvmtest import triggers
from kvmtest.engine import catch
from kvmtest.engine.machine import Target
from kvmtest.kvm import Exit, RunTimeout
from kvmtest.state import inside
from kvmtest.triggers import msi, restart, self_ipi
from kvmtest.triggers.error import TriggerError
from kvmtest.uapi.kvm import KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE


def _plant(target: Target, apic_mode: str = "xapic") -> None:
    target.plant("guest-long", apic_mode).write(target.vcpu)


@pytest.mark.parametrize("apic_mode", ["xapic", "x2apic"])
def test_an_ap_that_inits_itself_waits_for_its_sipi(targets: dict[str, Target], apic_mode: str) -> None:
    vcpu, other = targets["ap"].vcpu, targets["bsp"].vcpu
    _plant(targets["ap"], apic_mode)
    assert self_ipi.init(vcpu) is None
    assert vcpu.get_mp_state() == KVM_MP_STATE_INIT_RECEIVED
    assert (vcpu.get_regs().rip, vcpu.get_sregs().cs.base) == (0xFFF0, 0xFFFF0000)
    assert other.get_mp_state() == KVM_MP_STATE_RUNNABLE


def test_a_boot_processor_that_inits_itself_restarts(targets: dict[str, Target]) -> None:
    vcpu = targets["bsp"].vcpu
    _plant(targets["bsp"])
    seen = self_ipi.init(vcpu)
    assert seen is not None and seen.port == restart.PORT
    vcpu.complete_io()
    assert vcpu.get_regs().rip == 0xFFF0 + restart.SIZE_OF_OUT


def test_an_icr_that_means_no_init_is_an_error(targets: dict[str, Target], monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed interrupt to itself, which the planted code cannot take: it halts behind it."""
    _plant(targets["bsp"])
    monkeypatch.setattr(self_ipi, "_WAIT_S", 0.01)
    with pytest.raises(TriggerError):
        self_ipi.init(targets["bsp"].vcpu, msi.ASSERT | 0x55)


@pytest.mark.parametrize("apic_mode", ["xapic", "x2apic"])
def test_an_ap_that_gets_no_cpu_is_waited_for(
    targets: dict[str, Target], apic_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first times in KVM_RUN end before it has executed anything: no INIT was sent then."""
    vcpu = targets["ap"].vcpu
    _plant(targets["ap"], apic_mode)
    real, left = vcpu.run, [3]

    def starved(timeout_s: float) -> Exit:
        if left[0]:
            left[0] -= 1
            raise RunTimeout(vcpu, timeout_s)
        return real(timeout_s)

    monkeypatch.setattr(vcpu, "run", starved)
    assert self_ipi.init(vcpu) is None
    assert not left[0] and vcpu.get_mp_state() == KVM_MP_STATE_INIT_RECEIVED


def test_an_ap_that_sends_itself_no_init_is_an_error(targets: dict[str, Target], monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs, and its registers change: that is no trace of an INIT."""
    _plant(targets["ap"])
    real = inside.resume
    monkeypatch.setattr(inside, "resume", lambda vcpu, end: real(vcpu, "loop"))
    monkeypatch.setattr(self_ipi, "_LIMIT_S", 0.05)
    with pytest.raises(TriggerError, match="sent itself no INIT"):
        self_ipi.init(targets["ap"].vcpu)


def test_a_boot_processor_that_stops_elsewhere_has_not_restarted(
    targets: dict[str, Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(targets["bsp"])
    real = inside.resume
    monkeypatch.setattr(inside, "resume", lambda vcpu, end: real(vcpu, "in"))
    with pytest.raises(TriggerError, match="was to restart by its own INIT"):
        self_ipi.init(targets["bsp"].vcpu)


@pytest.mark.parametrize("name", ["bsp", "ap"])
def test_shutdown_and_init_out_of_it(targets: dict[str, Target], name: str) -> None:
    target = targets[name]
    _plant(target)
    catch.prepare("at-triple-fault", target.vcpu)
    triggers.SHUTDOWN["triple-fault"](target.vcpu)
    msi.init(target.vcpu)
    assert target.vcpu.get_mp_state() == (KVM_MP_STATE_RUNNABLE if name == "bsp" else KVM_MP_STATE_INIT_RECEIVED)
    assert target.vcpu.get_sregs().cr0 & 0x80000001 == 0
