# SPDX-License-Identifier: GPL-2.0-only
"""Where the manuals say it: document and name of the section or table.

Chapter and table numbers move between revisions, so they are not given; the revision is, where the text changed.
"""

from __future__ import annotations

# Intel 64 and IA-32 Architectures Software Developer's Manual.
S_T1 = "SDM vol. 3, Processor States Following Power-up, Reset, or INIT"
S_T1_CD_NW = S_T1 + ', footnote "The CD and NW flags are unchanged"'
S_T1_X87 = S_T1 + ", footnote on the x87 FPU: INIT does not change it"
S_T1_079 = S_T1 + " (revision 079, March 2023, and later)"
S_T1_075 = S_T1 + " (revision 075 and later)"
S_T2 = "SDM vol. 3, Variance of RESET Values in Selected Intel Architecture Processors"
S_T22 = 'SDM vol. 3, Processor State Following Power-up/Reset/INIT for the Pentium, Pentium Pro and Pentium 4 Processors: catch-all row "All Other MSRs"'
S_OVERVIEW = "SDM vol. 3, Initialization Overview"
S_STEPPING = "SDM vol. 3, Model and Stepping Information"
S_FIRST = "SDM vol. 3, First Instruction Executed"
S_X87 = "SDM vol. 3, x87 FPU Initialization"
S_EFLAGS = "SDM vol. 1, EFLAGS Register"
S_XCR0 = "SDM vol. 1, Enabling the XSAVE Feature Set and XSAVE-Enabled Features"
S_MPX = "SDM vol. 1, Intel MPX Operating Environment"
S_GDTR = "SDM vol. 3, Global Descriptor Table Register (GDTR)"
S_IDTR = "SDM vol. 3, IDTR Interrupt Descriptor Table Register"
S_LDTR = "SDM vol. 3, Local Descriptor Table Register (LDTR)"
S_TR = "SDM vol. 3, Task Register (TR)"
S_MP = "SDM vol. 3, Multiple-Processor (MP) Initialization"
SDM_SIPI = "SDM vol. 3, MP Initialization Protocol Algorithm for MP Systems"
S_APIC_RESET = "SDM vol. 3, Local APIC State After Power-Up or Reset"
S_APIC_INIT = 'SDM vol. 3, Local APIC State After an INIT Reset ("Wait-for-SIPI" State)'
S_APIC_VERSION = "SDM vol. 3, Local APIC Version Register"
S_APIC_DISABLED = "SDM vol. 3, Local APIC State After It Has Been Software Disabled"
S_INIT_DEASSERT = "SDM vol. 3, Local APIC State After It Receives an INIT-Deassert IPI"
S_ICR = "SDM vol. 3, Interrupt Command Register (ICR)"
S_MSI = "SDM vol. 3, Message Data Register Format"
S_LVT = "SDM vol. 3, Local Vector Table"
S_ARBITRATION = "SDM vol. 3, Task and Processor Priorities, register figures"
S_X2APIC = "SDM vol. 3, x2APIC States"
S_X2APIC_LDR = "SDM vol. 3, Deriving Logical x2APIC ID from the Local x2APIC ID"
S_TSC_DEADLINE = "SDM vol. 3, TSC-Deadline Mode"
S_TSC = "SDM vol. 3, Time-Stamp Counter"
S_TSC_ADJUST = "SDM vol. 3, Time-Stamp Counter Adjustment"
S_MTRR = "SDM vol. 3, MTRR Initialization"
S_PAT = "SDM vol. 3, Memory Type Setting of PAT Entries Following a Power-up or Reset"
S_COUNTERS = "SDM vol. 3, Performance Monitoring, note on counters after INIT or RESET"
S_DS = "SDM vol. 3, BTS and DS Save Area"
S_PT = "SDM vol. 3, Intel Processor Trace"
S_THERMAL = "SDM vol. 3, Power and Thermal Management"
S_VMX_ENTER = "SDM vol. 3, Enabling and Entering VMX Operation"
S_VMX_LIMITS = "SDM vol. 3, Restrictions on VMX Operation"
S_VMX_ACTIVITY = "SDM vol. 3, VM Entries, Activity State"
S_VMX_SAVING = "SDM vol. 3, VM Exits, Saving Guest State"
S_VMX_SEGMENTS = "SDM vol. 3, Checks on Guest Segment Registers"
S_SMBASE = "SDM vol. 3, SMBASE Relocation"
S_SMM_INIT = "SDM vol. 3, Initial SMM Execution Environment"
S_APIC_STATUS = "SDM vol. 3, Enabling or Disabling the Local APIC"
S_PRIORITY = "SDM vol. 3, Priority Among Simultaneous Exceptions and Interrupts"
S_V8086 = "SDM vol. 3, Leaving Virtual-8086 Mode"
S_VMX_ABORT = "SDM vol. 3, VMX Aborts"
S_DF = "SDM vol. 3, Exception and Interrupt Reference: Double Fault Exception"
S_UCODE = "SDM vol. 3, Hard Resets in Update Loading"
S_SGX = "SDM vol. 3, Intel SGX, Processor Reset and INIT"
I_CET = 'Intel\'s KVM CET series (Linux): "CET MSRs are reset to 0s after RESET, power-up and INIT"'

