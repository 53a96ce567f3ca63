# SPDX-License-Identifier: GPL-2.0-only
"""The behaviours whose failure means that an event is lost, or that a guest does not run: what a report shows first."""

from __future__ import annotations

__all__ = ("LOST",)


def _ids(prefix: str, items: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{item}" for item in items.split())


LOST = frozenset(
    (
        *_ids("init.broadcast.host", "reached"),
        *_ids("init.msi.host", "to-newest-vcpu id-above-255 same-apic-id same-apic-id-32-bit-ids by-run-of-new-vcpu halted"),
        *_ids("init.msi.host", "software-disabled-apic"),
        *_ids("init.latched.host", "disabled-apic over-init-received"),
        *_ids("init.msi.guest", "runs exits pending"),
        *_ids("init.msi.host", "pending"),
        *_ids("sipi.msi.host", "behind-pending-init"),
        *_ids("sipi.mp-state.guest", "run"),
        *_ids("sipi.mp-state.host", "vector-behind-state taken-when-running taken-when-halted"),
        *_ids("sipi.msi.guest", "vectors-a0-bf exits runs"),
        *_ids("sipi.stress.host", "arrivals"),
    )
)
