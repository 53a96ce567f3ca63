# SPDX-License-Identifier: GPL-2.0-only
"""Examples: what the rules say where the vendors, the events or the backends differ."""

from __future__ import annotations

import pytest

from kvmtest import spec
from kvmtest.spec import Rule, rule_for
from kvmtest.spec.catchall import NAMED
from kvmtest.spec.rule import EVENTS
from kvmtest.x86.msr import MSRS, Msr


def _say(rule: Rule) -> object:
    """A rule in short: its kind, or what it is worth."""
    if rule.kind in {"value", "formula"}:
        return rule.value
    if rule.kind == "one-of":
        return rule.values
    if rule.kind == "masked":
        return (rule.value, rule.unchanged, rule.ignore)
    return rule.kind


ALL = 0xFFFFFFFFFFFFFFFF

#: item, event, Intel's rule, AMD's rule: the rows where the manuals differ.
DIFFERENT = [
    ("dr0", "init", 0, "undefined"),
    ("dr6", "init", 0xFFFF0FF0, "undefined"),
    ("dr7", "init", 0x400, "undefined"),
    # KVM zeroes the state components of CET on INIT whatever the vendor, and the APM has only its catch-all row.
    *((f"msr.{name}", "init", 0, "undefined") for name in ("u_cet", "s_cet", "pl0_ssp", "pl3_ssp", "int_ssp_tab")),
    ("msr.u_cet", "reset", 0, 0),
    ("msr.rtit_output_mask", "reset", 0x7F, "undefined"),
    ("msr.rtit_ctl", "reset", 0, "undefined"),
    ("msr.misc_features_enables", "reset", "undefined", "undefined"),
    ("msr.misc_features_enables", "init", "unchanged", "undefined"),
    ("msr.syscfg", "reset", "undefined", (0, 0, 0x3FFFF)),
    ("bnd0", "init", 0, "undefined"),
    ("bndcfgu", "init", 0, "undefined"),
    ("msr.bndcfgs", "init", 0, "undefined"),
    ("apic_base", "reset", "APIC_BASE", "undefined"),
    ("lapic.version", "reset", (0x10, 0, 0x01FF000F), "APIC_VERSION"),
    ("lapic.ecntl", "reset", "undefined", 0),
    ("msr.sysenter_cs", "reset", 0, "undefined"),
    ("msr.star", "reset", 0, "undefined"),
    ("msr.lstar", "reset", 0, "undefined"),
    ("msr.mcg_ctl", "reset", "undefined", 0),
    ("msr.mc3_ctl", "reset", "undefined", 0),
    ("msr.pmc0", "init", "undefined", "unchanged"),
    ("msr.debugctl", "reset", "undefined", 0),
    ("msr.vm_cr", "init", "undefined", (0, ALL ^ 0x10, 0)),
    ("msr.mtrr_def_type", "reset", (0, 0, ALL ^ 0x800), 0),
    ("msr.smi_count", "reset", 0, "undefined"),
    ("msr.pebs_enable", "reset", 0, "undefined"),
    ("events.nmi_pending", "init", 0, "undefined"),
    ("events.smi_pending", "init", 0, "undefined"),
    ("msr.xss", "reset", 0, "undefined"),
    ("ymm0_hi128", "init", "unchanged", "undefined"),
    ("rflags", "reset", (2, 0, 0xFFC00000), 2),
]

#: item, event, the rule of both.
SAME = [
    ("msr.spec_ctrl", "reset", 0),
    ("msr.spec_ctrl", "init", "unchanged"),
    ("msr.spec_ctrl", "sipi", "unchanged"),
    ("rax", "reset", 0),
    ("rdx", "init", "CPUID.1:EAX"),
    ("rip", "init", 0xFFF0),
    ("rip", "sipi", 0),
    ("rflags", "init", 2),
    ("cs.selector", "reset", 0xF000),
    ("cs.base", "init", 0xFFFF0000),
    ("cs.selector", "sipi", "SIPI.CS"),
    ("cs.base", "sipi", "SIPI.BASE"),
    ("cs.limit", "sipi", "unchanged"),
    ("idt.limit", "init", 0xFFFF),
    ("cr0", "reset", 0x60000010),
    ("cr0", "init", (0x10, 0x60000000, 0)),
    ("xcr0", "reset", 1),
    ("xcr0", "init", "unchanged"),
    ("fcw", "reset", 0x40),
    ("fcw", "init", "unchanged"),
    ("ftw", "reset", 0xFF),
    ("mxcsr", "reset", 0x1F80),
    ("apic_base", "init", "unchanged"),
    ("lapic.id", "reset", "APIC_ID"),
    ("lapic.id", "init", "unchanged"),
    ("lapic.svr", "init", 0xFF),
    ("lapic.lvt_lint0", "reset", 0x10000),
    ("lapic.icr", "init", 0),
    ("msr.xss", "init", "unchanged"),
    ("msr.pat", "reset", 0x0007040600070406),
    ("msr.tsc", "init", "TSC>="),
    ("msr.tsc", "reset", "TSC-small"),
    ("msr.smbase", "reset", 0x30000),
    ("msr.kernel_gs_base", "init", "unchanged"),
    ("events.nmi_masked", "init", "undefined"),
    ("events.nmi_pending", "reset", 0),
    ("r16", "init", "undefined"),
    ("tilecfg", "init", "undefined"),
    ("ssp", "init", "undefined"),
    ("mp_state", "sipi", "mp_state"),
]


