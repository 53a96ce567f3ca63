# SPDX-License-Identifier: GPL-2.0-only
#
# observer: what a CPU looks like after RESET, INIT and SIPI, without a host: a firmware image, or started by a loader.
#
# A flat 64 KiB ROM, as the other guests. As firmware it holds the reset vector; its first 4 KiB, copied to VV000, are the code of
# SIPI vector VV; a loader puts all of it at LOAD and enters `loaded`. It reads the state as the spine guest does, prints it in
# lines with a checksum on COM1 and the debug ports 402H and E9H, plants other values, and does that again after INIT-SIPI-SIPI
# on each other processor, then after each event that METHODS asks for on the boot processor.
#
# The first instructions have no memory that they could trust but the ROM. RAX and GS's selector go to the page registers of the
# PC's DMA controllers by OUT imm8, which needs no register but EAX, no flag and no segment; then GS is loaded, with 0 from CS, and all
# else goes to RAM through it. What GS.base was is therefore not reported.

	.include "code.inc"
	.include "spine.inc"
	.set BASE, CODE
	.include "plant.inc"
	.include "observer/vars.inc"

# 16-bit code came to no end: says so in a letter, and stays there.
.macro finish
	movw	$0x3f8, %dx
	movb	$'!', %al
	outb	%al, %dx
	movw	$0x402, %dx
	outb	%al, %dx
	outb	%al, $0xe9
.endm
.macro finish32
	movw	$0x3f8, %dx
	movb	$'?', %al
	outb	%al, %dx
	movw	$0x402, %dx
	outb	%al, %dx
	outb	%al, $0xe9
.endm
.macro finish64
	jmp	observed
.endm

# Set if the image must not use XSAVE: some VMM may end at an instruction that its KVM cannot emulate.
.macro before_xcr0
	testl	$AVOID_XSAVE, CODE + AVOID
	jnz	end64
.endm
.macro before_xsetbv r
	testl	$AVOID_XSAVE, CODE + AVOID
	jz	3f
	mov	B_XSAVE(%\r\()bx), %\r\()si
	resume	9f
	fxrstor	(%\r\()si)
	jmp	9f
3:
.endm

# EAX and GS's selector to the DMA page registers. Destroys EAX; no flag, no memory, no other register.
.macro stash
	outb	%al, $0x81
	movb	%ah, %al
	outb	%al, $0x82
	bswapl	%eax
	outb	%al, $0x83
	movb	%ah, %al
	outb	%al, $0x87
	movw	%gs, %ax
	outb	%al, $0x89
	movb	%ah, %al
	outb	%al, $0x8a
.endm

# A general register to where it is kept. GS = 0.
.macro put reg, place
	movl	%\reg, %gs:\place
.endm

.macro put_selector seg, place
	movw	%\seg, %ax
	movl	%eax, %gs:\place
.endm

	CODE 16
	.section .text, "ax"
	.globl	sipi_vector
sipi_vector:
	stash
	movw	%cs:zero, %gs
	movl	$AP_STARTED, %gs:V_AP
	movl	$ENTRY_SIPI, %gs:V_ENTRY
	movl	$sipi_vector, %eax
	jmp	begin

# The physical address at which this copy of the image lies.
	.org	0x40, 0xf4
where:
	.long	0xffff0000
zero:
	.word	0

reset_start:
	stash
	movw	%cs:zero, %gs
	movl	$ENTRY_RESET, %gs:V_ENTRY
	movl	$reset_vector, %eax
	jmp	begin

# From a loader, in real mode at CODE: as after RESET from here on.
loaded_start:
	stash
	movw	%cs:zero, %gs
	movl	$ENTRY_LOADED, %gs:V_ENTRY
	movl	$loaded_start, %eax

# GS = 0, EAX = the offset where execution began. No flag has changed.
begin:
	put	eax, P_RIP
	put	ebx, P_RBX
	put	ecx, P_RCX
	put	edx, P_RDX
	put	esi, P_RSI
	put	edi, P_RDI
	put	ebp, P_RBP
	put	esp, P_RSP
	movl	$0, %eax
	put_selector cs, P_CS_SELECTOR
	put_selector ds, P_DS_SELECTOR
	put_selector es, P_ES_SELECTOR
	put_selector ss, P_SS_SELECTOR
	put_selector fs, P_FS_SELECTOR
	movl	$PROBE, %gs:PROBE
	movl	%ss:PROBE, %eax
	put	eax, P_SS_BASE
	movw	%cs:zero, %ss
	movl	$V_STACK16, %esp
	pushfl
	popl	%eax
	put	eax, P_RFLAGS

# From here on the flags and the stack are this guest's own. IP where the image was linked for is what it began with.
	movl	%cs:where, %eax
	put	eax, P_CS_BASE
	call	1f
1:	popw	%ax
	subw	$1b, %ax
	movzwl	%ax, %eax
	addl	%eax, %gs:P_RIP
	call	unstash

# In case the loops below end in an exception: nothing else is to be lost than this look.
	cmpl	$ENTRY_SIPI, %gs:V_ENTRY
	je	1f
	call	copy_code
1:	call	clear
	call	lists
	movw	$DATA >> 4, %ax
	movw	%ax, %ss
	movl	$STACK, %esp
	keep_table GDT, sgdtl
	keep_table IDT, sidtl
	done	TABLES
	movl	$CODE + ivt, %eax
	movl	%eax, %ss:SCRATCH + 2
	movw	$4 * 32 - 1, %ss:SCRATCH
	lidtl	%ss:SCRATCH
	orl	$2, %gs:V_STASH
	cmpl	$ENTRY_RESET, %gs:V_ENTRY
	je	true_base
