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
# 2. Then values go to slots in RAM at DATA. What may fail is a step: it tells where to go on, and an exception or, by the
#    host, an instruction that a KVM which emulates real mode does not know costs the items of that step only.
#
# An item's port is PORT_ and its name, its slot SLOT_ and its name: CS_BASE is cs.base. kvmtest/guests/spine.py lists which items
# have a port, and which of them each step fills.
#
# Needs RAM at 20000-5FFFF, and whatever the host wants to be read at PROBE. An exception in part 1 ends the guest where the
# host has put a vector table at 0-3FF that points to a copy of `fault`.

	.include "code.inc"

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
	.set PORT_SS_BASE, 0xc7		# what lies at PROBE in the segment
	.set PORT_ENTRY, 0xf0		# ENTRY_RESET or ENTRY_SIPI, by which it came
	.set PORT_FAULT, 0xfe		# CS:IP of an instruction that raised an exception; ends the guest
	.set PORT_DONE, 0xff		# everything is out; ends the guest
	.set ENTRY_RESET, 1
	.set ENTRY_SIPI, 2

# Slots of 8 bytes.
	.set SLOT_CR0, 0
	.set SLOT_CR2, 1
	.set SLOT_CR3, 2
	.set SLOT_CR4, 3
	.set SLOT_MSW, 4
	.set SLOT_GDT_BASE, 5
	.set SLOT_GDT_LIMIT, 6
	.set SLOT_IDT_BASE, 7
	.set SLOT_IDT_LIMIT, 8
	.set SLOT_DR0, 9
	.set SLOT_DR1, 10
	.set SLOT_DR2, 11
	.set SLOT_DR3, 12
	.set SLOT_DR6, 13
	.set SLOT_DR7, 14
	.set SLOT_FCW, 15
	.set SLOT_FSW, 16
	.set SLOT_XCR0, 17
	.set SLOT_CPUID_1_ECX, 18
	.set SLOT_CPUID_1_EDX, 19
	.set SLOT_CPUID_7_ECX, 20
	.set SLOT_CPUID_D_EBX, 21
	.set SLOT_CPUID_D1_EBX, 22
	.set SLOT_DS_BASE, 23
	.set SLOT_ES_BASE, 24
	.set SLOT_FS_BASE, 25
	.set SLOT_GS_BASE, 26
	.set SLOT_CS_LIMIT, 27
	.set SLOT_DS_LIMIT, 28
	.set SLOT_ES_LIMIT, 29
	.set SLOT_SS_LIMIT, 30
	.set SLOT_FS_LIMIT, 31
	.set SLOT_GS_LIMIT, 32
	.set SLOT_TR_SELECTOR, 33
	.set SLOT_LDT_SELECTOR, 34
	.set SLOT_CR8, 35
	.set SLOT_R8, 36
	.set SLOT_R9, 37
	.set SLOT_R10, 38
	.set SLOT_R11, 39
	.set SLOT_R12, 40
	.set SLOT_R13, 41
	.set SLOT_R14, 42
	.set SLOT_R15, 43

