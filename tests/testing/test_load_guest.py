# SPDX-License-Identifier: GPL-2.0-only
"""Guests of somebody's own: flat bytes and ELF files."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.kvm import Kvm, Vm
from kvmtest.testing import GuestError, load_guest
from kvmtest.testing.guest import _segments

#: mov $0x41, %al; out %al, $0x10; hlt
CODE = b"\xb0\x41\xe6\x10\xf4"


def elf(*segments: tuple[int, int, bytes, int], entry: int = 0x401000, machine: int = 62) -> bytes:
    """An ELF64 file with PT_LOAD segments (virtual address, physical address, contents, size in memory)."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, entry, 64, 0, 0, 64, 56, len(segments), 64, 0, 0)
    at, headers, contents = 64 + 56 * len(segments), b"", b""
    for vaddr, paddr, data, size in segments:
        headers += struct.pack("<IIQQQQQQ", 1, 5, at + len(contents), vaddr, paddr, len(data), size, 1)
        contents += data
    return head + headers + contents


@pytest.fixture
def vm_of_own(kvm: Kvm) -> Iterator[Vm]:
    with kvm.create_vm() as vm:
        vm.create_irqchip()
        yield vm


def test_flat_bytes_run_where_they_were_put(kvm: Kvm, vm_of_own: Vm, tmp_path: Path) -> None:
    path = tmp_path / "guest.bin"
    path.write_bytes(CODE)
    guest = load_guest(vm_of_own, path, gpa=0x21010)
    assert (guest.entry, guest.gpa, guest.size) == (0x21010, 0x21010, len(CODE))
    vcpu = vm_of_own.create_vcpu(0)
    vcpu.set_cpuid2(kvm.supported_cpuid())
    guest.start(vcpu)
    assert vcpu.run().data == b"\x41"


def test_elf_segments_lie_at_their_physical_addresses(vm_of_own: Vm) -> None:
    image = elf((0x401000, 0x1000, CODE, 0x2000), (0x403000, 0x9000, b"data", 4))
    guest = load_guest(vm_of_own, image)
    assert guest.entry == 0x1000  # the entry is virtual, and in the first segment
    assert [memory.gpa for memory in vm_of_own.memory] == [0x1000, 0x9000]
    assert vm_of_own.memory_at(0x9000).read(0x9000, 4) == b"data"  # type: ignore[union-attr]
    assert vm_of_own.memory_at(0x2FFF).read(0x1005, 8) == bytes(8)  # type: ignore[union-attr]


@pytest.mark.skipif(not shutil.which("as") or not shutil.which("ld"), reason="binutils are not installed")
def test_a_linked_elf_runs(kvm: Kvm, vm_of_own: Vm, tmp_path: Path) -> None:
    source = ".code16\n.globl _start\n_start: mov $0x41, %al\nout %al, $0x10\nhlt\n"
    subprocess.run(["as", "--32", "-o", tmp_path / "a.o", "-"], input=source, text=True, check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7000", "-o", tmp_path / "a.elf", tmp_path / "a.o"], check=True)
    guest = load_guest(vm_of_own, tmp_path / "a.elf")
    assert guest.entry == 0x7000
    vcpu = vm_of_own.create_vcpu(0)
    vcpu.set_cpuid2(kvm.supported_cpuid())
    guest.start(vcpu)
    assert vcpu.run().data == b"\x41"


def test_memory_that_is_there_is_used_and_the_rest_added(vm_of_own: Vm) -> None:
    there = vm_of_own.add_memory(3, 0x2000, 0x1000)
    load_guest(vm_of_own, b"\xaa" * 0x3000, gpa=0x1000)
    assert [(memory.gpa, memory.size) for memory in vm_of_own.memory] == [(0x2000, 0x1000), (0x1000, 0x1000), (0x3000, 0x1000)]
    assert there.read(0x2000, 0x1000) == b"\xaa" * 0x1000


@pytest.mark.parametrize(
    ("image", "arguments", "message"),
    [
        (CODE, {}, "give gpa="),
        (b"", {"gpa": 0x1000}, "nothing to load"),
        (elf((0x401000, 0x1000, CODE, 5)), {"gpa": 0x1000}, "do not give gpa="),
        (elf(), {}, "nothing to load"),
        (elf((0x401000, 0x1000, CODE, 5), machine=183), {}, "EM_AARCH64"),
        (elf((0x401000, 0x1000, CODE, 5))[:-1], {}, "cut short"),
        (elf((0x401000, 0x1000, CODE, 4)), {}, "cut short"),
        (elf((0x401000, 0x1000, CODE, 1 << 40)), {}, "a segment of 0x10000000000 bytes"),
        (b"\x7fELF", {}, "not a whole ELF file"),
    ],
)
def test_what_cannot_be_loaded_is_refused(vm: Vm, image: bytes, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(GuestError, match=message):
        load_guest(vm, image, **arguments)  # type: ignore[arg-type]


@given(st.data())
def test_a_broken_elf_never_raises_anything_else(data: st.DataObject) -> None:
    image = bytearray(elf((0x401000, 0x1000, CODE, 5), (0x402000, 0x2000, b"x", 1)))
    for at in data.draw(st.lists(st.integers(4, len(image) - 1), max_size=8)):
        image[at] = data.draw(st.integers(0, 255))
    try:
        _segments(bytes(image[: data.draw(st.integers(4, len(image)))]))
    except GuestError:
        pass


def test_real_mode_cannot_begin_above_a_mebibyte(kvm: Kvm, vm_of_own: Vm) -> None:
    guest = load_guest(vm_of_own, CODE, gpa=0x200000)
    with pytest.raises(GuestError, match="above 1 MiB"):
        guest.start(vm_of_own.create_vcpu(0))


def test_without_pyelftools_it_says_what_to_install(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elftools.elf.elffile", None)
    with pytest.raises(GuestError, match="pip install pyelftools$"):
        load_guest(vm, elf((0x401000, 0x1000, CODE, 5)))
