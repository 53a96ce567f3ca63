# SPDX-License-Identifier: GPL-2.0-only
#
# behaviour: proves by what happens what no instruction reads. One topic a run; the host names it and gives its arguments in
# RAM, and both survive INIT, so that the same code goes on after it.
#
# The reset vector leads to a copy of the first 4 KiB of this image at 1000, which is also the page of SIPI vector 01; they run
# with CS = VV00. DS = SS = 0, the stack grows down from 1000. Everything is said by one 32-bit OUT a value. General registers
# and the words below are free for all.

	.include "code.inc"

	.set CODE, 0x1000		# where the host puts the copy of this page
	.set STACK, 0x1000

# Written by the host, from TOPIC to the last ARG; counted by the guest.
	.set TOPIC, 0x500
	.set ARG_LVT, 0x504		# LVT timer register
	.set ARG_COUNT, 0x508		# timer's initial count; 0: is not written
	.set ARG_DELTA, 0x50c		# TSC-deadline, cycles from now; 0: is not written
	.set ARG_LIMIT, 0x510		# how many cycles of the TSC to wait for an interrupt
	.set ARG_ICR, 0x514
	.set ARG_ICR2, 0x518
	.set ARG_CR4, 0x51c		# 0: is not written
	.set ARG_PTE, 0x520
	.set ARG_FIRST, 0x524		# segments of the first page to sum up, and after the last one
	.set ARG_LAST, 0x528
	.set ARG_CR3, 0x52c
	.set ARG_EFER, 0x530		# 0: is not written; else 64-bit code follows
	.set ARG_WORD, 0x534		# written after what is read at LINEAR
	.set COUNT, 0x540

	.set TOPIC_HALT, 0
	.set TOPIC_SPIN, 1
	.set TOPIC_INTERRUPT, 2
	.set TOPIC_X2APIC, 3
	.set TOPIC_ICR, 4
	.set TOPIC_TLB, 5
	.set TOPIC_SUM, 6
	.set TOPIC_SHUTDOWN, 7
	.set TOPIC_PAGING, 8
	.set TOPIC_RDTSCP, 9
	.set TOPIC_RDPID, 10

	.set PORT_RESET, 0xf2		# the first instruction at the reset vector
	.set PORT_SIPI, 0xf3		# the value is CS, after SIPI
	.set PORT_READY, 0xf4
	.set PORT_VALUE, 0xf5
	.set PORT_NMI, 0xf7
	.set PORT_SMI, 0xf8
	.set PORT_FAULT, 0xfe		# CS:IP of an instruction that raised an exception

# Offsets of the handlers, for the host's vector table.
	.set AT_FAULT, 0x20
	.set AT_INTERRUPT, 0x28
	.set AT_NMI, 0x30
	.set AT_FF, 0x38		# vector FFH through the table at 0
	.set AT_FF_OTHER, 0x40		# and through any other one
	.set TABLE_0, 0x100		# what the two say
	.set TABLE_OTHER, 0x101
	.set AT_NMI_COUNTS, 0x48	# an NMI that is counted, without a word

# The linear address whose page the topic remaps, and its entry in the page table. The page directory lies at 0, where CR3
# points after INIT; its first entry takes the place of interrupt vector 0.
	.set LINEAR, 0x80000
	.set PTE, 0x3200

	.set MSR_EFER, 0xc0000080
	.set MSR_IA32_APIC_BASE, 0x1b
	.set MSR_TSC_DEADLINE, 0x6e0
	.set MSR_X2APIC_ID, 0x802
	.set MSR_X2APIC_EOI, 0x80b
	.set MSR_X2APIC_SVR, 0x80f
	.set MSR_X2APIC_ICR, 0x830
	.set MSR_X2APIC_LVT_TIMER, 0x832
	.set MSR_X2APIC_INITIAL, 0x838
	.set MSR_X2APIC_DIVIDE, 0x83e

# \value (EAX, a constant or a word in RAM) to an MSR. Destroys EAX, ECX, EDX.
.macro write_msr index, value, high=$0
	movl	\high, %edx
	movl	\value, %eax
	movl	$\index, %ecx
	wrmsr
