# SPDX-License-Identifier: GPL-2.0-only
"""Blocks by what objdump writes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kvmtest.coverage import disassembly
from kvmtest.coverage.blocks import blocks
from kvmtest.coverage.error import CoverageError
from tests.coverage.made import DISASSEMBLY, FILE, made_blocks

_LIB = "virt/kvm/lib.h"


def test_a_block_is_known_by_where_its_call_returns_to() -> None:
    reported = [(block.section, block.offset, block.function, block.inside, block.line) for block in made_blocks()]
    assert reported == [
        (".text", 6, "accept", "accept", 8),
        (".text", 0x12, "accept", "accept", 9),
        (".text", 0x25, "accept", "accept", 11),
        (".text", 0x35, "ready", "accept", 4),
        (".text.unlikely", 5, "unused", "unused", 16),
    ]
    assert {block.module for block in made_blocks()} == {"kvm"} and {block.file for block in made_blocks()} == {FILE}


def test_lines_are_of_the_block_that_they_run_with() -> None:
    first, then, other, ready, unused = (block.lines for block in made_blocks())
    # The part before the first call is the function's own; "lea" after the jump has the line of the block that it begins.
    assert first == ((FILE, 7), (FILE, 8))
    assert then == ((FILE, 9),)
    assert other == ((FILE, 11),)
    # The line that an inlined function is called from runs with it.
    assert ready == ((FILE, 4), (FILE, 12), (FILE, 13), (_LIB, 3))
    assert unused == ((FILE, 16), (FILE, 17))


def test_what_stands_after_a_jump_is_of_the_block_where_no_other_has_it() -> None:
    alone = DISASSEMBLY.replace("lapic.c:9\n       a:", "lapic.c:10\n       a:")
    first = blocks("kvm", alone.splitlines(), ["/b/objects/x/tree"])[0]
    assert (FILE, 10) in first.lines


def test_what_objtool_took_the_call_from_is_no_block() -> None:
    assert len(made_blocks()) == DISASSEMBLY.count("PLT32\t__sanitizer") == DISASSEMBLY.count("__sanitizer") - 1


def test_files_are_named_as_in_the_kernels_tree() -> None:
    for roots in (["/b/objects/x/tree"], ["/b/objects/x/tree/"], []):
        assert {file for block in blocks("kvm", DISASSEMBLY.splitlines(), roots) for file, _ in block.lines} == {FILE, _LIB}


_C = """\
int other(int);
static inline int twice(int x) { return other(x) + other(x); }
int one(int x)
{
	if (x)
		return twice(x);
	return 0;
}
"""


@pytest.mark.program
@pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("objdump")), reason="needs gcc and objdump")
def test_the_compiler_and_objdump_here_give_blocks(tmp_path: Path) -> None:
    source, made = tmp_path / "one.c", tmp_path / "one.ko"
    source.write_text(_C)
    command = ["gcc", "-O2", "-g", "-fsanitize-coverage=trace-pc", "-fno-pic", "-c", "-o", made, source]
    subprocess.run(command, check=True, timeout=60)
    found = disassembly.read(str(made), [str(tmp_path)])
    assert {block.function for block in found} >= {"one"} and {block.module for block in found} == {"one"}
    lines = {line for block in found for _, line in block.lines}
    assert {2, 6} <= lines <= set(range(1, 9))
    # Without the flag there is nothing.
    subprocess.run([part for part in command if part != "-fsanitize-coverage=trace-pc"], check=True, timeout=60)
    assert disassembly.read(str(made)) == []
    made.write_text("no object")
    with pytest.raises(CoverageError, match="objdump: .*format not recogni"):
        disassembly.read(str(made))


#: By hand what gcc -fsanitize-coverage=trace-pc inserts: not each of its versions ends a function by a jump there.
_END = """\
int other(int);
void __sanitizer_cov_trace_pc(void);
void end(int x)
{
	while (x) {
		__sanitizer_cov_trace_pc();
		x = other(x);
	}
	__sanitizer_cov_trace_pc();
}
"""


@pytest.mark.program
@pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("objdump")), reason="needs gcc and objdump")
def test_a_block_that_only_jumps_to_the_recorder_is_none(tmp_path: Path) -> None:
    source, made = tmp_path / "end.c", tmp_path / "end.ko"
    source.write_text(_END)
    command = ["gcc", "-O2", "-g", "-fno-pic", "-c", "-o", made, source]
    subprocess.run(command, check=True, timeout=60)
    jumps = disassembly.read(str(made))
    subprocess.run([*command, "-fno-optimize-sibling-calls"], check=True, timeout=60)
    calls = disassembly.read(str(made))
    assert len(calls) == len(jumps) + 1
    assert 9 not in {block.line for block in jumps} and 9 in {block.line for block in calls}


def test_without_objdump_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CoverageError, match="apt-get install binutils"):
        disassembly.read("kvm.ko")