# Steps: a status of 4 bytes each, in the order of running.
	.set STEP_TABLES, 0
	.set STEP_CS_LIMIT, 1
	.set STEP_DS_BASE, 2
	.set STEP_ES_BASE, 3
	.set STEP_FS_BASE, 4
	.set STEP_GS_BASE, 5
	.set STEP_DS_LIMIT, 6
	.set STEP_ES_LIMIT, 7
	.set STEP_SS_LIMIT, 8
	.set STEP_FS_LIMIT, 9
	.set STEP_GS_LIMIT, 10
	.set STEP_CONTROL, 11
	.set STEP_MSW, 12
	.set STEP_CPUID, 13
	.set STEP_DEBUG, 14
	.set STEP_X87, 15
	.set STEP_FXSAVE, 16
	.set STEP_OSXSAVE, 17
	.set STEP_PROTECTED, 18
	.set STEP_TR, 19
	.set STEP_LDT, 20
	.set STEP_LIMITLESS, 21
	.set STEP_LONG, 22
	.set STEP_R8, 23
	.set STEP_CR8, 24
	.set STEP_WIDE, 25
	.set STEP_XCR0, 26
	.set STEP_PKE, 27
	.set STEP_XSETBV, 28
	.set STEP_XSAVE, 29

	.set CODE, 0x20000		# the copy of this image
	.set DATA, 0x30000		# below are offsets in it
	.set RESUME, 0x00		# where to go on after an exception in the current step: offset in CODE, linear from 32-bit code on
	.set STATUS, 0x04		# offset of the current step's status: bit 0 done, bit 1 exception, its vector in the next byte
	.set MSR_COUNT, 0x08		# the host's: entries of MSRS
	.set LAPIC_COUNT, 0x0c		# the host's: entries of LAPIC
	.set XCR0_WANTED, 0x10		# the host's: XCR0 for XSAVE, 8 bytes
	.set SCRATCH, 0x20		# 6 bytes
	.set XCR0_USED, 0x28		# XCR0 right after XSAVE, 8 bytes
	.set STEPS, 0x100
	.set SLOTS, 0x200
	.set FXSAVE, 0x800
	.set MSRS, 0x1000		# index, status, low and high half: 4 bytes each
	.set LAPIC, 0x5000		# address, status, value, 0: 4 bytes each
	.set STACK, 0xf000		# grows down
	.set PAGE_TABLES, 0x40000	# the host's: PML4, in which the first 2 MiB are mapped one to one
	.set XSAVE, 0x50000		# zeros
	.set PROBE, 0xe000		# offset that is read in each segment to tell its base

	.set MSR_EFER, 0xc0000080
	.set EFER_LME, 1 << 8
	.set CR0_PE, 1 << 0
	.set CR0_PG, 1 << 31
	.set CR4_PAE, 1 << 5
	.set CR4_OSFXSR, 1 << 9
	.set CR4_OSXSAVE, 1 << 18
	.set CR4_PKE, 1 << 22
	.set CODE32, 0x08		# selectors in `gdt`
	.set DATA32, 0x10
	.set CODE64, 0x18
	.set SMALL, 0x20
	.set TRIES, 100			# of XSETBV and XSAVE
	.set STUB, 16			# bytes of an entry of `stubs`

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

# \source (a register) into its slot. 16-bit code, SS = DATA, as for all macros up to the next remark. Destroys EAX.
.macro keep slot, source
	movl	\source, %eax
	movl	%eax, %ss:SLOTS + 8 * SLOT_\slot
.endm

# A step: \next is where the guest goes on if it fails. Destroys nothing.
.macro step name, next
	movw	$STEPS + 4 * STEP_\name, %ss:STATUS
	movw	$\next, %ss:RESUME
.endm
.macro done name
	movb	$1, %ss:STEPS + 4 * STEP_\name
.endm

# The same in 32- and 64-bit code.
.macro flat_step name, next
	movl	$STEPS + 4 * STEP_\name, DATA + STATUS
	movl	$CODE + \next, DATA + RESUME
.endm
.macro flat_done name
	movb	$1, DATA + STEPS + 4 * STEP_\name
.endm

# The upper half of a register into its slot. 64-bit code. Destroys RAX.
.macro keep_upper slot, source
	movq	\source, %rax
	shrq	$32, %rax
	movl	%eax, DATA + SLOTS + 8 * SLOT_\slot + 4
.endm

# Base and limit of the GDT or the IDT into their slots. 16-bit code, SS = DATA. Destroys EAX.
.macro keep_table table, store
	\store	%ss:SCRATCH
	movl	%ss:SCRATCH + 2, %eax
	movl	%eax, %ss:SLOTS + 8 * SLOT_\table\()_BASE
	movzwl	%ss:SCRATCH, %eax
	movl	%eax, %ss:SLOTS + 8 * SLOT_\table\()_LIMIT
.endm

# What lies at PROBE in a segment into its slot, as a step. 16-bit code, SS = DATA. Destroys EAX.
.macro probe_base seg, name
	step	\name, 1f
	movl	%\seg:PROBE, %eax
	movl	%eax, %ss:SLOTS + 8 * SLOT_\name
	done	\name
1:
.endm

