# SPDX-License-Identifier: GPL-2.0-only
"""The observer's image: its code has what the package knows of it, its tables fit, and each form says where it begins."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

import pytest

from kvmtest import guests
from kvmtest.guests import observer, spine
from kvmtest.observer import image, log
from kvmtest.observer.image import ImageError, Options, build

SOURCES = Path(__file__).parents[2] / "guests" / "observer"
MULTIBOOT, PVH = 0x1BADB002, 18


def _words(data: bytes, at: int, count: int) -> tuple[int, ...]:
    return struct.unpack_from(f"<{count}I", data, at)


def test_the_reset_vector_jumps_near_and_the_rest_lies_before_the_parameters() -> None:
    rom = build("bios")
    assert len(rom) == guests.ROM_SIZE and rom[0xFFF0] == 0xE9
    labels = guests.labels("observer")
    assert (
        max(at for name, at in labels.items() if name != "reset_vector" and not name.startswith("code16_"))
        < observer.PARAMETERS
    )


def test_the_first_page_needs_no_other_but_where_only_the_rom_comes() -> None:
    labels = guests.labels("observer")
    assert all(
        labels[name] < guests.PAGE for name in ("begin", "unstash", "clear", "lists", "list_at", "base_reported", "where", "zero")
    )


def test_numbers_and_names_are_those_of_the_spine_guest() -> None:
    for name in ("CODE", "DATA", "SLOTS", "STEPS", "MSRS", "LAPIC", "PROBE", "XSAVE"):
        assert guests.symbols("observer")[name] == guests.symbols("spine")[name]
    text = (SOURCES / "strings.inc").read_text()
    listed = {
        kind: re.search(rf"^{kind}:\n(.*?)^\w+:", text, re.DOTALL | re.MULTILINE) for kind in ("slot_names", "step_names")
    }
    reported = {}
    for kind, found in listed.items():
        assert found
        reported[kind] = [name for names in re.findall(r"\.irp\s+name, (.*)", found[1]) for name in names.split(", ")]
    steps = {name: guests.symbols("observer")[f"STEP_{name}"] for name in reported["step_names"]}
    slots = {name: guests.symbols("observer")[f"SLOT_{name}"] for name in reported["slot_names"]}
    assert list(steps.values()) == list(range(len(spine.STEP_ITEMS))) and list(steps) == list(spine.STEP_ITEMS)
    assert list(slots.values()) == list(range(len(spine.slots())))


def test_methods_are_named_as_the_image_names_them() -> None:
    text = (SOURCES / "strings.inc").read_text()
    line = re.search(r"^method_names:\n(.*)$", text, re.MULTILINE)
    assert line
    names = re.findall(r'" ([a-z0-9-]+)"', line[1])
    assert sorted(names) == sorted(log._METHODS)
    assert {name: names[getattr(observer, symbol)] for name, symbol in image.METHODS.items()} == {
        "cf9": "cf9",
        "port-64h": "port-64h",
        "triple-fault": "triple-fault",
        "wait": "wait",
        "init": "icr-xapic",
        "init-halted": "icr-xapic-halted",
        "restore": "restore",
    }


def test_lists_and_tables_fit_where_they_are() -> None:
    rom = build("bios")
    count = _words(rom, observer.MSR_LIST, 1)[0]
    assert count == len(image.msr_indexes()) <= (observer.LAPIC_LIST - observer.MSR_LIST) // 4 - 1
    assert (
        _words(rom, observer.LAPIC_LIST, 1)[0]
        == len(image.lapic_offsets())
        <= (observer.BLOCK - observer.LAPIC_LIST) // 4 - 1
    )
    end = rom.index(b"\xff\xff\xff\xff", observer.PLANT_MSRS)
    assert end < observer.PLANT_APIC and observer.PLANT_XSAVE % 64 == 0


def test_options_are_in_the_image_and_its_identity_is_not_theirs() -> None:
    rom = build("bios", Options(cpus=3, methods=("cf9", "init"), outputs=("402h",), xsave=False))
    own, cpus = _words(rom, observer.IMAGE_ID, 2)
    assert (own, cpus) == (image.identity(), 3) == (_words(build("bios"), observer.IMAGE_ID, 1)[0], 3)
    assert rom[observer.METHODS : observer.METHODS + 3] == bytes((observer.METHOD_CF9, observer.METHOD_INIT, 0))
    assert rom[observer.QUIET] == 0b101 and rom[observer.AVOID] == observer.AVOID_XSAVE | observer.AVOID_TSC


def test_too_many_resets_are_refused() -> None:
    with pytest.raises(ImageError, match="room for 24 resets, not 25"):
        build("bios", Options(methods=("cf9",) * 25))


def test_multiboot_says_where_it_lies() -> None:
    elf = build("multiboot")
    assert elf[:5] == b"\x7fELF\x01"
    magic, flags, check, header, load, load_end, bss_end, entry = _words(elf, 0x100, 8)
    assert magic == MULTIBOOT and magic + flags + check & 0xFFFFFFFF == 0 and flags == 1 << 16
    # The part that a loader copies from the header on ends with the image, at its place.
    assert load_end - load == len(elf) - 0x100 and header == load and bss_end == 0
    assert load + (0x1000 - 0x100) == observer.LOAD and entry == observer.LOAD + observer.loaded


@pytest.mark.parametrize("form", ["multiboot", "pvh"])
def test_the_note_of_pvh_says_where_to_begin(form: str) -> None:
    elf = build(form)
    at = elf.index(b"Xen\0") - 12
    assert _words(elf, at, 3) == (4, 4, PVH) and _words(elf, at + 16, 1) == (observer.LOAD + observer.loaded,)
    assert elf[0x1000:] == build("bios")


@pytest.mark.program
def test_an_iso_without_its_programs_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ImageError, match="grub-mkrescue and xorriso"):
        build("iso")