.endm

# Low half of an MSR out. Destroys EAX, ECX, EDX.
.macro report_msr index
	movl	$\index, %ecx
	rdmsr
	outl	%eax, $PORT_VALUE
.endm

# x2APIC mode, and software-enabled. Destroys EAX, ECX, EDX.
.macro enable_apic
	movl	$MSR_IA32_APIC_BASE, %ecx
	rdmsr
	orl	$0xc00, %eax
	wrmsr
	write_msr MSR_X2APIC_SVR, $0x1ff
.endm

	CODE 16
	.section .text, "ax"

	.globl	sipi_vector
sipi_vector:
	movw	%cs, %ax
	movzwl	%ax, %eax
	outl	%eax, $PORT_SIPI
	jmp	common

	.org	AT_FAULT, 0xf4
	jmp	fault
	.org	AT_INTERRUPT, 0xf4
	jmp	interrupt
	.org	AT_NMI, 0xf4
	outl	%eax, $PORT_NMI
	iretw
	.org	AT_FF, 0xf4
	movw	$TABLE_0, %ax
	jmp	reported
	.org	AT_FF_OTHER, 0xf4
	movw	$TABLE_OTHER, %ax
	jmp	reported
	.org	AT_NMI_COUNTS, 0xf4
	incl	COUNT
	iretw

reset_start:
common:
	movw	$0, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movl	$STACK, %esp
	movw	TOPIC, %bx
	addw	%bx, %bx
	jmpw	*%cs:topics(%bx)

topics:
	.word	halt, spin, wait, x2apic, icr, tlb, sum, shutdown, paging, aux, pid

fault:
	popl	%eax			# IP in the low half, CS in the high half
	outl	%eax, $PORT_FAULT
halt:
	cli
	hlt
	jmp	halt

# Any interrupt of the local APIC, which lets no other one in when it returns: one at most comes between STI and CLI.
interrupt:
	pushl	%eax
	pushl	%ecx
	pushl	%edx
	incl	COUNT
	write_msr MSR_X2APIC_EOI, $0
	popl	%edx
	popl	%ecx
	popl	%eax
	andw	$~0x200, %ss:4(%esp)
	iretw

reported:
	movzwl	%ax, %eax
	outl	%eax, $PORT_VALUE
	jmp	halt

# Counts for ever. Nothing sends interrupts; some emulators leave a guest for the host's with IF set only.
spin:
	outl	%eax, $PORT_READY
	sti
1:	incl	COUNT
	jmp	1b

# Arms what the arguments say, lets the host act at PORT_READY, then reports whether an interrupt came; again and again.
wait:
	enable_apic
	write_msr MSR_X2APIC_LVT_TIMER, ARG_LVT
	cmpl	$0, ARG_COUNT
	je	1f
	write_msr MSR_X2APIC_DIVIDE, $0xb
	write_msr MSR_X2APIC_INITIAL, ARG_COUNT
1:	cmpl	$0, ARG_DELTA
	je	2f
	rdtsc
	addl	ARG_DELTA, %eax
	adcl	$0, %edx
	movl	$MSR_TSC_DEADLINE, %ecx
	wrmsr
2:	movl	$0, COUNT
	outl	%eax, $PORT_READY
	rdtsc
	movl	%eax, %ebx
	sti
3:	cmpl	$0, COUNT
	jne	4f
	rdtsc
	subl	%ebx, %eax
	cmpl	ARG_LIMIT, %eax
	jb	3b
4:	cli
	movl	COUNT, %eax
	outl	%eax, $PORT_VALUE
	jmp	wait

x2apic:
	outl	%eax, $PORT_READY
	report_msr MSR_IA32_APIC_BASE
	report_msr MSR_X2APIC_ID
	write_msr MSR_X2APIC_SVR, $0x1aa
	report_msr MSR_X2APIC_SVR
	jmp	halt

icr:
	enable_apic
	outl	%eax, $PORT_READY
	write_msr MSR_X2APIC_ICR, ARG_ICR, ARG_ICR2
	outl	%eax, $PORT_VALUE
	jmp	halt

