# SPDX-License-Identifier: GPL-2.0-only
"""Coverage of this host's KVM, by a host that is made up: modules that the compiler here makes, and their places in files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kvmtest.coverage.error import CoverageError
from kvmtest.coverage.native import Native

pytestmark = [
    pytest.mark.program,
    pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("objdump")), reason="needs gcc and objdump"),
]

_C = "int other(int);\nint one(int x)\n{\n\tif (x)\n\t\treturn other(x) + 1;\n\treturn 0;\n}\n"
_KASLR = 0x1200_0000
_AT = 0xFFFF_FFFF_C000_0000


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A root folder where kvm.ko is loaded at _AT, below which is also where it was built."""
    source = tmp_path / "build/arch/x86/kvm/kvm.c"
    source.parent.mkdir(parents=True)
    source.write_text(_C)
    command = ["gcc", "-O2", "-g", "-fsanitize-coverage=trace-pc", "-fno-pic", "-c", "-o", source.with_suffix(".ko"), source]
    subprocess.run(command, check=True, timeout=60)
    sections = tmp_path / "sys/module/kvm/sections"
    sections.mkdir(parents=True)
    (sections / ".text").write_text(f"{_AT:#x}\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/kallsyms").write_text(f"0 A fixed\n{0xFFFFFFFF81000000 + _KASLR:x} T _text\nffffffffc0000000 t one [kvm]\n")
    return tmp_path


def _native(host: Path) -> Native:
    return Native("6.9", "svm", str(host / "build"), "now", str(host))


def test_addresses_are_moved_as_the_kernel_was(host: Path) -> None:
    native = _native(host)
    blocks = native.table.blocks
    assert {block.file for block in blocks} == {"arch/x86/kvm/kvm.c"}
    first, *others = sorted(blocks, key=lambda block: block.offset)
    native.take("init.msi/ap", [_AT + first.offset - _KASLR])
    native.take("sipi.msi/ap", [_AT + block.offset - _KASLR for block in others] + [0x1234])
    cell = native.table.cells[0]
    assert list(cell.who(blocks.index(first))) == ["init.msi/ap"]
    assert all(list(cell.who(blocks.index(block))) == ["sipi.msi/ap"] for block in others) and others


def test_what_is_missing_is_one_line(host: Path) -> None:
    (host / "proc/kallsyms").write_text("0000000000000000 T _text\n")
    with pytest.raises(CoverageError, match="hides addresses from this user: run as root"):
        _native(host)
    (host / "proc/kallsyms").write_text("")
    with pytest.raises(CoverageError, match="has no _text"):
        _native(host)
    (host / "sys/module/kvm/sections/.text").unlink()
    with pytest.raises(CoverageError, match=r"kvm/sections/\.text: No such file"):
        _native(host)
    with pytest.raises(CoverageError, match=r"no kvm\.ko in .*--kvm-modules"):
        Native("6.9", "svm", str(host / "proc"), "now", str(host))
    shutil.rmtree(host / "sys/module")
    with pytest.raises(CoverageError, match="kvm is not a module here"):
        _native(host)


def test_modules_that_were_not_built_for_it_are_reported(host: Path) -> None:
    made = host / "build/arch/x86/kvm/kvm.ko"
    subprocess.run(["gcc", "-c", "-o", made, made.with_suffix(".c")], check=True, timeout=60)
    with pytest.raises(CoverageError, match="were not built with CONFIG_KCOV"):
        _native(host)
