# SPDX-License-Identifier: GPL-2.0-only
"""The rows of the project's event table, and the result ids that show each of them.

What checks of this folder show is in their own ``rows``; here is what items show.
"""

from __future__ import annotations

from kvmtest.checks import CHECKS

__all__ = ("ROWS", "TABLE")

#: The rows that are to be shown.
TABLE = tuple(f"E-{n}" for n in range(1, 31))

#: Rows that are shown by items of a case, too.
_ITEMS = {
    "E-1": ("init.msi.host.mp_state",),
    "E-2": ("init.msi.host.mp_state", "init.msi.host.apic_base", "init.msi.guest.rip", "init.msi.guest.cs.base"),
    "E-4": ("sipi.msi.host.mp_state",),
    "E-12": (
        "sipi.msi.host.cs.selector",
        "sipi.msi.host.cs.base",
        "sipi.msi.host.cs.limit",
        "sipi.msi.host.rip",
        "sipi.msi.host.rdx",
        "sipi.msi.guest.cs.selector",
        "sipi.msi.guest.cs.base",
        "sipi.msi.guest.rip",
    ),
    "E-25": tuple(f"init.msi.host.lapic.irr{i}" for i in range(8)) + tuple(f"init.msi.host.lapic.isr{i}" for i in range(8)),
    "E-27": ("init.icr-x2apic.host.apic_base", "init.icr-x2apic.host.lapic.id"),
    "E-28": ("init.latched.host.apic_base",),
    "E-29": ("init.msi.host.rflags", "init.msi.host.cr0"),
}

#: Row -> result ids, checks first.
ROWS: dict[str, tuple[str, ...]] = {
    row: tuple(check.id for check in CHECKS.values() if row in check.rows) + _ITEMS.get(row, ()) for row in TABLE
}