# AMD64 Architecture Programmer's Manual.
A_T1 = "APM vol. 2, Initial Processor State"
A_T2 = "APM vol. 2, Initial State of Segment-Register Attributes"
A_T3 = "APM vol. 2, x87 Floating-Point State Initialization"
A_OTH = 'APM vol. 2, Initial Processor State: catch-all row "Other Model-Specific Registers", INIT "Not modified"'
A_STEPPING = "APM vol. 2, Processor Implementation Information"
A_FIRST = "APM vol. 2, Fetching the First Instruction"
A_CACHES = "APM vol. 2, Cache Configuration Following RESET and INIT"
A_TSC = "APM vol. 2, Time-Stamp Counter"
A_APIC = 'APM vol. 2, APIC Registers ("value of each register after reset and INIT")'
A_APIC_ENABLE = "APM vol. 2, Local APIC Enable"
A_ICR = "APM vol. 2, Interrupt Command Register"
A_APIC_ID = "APM vol. 2, APIC ID Register"
A_X2APIC = "APM vol. 2, x2APIC Register Space, effects of RESET and INIT"
A_INIT_IPI = "APM vol. 2, Interprocessor Interrupts: INIT and STARTUP"
A_MP = "APM vol. 2, Multiple Processor Initialization"
A_SYSTEM = "APM vol. 2, MSR Cross-Reference, system software"
A_MEMORY = "APM vol. 2, MSR Cross-Reference, memory typing"
A_MC = "APM vol. 2, MSR Cross-Reference, machine check"
A_DEBUG = "APM vol. 2, MSR Cross-Reference, software debug"
A_PERF = "APM vol. 2, MSR Cross-Reference, performance monitoring"
A_SVM = "APM vol. 2, MSR Cross-Reference, secure virtual machine"
A_SMM = "APM vol. 2, MSR Cross-Reference, system management mode"
A_CET = "APM vol. 2, MSR Cross-Reference, shadow stacks"
A_SPEC = "APM vol. 2, MSR Cross-Reference, speculation control"
A_VM_CR = "APM vol. 2, VM_CR MSR"
A_HWCR = "APM vol. 2, SMM-Lock"
A_GIF = "APM vol. 2, Global Interrupt Flag, effect of the GIF on interrupt handling"
A_SVM_INIT = "APM vol. 2, INIT Support"
A_TSC_RATIO = "APM vol. 2, TSC Ratio MSR"
A_SMM_INIT = "APM vol. 2, SMM Operating Environment"
A_SHUTDOWN = "APM vol. 2, Double-Fault Exception and shutdown"
A_SHUTDOWN_INTERCEPT = "APM vol. 2, Shutdown Intercept"
A_PRIORITY = "APM vol. 2, Priorities Among Simultaneous Exceptions and Interrupts"
A_SKINIT = "APM vol. 2, Secure Multiprocessor Initialization"
A_TLB = "APM vol. 2, Implicit Invalidations of the TLB"
A_PPR = "AMD Processor Programming Reference, Performance Counter Global Control, as quoted by Linux"

#: Not a manual: no CPU manual speaks of it.
KVM_API = "Linux, The Definitive KVM (Kernel-based Virtual Machine) API Documentation"
KVM_MSR = "Linux, KVM-specific MSRs"
HYPERV = "Microsoft, Hypervisor Top Level Functional Specification"
LINUX_CR0 = 'Linux commit 4c72ab5aa6e0 ("KVM: x86: Preserve CR0.CD/NW on INIT"), measured on bare metal'
LINUX_SHUTDOWN = 'Linux commit 265e43530cb2 ("KVM: SVM: Emulate #INIT in response to triple fault shutdown")'
LINUX_XSS = 'Linux commit be4f3b3f8227 ("KVM: x86: Keep MSR_IA32_XSS unchanged for INIT")'
LINUX_GLOBAL_CTRL = 'Linux, "KVM: x86/pmu: Set enable bits for GP counters in PERF_GLOBAL_CTRL at RESET"'
SANDPILE = "sandpile.org, Initial State, an independent compilation"
