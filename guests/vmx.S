# SPDX-License-Identifier: GPL-2.0-only
#
# vmx: a hypervisor of a few lines that enters VMX operation, lets a nested guest of its own run, and reports why that one ended.
#
# See l1.inc first. The nested guest runs in 64-bit mode on the hypervisor's own page tables, and without
# exits but those that its topic or the CPU asks for; its OUTs are seen by the host. Both run with IF set, though nothing sends
# interrupts: some emulators leave a guest for the host's with IF set only.

	.include "l1.inc"

# Written by the host.
	.set ARG_L2, 0x504		# what the nested guest does
	.set ARG_ACTIVITY, 0x508	# its activity state at VM entry
	.set ARG_CONTROLS, 0x50c	# primary processor-based controls to set, where the CPU lets them
	.set ARG_TURNS, 0x510		# of a loop without an exit
	.set ARG_PINS, 0x514		# as ARG_CONTROLS, of pin-based controls
	.set ARG_MARK, 0x518		# RBX of the nested guest, once it has said something

	.set ARG_EXCEPTIONS, 0x51c	# exception bitmap
	.set ARG_TIMER, 0x520		# value of the preemption timer; 0: is not written

	.set TOPIC_ROOT, 0
	.set TOPIC_NESTED, 1
	.set TOPIC_HALT, 2

	.set L2_SPIN, 0
	.set L2_SILENT, 1
	.set L2_HLT, 2
	.set L2_SHUTDOWN, 3
	.set L2_CR3, 4
	.set L2_STEP, 5
	.set L2_OUT, 6

	.set PORT_NMI, 0xf7		# an NMI in the nested guest
	.set PORT_AWAKE, 0xf8		# the instruction after HLT
	.set PORT_VMFAIL, 0xfb		# a VMX instruction failed: the VM-instruction error, FFFFFFFFH where there is no VMCS

	.set LDT, 0x28			# selector of the hypervisor's LDT

	.set VMXON_REGION, 0x10000
	.set VMCS, 0x11000
	.set L2_STACK, 0x13000
	.set NOWHERE, 0x40000000	# not mapped

	.set MSR_FEATURE_CONTROL, 0x3a
	.set MSR_VMX_BASIC, 0x480
	.set MSR_VMX_PINBASED, 0x481	# the TRUE ones are 12 above these
	.set MSR_VMX_PROCBASED, 0x482
	.set MSR_VMX_EXIT, 0x483
	.set MSR_VMX_ENTRY, 0x484
	.set MSR_VMX_CR0_FIXED0, 0x486
	.set MSR_VMX_CR4_FIXED0, 0x488

	.set EXIT_HOST_64, 1 << 9
	.set ENTRY_GUEST_64, 1 << 9

# Names of VMCS fields that code uses; the others are in the table `fields`.
	.set PIN_CONTROLS, 0x4000
	.set CPU_CONTROLS, 0x4002
	.set EXCEPTION_BITMAP, 0x4004
	.set EXIT_CONTROLS, 0x400c
	.set ENTRY_CONTROLS, 0x4012
	.set INSTRUCTION_ERROR, 0x4400
	.set EXIT_REASON, 0x4402
	.set EXIT_INTERRUPTION, 0x4404
	.set GUEST_ACTIVITY, 0x4826
	.set PREEMPTION_TIMER, 0x482e
	.set EXIT_QUALIFICATION, 0x6400
	.set GUEST_CR0, 0x6800
	.set GUEST_CR3, 0x6802
	.set GUEST_CR4, 0x6804
	.set GUEST_RIP, 0x681e
	.set GUEST_PENDING_DEBUG, 0x6822
	.set HOST_CR0, 0x6c00
	.set HOST_CR3, 0x6c02
	.set HOST_CR4, 0x6c04

# Destroys RDX.
.macro vmwrite_to field, reg
	movl	$\field, %edx
	vmwrite	%\reg, %rdx
	jbe	vmfail
