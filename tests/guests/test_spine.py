# SPDX-License-Identifier: GPL-2.0-only
"""The spine guest: its image, and that source and package agree on its numbers."""

from __future__ import annotations

import pathlib
import re

import pytest

from kvmtest import guests

SOURCE = pathlib.Path(__file__).parents[2] / "guests" / "spine.S"
#: OUT imm8, EAX in 16-bit code: reports RAX before anything is disturbed.
OUT_RAX = bytes((0x66, 0xE7, 0xB0))


@pytest.fixture(scope="module")
def image() -> bytes:
    return guests.load("spine")


class TestImage:
    def test_size(self, image: bytes) -> None:
        assert len(image) == guests.ROM_SIZE

    def test_first_instruction_of_both_entries_reports_rax(self, image: bytes) -> None:
        assert image[: len(OUT_RAX)] == OUT_RAX
        assert image[guests.RESET_RIP :][: len(OUT_RAX)] == OUT_RAX

    def test_reset_vector_jumps_near_into_the_first_page(self, image: bytes) -> None:
        at = guests.RESET_RIP + len(OUT_RAX)
        assert image[at] == 0xE9, "a far jump would change CS"
        target = (at + 3 + int.from_bytes(image[at + 1 : at + 3], "little")) & 0xFFFF
        assert target < guests.SIPI_SIZE

    def test_the_first_page_does_not_need_the_second(self, image: bytes) -> None:
        """The far jump at its end leads to CODE; all of the other jumps stay in the page."""
        assert image[guests.SIPI_SIZE - 1] == 0xF4
        jump = image.rindex(b"\xea", 0, guests.SIPI_SIZE)
        offset, selector = (int.from_bytes(image[jump + i : jump + i + 2], "little") for i in (1, 3))
        assert selector == guests.CODE >> 4 and offset > guests.SIPI_SIZE

    def test_the_rest_is_hlt(self, image: bytes) -> None:
        assert set(image[guests.SIPI_SIZE * 3 : guests.RESET_RIP]) == {0xF4}

    def test_unplaced_image_is_for_the_rom(self, image: bytes) -> None:
        assert guests.placed(image, guests.ROM_GPA) == image

    def test_placed_changes_four_bytes_at_most(self, image: bytes) -> None:
        page = guests.sipi_page(0x9F000)
        assert len(page) == guests.SIPI_SIZE
        assert [i for i, (a, b) in enumerate(zip(page, image, strict=False)) if a != b] == [9, 10, 11]
        assert page[8:12] == bytes.fromhex("00f00900")

    def test_vector_table_points_behind_itself(self) -> None:
        table = guests.vector_table()
        assert table[:0x400] == bytes.fromhex("00040000") * 256
        assert table[0x400:].startswith(bytes.fromhex("665866e7fe"))

    @pytest.mark.parametrize("gpa", [-0x1000, 0x123, 0x100000])
    def test_no_page_for_what_no_vector_points_to(self, gpa: int) -> None:
        with pytest.raises(ValueError, match="no SIPI vector"):
            guests.sipi_page(gpa)


def _numbers(prefix: str) -> dict[str, int]:
    """``.set`` lines of the source by the rest of their name."""
    found = re.findall(rf"^\t\.set {prefix}(\w+), (0x[0-9a-f]+|\d+)", SOURCE.read_text(), re.MULTILINE)
    return {name: int(number, 0) for name, number in found}


def _upper(item: str) -> str:
    return item.upper().replace(".", "_")


def test_ports_agree_with_the_source() -> None:
    ours = {_upper(item): port for port, item in guests.PORTS.items()}
    ours |= {"ENTRY": guests.PORT_ENTRY, "FAULT": guests.PORT_FAULT, "DONE": guests.PORT_DONE}
    assert _numbers("PORT_") == ours


def test_slots_and_steps_agree_with_the_source() -> None:
    assert _numbers("SLOT_") == {_upper(item): i for i, item in enumerate(guests.SLOTS)}
    assert _numbers("STEP_") == {step: i for i, step in enumerate(guests.STEPS)}


def test_each_slot_belongs_to_one_step() -> None:
    assert sorted(item for names in guests.STEPS.values() for item in names) == sorted(guests.SLOTS)
    assert len(set(guests.SLOTS) | set(guests.PORTS.values())) == len(guests.SLOTS) + len(guests.PORTS)
    assert set(guests.WIDE) <= set(guests.SLOTS)


def test_places_agree_with_the_source() -> None:
    names = ("CODE", "DATA", "PAGE_TABLES", "XSAVE", "RESUME", "STATUS", "MSR_COUNT", "LAPIC_COUNT", "XCR0_WANTED", "XCR0_USED")
    names += ("FXSAVE", "MSRS", "LAPIC", "PROBE")
    source = _numbers("")
    assert {name: source[name] for name in names} == {name: getattr(guests, name) for name in names}
    assert (source["STEPS"], source["SLOTS"]) == (guests.STEP_STATUS, guests.SLOT_VALUES)
    assert 4 * len(guests.STEPS) <= guests.SLOT_VALUES - guests.STEP_STATUS
    tried = re.search(r"^\t\.irp\toffset, (.*)$", SOURCE.read_text(), re.MULTILINE)
    assert tried and tuple(int(offset, 0) for offset in tried[1].split(", ")) == guests.LIMITS


def test_missing_guest_says_what_to_do() -> None:
    with pytest.raises(guests.GuestMissing, match="make guests"):
        guests.load("none")


def test_cut_short_guest_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "short.bin").write_bytes(b"\xf4" * 100)
    monkeypatch.setattr(guests, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(guests.GuestMissing, match="100 bytes"):
        guests.load("short")
