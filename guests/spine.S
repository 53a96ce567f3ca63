# SPDX-License-Identifier: GPL-2.0-only
#
# spine: what a vCPU looks like to the first instructions it executes, after RESET and after SIPI.
#
# A flat 64 KiB ROM. Mapped at FFFF0000 it holds the reset vector FFFFFFF0 in its last 16 bytes; its first 4 KiB, copied to
# VV000, are the code of SIPI vector VV. That page is 16-bit code that does not depend on where it lies. What follows it runs
# from a copy of the ROM at CODE, below 640 KiB: 16-bit code again, then 32-bit, then 64-bit.
#
# 1. In the first page each value goes out by one OUT to the port of its item: OUT imm8, EAX touches no register, no flag and
#    no memory. General registers, selectors, segment bases and flags are out before any of them is overwritten.
# 2. Then values go to slots in RAM at DATA. What may fail is a step: it says where to continue, and an exception or, by the
#    host, an instruction that a KVM which emulates real mode does not know costs the items of that step only.
#
# An item's port is PORT_ and its name, its slot SLOT_ and its name: CS_BASE is cs.base. kvmtest/guests/spine.py lists which items
# have a port, and which of them each step fills.
#
# Needs RAM at 20000-5FFFF, and whatever the host wants to be read at PROBE. An exception in part 1 ends the guest where the
# host has put a vector table at 0-3FF that points to a copy of `fault`.

	.include "code.inc"

	.include "spine.inc"

# Everything is read.
.macro finish
	report_value DONE, 0
.endm
.macro finish32
	outl	%eax, $PORT_DONE
.endm
.macro finish64
	outl	%eax, $PORT_DONE
.endm

.macro before_xcr0
.endm

	CODE 16
	.section .text, "ax"

	.globl	sipi_vector
sipi_vector:
	report	RAX
	jmp	sipi_start

# The host overwrites this with the physical address at which it puts this copy of the image: read through CS it shows where
# CS.base points, which real-mode code cannot read.
	.org	0x8, 0xf4
where:
	.long	0xffff0000

# Ends the guest after an exception. The host copies these 16 bytes to 0:400, after the real-mode vector table.
	.org	0x10, 0xf4
fault:
	popl	%eax			# IP in the low half, CS in the high half
	report	FAULT
1:	cli
	hlt
	jmp	1b
	.org	0x20, 0xf4

reset_start:
	report_registers ENTRY_RESET, reset_vector
sipi_start:
	report_registers ENTRY_SIPI, sipi_vector

common:
	report_from CS_SELECTOR, %cs
	report_from DS_SELECTOR, %ds
	report_from ES_SELECTOR, %es
	report_from SS_SELECTOR, %ss
	report_from FS_SELECTOR, %fs
	report_from GS_SELECTOR, %gs


# From here on SS and ESP are this guest's own, but for SS's limit; MOV leaves the flags alone. DS is never used.
	movl	%ss:PROBE, %eax
	report	SS_BASE
	movl	$DATA >> 4, %eax
	movw	%ax, %ss
	movl	$STACK, %esp
	pushfl
	popl	%eax
	report	RFLAGS

# From here on the flags are not the vector's any more.
	movl	%cs:where, %eax
	report	CS_BASE
	call	1f
1:	popw	%ax
	subw	$1b, %ax		# 0 where IP is what the image was linked for
	addw	%bx, %ax
	movzwl	%ax, %eax
	report	RIP
	keep_table GDT, sgdtl
	keep_table IDT, sidtl
	done	TABLES

# From here on IDTR is this guest's own, and an exception goes on at CODE.
	movl	$CODE + ivt, %eax
	movl	%eax, %ss:SCRATCH + 2
	movw	$4 * 32 - 1, %ss:SCRATCH
	lidtl	%ss:SCRATCH
	probe_limit cs, CS_LIMIT, low_start
	ljmp	$CODE >> 4, $low_start

# Code that does not fit in the first page, run at CODE.
	.include "look.inc"

# Must fit in 16 bytes; the near jump keeps CS.base FFFF0000.
	CODE 16
	.section .reset, "ax"
	.globl	reset_vector
reset_vector:
	report	RAX
	jmp	reset_start
