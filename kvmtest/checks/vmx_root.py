# SPDX-License-Identifier: GPL-2.0-only
"""INIT and SIPI in VMX root operation: the one stays latched until VMXOFF, the other is dropped."""

from __future__ import annotations

from kvmtest.checks.check import Check, Observation, Stopped, Subject
from kvmtest.checks.vmx import TURNS, WHILE_S, Nested, state
from kvmtest.guests import l1, vmx
from kvmtest.spec.cite import S_MP, S_VMX_ACTIVITY, S_VMX_EXITS, S_VMX_LIMITS, S_VMXOFF
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import KVM_EXIT_IO, KVM_MP_STATE_HALTED

__all__ = ("CHECKS",)


def _latched(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_ROOT)
    msi.init(stage.vcpu)
    port, _ = stage.next()
    if port == l1.PORT_RESET:
        return "taken in VMX root operation"
    if port != l1.PORT_VALUE:
        raise Stopped(f"L1's loop in VMX root operation ends at port {port:#x}")
    return f"goes on, {'latched' if stage.vcpu.get_vcpu_events().smi.latched_init else 'lost'}"


def _halted(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_HALT)
    if (seen := stage.until_state(KVM_MP_STATE_HALTED)) is not None:
        raise Stopped(f"L1's HLT ends without INIT: {seen}")
    msi.init(stage.vcpu)
    seen = stage.run_for(WHILE_S)
    if seen is None:
        return state(stage.vcpu)
    return "restarts" if seen.port == l1.PORT_RESET else "HLT ends"


def _at_vmxoff(subject: Subject) -> Observation:
    stage = Nested(subject, vmx.TOPIC_ROOT)
    msi.init(stage.vcpu)
    stage.expect(l1.PORT_VALUE)
    port, turns = stage.next()
    if port == l1.PORT_RESET:
        return Observation("restarts")
    if port != l1.PORT_LEFT:
        raise Stopped(f"L1's loop behind VMXOFF ends at port {port:#x}")
    stage.vcpu.get_mp_state()
    later = stage.listen()
    restarts = later is not None and later.reason == KVM_EXIT_IO and later.port == l1.PORT_RESET
    return Observation("goes on, restarts later" if restarts else "goes on", f"{turns - TURNS} turns of a loop behind VMXOFF")


def _sipi_in_root(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_ROOT)
    msi.sipi(stage.vcpu, l1.CODE >> 12)
    port, _ = stage.next()
    if port == l1.PORT_SIPI:
        return "started by the SIPI"
    stage.expect(l1.PORT_LEFT)
    msi.init(stage.vcpu)
    return f"goes on, behind INIT {state(stage.vcpu)}"


def _sipi_behind_latched(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_ROOT)
    msi.init(stage.vcpu)
    msi.sipi(stage.vcpu, l1.CODE >> 12)
    stage.expect(l1.PORT_VALUE)
    seen = stage.listen()
    after = state(stage.vcpu)
    if seen is None or seen.reason == KVM_EXIT_IO and seen.port == l1.PORT_LEFT:
        return f"behind VMXOFF {after}"
    return "started by the SIPI" if seen.port == l1.PORT_SIPI else str(seen)


_ROOT = (S_VMX_LIMITS, S_VMX_EXITS)
_DROPPED = (S_MP, S_VMX_LIMITS, S_VMX_ACTIVITY)

CHECKS = (
    Check(
        "init", "msi", "latched-in-vmx-root", ("E-16",), "goes on, latched", _latched, _ROOT,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "halted-in-vmx-root", ("E-16", "E-24"), "HALTED", _halted, _ROOT,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "taken-at-vmxoff", ("E-16",), "restarts", _at_vmxoff, (S_VMX_LIMITS, S_VMXOFF),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "sipi", "msi", "dropped-in-vmx-root", ("E-5", "E-16"), "goes on, behind INIT INIT_RECEIVED", _sipi_in_root,
        _DROPPED, view="guest", alone=True,
    ),
    Check(
        "sipi", "msi", "dropped-behind-init-in-vmx-root", ("E-5", "E-16"), "behind VMXOFF INIT_RECEIVED", _sipi_behind_latched,
        _DROPPED, view="guest", alone=True,
    ),
)  # fmt: skip
