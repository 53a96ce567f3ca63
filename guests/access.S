# SPDX-License-Identifier: GPL-2.0-only
#
# access: makes one access after the other, from a list in RAM, and reports the result of each. NEXT is the number of the next
# one; it survives INIT, after which the list goes on.
#
# The reset vector leads to a copy of the first 4 KiB of this image at 1000, which is also the page of SIPI vector 01. Flat 32-bit
# protected mode at once, no paging, the stack grows down from 7000. Everything is said by one 32-bit OUT a value. An exception
# is reported, and the next access follows. General registers are free for all.

	.include "code.inc"

	.set CODE, 0x1000		# where the host puts the copy of this page
	.set STACK, 0x7000		# not in the page of a page directory at 0: KVM emulates no exception's frame without nested paging

# Written by the host: entries of 16 bytes, which are the kind, the place, and the two halves of a value.
	.set LIST, 0x2000
	.set NEXT, 0x540

	.set OPEN_TURNS, 4096		# of a loop that lets interrupts in: not every KVM does so at once

	.set SAY, 0			# PORT_READY
	.set WRMSR, 1
	.set RDMSR, 2			# reports the low half
	.set STORE, 3			# 32 bits, to memory
	.set LOAD, 4
	.set CR0, 5			# what is written to it
	.set CR4, 6
	.set OPEN, 7			# lets interrupts in
	.set WAIT, 8			# in HLT, for an interrupt
	.set INT3, 9
	.set UD, 10
	.set TASK, 11			# a task gate for a vector, whose task reports TR and returns to the next access
	.set INT, 13			# INT n, of SOFTWARE
	.set HYPERCALL, 12		# KVM_HC_SEND_IPI: the ICR where, the bitmap and the lowest APIC id the two halves; reports what it returns

	.set KVM_HC_SEND_IPI, 10
	.set SOFTWARE, 0x61

	.set PORT_RESET, 0xf2		# the first instruction at the reset vector
	.set PORT_SIPI, 0xf3		# the value is CS, after SIPI
	.set PORT_READY, 0xf4
	.set PORT_VALUE, 0xf5
	.set PORT_NMI, 0xf7
	.set PORT_TAKEN, 0xf6		# an interrupt: the value is the vector
	.set PORT_AWAKE, 0xfc		# after HLT
	.set PORT_FAULT, 0xfe		# exception: vector << 24 | low bits of what lies on the stack: the error code, or else EIP

	.set CODE32, 0x8
	.set DATA32, 0x10
	.set TSS, 0x18			# of what makes the accesses
	.set TASK_TSS, 0x20
	.set TSS_AT, 0x600		# where the two are
	.set TASK_TSS_AT, 0x680
	.set TSS_LIMIT, 0x67
	.set TASK_STACK, 0xe00
	.set AVAILABLE, 0x89
	.set NMI, 2
	.set EXCEPTIONS, 32
	.set VECTORS, 0x70		# entries of the IDT

	CODE 16
	.section .text, "ax"
	.globl	sipi_vector
sipi_vector:
	movw	%cs, %ax
	movzwl	%ax, %eax
	outl	%eax, $PORT_SIPI
real:
	lgdtl	%cs:gdtr
	lidtl	%cs:idtr
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$CODE32, $CODE + flat

	CODE 32
flat:
	movw	$DATA32, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
next:
	movl	$STACK, %esp
	movl	NEXT, %ebx
	incl	NEXT
	shll	$4, %ebx
	movl	LIST(%ebx), %edi
	movl	LIST + 4(%ebx), %ecx
	movl	LIST + 8(%ebx), %eax
	movl	LIST + 12(%ebx), %edx
	jmp	*CODE + kinds(, %edi, 4)

	.balign	4, 0xf4
kinds:
	.long	CODE + say, CODE + write, CODE + read, CODE + store, CODE + load, CODE + to_cr0, CODE + to_cr4, CODE + open
	.long	CODE + halt, CODE + breakpoint, CODE + undefined, CODE + gate
	.long	CODE + hypercall, CODE + software