# The largest offset of this row that can be read in a segment, into its slot, as a step: it ends with the exception that the
# next one raises, and then goes on at \next. 16-bit code, SS = DATA. Destroys EAX, EBX.
.macro probe_limit seg, name, next
	step	\name, \next
	.irp	offset, 0, 0xffff, 0x10000, 0xfffff, 0x100000, 0xffffffff
	movl	$\offset, %ebx
	movb	%\seg:(%ebx), %al
	movl	%ebx, %ss:SLOTS + 8 * SLOT_\name
	movb	$1, %ss:STEPS + 4 * STEP_\name
	.endr
.endm

# 32 entries that push their vector and go on at \handler.
.macro stubs handler
	.set	vector, 0
	.rept	32
	pushw	$vector
	jmp	\handler
	.balign	STUB, 0xf4
	.set	vector, vector + 1
	.endr
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

	CODE 16
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

# What does not fit in the first page, run at CODE.
	.org	0x1000, 0xf4
stubs16:
	stubs	exception16

# Destroys EAX, EBX. Nothing is lost: the stack is empty between steps.
exception16:
	popw	%ax
	movw	%ss:STATUS, %bx
	orb	$2, %ss:(%bx)
	movb	%al, %ss:1(%bx)
	movl	$STACK, %esp
	jmp	*%ss:RESUME

low_start:
	probe_base ds, DS_BASE
	probe_base es, ES_BASE
	probe_base fs, FS_BASE
	probe_base gs, GS_BASE
	probe_limit ds, DS_LIMIT, ds_limit_end
ds_limit_end:
	probe_limit es, ES_LIMIT, es_limit_end
es_limit_end:
	probe_limit ss, SS_LIMIT, ss_limit_end
ss_limit_end:
	probe_limit fs, FS_LIMIT, fs_limit_end
fs_limit_end:
	probe_limit gs, GS_LIMIT, gs_limit_end
gs_limit_end:

	step	CONTROL, control_end
	keep	CR0, %cr0
	keep	CR2, %cr2
	keep	CR3, %cr3
	keep	CR4, %cr4
	done	CONTROL
control_end:
	step	MSW, msw_end
	smsw	%ax
	movw	%ax, %ss:SLOTS + 8 * SLOT_MSW
	done	MSW
msw_end:

# Before CR4 is changed, which CPUID mirrors. Destroys EAX, EBX, ECX, EDX.
	step	CPUID, cpuid_end
	movl	$1, %eax
	xorl	%ecx, %ecx
	cpuid
	movl	%ecx, %ss:SLOTS + 8 * SLOT_CPUID_1_ECX
	movl	%edx, %ss:SLOTS + 8 * SLOT_CPUID_1_EDX
	movl	$7, %eax
	xorl	%ecx, %ecx
	cpuid
	movl	%ecx, %ss:SLOTS + 8 * SLOT_CPUID_7_ECX
	movl	$0xd, %eax
	xorl	%ecx, %ecx
	cpuid
	movl	%ebx, %ss:SLOTS + 8 * SLOT_CPUID_D_EBX
	movl	$0xd, %eax
	movl	$1, %ecx
	cpuid
	movl	%ebx, %ss:SLOTS + 8 * SLOT_CPUID_D1_EBX
	done	CPUID
cpuid_end:

	step	DEBUG, debug_end
	keep	DR0, %dr0
	keep	DR1, %dr1
	keep	DR2, %dr2
	keep	DR3, %dr3
	keep	DR6, %dr6
	keep	DR7, %dr7
	done	DEBUG
debug_end:

	step	X87, x87_end
	fnstcw	%ss:SLOTS + 8 * SLOT_FCW
	fnstsw	%ss:SLOTS + 8 * SLOT_FSW	# KVM's emulator knows the form with a memory operand only
	done	X87
x87_end:

# The host's list. Destroys EAX, ECX, EDX, ESI.
	movw	$MSRS - 16, %si
msr_next:
	addw	$16, %si
	movw	%ss:MSR_COUNT, %ax
	shlw	$4, %ax
	addw	$MSRS, %ax
	cmpw	%ax, %si
	jae	msr_end
	leaw	4(%si), %ax
	movw	%ax, %ss:STATUS
	movw	$msr_next, %ss:RESUME
	movl	%ss:(%si), %ecx
	rdmsr
	movl	%eax, %ss:8(%si)
	movl	%edx, %ss:12(%si)
	movb	$1, %ss:4(%si)
	jmp	msr_next
