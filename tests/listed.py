# SPDX-License-Identifier: GPL-2.0-only
"""The results that a listed deviation is about, as selectors."""

from __future__ import annotations

from kvmtest import spec
from kvmtest.engine import plan
from kvmtest.spec.deviations import Deviation

__all__ = ("everywhere", "selectors")

#: Rules of their own: by the name of the deviation's event, the event and the trigger.
_OWN = {"vmm-reset": "reset.vmm-reset", "migrate": "none.migrate", "views": "*.*"}
#: Of a deviation that shows in all cases after an event, where it is asked for; in a split irqchip's VMs the local APIC's version
#: is another.
_PREFIXES = {
    "reset": ("reset.create.host",),
    "init": ("init.latched.host", "init.split.host"),
    "shutdown": ("shutdown.triple-fault.host",),
    "sipi": ("sipi.msi.host", "sipi.msi.guest"),
    "views": ("sipi.msi.views",),
}


def everywhere(deviation: Deviation) -> str:
    """The selector of all results that ``deviation`` is about."""
    id = deviation.item
    if id in spec.ENTRIES:
        view = "views" if deviation.event == "views" else deviation.view or "{host,guest}"
        id = f"{_OWN.get(deviation.event, f'{deviation.event}.*')}.{view}.{deviation.item}"
    target, mode = deviation.target and f"{deviation.target},", deviation.mode and f",{deviation.mode},"
    words = "*".join(filter(None, (target, deviation.vendor, mode, deviation.case)))
    return f"{id}/{'' if target else '*'}{words}*" if words else id


def selectors(deviation: Deviation) -> list[str]:
    """Selectors of what is enough to see ``deviation``."""
    usual = [] if deviation.case or deviation.mode else _PREFIXES.get(deviation.event, ())
    return [id for prefix in usual if plan.finds(id := f"{prefix}.{deviation.item}", full=False)] or [everywhere(deviation)]
