# SPDX-License-Identifier: GPL-2.0-only
"""Reasons why no guest and no VMM of the lab runs some blocks of KVM: shown with the blocks that no case ran.

They are looked up by function and a part of the source line, which is more stable than its number. Each was found by reading
the source of 6.1.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

__all__ = ("reason",)

_WARNS = "warns of a state that KVM excludes"
_MEMORY = "an allocation fails"
_APICV = "needs APICv, IPI virtualization or AVIC, which no emulated CPU has"
_TRACED = "the end of a tracepoint that is on"
_CPU = "needs a CPU feature that neither QEMU's nor Bochs's CPU has"
_MPX = "needs MPX, which neither QEMU's nor Bochs's CPU has"
_UNSTABLE = "a host whose TSC is unstable"
_OTHER_CPU = "an hv timer that moves to another CPU, of which cells have one"
_TASK = "QEMU's TCG makes no exit for a task switch"
_HYPERV = "KVM on Hyper-V"
_MTF = "the monitor trap flag, which Bochs does not offer to nested guests"

#: Function, a part of the line, and the reason.
_REASONS = (
    ("*", "WARN_ON", _WARNS),
    ("*", "WARN_ONCE", _WARNS),
    ("*", "BUG_ON", _WARNS),
    ("*", "KVM_BUG_ON", _WARNS),
    ("kvm_recalculate_apic_map", "mutex_unlock", "two vCPUs at once, on one CPU"),
    ("kvm_apic_match_dest", "target == source", "callers handle the self shorthand"),
    ("kvm_apic_map_get_dest_lapic", "APIC_DEST_SELF", "kvm_irq_delivery_to_apic_fast() handles the self shorthand"),
    ("kvm_apic_map_get_dest_lapic", "*dst = src", "kvm_irq_delivery_to_apic_fast() handles the self shorthand"),
    ("kvm_irq_delivery_to_apic_fast", "*r = 0", _WARNS),
    ("__apic_accept_irq", "unsupported delivery mode", "each of the eight delivery modes has a case of its own"),
    ("kvm_apic_send_ipi", "kvm_irq_delivery_to_apic", _TRACED),
    ("svm_check_nested_events", "trace_", _TRACED),
    ("cancel_apic_timer", "preempt_enable", "a reschedule that falls due between two instructions"),
    ("kvm_lapic_restart_hv_timer", "", _OTHER_CPU),
    ("kvm_lapic_reset", "apicv_post_state_restore", _APICV),
    ("kvm_apic_set_state", "static_call_cond", _APICV),
    ("kvm_set_or_clear_apicv_inhibit", "", _APICV),
    ("kvm_arch_vcpu_create", "apicv_active", _APICV),
    ("init_vmcb", "enable_apicv", _APICV),
    ("init_vmcb", "avic_init_vmcb", _APICV),
    ("init_vmcs", "POSTED_INTR_DESC_ADDR", _APICV),
    ("init_vmcs", "PID_POINTER", _APICV),
    ("vmx_vcpu_create", "pid_table", _APICV),
    ("kvm_create_lapic", "malloc apic", _MEMORY),
    ("kvm_arch_vcpu_create", "pr_err", _MEMORY),
    ("kvm_arch_vcpu_create", "free", _MEMORY),
    ("kvm_arch_vcpu_create", "kvm_mmu_destroy", _MEMORY),
    ("svm_vcpu_create", "__free_page", _MEMORY),
    ("vmx_vcpu_create", "free_", _MEMORY),
    ("svm_set_efer", "old_efer", _MEMORY),
    ("svm_init_osvw", "", "a host of family 10H"),
    ("init_vmcb", "pause_filter", _CPU),
    ("init_vmcb", "SPEC_CTRL", _CPU),
    ("init_vmcs", "NOTIFY_WINDOW", _CPU),
    ("init_vmcs", "PML_ADDRESS", _CPU),
    ("init_vmcs", "pt_desc", _CPU),
    ("vmx_vcpu_create", "pml_pg", _CPU),
    ("vmx_vcpu_create", "tsx_ctrl", _CPU),
    ("vmx_vcpu_create", "evmcs", _HYPERV),
    ("vmx_vcpu_create", "ms_hyperv", _HYPERV),
    ("vmx_vcpu_create", "MSR_CORE_C1_RES", _CPU),
    ("vcpu_enter_guest", "xfd", _CPU),
    ("kvm_arch_vcpu_ioctl_get_mpstate", "kvm_put_guest_fpu", _MPX),
    ("kvm_vcpu_reset", "init_event)", _MPX),
    ("kvm_vcpu_reset", "kvm_put_guest_fpu", _MPX),
    ("kvm_vcpu_reset", "XFEATURE_BNDREGS", _MPX),
    ("kvm_post_set_cr0", "kvm_zap_gfn_range", "non-coherent DMA, of an assigned device"),
    ("vcpu_enter_guest", "guest_state_protected", "the host changes its own DEBUGCTL.FREEZE_IN_SMM"),
    ("vcpu_enter_guest", "KVM_RUN_LOAD_DEBUGCTL", "the host changes its own DEBUGCTL.FREEZE_IN_SMM"),
    ("vcpu_enter_guest", "hw_breakpoint_restore", "breakpoints of the host's own in KVM_RUN"),
    ("vcpu_enter_guest", "x86_ibpb_exit_to_user", "a mitigation of the host, which cells turn off"),
    ("vcpu_enter_guest", "profile_hit", "a host booted with profile=kvm"),
    ("vcpu_block", "-EBUSY", "nested posted interrupts that fail: " + _APICV),
    ("__set_sregs", "pr_debug", "a message that dynamic debug turns on"),
    ("kvm_arch_vcpu_precreate", "kvm_check_tsc_unstable", _UNSTABLE),
    ("kvm_arch_vcpu_precreate", "unstable TSC", _UNSTABLE),
    ("task_switch_interception", "", _TASK),
    ("handle_task_switch", "exception.pending", _HYPERV),
    ("vmx_check_nested_events", "block_nested_events", _MTF),
    ("vmx_check_nested_events", "MONITOR_TRAP_FLAG", _MTF),
)  # fmt: skip


def reason(function: str, inside: str, line: str) -> str:
    """Return why nothing runs a block of ``function``, inlined into ``inside``, at this source ``line``; "" if unknown."""
    return next(
        (why for name, part, why in _REASONS if (fnmatchcase(function, name) or inside == name) and part in line), ""
    )  # fmt: skip
