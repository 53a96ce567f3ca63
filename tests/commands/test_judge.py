# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest judge``: a saved state in a file, good, bad, and none."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmtest import cli
from kvmtest.state.layout import static_fields
from kvmtest.testing.file import SECTIONS, from_file, to_file
from kvmtest.testing.state import _SECTIONS

FIELDS = static_fields()
_RESET = {
    "cs.selector": 0xF000,
    "cs.base": 0xFFFF0000,
    "cr0": 0x60000010,
    "rip": 0xFFF0,
    "rflags": 2,
    "gdt.limit": 0xFFFF,
    "idt.limit": 0xFFFF,
    "apic_base": 0xFEE00900,
}


def _sections(**values: int) -> dict[str, bytes]:
    out = {name: bytearray(_SECTIONS[name][1]) for name in ("regs", "sregs")}
    for item, value in (_RESET | {name.replace("_", "."): number for name, number in values.items()}).items():
        FIELDS[item].put(out[FIELDS[item].section], value)
    for seg in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"):
        FIELDS[f"{seg}.limit"].put(out["sregs"], 0xFFFF)
        FIELDS[f"{seg}.present"].put(out["sregs"], 1)
    return {name: bytes(data) for name, data in out.items()}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "vcpu0.state"
    path.write_bytes(to_file(_sections()))
    return path


def test_what_is_written_is_read() -> None:
    read = from_file(to_file(_sections(rbx=0x1234)))
    assert (read.value("cr0"), read.value("rbx"), read.value("dr7")) == (0x60000010, 0x1234, None)


def test_an_item_that_is_not_reset_is_reported(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state.write_bytes(to_file(_sections(rbx=0x1234)))
    assert cli.main(["judge", "--event", "reset", "--vendor", "intel", "--backend", "vmx", str(state)]) == 1
    assert "rbx" in capsys.readouterr().out


def test_the_state_before_reports_what_init_must_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_bytes(to_file(_sections(cr0=0x80050033)))
    after.write_bytes(to_file(_sections(cr0=0x60000010)))
    words = ["judge", "--event", "init", "--vendor", "intel", "--backend", "vmx", "--format", "ktap"]
    cli.main([*words, "--before", str(before), str(after)])
    reported = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["not", "ok"] in [words[:2] for words in reported if words[-1:] == ["cr0"]]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "does not begin with KVMSTATE"),
        (to_file({}), "no section"),
        (to_file({"regs": b"12345678"}), "regs: 8 bytes, where KVM_GET_REGS fills"),
        (to_file({"what": b""}), "section 'what' at byte 16: one of regs"),
        (to_file(_sections())[:-100], "bytes by its head, and"),
        (to_file(_sections()) + to_file(_sections())[16:], "there are two"),
        (to_file({"regs": bytes(144)}) + b"x", "ends in the head of a section"),
    ],
)
def test_a_file_that_is_none_is_one_line(data: bytes, says: str, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state.write_bytes(data)
    assert cli.main(["judge", "--event", "reset", str(state)]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_sipi_needs_its_vector(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["judge", "--event", "sipi", str(state)]) == 2
    assert "vector" in capsys.readouterr().err


def test_sections_are_those_of_saved_state() -> None:
    assert set(SECTIONS) == {*_SECTIONS, "msrs", "cpuid"}
