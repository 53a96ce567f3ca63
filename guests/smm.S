# SPDX-License-Identifier: GPL-2.0-only
#
# smm: what an SMI interrupts, and its handler. The reset vector leads to a copy of the first 4 KiB of this image at 1000, which
# is also the page of SIPI vector 01; AT_HANDLER bytes on lies what the host copies to SMBASE + 8000 in SMRAM.
#
# 16-bit code, DS = SS = 0, the stack grows down from 1000. Everything is said by one 32-bit OUT a value. General registers and
# the words below are free for all; RSM brings back those of the interrupted code.

	.include "code.inc"

	.set CODE, 0x1000		# where the host puts the copy of this page
	.set STACK, 0x1000

	.set TOPIC, 0x500
	.set COUNT, 0x540

	.set PORT_RESET, 0xf2		# the first instruction at the reset vector
	.set PORT_SIPI, 0xf3		# the value is CS, after SIPI
	.set PORT_READY, 0xf4
	.set PORT_VALUE, 0xf5		# the handler, a loop later
	.set PORT_LEFT, 0xf6		# the interrupted code, after the instruction that let the SMI in
	.set PORT_SMI, 0xf8		# the handler's first word
	.set PORT_FAULT, 0xfe

	.set TOPIC_WAIT, 0
	.set TOPIC_SEND, 1

# In SMRAM: the handler and, above its code, its words. There CS.base is SMBASE, DS.base 0.
	.set SMBASE, 0x30000
	.set SMRAM_SIZE, 0x10000
	.set ENTRY, 0x38000
	.set AT_HANDLER, 0x800
	.set HANDLER_SIZE, 0x100
	.set SMM_TOPIC, 0x38800
	.set SMM_TURNS, 0x38804
	.set SMM_COUNT, 0x38808

# Of the state-save map that KVM has for a CPU with long mode: what RSM loads.
	.set SMM_SAVED_EFER, 0x3fed0
	.set SMM_SAVED_CR4, 0x3ff48
	.set SMM_SAVED_CR0, 0x3ff58
	.set SMM_SAVED_DR7, 0x3ff60
	.set SMM_SAVED_DR6, 0x3ff68

	.set SMM_RSM, 0
	.set SMM_SHUTDOWN, 1

	.set MSR_IA32_APIC_BASE, 0x1b
	.set MSR_X2APIC_SVR, 0x80f
	.set MSR_X2APIC_ID, 0x802
	.set MSR_X2APIC_ICR, 0x830
	.set ICR_SMI, 0x4200

	CODE 16
	.section .text, "ax"
	.globl	sipi_vector
sipi_vector:
	movw	%cs, %ax
	movzwl	%ax, %eax
	outl	%eax, $PORT_SIPI
start:
	movw	$0, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movl	$STACK, %esp
	cmpl	$TOPIC_SEND, TOPIC
	je	send
wait:
	outl	%eax, $PORT_READY
1:	outl	%eax, $PORT_LEFT
	jmp	1b

# An SMI to its own APIC ID, in x2APIC mode.
send:
	movl	$MSR_IA32_APIC_BASE, %ecx
	rdmsr
	orl	$0xc00, %eax
	wrmsr
	movl	$MSR_X2APIC_SVR, %ecx
	movl	$0x1ff, %eax
	xorl	%edx, %edx
	wrmsr
	movl	$MSR_X2APIC_ID, %ecx
	rdmsr
	movl	%eax, %edx
	movl	$MSR_X2APIC_ICR, %ecx
	movl	$ICR_SMI, %eax
	outl	%eax, $PORT_READY
	wrmsr
1:	outl	%eax, $PORT_LEFT
	jmp	1b

# IDTR's limit is 0 on entry to SMM, so that any exception shuts the CPU down.
	.org	AT_HANDLER, 0xf4
handler:
	outl	%eax, $PORT_SMI
	movl	$SMM_TOPIC, %ebx
	movl	SMM_TURNS - SMM_TOPIC(%ebx), %ecx
1:	incl	SMM_COUNT - SMM_TOPIC(%ebx)
	decl	%ecx
	jnz	1b
	cmpl	$SMM_SHUTDOWN, (%ebx)
	je	1f
	outl	%eax, $PORT_VALUE
	rsm
1:	outl	%eax, $PORT_VALUE
	ud2				# next, so that the word shows what the shutdown finds
	.org	AT_HANDLER + HANDLER_SIZE, 0xf4

# Must fit in 16 bytes; the jump is to the copy of this page.
	.section .reset, "ax"
	.globl	reset_vector
reset_vector:
	outl	%eax, $PORT_RESET
	ljmp	$0, $CODE + start
