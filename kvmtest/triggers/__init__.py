# SPDX-License-Identifier: GPL-2.0-only
"""Ways to make RESET, INIT and SIPI happen, one a file.

A trigger is a function of the target vCPU (and, for a SIPI, of the vector) that makes the event pending; KVM takes it in the
next KVM_GET_MP_STATE or KVM_RUN. One that runs the vCPU itself returns the exit of a boot processor that has restarted. It
raises TriggerError where KVM lets it know that nobody received the event.
"""

from __future__ import annotations

from collections.abc import Callable

from kvmtest.kvm import Exit, Vcpu
from kvmtest.triggers import (
    broadcast,
    gsi_msi,
    icr_x2apic,
    icr_xapic,
    ioapic,
    irqfd,
    latched,
    mp_state,
    msi,
    self_ipi,
    split,
    triple_fault,
)

__all__ = ("INIT", "NONE", "SHUTDOWN", "SIPI")

#: Triggers of INIT by name, as ``trigger`` or ``trigger/variant``. RESET is the creation of a vCPU.
INIT: dict[str, Callable[[Vcpu], Exit | None]] = {
    "latched": latched.init,
    "msi": msi.init,
    "gsi-msi": gsi_msi.init,
    "irqfd": irqfd.init,
    "ioapic": ioapic.init,
    "split": split.init,
    "icr-xapic": icr_xapic.init,
    "icr-xapic/logical": icr_xapic.init_logical,
    "icr-x2apic": icr_x2apic.init,
    "icr-x2apic/logical": icr_x2apic.init_logical,
    "broadcast": broadcast.init,
    "self": self_ipi.init,
    "triple-fault": triple_fault.init,
}
#: Triggers of SIPI by name; a vector goes with them.
SIPI: dict[str, Callable[[Vcpu, int], None]] = {
    "msi": msi.sipi,
    "mp-state": mp_state.sipi,
}
#: Triggers of SHUTDOWN by name.
SHUTDOWN: dict[str, Callable[[Vcpu], None]] = {
    "triple-fault": triple_fault.shutdown,
}
#: What is no event: it must leave all state alone but what it writes.
NONE: dict[str, Callable[[Vcpu], None]] = {
    "mp-state": mp_state.init_received,
}
