# SPDX-License-Identifier: GPL-2.0-only
#
# planter: writes the state of the vCPU that runs it, by instructions, says so, and then does one thing more.
#
# The host enters it at `long` (64-bit mode, 4-level paging) or at `protected` (32-bit protected mode, PAE paging), with flat
# segments, memory below 4 GiB mapped to itself and its first 128 KiB to BASE, RBX = BLOCK, and in BLOCK what to write. Linked
# for BASE and needs to lie there. Destroys every register of the vCPU: that is its purpose.
#
# Code that faults is skipped: RBP holds the address to go on at, every exception leads there, and the host goes on there after an
# instruction that KVM cannot emulate.

	.include "code.inc"

	.set BASE, 0xfffc0000
	.set SIZE, 0x20000		# of the memory at BASE
	.set BLOCK, BASE + 0x1000
	.set STACK, BLOCK + 0x1000	# grows down, above the block
	.set PORT_READY, 0xf2		# everything is written; the address of what comes next is in `end`
	.set PORT_IN, 0xf3		# read by `in64` and `in16`
	.set MMIO, 0xe0000000		# no memory is there
	.set APIC_ICR, 0xfee00300
	.set APIC_ICR2, 0xfee00310
	.set MSR_X2APIC_ICR, 0x830

	.include "plant.inc"
.macro before_xsetbv r
.endm

	.section .text, "ax"
	.globl	reset_vector
reset_vector:				# the linker script's entry; no vector leads here
	CODE 64
long:
	plant	r
	movl	B_SS_SELECTOR(%rbx), %eax
	movw	%ax, %ss
	pushq	B_CS_SELECTOR(%rbx)
	movl	$BASE + 1f, %eax
	pushq	%rax
	lretq
1:	resume	7f
	mov	B_CR8(%rbx), %rax
	mov	%rax, %cr8
7:
	lidt	B_IDT(%rbx)
	pushq	B_RFLAGS(%rbx)
	popfq
	load_gpr r, ax, 0
	load_gpr r, cx, 1
	load_gpr r, dx, 2
	load_gpr r, sp, 4
	load_gpr r, bp, 5
	load_gpr r, si, 6
	load_gpr r, di, 7
	.irp	n, 8, 9, 10, 11, 12, 13, 14, 15
	load_gpr r, \n, \n
	.endr
	load_gpr r, bx, 3
	outb	%al, $PORT_READY
	jmp	*end(%rip)

# The possible next steps in 64-bit mode.
loop64:
	incq	count(%rip)
	jmp	loop64
hlt64:
	hlt
	jmp	hlt64
in64:
	inl	$PORT_IN, %eax
	jmp	hlt64
mmio64:	# Destroys RAX.
	movl	$MMIO, %eax
	movl	(%rax), %eax
	jmp	hlt64
icr64:	# Writes EAX and EDX to the ICR of the vCPU's own local APIC. Destroys RCX.
	movl	$APIC_ICR2, %ecx
	movl	%edx, (%rcx)
	movl	$APIC_ICR, %ecx
	movl	%eax, (%rcx)
	jmp	hlt64
x2icr64:	# The same in x2APIC mode. Destroys RCX.
	movl	$MSR_X2APIC_ICR, %ecx
	wrmsr
	jmp	hlt64
ud64:
	ud2

# Every exception of 64-bit code, until it has loaded its IDT.
	.balign	16, 0xf4
fault64:
	movl	$STACK, %esp
	jmp	*%rbp

	CODE 32
	.balign	16, 0xf4
fault32:
	movl	$STACK, %esp
	jmp	*%ebp

protected:
	plant	e
	jmp	*B_TAIL(%ebx)

# The general registers but ESP and EBX.
.macro load_gprs
	load_gpr e, ax, 0
	load_gpr e, cx, 1
	load_gpr e, dx, 2
	load_gpr e, bp, 5
	load_gpr e, si, 6
	load_gpr e, di, 7
.endm

protected_tail:
	movl	B_SS_SELECTOR(%ebx), %eax
	movw	%ax, %ss
	pushl	B_CS_SELECTOR(%ebx)
	pushl	$BASE + 1f
	lretl
1:	lidtl	B_IDT(%ebx)
	pushl	B_RFLAGS(%ebx)
	popfl
	load_gprs
	load_gpr e, sp, 4
	load_gpr e, bx, 3
	outb	%al, $PORT_READY
	jmp	*%cs:BASE + end

v86_tail:
	pushl	B_GS_SELECTOR(%ebx)
	pushl	B_FS_SELECTOR(%ebx)
	pushl	B_DS_SELECTOR(%ebx)
	pushl	B_ES_SELECTOR(%ebx)
	pushl	B_SS_SELECTOR(%ebx)
	pushl	B_GPR + 8 * 4(%ebx)
	pushl	B_RFLAGS(%ebx)
	pushl	$0
	pushl	$v86
	lidtl	B_IDT(%ebx)
	load_gprs
	load_gpr e, bx, 3
	iretl

loop32:
	incl	BASE + count
	jmp	loop32
hlt32:
	hlt
	jmp	hlt32

	CODE 16
v86:
	outb	%al, $PORT_READY
	jmpw	*%cs:end
loop16:
	incl	%cs:count
	jmp	loop16
in16:
	inl	$PORT_IN, %eax
	jmp	loop16

# Written by the host: where to go after PORT_READY. Read by it: the turns of the loop.
	.balign	16, 0xf4
end:
	.quad	0
count:
	.quad	0
