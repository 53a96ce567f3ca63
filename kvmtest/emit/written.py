# SPDX-License-Identifier: GPL-2.0-only
"""The ops that write values which must be kept: without them, or with another value, there is no expectation."""

from __future__ import annotations

from kvmtest.emit.repro import NoRepro, Repro
from kvmtest.scenario import program as p
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.layout import Layout

__all__ = ("keeping",)


def keeping(made: Repro, layout: Layout, item: str) -> Repro:
    """``made``, from which what writes ``item`` last is not left out, nor anything of its value. Raises NoRepro."""
    if item in COUNTERS:
        raise NoRepro(f"{item} is a counter: no single value is expected")
    field, ops = layout.fields[item], [op for _, op in made.body.ops]
    buffers: tuple[str, ...]
    if field.section == "msrs":
        index = layout.msrs[layout.by_section["msrs"].index(item)]
        buffers = (f"set_msr_{index:x}", f"msr_{item.removeprefix('msr.')}{made.target}")
    else:
        buffers = (f"{field.section}{made.target}",)
    end = field.offset + field.size

    def mine(name: object) -> bool:
        return isinstance(name, str) and any(name == one or name.startswith(f"{one}_") for one in buffers)

    written = [at for at, op in enumerate(ops) if isinstance(op, p.Ioctl) and mine(op.arg) and not op.request >> 31]
    if not written:
        raise NoRepro(f"no op that can stay alone writes {item}")
    last = written[-1]
    puts = [at for at, op in enumerate(ops[:last]) if isinstance(op, p.Put) and mine(op.place.buffer)]
    if field.section != "msrs":
        puts = [at for at in puts if _overlaps(ops[at], field.offset, end)]
    whole = puts[-1:]
    return made._replace(pinned=made.pinned | {last, *whole}, whole=frozenset(ops[at] for at in whole))


def _overlaps(op: p.Op, start: int, end: int) -> bool:
    return isinstance(op, p.Put) and op.place.offset < end and start < op.place.offset + op.place.size
