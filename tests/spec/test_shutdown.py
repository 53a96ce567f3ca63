# SPDX-License-Identifier: GPL-2.0-only
"""The rules for a shutdown follow the backend, whatever the guest's CPUID is."""

from __future__ import annotations

import pytest

from kvmtest.spec import ENTRIES, rule_for


@pytest.mark.parametrize("vendor", ["intel", "amd"])
def test_vmx_keeps_the_state_at_the_fault(vendor: str) -> None:
    for item in ("rbx", "cr0", "msr.star", "lapic.svr", "cs.type"):
        assert rule_for(item, "shutdown", vendor, "vmx").kind == "unchanged"


def test_vmx_keeps_no_counter_still_and_saves_a_fault_s_rf() -> None:
    assert rule_for("msr.tsc", "shutdown", "intel", "vmx").value == "TSC>="
    assert rule_for("lapic.timer_current", "shutdown", "intel", "vmx").kind == "undefined"
    rflags = rule_for("rflags", "shutdown", "intel", "vmx")
    assert (rflags.ignore, rflags.unchanged | rflags.ignore) == (1 << 16, (1 << 64) - 1)
    assert rule_for("cs.base", "shutdown", "intel", "vmx").kind == "unchanged"


def test_svm_leaves_what_init_leaves() -> None:
    for item in ENTRIES:
        rule = rule_for(item, "shutdown", "intel", "svm")
        init = rule_for(item, "init", "intel", "svm")
        if item != "mp_state" and rule.kind != "undefined":
            assert (rule.kind, rule.value, rule.values, rule.unchanged) == (init.kind, init.value, init.values, init.unchanged), item
    assert rule_for("lapic.version", "shutdown", "intel", "svm") != rule_for("lapic.version", "shutdown", "amd", "svm")


def test_what_init_leaves_in_the_vmcb_is_undefined_then() -> None:
    assert rule_for("msr.star", "shutdown", "amd", "svm").kind == "undefined"
    assert rule_for("msr.star", "init", "amd", "svm").kind == "unchanged"
    assert rule_for("xmm0", "shutdown", "amd", "svm").kind == "unchanged"
    assert rule_for("cr0", "shutdown", "amd", "svm").kind == "masked"


def test_of_another_backend_nothing_is_known() -> None:
    assert {rule_for(item, "shutdown", "intel", "other").kind for item in ENTRIES} == {"undefined"}
