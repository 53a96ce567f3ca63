# SPDX-License-Identifier: GPL-2.0-only
"""The spine guest: its image, its ports, and what it reports on a real vCPU."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from kvmtest import guests

SOURCE = pathlib.Path(__file__).parents[2] / "guests" / "spine.S"
RAM_SIZE = 0xA0000
#: OUT imm8, EAX in 16-bit code: reports RAX before anything is disturbed.
OUT_RAX = bytes((0x66, 0xE7, 0xB0))
#: INIT: delivery mode 5; the level and trigger bits are ignored for an edge-triggered one.
DELIVERY_INIT, DELIVERY_SIPI = 5 << 8, 6 << 8
#: DIV AL. Not UD2: a KVM that emulates real mode gives an invalid opcode to userspace, not to the guest.
FAULTS = bytes.fromhex("f6f0")


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

    def test_the_rest_is_hlt(self, image: bytes) -> None:
        assert set(image[guests.SIPI_SIZE : guests.RESET_RIP]) == {0xF4}

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


def test_ports_agree_with_the_source() -> None:
    found = re.findall(r"^\t\.set PORT_(\w+), (0x[0-9a-f]+)", SOURCE.read_text(), re.MULTILINE)
    source = {int(port, 16): name for name, port in found}
    ours = {port: item.upper().replace(".", "_") for port, item in guests.PORTS.items()}
    ours |= {guests.PORT_ENTRY: "ENTRY", guests.PORT_FAULT: "FAULT", guests.PORT_DONE: "DONE"}
    assert source == ours


def test_missing_guest_says_what_to_do() -> None:
    with pytest.raises(guests.GuestMissing, match="make guests"):
        guests.load("none")


def test_cut_short_guest_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "short.bin").write_bytes(b"\xf4" * 100)
    monkeypatch.setattr(guests, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(guests.GuestMissing, match="100 bytes"):
        guests.load("short")


class Spine:
    """A VM with the guest in ROM and RAM below 640 KiB."""

    def __init__(self, kvm: Any) -> None:
        self.vm = kvm.create_vm()
        self.vm.create_irqchip()
        self.ram = self.vm.add_memory(0, 0, RAM_SIZE)
        self.rom = self.vm.add_memory(1, guests.ROM_GPA, guests.ROM_SIZE)
        self.ram.write(0, guests.vector_table())
        self.rom.write(guests.ROM_GPA, guests.load("spine"))
        self.bsp = self.vm.create_vcpu(0)
        self.ap = self.vm.create_vcpu(1)
        # KVM's map of APIC ids may miss the vCPU created last until one of its LAPICs is written.
        self.ap.set_lapic(self.ap.get_lapic())

    def collect(self, vcpu: Any) -> list[tuple[str, int]]:
        """What ``vcpu`` reports up to its last port write, in order."""
        names = guests.PORTS | {guests.PORT_ENTRY: "entry", guests.PORT_FAULT: "fault", guests.PORT_DONE: "done"}
        seen: list[tuple[str, int]] = []
        while not seen or seen[-1][0] not in ("done", "fault"):
            exit_ = vcpu.run(2.0)
            assert exit_.name == "KVM_EXIT_IO", f"{exit_} after {seen}"
            seen.append((names[exit_.port], int.from_bytes(exit_.data[:4], "little")))
        return seen


@pytest.fixture
def spine(kvm: Any) -> Iterator[Spine]:
    made = Spine(kvm)
    with made.vm:
        yield made


class TestRun:
    def test_reset_vector(self, spine: Spine) -> None:
        seen = spine.collect(spine.bsp)
        names = [name for name, _ in seen]
        assert sorted(names) == sorted([*guests.PORTS.values(), "entry", "done"]), "each value once"
        assert names[0] == "rax"
        values = dict(seen)
        assert values["entry"] == guests.ENTRY_RESET
        assert values["rip"] == guests.RESET_RIP
        assert values["cs.selector"] == 0xF000
        assert values["cs.base"] == guests.ROM_GPA

    def test_reports_what_the_host_sees(self, spine: Spine) -> None:
        regs, sregs = spine.bsp.get_regs(), spine.bsp.get_sregs()
        values = dict(spine.collect(spine.bsp))
        for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "rflags"):
            assert values[name] == getattr(regs, name) & 0xFFFFFFFF, name
        for name in ("cr0", "cr2", "cr3", "cr4", "efer", "apic_base"):
            assert values[name] == getattr(sregs, name) & 0xFFFFFFFF, name
        for name in ("cs", "ds", "es", "ss", "fs", "gs"):
            assert values[f"{name}.selector"] == getattr(sregs, name).selector, name
        for name in ("gdt", "idt"):
            assert values[f"{name}.base"] == getattr(sregs, name).base, name
            assert values[f"{name}.limit"] == getattr(sregs, name).limit, name

    def test_planted_registers_arrive(self, spine: Spine) -> None:
        """Nothing that the guest reports is a constant of its own."""
        regs = spine.bsp.get_regs()
        general = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp")
        planted = {name: 0x11110000 + i for i, name in enumerate(general)}
        for name, value in planted.items():
            setattr(regs, name, value)
        regs.rflags = 0x8D7
        spine.bsp.set_regs(regs)
        debugregs = spine.bsp.get_debugregs()
        debugregs.db[:] = (0x1000, 0x2000, 0x3000, 0x4000)
        spine.bsp.set_debugregs(debugregs)
        sregs = spine.bsp.get_sregs()
        for i, name in enumerate(("ds", "es", "ss", "fs", "gs")):
            getattr(sregs, name).selector = 0x2000 + i
            getattr(sregs, name).base = 0x20000 + 16 * i
        sregs.cr2, sregs.cr3 = 0x12345678, 0x5000
        sregs.gdt.base, sregs.gdt.limit = 0x12345, 0x1FF
        spine.bsp.set_sregs(sregs)
        values = dict(spine.collect(spine.bsp))
        assert {name: values[name] for name in planted} == planted
        assert values["rflags"] == 0x8D7
        assert [values[f"dr{i}"] for i in range(4)] == [0x1000, 0x2000, 0x3000, 0x4000]
        assert [values[f"{name}.selector"] for name in ("ds", "es", "ss", "fs", "gs")] == [0x2000 + i for i in range(5)]
        assert (values["cr2"], values["cr3"]) == (0x12345678, 0x5000)
        assert (values["gdt.base"], values["gdt.limit"]) == (0x12345, 0x1FF)

    @pytest.mark.parametrize("vector", [0x01, 0x10, 0x9F])
    def test_sipi_vector(self, spine: Spine, vector: int) -> None:
        gpa = vector << 12
        spine.ram.write(gpa, guests.sipi_page(gpa))
        address = 0xFEE00000 | spine.ap.id << 12
        spine.vm.signal_msi(address, DELIVERY_INIT)
        spine.ap.get_mp_state()  # takes the INIT, so that the SIPI after it is not dropped
        spine.vm.signal_msi(address, DELIVERY_SIPI | vector)
        values = dict(spine.collect(spine.ap))
        assert values["entry"] == guests.ENTRY_SIPI
        assert values["rip"] == 0
        assert values["cs.selector"] == vector << 8
        assert values["cs.base"] == gpa

    def test_wrong_place_is_seen(self, spine: Spine) -> None:
        """CS.base below 1 MiB at the reset vector: the guest runs just as well, and says where it is."""
        spine.vm.add_memory(2, 0xF0000, guests.ROM_SIZE).write(0xF0000, guests.placed(guests.load("spine"), 0xF0000))
        sregs = spine.bsp.get_sregs()
        sregs.cs.base = 0xF0000
        spine.bsp.set_sregs(sregs)
        assert dict(spine.collect(spine.bsp))["cs.base"] == 0xF0000

    def test_exception_ends_it_with_its_place(self, spine: Spine) -> None:
        spine.rom.write(guests.ROM_GPA + guests.RESET_RIP, FAULTS)
        assert spine.collect(spine.bsp) == [("fault", 0xF000FFF0)]
