# SPDX-License-Identifier: GPL-2.0-only
#
# spine: what a vCPU looks like to the first instructions it executes, after RESET and after SIPI.
#
# A flat 64 KiB ROM. Mapped at FFFF0000 it holds the reset vector FFFFFFF0 in its last 16 bytes; its first 4 KiB, copied to
# VV000, are the code of SIPI vector VV. Nothing in it depends on where it lies. 16-bit code, and only instructions that a
# KVM which emulates real mode one instruction at a time knows as well.
#
# Each value goes out by one OUT to the port of its item: OUT imm8, EAX touches no register, no flag and no memory. The ports
# are listed once more, with the items' names, in kvmtest/guests/__init__.py; a test compares the two.
#
# Needs RAM at 0-FFF for the stack and a scratch word, and touches none of it before general and segment registers are out.
# An exception ends the guest, where the host has put a vector table at 0-3FF that points to a copy of `fault`.

	.set PORT_RAX, 0xb0
	.set PORT_RBX, 0xb1
	.set PORT_RCX, 0xb2
	.set PORT_RDX, 0xb3
	.set PORT_RSI, 0xb4
	.set PORT_RDI, 0xb5
	.set PORT_RBP, 0xb6
	.set PORT_RSP, 0xb7
	.set PORT_RIP, 0xb8
	.set PORT_RFLAGS, 0xb9
	.set PORT_CS_SELECTOR, 0xc0
	.set PORT_CS_BASE, 0xc1
	.set PORT_DS_SELECTOR, 0xc2
	.set PORT_ES_SELECTOR, 0xc3
	.set PORT_SS_SELECTOR, 0xc4
	.set PORT_FS_SELECTOR, 0xc5
	.set PORT_GS_SELECTOR, 0xc6
	.set PORT_CR0, 0xd0
	.set PORT_CR2, 0xd2
	.set PORT_CR3, 0xd3
	.set PORT_CR4, 0xd4
	.set PORT_GDT_BASE, 0xd5
	.set PORT_GDT_LIMIT, 0xd6
	.set PORT_IDT_BASE, 0xd7
	.set PORT_IDT_LIMIT, 0xd8
	.set PORT_EFER, 0xd9
	.set PORT_APIC_BASE, 0xda
	.set PORT_DR0, 0xe0
	.set PORT_DR1, 0xe1
	.set PORT_DR2, 0xe2
	.set PORT_DR3, 0xe3
	.set PORT_DR6, 0xe6
	.set PORT_DR7, 0xe7
	.set PORT_FCW, 0xe8
	.set PORT_FSW, 0xe9
	.set PORT_ENTRY, 0xf0		# 1: came by the reset vector, 2: by SIPI
	.set PORT_FAULT, 0xfe		# CS:IP of an instruction that raised an exception; ends the guest
	.set PORT_DONE, 0xff		# everything is out; ends the guest

	.set STACK, 0x1000		# SS:SP = 0:1000, grows down
	.set SCRATCH, 0x0e00
	.set MSR_IA32_APIC_BASE, 0x1b
	.set MSR_EFER, 0xc0000080

# EAX out through PORT_\port. Destroys nothing.
.macro report port
	outl	%eax, $PORT_\port
.endm

# \source (a register) out. Destroys EAX, not the flags.
.macro report_from port, source
	movl	\source, %eax
	report	\port
.endm

# A constant out. Destroys EAX, not the flags.
.macro report_value port, value
	movl	$\value, %eax
	report	\port
.endm

# Base and limit of the GDT or the IDT out. Destroys EAX and SCRATCH.
.macro report_table port, store
	\store	SCRATCH
	movl	SCRATCH + 2, %eax
	report	\port\()_BASE
	movzwl	SCRATCH, %eax
	report	\port\()_LIMIT
.endm

# A 16-bit x87 register out. Destroys EAX and SCRATCH.
.macro report_x87 port, store
	\store	SCRATCH
	movzwl	SCRATCH, %eax
	report	\port
.endm

# Low half of an MSR out. Destroys EAX, ECX, EDX.
.macro report_msr port, index
	movl	$\index, %ecx
	rdmsr
	report	\port
.endm

# The other general registers out, EAX being out already; goes on at `common` with BX = the offset where execution began.
# Destroys EAX and then EBX, not the flags.
.macro report_registers entry, offset
	report_from RBX, %ebx
	report_from RCX, %ecx
	report_from RDX, %edx
	report_from RSI, %esi
	report_from RDI, %edi
	report_from RBP, %ebp
	report_from RSP, %esp
	report_value ENTRY, \entry
	movl	$\offset, %ebx
	jmp	common
.endm

	.code16
	.section .text, "ax"

	.globl	sipi_vector
sipi_vector:
	report	RAX
	jmp	sipi_start

# The host overwrites this with the physical address at which it puts this copy of the image: read through CS it tells where
# CS.base points, which real-mode code cannot read.
	.org	0x8, 0xf4
where:
	.long	0xffff0000

# Ends the guest after an exception. The host copies these 16 bytes to 0:400, behind the real-mode vector table.
	.org	0x10, 0xf4
fault:
	popl	%eax			# IP in the low half, CS in the high half
	report	FAULT
1:	cli
	hlt
	jmp	1b
	.org	0x20, 0xf4

reset_start:
	report_registers 1, reset_vector
sipi_start:
	report_registers 2, sipi_vector

common:
	report_from CS_SELECTOR, %cs
	report_from DS_SELECTOR, %ds
	report_from ES_SELECTOR, %es
	report_from SS_SELECTOR, %ss
	report_from FS_SELECTOR, %fs
	report_from GS_SELECTOR, %gs

# From here on SS, ESP and DS are this guest's own; MOV leaves the flags alone.
	movl	$0, %eax
	movw	%ax, %ds
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

	report_from CR0, %cr0
	report_from CR2, %cr2
	report_from CR3, %cr3
	report_from CR4, %cr4
	report_table GDT, sgdtl
	report_table IDT, sidtl
	report_msr EFER, MSR_EFER
	report_msr APIC_BASE, MSR_IA32_APIC_BASE
	report_from DR0, %dr0
	report_from DR1, %dr1
	report_from DR2, %dr2
	report_from DR3, %dr3
	report_from DR6, %dr6
	report_from DR7, %dr7

	report_x87 FCW, fnstcw
	report_x87 FSW, fnstsw		# KVM's emulator knows the form with a memory operand only

	report_value DONE, 0
halt:
	cli
	hlt
	jmp	halt

# Must fit in 16 bytes; the near jump keeps CS.base FFFF0000.
	.section .reset, "ax"
	.globl	reset_vector
reset_vector:
	report	RAX
	jmp	reset_start
