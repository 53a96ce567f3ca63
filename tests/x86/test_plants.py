# SPDX-License-Identifier: GPL-2.0-only
"""Plants are legal, distinct, and differ from RESET's values."""

from __future__ import annotations

import pytest

from kvmtest.spec import VENDORS, lookup
from kvmtest.x86.lapic import LAPIC, LapicReg, offset_of
from kvmtest.x86.msr import MSRS, Msr, index_of, name_of

PLANTED_MSRS = [msr for msr in MSRS if msr.plants]
PLANTED_LAPIC = [reg for reg in LAPIC if reg.plants]
#: Registers with one legal value besides their RESET value.
SINGLE = {"misc_features_enables", "xfd", "xfd_err", "mcg_ext_ctl", "virt_spec_ctrl", "dfr"}
#: Registers with two legal values in all, the RESET value among them.
TWO_VALUED = {"mcg_ctl"} | {f"mc{i}_ctl" for i in range(32)}

ADDRESSES = (
    *("sysenter_esp", "sysenter_eip", "lstar", "cstar", "kernel_gs_base"),
    *("ds_area", "int_ssp_tab", "pl0_ssp", "bndcfgs", "fred_rsp0", "fred_ssp1", "fred_config"),
)


def _name(reg: Msr | LapicReg) -> str:
    return reg.name


def _reset_values(item: str) -> set[int]:
    rules = [lookup(item).rule("reset", vendor) for vendor in VENDORS]
    return {rule.value for rule in rules if rule.kind == "value" and isinstance(rule.value, int)}


def _canonical(value: int) -> bool:
    return value >> 47 in (0, 0x1FFFF)


def test_msr_table_is_sorted_and_unique() -> None:
    indexes = [msr.index for msr in MSRS]
    assert indexes == sorted(set(indexes))
    assert len({msr.name for msr in MSRS}) == len(MSRS)


def test_lapic_table_is_unique_and_on_the_page() -> None:
    offsets = [reg.offset for reg in LAPIC]
    assert len(set(offsets)) == len({reg.name for reg in LAPIC}) == len(LAPIC)
    assert all(offset % 16 == 0 and 0x20 <= offset <= 0x410 for offset in offsets)
    assert offset_of("svr") == 0xF0


UNPLANTED: list[Msr | LapicReg] = [*(r for r in MSRS if not r.plants), *(r for r in LAPIC if not r.plants)]


@pytest.mark.parametrize("reg", UNPLANTED, ids=_name)
def test_what_is_not_planted_says_why(reg: Msr | LapicReg) -> None:
    assert reg.why


@pytest.mark.parametrize("msr", PLANTED_MSRS, ids=_name)
def test_msr_plants_differ_from_each_other_and_from_reset(msr: Msr) -> None:
    assert msr.plants
    a, b = msr.plants
    assert 0 <= a < 2**64
    assert 0 <= b < 2**64
    assert (a == b) == (msr.name in SINGLE)
    if msr.name not in TWO_VALUED:
        assert not {a, b} & _reset_values(f"msr.{msr.name}")


@pytest.mark.parametrize("reg", PLANTED_LAPIC, ids=_name)
def test_lapic_plants_differ_from_each_other_and_from_reset(reg: LapicReg) -> None:
    assert reg.plants
    a, b = reg.plants
    assert 0 <= a < 2**32
    assert 0 <= b < 2**32
    assert (a == b) == (reg.name in SINGLE)
    assert not {a, b} & _reset_values(f"lapic.{reg.name}")


def test_names_of_msrs() -> None:
    assert name_of(0x277) == "pat"
    assert name_of(0xC0000080) == "efer"
    assert name_of(0xDEAD) == "0xdead"
    assert index_of("pat") == 0x277
    assert index_of("0xdead") == 0xDEAD
    assert all(index_of(name_of(msr.index)) == msr.index for msr in MSRS)


@pytest.mark.parametrize("name", ADDRESSES)
def test_addresses_are_canonical(name: str) -> None:
    for plant in next(msr for msr in MSRS if msr.name == name).plants or ():
        assert _canonical(plant)


@pytest.mark.parametrize("msr", [msr for msr in PLANTED_MSRS if msr.name.startswith(("pat", "mtrr_fix"))], ids=_name)
def test_memory_types_are_legal(msr: Msr) -> None:
    assert msr.plants
    for plant in msr.plants:
        assert set(plant.to_bytes(8, "little")) <= {0, 1, 4, 5, 6}


def test_variable_mtrrs_are_legal() -> None:
    for msr in PLANTED_MSRS:
        for plant in msr.plants or ():
            if msr.name.startswith("mtrr_physbase"):
                assert plant & 0xFF in {0, 1, 4, 5, 6}
                assert not plant & 0xF00
                assert plant < 1 << 36
            elif msr.name.startswith("mtrr_physmask"):
                assert not plant & 0x7FF
                assert plant < 1 << 36
            elif msr.name == "mtrr_def_type":
                assert not plant & ~0xCFF
                assert plant & 0xFF in {0, 1, 4, 5, 6}


def test_no_plant_enables_a_counter_or_sets_reserved_bits() -> None:
    reserved = {"perfevtsel": 0xFFFFFFFF00200000, "k7_evntsel": 0xFFFFFFF000280000, "perf_ctl": 0xFFFFFFF000280000}
    for msr in PLANTED_MSRS:
        for prefix, bits in reserved.items():
            if msr.name.startswith(prefix):
                assert not any(plant & (bits | 1 << 22) for plant in msr.plants or ()), msr.name


def test_vm_cr_keeps_init_an_init() -> None:
    lock, r_init = 1 << 3, 1 << 1
    assert not any(plant & (lock | r_init) for plant in next(m for m in MSRS if m.name == "vm_cr").plants or ())


def test_apic_timer_is_harmless() -> None:
    plants = {reg.name: reg.plants for reg in LAPIC}
    divisors = {0x0: 2, 0x1: 4, 0x2: 8, 0x3: 16, 0x8: 32, 0x9: 64, 0xA: 128, 0xB: 1}
    lvt, count, divide = plants["lvt_timer"], plants["timer_initial"], plants["timer_divide"]
    assert lvt
    assert count
    assert divide
    for i in range(2):
        seconds = count[i] * divisors[divide[i]] / 1e9  # KVM's APIC bus runs at 1 GHz
        assert lvt[i] & 1 << 16 or seconds > 60


def test_vectors_below_16_are_not_requested() -> None:
    for reg in LAPIC:
        if reg.name in {"isr0", "tmr0", "irr0"}:
            assert reg.plants
            assert not any(plant & 0xFFFF for plant in reg.plants)
