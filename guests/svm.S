# SPDX-License-Identifier: GPL-2.0-only
#
# svm: a hypervisor that runs one nested guest by VMRUN. The host sets EFER.SVME, writes the VMCB with its intercepts, and names
# the topics; what is there survives INIT. The nested guest is in the same 64-bit mode, in the same memory, without nested paging.

	.include "l1.inc"

	.set ARG_NESTED, 0x504		# topic of the nested guest
	.set ARG_TURNS, 0x508		# of the loops that end
	.set ARG_CR4, 0x50c		# what is written to it

	.set TOPIC_RUN, 0
	.set TOPIC_GIF, 1
	.set TOPIC_SPIN, 2
	.set TOPIC_HELD, 3
	.set TOPIC_CR4, 4

	.set NESTED_SPIN, 0
	.set NESTED_HALT, 1
	.set NESTED_SHUTDOWN, 2
	.set NESTED_SVME, 3
	.set NESTED_STEP, 4
	.set NESTED_TRIED, 5

	.set AT_NESTED, 0x600		# where the VMCB lets it begin
	.set NESTED_STACK, 0x6000
	.set TRIED, 0x1700		# code of the nested guest that the host writes, at most TRIED_SIZE bytes
	.set TRIED_SIZE, 0x40

	.set VMCB, 0x10000
	.set HSAVE, 0x11000
	.set IOPM, 0x12000		# three pages and two that the host leaves zero
	.set MSRPM, 0x16000
	.set VMCB_EXIT_CODE, 0x70

	.set MSR_EFER, 0xc0000080
	.set MSR_VM_HSAVE_PA, 0xc0010117
	.set EFER_SVME, 0x1000

topics:
	.quad	CODE + run, CODE + gif, CODE + spin, CODE + held, CODE + cr4

# Turns of COUNT, as many as ARG_TURNS says, without an exit. Destroys ECX.
.macro turns
	movl	ARG_TURNS, %ecx
1:	incl	COUNT
	decl	%ecx
	jnz	1b
.endm

# Runs the nested guest again and again. READY comes with GIF clear.
run:
	movl	$MSR_VM_HSAVE_PA, %ecx
	movl	$HSAVE, %eax
	xorl	%edx, %edx
	wrmsr
enter:
	clgi
	say	READY, COUNT
	movl	$VMCB, %eax
	vmrun	%rax
	say	EXIT, VMCB + VMCB_EXIT_CODE
	stgi
	say	LEFT, COUNT		# the instruction after STGI
	jmp	enter

# GIF clear; a loop; GIF set; the loop once more.
gif:
	clgi
	say	READY, COUNT
	turns
	say	VALUE, COUNT
	stgi
	turns
	say	LEFT, COUNT
	jmp	gif

# Nothing nested.
spin:
	say	READY, COUNT
1:	incl	COUNT
	pause
	jmp	1b

# As the host sets GIF and runs it: a loop, a word.
held:
	say	READY, COUNT
1:	turns
	say	LEFT, COUNT
	jmp	1b

# CR4 as the host wants it, and as it reads then.
cr4:
	say	READY, COUNT
	movl	ARG_CR4, %eax
	movq	%rax, %cr4
	movq	%cr4, %rax
	outl	%eax, $PORT_VALUE
	jmp	cr4

	.org	AT_NESTED, 0xf4
	movl	ARG_NESTED, %ebx
	movl	CODE + nested_topics(,%rbx,8), %eax
	jmp	*%rax
nested_topics:
	.quad	CODE + nested_spin, CODE + nested_halt, CODE + nested_shutdown, CODE + nested_svme, CODE + nested_step
	.quad	CODE + nested_tried

nested_spin:
	say	NESTED, COUNT
1:	incl	COUNT
	pause
	jmp	1b

nested_halt:
	say	NESTED, COUNT
	hlt
	incl	COUNT
	jmp	nested_halt

# Without an IDT.
nested_shutdown:
	say	NESTED, COUNT
	lidt	CODE + no_idt
	ud2

nested_svme:
	movl	$MSR_EFER, %ecx
	rdmsr
	andl	$~EFER_SVME, %eax
	wrmsr
	say	NESTED, COUNT
	jmp	nested_spin

# A single step over the OUT.
nested_step:
	pushfq
	orl	$0x100, (%rsp)
	popfq
	outl	%eax, $PORT_NESTED
	jmp	nested_spin

nested_tried:
	say	NESTED, COUNT
	jmp	tried

no_idt:
	.word	0
	.quad	0

# Code that the host puts here, and then a word.
	.org	TRIED - CODE, 0xf4
tried:
	.fill	TRIED_SIZE, 1, 0x90
	say	VALUE, COUNT
	jmp	nested_spin
