# SPDX-License-Identifier: GPL-2.0-only
"""The planter guest's source and what the host knows of it."""

from __future__ import annotations

import re
from pathlib import Path

from kvmtest import guests
from kvmtest.guests import planter

SOURCE = Path(__file__).parents[2] / "guests" / "planter.S"


def _constants() -> dict[str, int]:
    return {name: int(value, 16) for name, value in re.findall(r"\.set (\w+), (0x[0-9a-f]+)", SOURCE.read_text())}


def test_addresses_and_ports_are_those_of_the_source() -> None:
    said = _constants()
    assert (said["BASE"], said["PORT_READY"], said["PORT_IN"], said["MMIO"]) == (
        planter.BASE,
        planter.PORT_READY,
        planter.PORT_IN,
        planter.MMIO,
    )


def test_the_block_is_that_of_the_source() -> None:
    said = {name: value for name, value in _constants().items() if name.startswith("B_")}
    special = {"B_DR": "dr0", "B_FLAGS": "rflags"}
    mine = {}
    for name in said:
        word = special.get(name, name.removeprefix("B_").lower())
        mine[name] = planter.WORDS.get(word, planter.WORDS.get(f"{word}.selector"))
    assert mine == said


def test_each_label_leads_to_its_code() -> None:
    at, image = planter.labels(), guests.load("planter")
    starts = {"loop64": b"\x48\xff", "hlt64": b"\xf4", "in64": b"\xe5", "ud64": b"\x0f\x0b", "long": b"\x0f\x01"}
    assert {name: image[at[name] : at[name] + len(code)] for name, code in starts.items()} == starts
    assert image[at["end"] : at["count"] + 8] == bytes(16)
