# SPDX-License-Identifier: GPL-2.0-only
"""Layouts, and plants as KVM takes them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.engine import host
from kvmtest.engine.machine import Machines, Target
from kvmtest.engine.plan import Setup
from kvmtest.kvm import Kvm
from kvmtest.model.value import text
from kvmtest.spec import ENTRIES
from kvmtest.state.layout import Field, Layout, static_fields
from kvmtest.state.snapshot import Reader, contents_of
from kvmtest.state.values import PLANTS, SIPI, values
from kvmtest.x86 import cpuid, xsave

LAYOUT = Layout((0x10, 0x277, 0x12345), {2: 576, 5: 1088, 6: 1152, 7: 1664, 9: 2688}, {"nested": "not there"})


@pytest.fixture(params=["intel", "amd"])
def target(request: pytest.FixtureRequest, kvm: Kvm) -> Iterator[Target]:
    machines = Machines(kvm, host.detect())
    yield machines.kept(Setup("full", request.param, mce=True)).target("ap")
    machines.close()


def test_every_item_has_a_rule_and_every_rule_a_place() -> None:
    shown = set(static_fields()) | {r.name for c in xsave.COMPONENTS for r in c.registers} | {m.item for m in cpuid.MIRRORS}
    ruled = {item for item in ENTRIES if not item.startswith("msr.")}
    assert shown == ruled


def test_fields_of_a_section_do_not_overlap() -> None:
    for items in LAYOUT.by_section.values():
        taken: set[int] = set()
        for item in items:
            field = LAYOUT.fields[item]
            place = set(range(field.offset, field.offset + field.size))
            assert not taken & place, item
            taken |= place


def test_what_is_not_there_has_a_reason() -> None:
    assert LAYOUT.missing["nested.flags"] == "not there"
    assert "TILEDATA" in LAYOUT.missing["tile0"]
    assert "msr.star" in LAYOUT.missing and "msr.0x12345" in LAYOUT.fields


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 56), st.integers(1, 8))
def test_put_and_get(value: int, offset: int, size: int) -> None:
    field = Field("regs", offset, size)
    buf = bytearray(64)
    field.put(buf, value)
    assert field.get(bytes(buf)) == value & (1 << 8 * size) - 1
    assert not any(buf[:offset]) and not any(buf[offset + size :])


def test_a_component_in_its_init_configuration_reads_as_such() -> None:
    area = bytearray(b"\xff" * 4096)
    area[512:520] = (0b10).to_bytes(8, "little")
    assert LAYOUT.fields["fcw"].get(bytes(area)) == 0x37F
    assert LAYOUT.fields["ymm0_hi128"].get(bytes(area)) == 0
    assert LAYOUT.fields["xmm0"].get(bytes(area)) == (1 << 128) - 1


def test_values_as_text() -> None:
    assert (text("mp_state", 2), text("cr0", 0x60000010), text("cr0", None)) == ("INIT_RECEIVED", "0x60000010", None)


#: Bits that no plant can show both ways, because the architecture fixes them: item -> mask of what it leaves free.
_FREE = {
    "cr0": 0xE005002F,
    "rflags": 0x003F7FD5,
    "cr8": 0xF,
    "dr6": 0xE00F,
    "fcw": 0xF3F,
    "fsw": 0xFFFF,
    "ftw": 0xFF,
    "mxcsr": 0xFFFF,
    **{f"{seg}.{part}": mask for seg in ("ds", "es", "fs", "gs") for part, mask in [("selector", 0xFFFF), ("type", 0xF)]},
    **{f"{seg}.{part}": 1 for seg in ("ds", "es", "fs", "gs") for part in ("present", "unusable", "s", "db", "g", "avl")},
    **{f"{table}.limit": 0xFFFF for table in ("gdt", "idt")},
    **{f"{table}.base": 0xFFFFFFFFFFFF for table in ("gdt", "idt")},
    "cs.limit": 0xFFFFA000,
}


@pytest.mark.parametrize("item", sorted(_FREE))
def test_plants_together_show_every_free_bit_both_ways(item: str) -> None:
    ones = zeros = 0
    for plant in PLANTS:
        ones |= values(plant)[item]
        zeros |= ~values(plant)[item]
    assert ones & zeros & _FREE[item] == _FREE[item]


@pytest.mark.parametrize("plant", [*PLANTS, SIPI])
def test_kvm_takes_the_plant_or_says_why(plant: str, target: Target) -> None:
    made = target.plant(plant, "xapic")
    made.write(target.vcpu)
    seen = target.reader.read()
    plain = {i for i in made.asked if target.layout.fields[i].section in ("regs", "debugregs", "xsave", "lapic")}
    for item in plain - set(made.refused):
        if item in ("rflags", "dr6", "dr7"):
            continue
        assert seen.get(target.layout, item) == made.asked[item], item
    assert set(made.refused) <= set(target.layout.fields)
    assert all(made.refused.values())


def test_a_snapshot_reports_what_it_could_not_read(target: Target) -> None:
    # A vCPU without CPUID.1 cannot be asked for an MSR that is not there; the section is read one by one then.
    layout = Layout((0x277, 0x4FFFFFFF), {}, {})
    snapshot = Reader(target.vcpu, layout).read()
    assert "msr.0x4fffffff" in snapshot.unreadable
    assert snapshot.get(layout, "msr.pat") is not None
    assert snapshot.get(layout, "msr.0x4fffffff") is None


@pytest.mark.parametrize(
    ("section", "raw", "contents"),
    [
        ("regs", b"12345678", b"12345678"),
        ("msrs", bytes(8) + b"entries", b"entries"),
        ("ssp", bytes(16) + b"12345678", b"12345678"),
        ("nested", bytes(4) + (10).to_bytes(4, "little") + b"12" + b"left over", bytes(4) + (10).to_bytes(4, "little") + b"12"),
    ],
)
def test_a_section_is_what_kvm_wrote_of_its_buffer(section: str, raw: bytes, contents: bytes) -> None:
    assert contents_of(section, raw) == contents
