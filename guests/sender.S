# SPDX-License-Identifier: GPL-2.0-only
#
# sender: writes the local APIC's ICR, then says so and halts.
#
# 32-bit protected mode, flat segments, no paging, no stack: the host sets all that up, puts this anywhere below 4 GiB and the
# values in registers. Touches no memory but the APIC page. Destroys ECX at `x2apic`.

	.include "code.inc"

	.set APIC_ICR, 0xfee00300
	.set APIC_ICR2, 0xfee00310
	.set MSR_X2APIC_ICR, 0x830
	.set PORT_SENT, 0xf1

	CODE 32
	.section .text, "ax"
	.globl	reset_vector		# the linker script's entry; no vector leads here
reset_vector:

# EAX = ICR bits 31:0, EDX = ICR bits 63:32, xAPIC mode.
xapic:
	movl	%edx, APIC_ICR2
	movl	%eax, APIC_ICR
	jmp	sent

# The same in x2APIC mode.
x2apic:
	movl	$MSR_X2APIC_ICR, %ecx
	wrmsr

sent:
	outb	%al, $PORT_SENT
halt:
	hlt
	jmp	halt