say:
	outl	%eax, $PORT_READY
	jmp	next
write:
	wrmsr
	jmp	next
read:
	rdmsr
	jmp	value
store:
	movl	%eax, (%ecx)
	jmp	next
load:
	movl	(%ecx), %eax
value:
	outl	%eax, $PORT_VALUE
	jmp	next
to_cr0:
	movl	%eax, %cr0
	jmp	next
to_cr4:
	movl	%eax, %cr4
	jmp	next
open:
	movl	$OPEN_TURNS, %ecx
	sti
1:	decl	%ecx
	jnz	1b
	cli
	jmp	next
halt:
	sti
	hlt
	cli
	outl	%eax, $PORT_AWAKE
	jmp	next
breakpoint:
	int3
	jmp	next

software:
	int	$SOFTWARE
	jmp	next

undefined:
	ud2
	jmp	next
hypercall:
	movl	%ecx, %esi
	movl	%eax, %ebx
	xorl	%ecx, %ecx
	movl	$KVM_HC_SEND_IPI, %eax
	vmmcall
	jmp	value
gate:
	movb	$AVAILABLE, CODE + tss + 5
	movb	$AVAILABLE, CODE + task_tss + 5
	movw	$TSS, %ax
	ltr	%ax
	movl	$CODE + task, TASK_TSS_AT + 0x20
	movl	$2, TASK_TSS_AT + 0x24
	movl	$TASK_STACK, TASK_TSS_AT + 0x38
	movl	$CODE32, TASK_TSS_AT + 0x4c
	movl	$DATA32, %eax
	movl	%eax, TASK_TSS_AT + 0x48
	movl	%eax, TASK_TSS_AT + 0x50
	movl	%eax, TASK_TSS_AT + 0x54
	movl	$TASK_TSS << 16, CODE + idt(, %ecx, 8)
	movl	$0x8500, CODE + idt + 4(, %ecx, 8)
	jmp	next

task:
	xorl	%eax, %eax
	str	%ax
	outl	%eax, $PORT_VALUE
	movl	$CODE + next, TSS_AT + 0x20
	iretl
	jmp	task

came:
	popl	%eax
	cmpl	$NMI, %eax
	je	nmi
	cmpl	$EXCEPTIONS, %eax
	jae	1f
	popl	%edx
	shll	$24, %eax
	andl	$0xffffff, %edx
	orl	%edx, %eax
	outl	%eax, $PORT_FAULT
	jmp	next
1:	outl	%eax, $PORT_TAKEN
	movl	$1, %ecx		# the last turn, where it came to a loop
	iretl
nmi:
	outl	%eax, $PORT_NMI
	outl	%eax, $PORT_NMI		# again, so that the host can look at what the first one let in
	iretl

	.balign	8, 0xf4
vectors:
	.set	vector, 0
	.rept	VECTORS
	.balign	8, 0xf4
	pushl	$vector
	jmp	came
	.set	vector, vector + 1
	.endr

# Present interrupt gates of level 0.
	.balign	8, 0xf4
idt:
	.set	vector, 0
	.rept	VECTORS
	.word	CODE + vectors + 8 * vector, CODE32, 0x8e00, 0
	.set	vector, vector + 1
	.endr
idtr:
	.word	8 * VECTORS - 1
	.long	CODE + idt

	.balign	8, 0xf4
gdt:
	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff
tss:
	.quad	TSS_AT << 16 | 0x0000890000000000 | TSS_LIMIT
task_tss:
	.quad	TASK_TSS_AT << 16 | 0x0000890000000000 | TSS_LIMIT
gdtr:
	.word	gdtr - gdt - 1
	.long	CODE + gdt

# Must fit in 16 bytes.
	CODE 16
	.section .reset, "ax"
	.globl	reset_vector
reset_vector:
	outl	%eax, $PORT_RESET
	ljmpw	$CODE >> 4, $real
