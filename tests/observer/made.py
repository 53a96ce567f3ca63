# SPDX-License-Identifier: GPL-2.0-only
"""Logs of an observer, recorded in QEMU's TCG and in Bochs with two processors each, and changed ones.

``kvmtest vmm --resets cf9,init --log FILE qemu-system-x86_64 -accel tcg -cpu max`` records it anew, where the lines change.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from kvmtest.guests import spine
from kvmtest.model.record import Record
from kvmtest.observer.log import Boot, Log, Look, parse
from kvmtest.state.guest_view import LIMITS
from kvmtest.state.layout import Layout
from kvmtest.x86 import cpuid, lapic, msr

_LOGS = Path(__file__).parents[1] / "data" / "observer"
RECORDED = gzip.decompress((_LOGS / "qemu-tcg.log.gz").read_bytes())
_BASES = frozenset(f"{seg}.base" for seg in ("ds", "es", "ss", "fs", "gs"))
_ALIASES = {"efer": 0xC0000080, "apic_base": 0x1B}
_ROWS = ("fxsave", "xsave")


def loaded(name: str = "qemu-tcg") -> Log:
    """The first boot of a recorded log as a boot loader would have started it: INIT and SIPI of the second processor alone."""
    boot = recorded(name).boots[0]
    looks = [look for look in boot.looks if look.kind != "plant" or look.apic_id]
    return Log([boot._replace(loaded=True, looks=looks, sent=[])], True)


@cache
def recorded(name: str = "qemu-tcg") -> Log:
    return parse(gzip.decompress((_LOGS / f"{name}.log.gz").read_bytes()))


def copied(look: Look) -> Look:
    return look._replace(
        named=dict(look.named), steps=dict(look.steps), lists={name: list(rows) for name, rows in look.lists.items()}
    )


def put(look: Look, item: str, value: int) -> None:
    """Let ``look`` say that ``item`` is ``value``."""
    name = item.upper().replace(".", "_")
    if item.startswith("msr.") or item in _ALIASES:
        index = _ALIASES[item] if item in _ALIASES else msr.index_of(item.removeprefix("msr."))
        look.lists["msr"] = [(index, value) if row[0] == index else row for row in look.lists["msr"]]
    elif item.startswith("lapic."):
        offset = lapic.offset_of(item.removeprefix("lapic."))
        look.lists["lapic"] = [(offset, value) if row[0] == offset else row for row in look.lists["lapic"]]
    elif not _field(look, item, value):
        look.named[name] = value + spine.PROBE & 0xFFFFFFFF if item in _BASES else value


@cache
def _layout(leaves: tuple[cpuid.CpuidEntry, ...]) -> Layout:
    return Layout((), cpuid.xsave_components(list(leaves)), {}, tuple((leaf.function, leaf.index) for leaf in leaves))


def _field(look: Look, item: str, value: int) -> bool:
    """The same of a register in the XSAVE area; False for another."""
    layout = _layout(tuple(look.leaves))
    if item not in layout.by_section["xsave"]:
        return False
    field = layout.fields[item]
    for kind in _ROWS:
        area = bytearray(0x4000)
        for offset, high, low in look.lists[kind]:
            area[offset : offset + 16] = low.to_bytes(8, "little") + high.to_bytes(8, "little")
        if kind == "xsave" and field.component is not None:
            area[512 + field.component // 8] |= 1 << field.component % 8
        field.put(area, value)
        words = [
            (at, *(int.from_bytes(area[at + i : at + i + 8], "little") for i in (8, 0))) for at in range(0, len(area), 16)
        ]
        look.lists[kind] = [row for row in words if any(row[1:]) and (kind == "xsave" or row[0] < 512)]
    return True


def _lines(boot: Boot) -> Iterator[str]:
    yield f"KVMTEST-OBSERVER 1 {boot.image:x} boot {boot.number:x} {'loaded' if boot.loaded else 'firmware'}"
    sent = iter(boot.sent)
    for at, look in enumerate(boot.looks):
        yield f"{look.kind} {look.apic_id:x} {look.round:x} {look.method}"
        yield from (f"{name} {value:x}" for name, value in look.named.items())
        yield from (f"step {name} {value:x}" for name, value in look.steps.items())
        for name, rows in look.lists.items():
            yield from (" ".join((name, *(f"{number:x}" for number in row))) for row in rows)
        yield "over"
        yield "crc"
        own = look.kind == "plant" and look.method != "sipi"
        if own and at + 1 < len(boot.looks):
            yield f"send {next(sent)}"
            yield "crc"
    for last in sent:
        yield f"send {last}"
        yield "crc"


def printed(log: Log) -> bytes:
    """``log`` as an observer prints it, with its checksums."""
    out, crc = bytearray(), 0
    ends = ["end", "crc"] if log.ended else []
    for boot in log.boots:
        crc = 0
        for line in (*_lines(boot), *(ends if boot is log.boots[-1] else ())):
            data = (f"crc {crc:x}" if line == "crc" else line).encode() + b"\n"
            crc = zlib.crc32(data, crc)
            out += data
    return bytes(out)


def changed(log: Log, boot: int, look: int, values: dict[str, int]) -> Log:
    """The log that an observer prints where one look shows other ``values``."""
    boots = list(log.boots)
    looks = list(boots[boot].looks)
    looks[look] = copied(looks[look])
    for item, value in values.items():
        put(looks[look], item, value)
    boots[boot] = boots[boot]._replace(looks=looks)
    return parse(printed(log._replace(boots=boots)))


def another(record: Record) -> int:
    """A value that the rule of a record that passed does not allow."""
    assert isinstance(record.observed, int) and record.expected
    if record.item in LIMITS:
        return next(limit for limit in spine.LIMITS if limit not in record.expected.values)
    if record.expected.formula.startswith("TSC"):
        return 0x0000555555555555 if record.expected.values == (0,) else 0
    mask = record.expected.mask if record.expected.mask is not None else (1 << 64) - 1
    bit = mask & -mask
    while record.observed ^ bit in record.expected.values:
        bit <<= 1
    return record.observed ^ bit