base_reported:
	probe_limit cs, CS_LIMIT, low_start
	ljmp	$CODE >> 4, $low_start

# RAX and GS's selector back from the page registers, and whether they hold what is written. SS = GS = 0. Destroys EAX.
unstash:
	inb	$0x83, %al
	movb	%al, %ah
	inb	$0x87, %al
	shll	$16, %eax
	inb	$0x82, %al
	movb	%al, %ah
	inb	$0x81, %al
	put	eax, P_RAX
	xorl	%eax, %eax
	inb	$0x8a, %al
	movb	%al, %ah
	inb	$0x89, %al
	put	eax, P_GS_SELECTOR
	movl	$1, %gs:V_STASH
	.irp	value, 0x5a, 0xa5
	.irp	port, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8a
	movb	$\value ^ (\port & 0x0f), %al
	outb	%al, $\port
	.endr
	.irp	port, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8a
	inb	$\port, %al
	cmpb	$\value ^ (\port & 0x0f), %al
	je	1f
	movl	$0, %gs:V_STASH
1:
	.endr
	.endr
	ret

# This image from CS to CODE. Destroys EAX, ECX, ESI; GS = 0 again.
copy_code:
	movw	$CODE >> 4, %ax
	movw	%ax, %gs
	xorl	%esi, %esi
1:	movl	%cs:(%si), %eax
	movl	%eax, %gs:(%si)
	addw	$4, %si
	jnz	1b
	movw	%cs:zero, %gs
	ret

# DATA and the area for XSAVE: 0. Then the page tables, if no other processor runs by them: one that does needs each entry at each
# moment, whatever its TLB holds. Destroys EAX, EBX, ESI; GS = 0 again.
clear:
	movw	$DATA >> 4, %bx
	call	clear_64k
	movw	$XSAVE >> 4, %bx
	call	clear_64k
	movw	%cs:zero, %gs
	cmpl	$ENTRY_SIPI, %gs:V_ENTRY
	je	1f
	cmpl	$MAGIC, %gs:V_MAGIC
	jne	2f
	cmpl	$EVENT_INIT, %gs:V_EVENT
	jne	2f
1:	ret
2:
	movw	$PAGE_TABLES >> 4, %bx
	call	clear_64k
	movl	$PAGE_TABLES + 0x1023, %gs:0
	movl	$PAGE_TABLES + 0x2023, %gs:0x1000
	movl	$PAGE_TABLES + 0x3023, %gs:0x1018
	movl	$0xe3, %gs:0x2000
	movl	$0xfee000fb, %gs:0x3fb8	# the local APIC's page, not cached
	movw	%cs:zero, %gs
	ret
clear_64k:
	movw	%bx, %gs
	xorl	%eax, %eax
	xorl	%esi, %esi
1:	movl	%eax, %gs:(%si)
	addw	$4, %si
	jnz	1b
	ret

# The lists of the copy at CODE to where the steps read them, and XCR0 for XSAVE. Destroys all but ESP; GS = 0 again.
lists:
	movw	$CODE >> 4, %ax
	movw	%ax, %gs
	movl	%gs:MSR_LIST, %ecx
	movw	$MSR_LIST + 4, %si
	movw	$MSRS, %di
	call	list
	movl	%ecx, %gs:MSR_COUNT
	movl	$0x1b, %ecx
	rdmsr
	andl	$0xc00, %eax
	cmpl	$0x800, %eax
	movl	$0, %ebx
	jne	1f			# no page to read
	movw	$CODE >> 4, %ax
	movw	%ax, %gs
	movl	%gs:LAPIC_LIST, %ecx
	movw	$LAPIC_LIST + 4, %si
	movw	$LAPIC, %di
	movl	$0xfee00000, %ebp
	call	list_at
	movl	%ecx, %gs:LAPIC_COUNT
1:	movw	$DATA >> 4, %ax
	movw	%ax, %gs
	xorl	%eax, %eax
	cpuid
	xorl	%ebx, %ebx
	cmpl	$0xd, %eax
	jb	2f
	movl	$0xd, %eax
	xorl	%ecx, %ecx
	cpuid
	movl	%eax, %gs:XCR0_WANTED
	movl	%edx, %gs:XCR0_WANTED + 4
2:	movw	%cs:zero, %gs
	ret
list:
	xorl	%ebp, %ebp
list_at:
	movl	%ecx, %ebx
1:	movw	$CODE >> 4, %ax
	movw	%ax, %gs
	testl	%ebx, %ebx
	jz	2f
	movl	%gs:(%si), %edx
	addl	%ebp, %edx
	movw	$DATA >> 4, %ax
	movw	%ax, %gs
	movl	%edx, %gs:(%di)
	addw	$4, %si
	addw	$16, %di
	decl	%ebx
	jmp	1b
2:	movw	$DATA >> 4, %ax
	movw	%ax, %gs
	ret

# Code that does not fit in the first page, run at CODE.
	.include "look.inc"
	.include "observer/base.inc"
	.include "observer/main.inc"
	.include "observer/plant.inc"
	.include "observer/print.inc"
	.include "observer/strings.inc"
	.include "observer/loaded.inc"
	.org	PARAMETERS, 0xf4
	.org	PARAMETERS_END, 0

	CODE 16
	.section .reset, "ax"
	.globl	reset_vector
reset_vector:
	jmp	reset_start
