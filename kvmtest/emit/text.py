# SPDX-License-Identifier: GPL-2.0-only
"""What the statements of a reproducer are made of."""

from __future__ import annotations

from kvmtest.emit.variables import number
from kvmtest.scenario import program as p

__all__ = ("changed", "concerns", "quoted")


def concerns(op: p.Op, vcpu: int) -> bool:
    """Whether an op is one of that vCPU."""
    if isinstance(op, p.Ioctl):
        return op.on == vcpu
    if isinstance(op, p.Poll):
        return op.vcpu == vcpu or any(concerns(one, vcpu) for one in op.read)
    return getattr(op, "vcpu", None) == vcpu


def changed(register: str, mask: int, value: int) -> str:
    if mask == 0xFFFFFFFF:
        return f"entry->{register} = {number(value)};"
    if value == mask:
        return f"entry->{register} |= {number(value)};"
    kept = f"(entry->{register} & {~mask & 0xFFFFFFFF:#x})"
    return f"entry->{register} = {kept} | {number(value)};" if value else f"entry->{register} &= {~mask & 0xFFFFFFFF:#x};"


def quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
