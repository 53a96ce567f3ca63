# SPDX-License-Identifier: GPL-2.0-only
"""Reasons why blocks are not run, by function and line."""

from __future__ import annotations

from kvmtest.coverage.reasons import reason


def test_a_reason_is_of_a_function_and_a_line() -> None:
    line = "kvm_put_guest_fpu(vcpu);"
    assert "MPX" in reason("kvm_vcpu_reset", "kvm_vcpu_reset", line)
    assert reason("kvm_vcpu_reset", "kvm_vcpu_reset", "vcpu->arch.cr2 = 0;") == ""
    assert reason("kvm_vcpu_run", "kvm_vcpu_run", line) == ""


def test_of_inlined_code_the_function_around_it_counts_too() -> None:
    line = "vcpu->arch.interrupt.injected = false;"
    assert "task switch" in reason("kvm_clear_interrupt_queue", "task_switch_interception", line)
    assert reason("kvm_clear_interrupt_queue", "svm_complete_interrupts", line) == ""


def test_warnings_are_of_all_functions() -> None:
    assert reason("any", "any", "WARN_ON_ONCE(1);") and reason("any", "any", "BUG_ON(idx);")
    assert not reason("any", "any", "return 0;")