msr_end:

# From here on CR4 is this guest's own. Destroys EAX, ECX, EDX.
	step	FXSAVE, fxsave_end
	movl	%cr4, %eax
	orl	$CR4_OSFXSR, %eax
	movl	%eax, %cr4
	fxsave	%ss:FXSAVE
	done	FXSAVE
fxsave_end:
	step	OSXSAVE, osxsave_end
	movl	%cr4, %eax
	orl	$CR4_OSXSAVE, %eax
	movl	%eax, %cr4
	done	OSXSAVE
osxsave_end:

# From here on CR0, all segment registers, GDTR and IDTR are this guest's own.
	step	PROTECTED, end
	lgdtl	%cs:gdtr
	lidtl	%cs:idtr32
	movl	%cr0, %eax
	orl	$CR0_PE, %eax
	movl	%eax, %cr0
	ljmpl	$CODE32, $CODE + protected

end:
	report_value DONE, 0
halt:
	cli
	hlt
	jmp	halt

	CODE 32
protected:
	movl	$DATA32, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$DATA + STACK, %esp
	flat_done PROTECTED

	flat_step TR, tr_end
	str	%ax
	movw	%ax, DATA + SLOTS + 8 * SLOT_TR_SELECTOR
	flat_done TR
tr_end:
	flat_step LDT, ldt_end
	sldt	%ax
	movw	%ax, DATA + SLOTS + 8 * SLOT_LDT_SELECTOR
	flat_done LDT
ldt_end:

# Check if limits are enforced: a read beyond the limit of SMALL that raises no exception. Destroys EAX.
	flat_step LIMITLESS, limitless_end
	movl	$SMALL, %eax
	movl	%eax, %es
	movb	%es:16, %al
	flat_done LIMITLESS
limitless_end:
	movl	$DATA32, %eax
	movl	%eax, %es

# The host's list; none where the local APIC is not in xAPIC mode. Destroys EAX, EBX, ESI.
	movl	$DATA + LAPIC - 16, %esi
lapic_next:
	addl	$16, %esi
	movl	DATA + LAPIC_COUNT, %eax
	shll	$4, %eax
	addl	$DATA + LAPIC, %eax
	cmpl	%eax, %esi
	jae	lapic_end
	leal	4 - DATA(%esi), %eax
	movl	%eax, DATA + STATUS
	movl	$CODE + lapic_next, DATA + RESUME
	movl	(%esi), %ebx
	movl	(%ebx), %eax
	movl	%eax, 8(%esi)
	movb	$1, 4(%esi)
	jmp	lapic_next
lapic_end:

# From here on CR3 and EFER are this guest's own. R8 to R15, CR8 and what XSAVE saves are not touched on the way.
	flat_step LONG, end32
	movl	%cr4, %eax
	orl	$CR4_PAE, %eax
	movl	%eax, %cr4
	movl	$PAGE_TABLES, %eax
	movl	%eax, %cr3
	movl	$MSR_EFER, %ecx
	rdmsr
	orl	$EFER_LME, %eax
	wrmsr
	lidt	CODE + idtr64
	movl	%cr0, %eax
	orl	$CR0_PG, %eax
	movl	%eax, %cr0
	ljmp	$CODE64, $CODE + long

end32:
	outl	%eax, $PORT_DONE
1:	cli
	hlt
	jmp	1b

# Destroys EAX, EBX.
exception32:
	popw	%ax
	movl	DATA + STATUS, %ebx
	orb	$2, DATA(%ebx)
	movb	%al, DATA + 1(%ebx)
	movl	$DATA + STACK, %esp
	jmp	*DATA + RESUME
	.balign	STUB, 0xf4
stubs32:
	stubs	exception32

	CODE 64
long:
	flat_done LONG
	flat_step R8, r8_end
	.irp	reg, 8, 9, 10, 11, 12, 13, 14, 15
	movq	%r\reg, DATA + SLOTS + 8 * SLOT_R\reg
	.endr
	flat_done R8
