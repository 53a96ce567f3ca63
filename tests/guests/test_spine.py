# SPDX-License-Identifier: GPL-2.0-only
"""The spine guest: its image, and the tables that name its ports, slots and steps."""

from __future__ import annotations

import pathlib
import re

import pytest

from kvmtest import guests, spec
from kvmtest.guests import spine

SOURCE = pathlib.Path(__file__).parents[2] / "guests" / "spine.inc"
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
        assert image[spine.reset_vector :][: len(OUT_RAX)] == OUT_RAX

    def test_reset_vector_jumps_near_into_the_first_page(self, image: bytes) -> None:
        at = spine.reset_vector + len(OUT_RAX)
        assert image[at] == 0xE9, "a far jump would change CS"
        target = (at + 3 + int.from_bytes(image[at + 1 : at + 3], "little")) & 0xFFFF
        assert target < guests.PAGE

    def test_the_first_page_does_not_need_the_second(self, image: bytes) -> None:
        """The far jump at its end leads to CODE; all of the other jumps stay in the page."""
        assert image[guests.PAGE - 1] == 0xF4
        jump = image.rindex(b"\xea", 0, guests.PAGE)
        offset, selector = (int.from_bytes(image[jump + i : jump + i + 2], "little") for i in (1, 3))
        assert selector == spine.CODE >> 4 and offset > guests.PAGE

    def test_the_rest_is_hlt(self, image: bytes) -> None:
        assert set(image[guests.PAGE * 3 : spine.reset_vector]) == {0xF4}

    def test_unplaced_image_is_for_the_rom(self, image: bytes) -> None:
        assert spine.placed(image, guests.ROM_GPA) == image

    def test_placed_changes_four_bytes_at_most(self, image: bytes) -> None:
        page = spine.sipi_page(0x9F000)
        assert len(page) == guests.PAGE
        assert [i for i, (a, b) in enumerate(zip(page, image, strict=False)) if a != b] == [9, 10, 11]
        assert page[8:12] == bytes.fromhex("00f00900")

    def test_vector_table_points_after_itself(self) -> None:
        table = spine.vector_table()
        assert table[:0x400] == bytes.fromhex("00040000") * 256
        assert table[0x400:].startswith(bytes.fromhex("665866e7fe"))

    @pytest.mark.parametrize("gpa", [-0x1000, 0x123, 0x100000])
    def test_no_page_for_what_no_vector_points_to(self, gpa: int) -> None:
        with pytest.raises(ValueError, match="no SIPI vector"):
            spine.sipi_page(gpa)


def test_the_tables_have_every_port_slot_and_step_of_the_source() -> None:
    assert guests.items("spine", "PORT_").keys() == {*spine.PORT_ITEMS, "entry", "fault", "done"}
    assert set(spine.ports().values()) == set(spine.PORT_ITEMS)
    items = [item for step in spine.STEP_ITEMS.values() for item in step]
    assert sorted(items) == sorted(spine.slots()) and not set(items) & set(spine.PORT_ITEMS)
    numbers = {name: value for name, value in guests.symbols("spine").items() if name.startswith("STEP_")}
    assert sorted(numbers, key=numbers.__getitem__) == [f"STEP_{step}" for step in spine.STEP_ITEMS]
    assert set(spine.WIDE) <= set(items)
    assert {*items, *spine.PORT_ITEMS} - {"msw"} <= spec.ENTRIES.keys(), "an item without a rule"


def test_no_two_places_are_one() -> None:
    starts = [*map(spine.status, spine.STEP_ITEMS), *spine.slots().values(), spine.FXSAVE]
    assert len(set(starts)) == len(starts) and max(starts) == spine.FXSAVE
    assert max(map(spine.status, spine.STEP_ITEMS)) < spine.SLOTS == min(spine.slots().values())


def test_limits_are_those_that_the_source_tries() -> None:
    tried = re.search(r"^\t\.irp\toffset, (.*)$", SOURCE.read_text(), re.MULTILINE)
    assert tried and tuple(int(offset, 0) for offset in tried[1].split(", ")) == spine.LIMITS


def test_missing_guest_says_what_to_do() -> None:
    with pytest.raises(guests.GuestMissing, match="make guests"):
        guests.load("none")


def test_cut_short_guest_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "short.bin").write_bytes(b"\xf4" * 100)
    monkeypatch.setattr(guests, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(guests.GuestMissing, match="100 bytes"):
        guests.load("short")