@pytest.mark.parametrize(("item", "event", "intel", "amd"), DIFFERENT)
def test_vendors_differ(item: str, event: str, intel: object, amd: object) -> None:
    assert _say(rule_for(item, event, "intel", "vmx")) == intel
    assert _say(rule_for(item, event, "amd", "svm")) == amd


@pytest.mark.parametrize(("item", "event", "expected"), SAME)
def test_vendors_agree(item: str, event: str, expected: object) -> None:
    for vendor in spec.VENDORS:
        assert _say(rule_for(item, event, vendor, "vmx")) == expected


@pytest.mark.parametrize(
    ("item", "vmx", "svm", "other"),
    [
        ("cs.type", (0x3, 0xB), 0xA, (0x3, 0xB, 0xA)),
        ("ds.type", 0x3, 0x2, (0x3, 0x2)),
        ("tr.type", (0x2, 0x3, 0xB), 0x3, (0x2, 0x3, 0xB)),
        ("ldt.type", 0x2, 0x2, 0x2),
        ("cs.present", 1, 1, 1),
        ("nested.flags", 0, 0x100, (0, 0x100)),
        ("nested.vmxon_pa", ALL, "undefined", "undefined"),
    ],
)
def test_hidden_state_follows_the_backend(item: str, vmx: object, svm: object, other: object) -> None:
    for vendor in spec.VENDORS:
        for event in ("reset", "init"):
            assert _say(rule_for(item, event, vendor, "vmx")) == vmx
            assert _say(rule_for(item, event, vendor, "svm")) == svm
            assert _say(rule_for(item, event, vendor, "pvm")) == other
            assert rule_for(item, event, vendor, "pvm").cite


@pytest.mark.parametrize("seg", ["fs", "gs"])
def test_segment_base_msrs_follow_the_segments(seg: str) -> None:
    for event in ("reset", "init"):
        of_msr, of_segment = (rule_for(item, event, "intel", "vmx") for item in (f"msr.{seg}_base", f"{seg}.base"))
        assert _say(of_msr) == _say(of_segment)


@pytest.mark.parametrize("item", ["efer", "apic_base"])
def test_msrs_of_sregs_have_the_same_rules(item: str) -> None:
    assert spec.ENTRIES[f"msr.{item}"].rules == spec.ENTRIES[item].rules


@pytest.mark.parametrize(
    "item", ["msr.kvm_wall_clock", "msr.kvm_poll_control", "msr.hv_guest_os_id", "msr.0x40000200", "msr.0x4b564d0f"]
)
def test_no_manual_defines_synthetic_msrs(item: str) -> None:
    for event in EVENTS:
        rule = rule_for(item, event, "intel", "vmx")
        assert rule.kind == "undefined"
        assert "no CPU manual" in rule.note


@pytest.mark.parametrize("item", ["", "rzx", "msr.", "msr.nonsense", "msr.0xnope", "lapic.0x20"])
def test_unknown_items_are_refused(item: str) -> None:
    with pytest.raises(KeyError):
        spec.lookup(item)


def test_an_msr_without_a_line_of_its_own_is_one_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = Msr("made_up", 0x1FD, (1, 2))
    monkeypatch.setattr(spec, "MSRS", (*MSRS, made_up))
    with pytest.raises(AssertionError, match="msr.made_up has no rule"):
        spec._collect()
    lines = {entry.item for topic in spec._TOPICS for entry in topic.RULES}
    assert {f"msr.{name}" for name in NAMED} == {f"msr.{msr.name}" for msr in MSRS} - lines - spec.SYNTHETIC


def test_intels_general_statement_comes_before_its_old_catch_all_row() -> None:
    """The citation begins with the SDM's present statement on INIT and MSRs; its table for processors up to the Pentium 4 follows."""
    for item in spec.ENTRIES:
        cite = rule_for(item, "init", "intel", "vmx").cite
        if rule_for(item, "init", "intel", "vmx").kind == "unchanged" and any("All Other MSRs" in text for text in cite):
            assert any("Initialization Overview: during an INIT" in text for text in cite[:2]), (item, cite)


def test_what_no_manual_says_is_called_implied() -> None:
    for item in ("events.interrupt_shadow", "events.exception_injected"):
        rule = rule_for(item, "init", "intel", "vmx")
        assert "implied" in rule.note and all("implies it" in text for text in rule.cite)
