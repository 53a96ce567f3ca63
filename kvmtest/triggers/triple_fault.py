# SPDX-License-Identifier: GPL-2.0-only
"""SHUTDOWN by a triple fault, and INIT out of it (SDM vol. 3, Double Fault Exception; APM vol. 2, Shutdown)."""

from __future__ import annotations

from kvmtest.kvm import RunTimeout, Vcpu
from kvmtest.state import inside
from kvmtest.triggers import msi
from kvmtest.triggers.error import TriggerError
from kvmtest.uapi.kvm import KVM_EXIT_SHUTDOWN

__all__ = ("init", "prepare", "shutdown")


def prepare(vcpu: Vcpu) -> None:
    """Put ``vcpu``, planted by guest code in 64-bit mode, before a UD2 and without an IDT, so that the fault itself changes no
    register: with no entry to read, none of the three exceptions writes CR2. Raises KvmError.
    """
    sregs = vcpu.get_sregs()
    sregs.idt.limit = 0
    vcpu.set_sregs(sregs)
    regs = vcpu.get_regs()
    regs.rip = inside.address(vcpu, "ud")
    vcpu.set_regs(regs)


def shutdown(vcpu: Vcpu) -> None:
    """Run ``vcpu``, made ready by prepare(), into its triple fault. Raises TriggerError, KvmError."""
    try:
        seen = vcpu.run()
    except RunTimeout as error:
        raise TriggerError(f"the guest was to shut down: {error}") from error
    if seen.reason != KVM_EXIT_SHUTDOWN:
        raise TriggerError(f"the guest was to shut down: {seen}")


def init(vcpu: Vcpu) -> None:
    """Send an INIT by KVM_SIGNAL_MSI to ``vcpu``, which shutdown() has shut down. Raises TriggerError, KvmError."""
    msi.init(vcpu)