.endm

# A control field: what is wanted, as far as the capability MSR allows it, and what that demands. R15D is 12 or 0.
# Destroys RAX, RCX, RDX.
.macro control field, msr, wanted
	leal	\msr(%r15), %ecx
	rdmsr
	andl	\wanted, %edx
	orl	%edx, %eax
	vmwrite_to \field, rax
.endm

# Destroys RAX, RDX.
.macro report field
	movl	$\field, %edx
	vmread	%rdx, %rax
	outl	%eax, $PORT_VALUE
.endm

# ARG_TURNS turns without an exit. Destroys ECX.
.macro turns
	movl	ARG_TURNS, %ecx
	sti
7:	incl	COUNT
	decl	%ecx
	jnz	7b
	cli
.endm

topics:
	.quad	CODE + root, CODE + nested, CODE + halt
nested_guests:
	.quad	CODE + l2_spin, CODE + l2_silent, CODE + l2_hlt, CODE + l2_shutdown, CODE + l2_cr3, CODE + l2_step
	.quad	CODE + l2_out

# VMX root operation, and out of it again: a loop in each.
root:
	call	enter_vmx
	say	READY, $0
	turns
	say	VALUE, COUNT
	vmxoff
	turns
	say	LEFT, COUNT
	jmp	stopped

# HLT in VMX root operation, with IF clear.
halt:
	call	enter_vmx
	say	READY, $0
	hlt
	say	AWAKE, $0
	jmp	stopped

# Destroys RAX, RCX, RDX, and where KVM has not done so locks IA32_FEATURE_CONTROL.
enter_vmx:
	movl	$MSR_FEATURE_CONTROL, %ecx
	rdmsr
	testb	$1, %al
	jnz	1f
	orl	$5, %eax
	wrmsr
1:	movl	$MSR_VMX_CR0_FIXED0, %ecx
	rdmsr
	movq	%cr0, %rcx
	orl	%eax, %ecx
	movq	%rcx, %cr0
	movl	$MSR_VMX_CR4_FIXED0, %ecx
	rdmsr
	movq	%cr4, %rcx
	orl	%eax, %ecx
	movq	%rcx, %cr4
	movl	$MSR_VMX_BASIC, %ecx
	rdmsr
	movl	%eax, VMXON_REGION
	movl	%eax, VMCS
	vmxon	CODE + vmxon_pointer
	jbe	no_vmcs
	ret

no_vmcs:
	say	VMFAIL, $0xffffffff
	jmp	stopped
vmfail:
	jc	no_vmcs
	movl	$INSTRUCTION_ERROR, %edx
	vmread	%rdx, %rax
	outl	%eax, $PORT_VMFAIL
	jmp	stopped

# The hypervisor, which has the lower stack, keeps silent about its own.
nmi:
	cmpq	$STACK, %rsp
	jbe	1f
	outl	%eax, $PORT_NMI
1:	iretq

nested:
	movw	$CODE + nmi, CODE + AT_IDT + 2 * 16
	call	enter_vmx
	lgdt	CODE + gdt_pointer
	movl	$LDT, %eax
	lldt	%ax
	vmclear	CODE + vmcs_pointer
	jbe	vmfail
	vmptrld	CODE + vmcs_pointer
	jbe	vmfail

	movl	$CODE + fields, %esi
1:	movl	(%rsi), %edx
	movslq	4(%rsi), %rax
	vmwrite	%rax, %rdx
	jbe	vmfail
	addl	$8, %esi
	cmpl	$CODE + fields_end, %esi
	jb	1b

	movl	$MSR_VMX_BASIC, %ecx
	rdmsr
	xorl	%r15d, %r15d
	btl	$55 - 32, %edx
	jnc	2f
	movl	$12, %r15d
