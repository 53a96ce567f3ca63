# SPDX-License-Identifier: GPL-2.0-only
"""A source of a few lines, the disassembly of what it is compiled to, and a table of what ran of it."""

from __future__ import annotations

from pathlib import Path

from kvmtest.coverage.blocks import Block, blocks
from kvmtest.coverage.table import Cell, Table

__all__ = ("DISASSEMBLY", "FILE", "SOURCE", "made_blocks", "source", "table")

FILE = "arch/x86/kvm/lapic.c"
SOURCE = """\
#include "lapic.h"
static int ready(int x)
{
	return x + 1;
}
int accept(int x)
{
	if (x)
		reset(x);
	else
		wait(x);
	return ready(x);
}
/* never called */
void unused(void)
{
	wait(0);
}
"""
#: As objdump writes it, but for the rest of the operands. A jump goes over "lea", whose line is that of the next block.
DISASSEMBLY = """
kvm.ko:     file format elf64-x86-64


Disassembly of section .text:

0000000000000000 <accept>:
accept():
/b/objects/x/tree/arch/x86/kvm/lapic.c:7
       0:	push   %rbx
/b/objects/x/tree/arch/x86/kvm/lapic.c:8
       1:	call   6 <accept+0x6>	2: R_X86_64_PLT32	__sanitizer_cov_trace_pc-0x4
       6:	test   %edi,%edi
       8:	je     20 <accept+0x20>
/b/objects/x/tree/arch/x86/kvm/lapic.c:9
       a:	lea    0x1(%rdi),%esi
/b/objects/x/tree/arch/x86/kvm/lapic.c:9 (discriminator 1)
       d:	call   12 <accept+0x12>	e: R_X86_64_PLT32	__sanitizer_cov_trace_pc-0x4
      12:	call   17 <accept+0x17>	13: R_X86_64_PLT32	reset-0x4
      17:	jmp    30 <accept+0x30>
/b/objects/x/tree/arch/x86/kvm/lapic.c:11
      20:	call   25 <accept+0x25>	21: R_X86_64_PLT32	__sanitizer_cov_trace_pc-0x4
      25:	call   2a <accept+0x2a>	26: R_X86_64_PLT32	wait-0x4
ready():
/b/objects/x/tree/arch/x86/kvm/lapic.c:4
inlined by /b/objects/x/tree/arch/x86/kvm/lapic.c:12 (accept)
      30:	call   35 <accept+0x35>	31: R_X86_64_PLT32	__sanitizer_cov_trace_pc-0x4
inlined by /b/objects/x/tree/arch/x86/kvm/lapic.c:12 (accept)
      35:	lea    0x1(%rdi),%eax
accept():
/b/objects/x/tree/arch/x86/kvm/../../../virt/kvm/lib.h:3
      38:	mov    %rax,%rbx
/b/objects/x/tree/arch/x86/kvm/lapic.c:13
      3b:	ret

Disassembly of section .text.unlikely:

0000000000000000 <unused>:
unused():
/b/objects/x/tree/arch/x86/kvm/lapic.c:16
       0:	call   5 <unused+0x5>	1: R_X86_64_PLT32	__sanitizer_cov_trace_pc-0x4
/b/objects/x/tree/arch/x86/kvm/lapic.c:17
       5:	jmp    a <unused+0xa>	6: R_X86_64_PLT32	wait-0x4

0000000000000010 <accept.cold>:
accept():
/b/objects/x/tree/arch/x86/kvm/lapic.c:13
      10:	nop
      11:	call   16 <accept.cold+0x6>	12: R_X86_64_NONE	__sanitizer_cov_trace_pc-0x4
"""


def made_blocks() -> list[Block]:
    """The blocks: accept, its two branches, ready in accept, unused."""
    return blocks("kvm", DISASSEMBLY.splitlines(), ["/b/objects/x/tree"])


def source(folder: Path) -> Path:
    """A tree with the source."""
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SOURCE)
    return folder


def table() -> Table:
    """Two cells of which one has one more case, which alone takes the other branch; the loading ran nothing but accept."""
    svm, vmx = Cell("6.1/svm", "svm", {}, "2026-11-29T00:00:00Z"), Cell("6.1/vmx", "vmx", {"kvm_intel": "ept=0"})
    svm.add("", (0,))
    svm.add("init.msi/ap,intel", (0, 1, 3))
    svm.add("init.msi/bsp,intel", (0, 1, 3))
    svm.add("sipi.msi/ap,intel", (0, 2, 3))
    vmx.add("init.msi/ap,intel", (0, 1, 3))
    return Table("6.1.0-9", "Debian", "b1", made_blocks(), [svm, vmx])
