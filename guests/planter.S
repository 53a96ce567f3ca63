# SPDX-License-Identifier: GPL-2.0-only
#
# planter: writes the state of the vCPU that runs it, by instructions, says so, and then does one thing more.
#
# The host enters it at `long` (64-bit mode, 4-level paging) or at `protected` (32-bit protected mode, PAE paging), with flat
# segments, memory below 4 GiB mapped to itself and its first 128 KiB to BASE, RBX = BLOCK, and in BLOCK what to write. Linked
# for BASE and needs to lie there. Destroys every register of the vCPU: that is its purpose.
#
# What faults is left out: RBP holds the address to go on at, every exception leads there, and the host goes on there after an
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
	.set MSR_EFER, 0xc0000080
	.set TRIES, 100			# of XSETBV and XRSTOR

# The block: 64-bit words, of which 32-bit code uses the low halves. An item's is B_ and its name: CS_SELECTOR is cs.selector.
	.set B_DR0, 0x00
	.set B_DR1, 0x08
	.set B_DR2, 0x10
	.set B_DR3, 0x18
	.set B_DR6, 0x20
	.set B_DR7, 0x28
	.set B_CR0, 0x30
	.set B_CR2, 0x38
	.set B_CR3, 0x40
	.set B_CR4, 0x48
	.set B_CR8, 0x50
	.set B_EFER, 0x58
	.set B_XCR0, 0x60
	.set B_XSAVE, 0x68		# address of an XSAVE image in the standard format
	.set B_MSRS, 0x70		# address of a list of {u32 index, u32 0, u64 value}, ended by index FFFFFFFF
	.set B_APIC, 0x78		# address of a list of {u32 address, u32 value}, ended by address 0
	.set B_GDT, 0x80		# limit and base, as LGDT takes them
	.set B_IDT, 0x90
	.set B_CS_SELECTOR, 0xa0
	.set B_SS_SELECTOR, 0xa8
	.set B_DS_SELECTOR, 0xb0
	.set B_ES_SELECTOR, 0xb8
	.set B_FS_SELECTOR, 0xc0
	.set B_GS_SELECTOR, 0xc8
	.set B_TR_SELECTOR, 0xd0
	.set B_LDT_SELECTOR, 0xd8
	.set B_RFLAGS, 0xe0
	.set B_TAIL, 0xe8		# where 32-bit code ends: `protected_tail` or `v86_tail`
	.set B_GPR, 0xf0		# RAX RCX RDX RBX RSP RBP RSI RDI R8-R15

# RBP = where to go on when what follows cannot be done.
.macro resume at
	movl	$BASE + \at, %ebp
.endm

.macro load_dr r, n
	resume	7f
	mov	B_DR\n(%\r\()bx), %\r\()ax
	mov	%\r\()ax, %dr\n
7:
.endm

.macro load_cr r, n
	resume	7f
	mov	B_CR\n(%\r\()bx), %\r\()ax
	mov	%\r\()ax, %cr\n
7:
.endm

.macro load_segment r, seg, word
	resume	7f
	movl	\word(%\r\()bx), %eax
	movw	%ax, %\seg
7:
.endm

.macro load_gpr r, reg, number
	mov	B_GPR + 8 * \number(%\r\()bx), %\r\()\reg
.endm

# What 64-bit and 32-bit code do alike; \r is the first letter of their registers' names. CS, SS, flags, general registers and
# the IDT come later.
.macro plant r
	lgdt	B_GDT(%\r\()bx)
	resume	7f
	movl	B_LDT_SELECTOR(%\r\()bx), %eax
	lldt	%ax
7:	resume	7f
	movl	B_TR_SELECTOR(%\r\()bx), %eax
	ltr	%ax
7:
	load_segment \r, ds, B_DS_SELECTOR
	load_segment \r, es, B_ES_SELECTOR
	load_segment \r, fs, B_FS_SELECTOR
	load_segment \r, gs, B_GS_SELECTOR
	load_dr	\r, 0
	load_dr	\r, 1
	load_dr	\r, 2
	load_dr	\r, 3
	load_dr	\r, 6
	load_dr	\r, 7

	# Where KVM does not see XSETBV, an entry in between undoes it: then once more.
	movl	$TRIES, %edi
3:	resume	7f
	xorl	%ecx, %ecx
	movl	B_XCR0(%\r\()bx), %eax
	movl	B_XCR0 + 4(%\r\()bx), %edx
	xsetbv
7:	# FXRSTOR first: KVM's instruction emulator does not know XRSTOR.
	mov	B_XSAVE(%\r\()bx), %\r\()si
	resume	7f
	fxrstor	(%\r\()si)
7:	resume	7f
	movl	$-1, %eax
	movl	$-1, %edx
	xrstor	(%\r\()si)
7:	resume	7f
	xorl	%ecx, %ecx
	xgetbv
	cmpl	B_XCR0(%\r\()bx), %eax
	je	7f
	decl	%edi
	jnz	3b
7:
	mov	B_MSRS(%\r\()bx), %\r\()si
1:	movl	(%\r\()si), %ecx
	cmpl	$-1, %ecx
	je	2f
	resume	7f
	movl	8(%\r\()si), %eax
	movl	12(%\r\()si), %edx
	wrmsr
7:	add	$16, %\r\()si
	jmp	1b
2:
	mov	B_APIC(%\r\()bx), %\r\()si
1:	movl	(%\r\()si), %edi
	testl	%edi, %edi
	jz	2f
	resume	7f
	movl	4(%\r\()si), %eax
	movl	%eax, (%\r\()di)
7:	add	$8, %\r\()si
	jmp	1b
2:
	resume	7f
	movl	$MSR_EFER, %ecx
	movl	B_EFER(%\r\()bx), %eax
	movl	B_EFER + 4(%\r\()bx), %edx
	wrmsr
7:
	load_cr	\r, 2
	# CR3 twice: its low 12 bits are to be 0 when CR4.PCIDE is set.
	load_cr	\r, 4
	load_cr	\r, 3
	load_cr	\r, 0
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

# What may come next in 64-bit mode.
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
