# SPDX-License-Identifier: GPL-2.0-only
#
# stress: vCPUs that send INIT-SIPI-SIPI to each other. Each is known by its x2APIC ID, which INIT leaves alone, and has
# ORDER_SIZE bytes of orders from the host. An arrival, by SIPI or by the reset vector, is counted in RAM and reported by one OUT.
#
# 16-bit code, wherever a SIPI vector points; the first 4 KiB of this image are there, and the ROM has them as well. DS = 0, no
# stack, no interrupts; general registers are free.

	.include "code.inc"

	.set ORDERS, 0x600		# of APIC ID n: at ORDERS + n * ORDER_SIZE
	.set ORDER_SIZE, 0x20
	.set ORDER_SHIFT, 5
	.set DO, 0x0
	.set DESTINATION, 0x4
	.set VECTOR, 0x8
	.set DELAY_SIPI, 0xc		# turns of a loop, between INIT and SIPI
	.set DELAY_SECOND, 0x10		# and between the two SIPIs
	.set ARRIVED, 0x18		# how many times: only the guest writes this and the next
	.set ARRIVED_CS, 0x1c		# where the last time

	.set DO_SPIN, 0
	.set DO_HALT, 1
	.set DO_SEND, 2

	.set PORT_ARRIVED, 0xf2		# the value is the APIC ID
	.set PORT_SENT, 0xf3

	.set MSR_X2APIC_ID, 0x802
	.set MSR_X2APIC_ICR, 0x830
	.set ICR_INIT, 0x4500
	.set ICR_STARTUP, 0x4600

# ICR = \low | EAX to DESTINATION. Destroys EAX, ECX, EDX.
.macro send low
	orl	$\low, %eax
	movl	DESTINATION(%bx), %edx
	movl	$MSR_X2APIC_ICR, %ecx
	wrmsr
.endm

# Destroys ECX.
.macro delay turns
	movl	\turns(%bx), %ecx
	incl	%ecx
1:	decl	%ecx
	jnz	1b
.endm

	CODE 16
	.section .text, "ax"
	.globl	sipi_vector
sipi_vector:
start:
	movw	$0, %ax
	movw	%ax, %ds
	movl	$MSR_X2APIC_ID, %ecx
	rdmsr
	movl	%eax, %esi
	shll	$ORDER_SHIFT, %eax
	movl	%eax, %ebx
	addw	$ORDERS, %bx
	lock incl ARRIVED(%bx)
	movw	%cs, %ax
	movw	%ax, ARRIVED_CS(%bx)
	movl	%esi, %eax
	outl	%eax, $PORT_ARRIVED

# The host has written new orders whenever the vCPU is run again.
obey:
	cmpl	$DO_SEND, DO(%bx)
	je	sends
	cmpl	$DO_HALT, DO(%bx)
	je	halt
spin:
	sti				# nothing sends interrupts; some emulators leave a guest for the host's with IF set only
1:	pause
	jmp	1b
halt:
	cli
	hlt
	jmp	halt

sends:
	movl	$0, %eax
	send	ICR_INIT
	delay	DELAY_SIPI
	movl	VECTOR(%bx), %eax
	send	ICR_STARTUP
	delay	DELAY_SECOND
	movl	VECTOR(%bx), %eax
	send	ICR_STARTUP
	outl	%eax, $PORT_SENT
	jmp	obey

# Must fit in 16 bytes; the near jump keeps CS, which distinguishes the arrival from a SIPI's.
	.section .reset, "ax"
	.globl	reset_vector
reset_vector:
	jmp	start