# Sums up the pages from ARG_FIRST to ARG_LAST, each sum rotated by one bit before the next word. Destroys DS on the way.
sum:
	outl	%eax, $PORT_READY
	movl	ARG_FIRST, %edx
	movl	ARG_LAST, %ebp
	movl	$0, %ebx
	cld
1:	movw	%dx, %ds
	movw	$0, %si
	movw	$0x400, %cx
2:	lodsl
	roll	$1, %ebx
	addl	%eax, %ebx
	loop	2b
	addw	$0x100, %dx
	cmpw	%bp, %dx
	jb	1b
	movl	%ebx, %eax
	outl	%eax, $PORT_VALUE
	jmp	common

# To protected mode with paging as it is: neither CR3 nor, without ARG_CR4, CR4 is written, as that flushes the TLB.
tlb:
	movl	ARG_CR4, %eax
	cmpl	$0, %eax
	je	1f
	movl	%eax, %cr4
1:	lgdtl	%cs:flat_gdt
	movl	%cr0, %eax
	orl	$0x80000001, %eax
	movl	%eax, %cr0
	ljmpl	$8, $CODE + paged

# Reads and writes LINEAR as real-address mode has it, then reads it through the tables at ARG_CR3. A VM exit lies between the write
# to CR3 and CR0.PG. Destroys ES.
paging:
	movw	$LINEAR >> 4, %ax
	movw	%ax, %es
	movl	%es:0, %eax
	outl	%eax, $PORT_VALUE
	movl	ARG_WORD, %eax
	movl	%eax, %es:4
	movl	ARG_CR3, %eax
	movl	%eax, %cr3
	outl	%eax, $PORT_READY
	movl	ARG_CR4, %eax
	movl	%eax, %cr4
	lgdtl	%cs:flat_gdt
	cmpl	$0, ARG_EFER
	je	1f
	write_msr MSR_EFER, ARG_EFER
	movl	%cr0, %eax
	orl	$0x80000001, %eax
	movl	%eax, %cr0
	ljmpl	$24, $CODE + look64
1:	movl	%cr0, %eax
	orl	$0x80000001, %eax
	movl	%eax, %cr0
	ljmpl	$8, $CODE + look32

# IA32_TSC_AUX as the two instructions that return it see it.
aux:
	outl	%eax, $PORT_READY
	rdtscp
	movl	%ecx, %eax
	outl	%eax, $PORT_VALUE
	jmp	halt
pid:
	outl	%eax, $PORT_READY
	.byte	0xf3, 0x0f, 0xc7, 0xf8	# RDPID EAX, as 32-bit code has it
	outl	%eax, $PORT_VALUE
	jmp	halt

shutdown:
	outl	%eax, $PORT_READY
	lgdtl	%cs:flat_gdt
	lidtl	%cs:no_idt
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$8, $CODE + faults

	CODE 32
paged:
	movw	$16, %ax
	movw	%ax, %ds
	movl	LINEAR, %eax
	outl	%eax, $PORT_VALUE
	movl	ARG_PTE, %eax
	movl	%eax, PTE
	outl	%eax, $PORT_READY	# a VM exit, as the event brings one too
	movl	LINEAR, %eax
	outl	%eax, $PORT_VALUE
1:	hlt
	jmp	1b

look32:
	movw	$16, %ax
	movw	%ax, %ds
	movl	LINEAR, %eax
	outl	%eax, $PORT_VALUE
1:	outl	%eax, $PORT_READY
	hlt
	jmp	1b

	CODE 64
look64:
	movl	LINEAR, %eax
	outl	%eax, $PORT_VALUE
1:	outl	%eax, $PORT_READY
	hlt
	jmp	1b

	CODE 32
faults:
	ud2
1:	hlt
	jmp	1b

	.balign	8
gdt:
	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
flat_gdt:
	.word	flat_gdt - gdt - 1
	.long	CODE + gdt
no_idt:
	.word	0
	.long	0

# Must fit in 16 bytes.
	CODE 16
	.section .reset, "ax"
	.globl	reset_vector
reset_vector:
	outl	%eax, $PORT_RESET
	ljmpw	$CODE >> 4, $reset_start