r8_end:
	flat_step CR8, cr8_end
	movq	%cr8, %rax
	movq	%rax, DATA + SLOTS + 8 * SLOT_CR8
	flat_done CR8
cr8_end:
# The upper halves of what 16-bit code has read the lower halves of.
	flat_step WIDE, wide_end
	keep_upper CR2, %cr2
	keep_upper CR4, %cr4
	keep_upper DR0, %dr0
	keep_upper DR1, %dr1
	keep_upper DR2, %dr2
	keep_upper DR3, %dr3
	flat_done WIDE
wide_end:
	flat_step XCR0, xcr0_end
	xorl	%ecx, %ecx
	xgetbv
	movl	%eax, DATA + SLOTS + 8 * SLOT_XCR0
	movl	%edx, DATA + SLOTS + 8 * SLOT_XCR0 + 4
	flat_done XCR0
xcr0_end:

# A KVM may load the guest's PKRU only once CR4.PKE or XCR0's bit is set. All pages here are the supervisor's.
	flat_step PKE, pke_end
	movq	%cr4, %rax
	orl	$CR4_PKE, %eax
	movq	%rax, %cr4
	flat_done PKE
pke_end:

# The pages that XSAVE writes must be there first: an exit in between is one more chance for XCR0 to get lost.
	.irp	page, 0, 0x1000, 0x2000, 0x3000
	movb	$0, XSAVE + \page
	.endr

# From here on XCR0 is this guest's own. Where KVM does not see XSETBV, an entry in between undoes it: then once more.
	movl	$TRIES, %esi
save:
	flat_step XSETBV, end64
	movl	DATA + XCR0_WANTED, %eax
	movl	DATA + XCR0_WANTED + 4, %edx
	xorl	%ecx, %ecx
	xsetbv
	flat_done XSETBV
	flat_step XSAVE, end64
	movl	$-1, %eax
	movl	$-1, %edx
	xsave64	XSAVE
	xorl	%ecx, %ecx
	xgetbv
	movl	%eax, DATA + XCR0_USED
	movl	%edx, DATA + XCR0_USED + 4
	flat_done XSAVE
	cmpl	DATA + XCR0_WANTED, %eax
	je	end64
	decl	%esi
	jnz	save
end64:
	outl	%eax, $PORT_DONE
1:	cli
	hlt
	jmp	1b

# Destroys RAX, RBX.
exception64:
	popw	%ax
	movl	DATA + STATUS, %ebx
	orb	$2, DATA(%rbx)
	movb	%al, DATA + 1(%rbx)
	movl	$DATA + STACK, %esp
	movl	DATA + RESUME, %eax
	jmp	*%rax
	.balign	STUB, 0xf4
stubs64:
	stubs	exception64

# Present interrupt gates of level 0, 32 bits wide; then the same, 64 bits wide.
	.balign	8
idt32:
	.set	offset, 0
	.rept	32
	.word	stubs32 + offset, CODE32, 0x8e00, CODE >> 16
	.set	offset, offset + STUB
	.endr
idt64:
	.set	offset, 0
	.rept	32
	.word	stubs64 + offset, CODE64, 0x8e00, CODE >> 16, 0, 0, 0, 0
	.set	offset, offset + STUB
	.endr
ivt:
	.set	offset, 0
	.rept	32
	.word	stubs16 + offset, CODE >> 4
	.set	offset, offset + STUB
	.endr

# Level 0, accessed. Flat: 32-bit code, data, 64-bit code; then 16 bytes of data.
	.balign	8
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff
	.quad	0x00cf93000000ffff
	.quad	0x00af9b000000ffff
	.quad	0x004093000000000f
gdtr:
	.word	5 * 8 - 1
	.long	CODE + gdt
idtr32:
	.word	32 * 8 - 1
	.long	CODE + idt32
idtr64:
	.word	32 * 16 - 1
	.long	CODE + idt64
	.long	0

# Must fit in 16 bytes; the near jump keeps CS.base FFFF0000.
	CODE 16
	.section .reset, "ax"
	.globl	reset_vector
reset_vector:
	report	RAX
	jmp	reset_start