2:	control	PIN_CONTROLS, MSR_VMX_PINBASED, ARG_PINS
	control	CPU_CONTROLS, MSR_VMX_PROCBASED, ARG_CONTROLS
	control	EXIT_CONTROLS, MSR_VMX_EXIT, $EXIT_HOST_64
	control	ENTRY_CONTROLS, MSR_VMX_ENTRY, $ENTRY_GUEST_64
	movl	ARG_EXCEPTIONS, %eax
	vmwrite_to EXCEPTION_BITMAP, rax
	movl	ARG_TIMER, %eax
	testl	%eax, %eax
	jz	3f
	vmwrite_to PREEMPTION_TIMER, rax
3:	movq	%cr0, %rax
	vmwrite_to GUEST_CR0, rax
	vmwrite_to HOST_CR0, rax
	movq	%cr3, %rax
	vmwrite_to GUEST_CR3, rax
	vmwrite_to HOST_CR3, rax
	movq	%cr4, %rax
	vmwrite_to GUEST_CR4, rax
	vmwrite_to HOST_CR4, rax
	movl	ARG_ACTIVITY, %eax
	vmwrite_to GUEST_ACTIVITY, rax
	movl	ARG_L2, %ebx
	movq	CODE + nested_guests(,%rbx,8), %rax
	vmwrite_to GUEST_RIP, rax

	say	READY, $0
	vmlaunch
	jmp	vmfail

# Every VM exit, and every VM entry that the CPU refuses for the guest's state. General registers are still the nested guest's.
exited:
	movl	%ebx, %ebp
	movl	$EXIT_REASON, %edx
	vmread	%rdx, %rax
	outl	%eax, $PORT_EXIT
	report	EXIT_QUALIFICATION
	report	EXIT_INTERRUPTION
	report	GUEST_ACTIVITY
	report	GUEST_PENDING_DEBUG
	report	GUEST_RIP
	say	VALUE, %ebp
	sldt	%eax
	outl	%eax, $PORT_VALUE
	say	READY, $0
	vmxoff
	turns
	say	LEFT, COUNT
	jmp	stopped

l2_spin:
	movl	ARG_MARK, %ebx
	say	NESTED, $L2_SPIN
1:	incl	COUNT
	jmp	1b

l2_silent:
	incl	COUNT
	jmp	l2_silent

# Its first instruction is one that KVM emulates.
l2_out:
	outl	%eax, $PORT_NESTED
	jmp	l2_silent

l2_hlt:
	movl	ARG_MARK, %ebx
	say	NESTED, $L2_HLT
1:	hlt
	incl	COUNT
	say	NESTED, $L2_HLT
	jmp	1b

# No exception has a handler, as the IDT itself cannot be read.
l2_shutdown:
	movl	ARG_MARK, %ebx
	lidt	CODE + no_idt
	say	NESTED, $L2_SHUTDOWN
	ud2

l2_cr3:
	movl	ARG_MARK, %ebx
	say	NESTED, $L2_CR3
	movq	%cr3, %rax
	movq	%rax, %cr3
	say	NESTED, $L2_CR3
	jmp	l2_silent

# A single-step trap is pending after the OUT.
l2_step:
	movl	ARG_MARK, %ebx
	movl	$L2_STEP, %eax
	pushfq
	orl	$1 << 8, (%rsp)
	popfq
	outl	%eax, $PORT_NESTED
	jmp	l2_silent

	.balign	8, 0xf4
vmxon_pointer:
	.quad	VMXON_REGION
vmcs_pointer:
	.quad	VMCS
gdt:
	.quad	0
	.quad	0x00af9b000000ffff
	.quad	0x00cf93000000ffff
	.quad	TSS << 16 | 0x00008b0000000000 | TSS_LIMIT, 0
	.quad	TSS << 16 | 0x0000820000000000 | TSS_LIMIT, 0
gdt_pointer:
	.word	gdt_pointer - gdt - 1
	.quad	CODE + gdt
no_idt:
	.word	0xfff
	.quad	NOWHERE

# VMCS field, value: sign-extended.
	.balign	8, 0xf4
fields:
	.long	0x2800, -1		# VMCS link pointer
	.long	0x2802, 0		# IA32_DEBUGCTL
	.long	0x4006, 0		# page-fault error-code mask
	.long	0x4008, 0		# page-fault error-code match
	.long	0x400a, 0		# CR3-target count
	.long	0x400e, 0		# VM-exit MSR-store count
	.long	0x4010, 0		# VM-exit MSR-load count
	.long	0x4014, 0		# VM-entry MSR-load count
	.long	0x4016, 0		# VM-entry interruption information
	.long	0x6000, 0		# CR0 guest/host mask
	.long	0x6002, 0		# CR4 guest/host mask
	.long	0x6004, 0		# CR0 read shadow
	.long	0x6006, 0		# CR4 read shadow

	.long	0x0800, DATA32		# selectors of the guest: ES, CS, SS, DS, FS, GS, LDTR, TR
	.long	0x0802, CODE64
	.long	0x0804, DATA32
	.long	0x0806, DATA32
	.long	0x0808, DATA32
	.long	0x080a, DATA32
	.long	0x080c, 0
	.long	0x080e, TSS64
	.long	0x4800, -1		# limits
	.long	0x4802, -1
	.long	0x4804, -1
	.long	0x4806, -1
	.long	0x4808, -1
	.long	0x480a, -1
	.long	0x480c, 0
	.long	0x480e, TSS_LIMIT
	.long	0x4810, 0xffff		# GDTR
	.long	0x4812, IDT_LIMIT	# IDTR
	.long	0x4814, 0xc093		# access rights
	.long	0x4816, 0xa09b
	.long	0x4818, 0xc093
	.long	0x481a, 0xc093
	.long	0x481c, 0xc093
	.long	0x481e, 0xc093
	.long	0x4820, 0x10000		# unusable
	.long	0x4822, 0x8b
	.long	0x4824, 0		# interruptibility state
	.long	0x482a, 0		# IA32_SYSENTER_CS
	.long	0x6806, 0		# bases
	.long	0x6808, 0
	.long	0x680a, 0
	.long	0x680c, 0
	.long	0x680e, 0
	.long	0x6810, 0
	.long	0x6812, 0
	.long	0x6814, TSS
	.long	0x6816, CODE + gdt	# GDTR
	.long	0x6818, CODE + AT_IDT	# IDTR
	.long	0x681a, 0x400		# DR7
	.long	0x681c, L2_STACK	# RSP
	.long	0x6820, 0x202		# RFLAGS: IF
	.long	0x6822, 0		# pending debug exceptions
	.long	0x6824, 0		# IA32_SYSENTER_ESP
	.long	0x6826, 0		# IA32_SYSENTER_EIP

	.long	0x0c00, DATA32		# selectors of the host: ES, CS, SS, DS, FS, GS, TR
	.long	0x0c02, CODE64
	.long	0x0c04, DATA32
	.long	0x0c06, DATA32
	.long	0x0c08, DATA32
	.long	0x0c0a, DATA32
	.long	0x0c0c, TSS64
	.long	0x4c00, 0		# IA32_SYSENTER_CS
	.long	0x6c06, 0		# FS base
	.long	0x6c08, 0		# GS base
	.long	0x6c0a, TSS		# TR base
	.long	0x6c0c, CODE + gdt	# GDTR base
	.long	0x6c0e, CODE + AT_IDT	# IDTR base
	.long	0x6c10, 0		# IA32_SYSENTER_ESP
	.long	0x6c12, 0		# IA32_SYSENTER_EIP
	.long	0x6c14, STACK		# RSP
	.long	0x6c16, CODE + exited	# RIP
fields_end:
	.org	CODE_SIZE, 0xf4
