# SPDX-License-Identifier: GPL-2.0-only
"""The judge: every verdict can be reached, and none without its reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest import spec
from kvmtest.judge import item as judging
from kvmtest.judge.item import Context, Seen, ask_views, compare_views, excused, judge
from kvmtest.model.host import Host
from kvmtest.model.record import Record
from kvmtest.model.value import Expected
from kvmtest.model.verdict import Verdict
from kvmtest.spec import deviations
from kvmtest.spec.rule import Rule

HOST = Host("6.1.0-1-amd64", "vmx", "GenuineIntel", "test", {})
INIT_AP = Context("init.msi.host", "init.msi.host/test", HOST, "intel", False, 1, signature=0x506E3)
RESET_BSP = Context("reset.create.host", "reset.create.host/test", HOST, "intel", True, 0, signature=0x506E3)

U64 = st.integers(0, (1 << 64) - 1)


def _views(item: str, ctx: Context, *values: int | str | None) -> Record:
    return compare_views(ask_views(item, ctx), *values)  # type: ignore[arg-type]


def test_value_rule_passes_only_over_a_plant_that_differs() -> None:
    assert judge("rbx", INIT_AP, Seen(0x55, 0, 0)).verdict == "pass"
    assert judge("rbx", INIT_AP, Seen(0x55, 0, 0x55)).verdict == "fail"
    same = judge("rbx", INIT_AP, Seen(0, 0, 0))
    assert same.verdict == "skip" and same.reason


def test_refused_plant_is_a_skip_with_the_reason() -> None:
    result = judge("msr.pat", INIT_AP, Seen(7, 7, 7, refused="KVM_SET_MSRS refused it"))
    assert (result.verdict, result.reason) == ("skip", "KVM_SET_MSRS refused it")


def test_unchanged_needs_a_plant_that_was_not_there_at_creation() -> None:
    assert judge("xcr0", INIT_AP, Seen(7, 1, 7)).verdict == "pass"
    assert judge("xcr0", INIT_AP, Seen(7, 1, 1)).verdict == "fail"
    assert judge("xcr0", INIT_AP, Seen(1, 1, 1)).verdict == "skip"


@pytest.mark.parametrize(("planted", "expected"), [(0x80050033, 0x10), (0x6000001C, 0x60000010), (0xC0000011, 0x40000010)])
def test_cr0_keeps_cd_and_nw_on_init(planted: int, expected: int) -> None:
    good = judge("cr0", INIT_AP, Seen(planted, 0x60000011, expected))
    assert (good.verdict, good.expected) == ("pass", Expected((expected,)))
    assert judge("cr0", INIT_AP, Seen(planted, 0x60000011, expected ^ 1 << 30)).verdict == "fail"


def test_edx_is_the_signature_of_this_vcpu() -> None:
    assert judge("rdx", INIT_AP, Seen(5, 0x600, 0x506E3)).verdict == "pass"
    assert judge("rdx", INIT_AP, Seen(5, 0x600, 0x600)).verdict == "fail"


@pytest.mark.parametrize(
    ("extended", "observed", "verdict"),
    [
        (False, 0x00050014, "pass"),
        (False, 0x01060010, "pass"),
        (False, 0x80050014, "fail"),
        (True, 0x80050010, "pass"),
        (True, 0x00050014, "fail"),
        (False, 0x00050020, "fail"),
        (None, 0x00050014, "skip"),
    ],
)
def test_amds_apic_version_is_1xh_with_bit_31_as_cpuid_says(extended: bool | None, observed: int, verdict: str) -> None:
    """No deviation excuses it: KVM's guests have no ExtApicSpace, and the version that goes with that."""
    ctx = RESET_BSP._replace(vendor="amd", extended_apic=extended)
    assert judge("lapic.version", ctx, Seen(None, None, observed)).verdict == verdict


def test_syscfg_is_judged_by_the_bits_that_the_apm_defines() -> None:
    ctx = RESET_BSP._replace(vendor="amd")
    assert [judge("msr.syscfg", ctx, Seen(None, None, v)).verdict for v in (0, 0x20601, 1 << 18, 1 << 23)] == [
        *("pass", "pass", "fail", "fail")
    ]


def test_mp_state_depends_on_event_and_target() -> None:
    assert judge("mp_state", INIT_AP, Seen(3, 1, 2)).verdict == "pass"
    assert judge("mp_state", INIT_AP, Seen(3, 1, 0)).verdict == "fail"
    assert judge("mp_state", INIT_AP._replace(is_bsp=True), Seen(3, 0, 0)).verdict == "pass"
    assert judge("mp_state", RESET_BSP._replace(is_bsp=False), Seen(None, None, 1)).verdict == "pass"
    assert judge("mp_state", RESET_BSP._replace(irqchip=False), Seen(None, None, 0)).verdict == "skip"


def test_a_listed_deviation_explains_one_exact_value() -> None:
    known = judge("rdx", RESET_BSP, Seen(None, None, 0x600))
    assert known.verdict == "known" and known.deviation and known.reason
    assert judge("rdx", RESET_BSP, Seen(None, None, 0)).verdict == "fail"
    assert judge("rdx", RESET_BSP, Seen(None, None, 0x506E3)).verdict == "fixed"


def test_a_deviation_of_one_target_excuses_no_other() -> None:
    bsp = INIT_AP._replace(is_bsp=True)
    assert judge("lapic.lvt_lint0", bsp, Seen(0x1A055, 0x700, 0x700)).verdict == "known"
    assert judge("lapic.lvt_lint0", INIT_AP, Seen(0x1A055, 0x10000, 0x700)).verdict == "fail"


def test_a_wrong_rule_makes_the_run_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool's own expectation broken on purpose: nothing hides it."""
    rule = spec.rule_for("rbx", "init", "intel", "vmx")
    monkeypatch.setattr(judging, "rule_for", lambda *args: rule._replace(value=1))
    assert judge("rbx", INIT_AP, Seen(0x55, 0, 0)).verdict == "fail"


def test_a_plant_that_was_not_read_back_proves_nothing() -> None:
    for item, observed in (("rbx", 0), ("cs.type", 3), ("xcr0", 1), ("cr0", 0x10)):
        assert judge(item, INIT_AP, Seen(None, 0, observed)).verdict == "skip", item
    assert judge("rbx", RESET_BSP, Seen(None, None, 0)).verdict == "pass"


def test_error_and_unreadable_are_reported_apart() -> None:
    assert judge("rbx", INIT_AP, Seen(1, 0, None, unreadable="no such register")).verdict == "skip"
    assert judge("rbx", INIT_AP, Seen(1, 0, None, failed="the guest stopped")).verdict == "error"


def test_before_any_cpuid_the_vendors_must_agree() -> None:
    nobody = RESET_BSP._replace(vendor="", signature=None)
    assert judge("rbx", nobody, Seen(None, None, 1)).verdict == "fail"
    assert judge("rdx", nobody, Seen(None, None, 0x600)).verdict == "skip"
    assert judge("msr.star", nobody, Seen(None, None, 0)).verdict == "info"


def test_a_register_that_the_apic_mode_does_not_have_is_a_skip() -> None:
    off = INIT_AP._replace(apic_mode="disabled")
    assert judge("lapic.svr", off, Seen(0x1FF, 0xFF, 0xFF)).verdict == "skip"
    assert judge("apic_base", off, Seen(0xFEE00000, 0xFEE00800, 0xFEE00000)).verdict == "pass"
    assert judge("lapic.dfr", INIT_AP._replace(apic_mode="x2apic"), Seen(0, 0, 0)).verdict == "skip"


def test_the_two_views_must_agree() -> None:
    ctx = INIT_AP._replace(prefix="init.msi.views")
    assert _views("cr0", ctx, 0x10, 0x10, "").verdict == "pass"
    assert _views("cr0", ctx, 0x10, 0x60000010, "").verdict == "fail"
    stopped = _views("cr0", ctx, 0x10, None, "it stopped")
    assert (stopped.verdict, stopped.reason) == ("error", "it stopped")
    assert _views("cr0", ctx, None, 0x10, "").verdict == "skip"


def test_a_listed_difference_of_the_views_is_known_for_its_value_only() -> None:
    ctx = INIT_AP._replace(prefix="sipi.msi.views")
    known = _views("lapic.ppr", ctx, 0xDA, 0xF0, "")
    assert (known.verdict, known.deviation) == ("known", "kvm_apic_set_state()")
    assert _views("lapic.ppr", ctx, 0xDA, 0xE0, "").verdict == "fail"
    assert _views("lapic.ppr", ctx, 0xDA, 0xDA, "").verdict == "pass"
    assert _views("lapic.tpr", ctx, 0xDA, 0xD0, "").verdict == "fail"
    svm = ctx._replace(host=HOST._replace(backend="svm"))
    assert _views("lapic.tpr", svm, 0xDA, 0xD0, "").verdict == "known"


def test_a_guest_on_an_emulated_cpu_does_not_tell_what_that_gets_wrong() -> None:
    tcg = INIT_AP._replace(host=HOST._replace(cpu_model="QEMU TCG CPU version 2.5+"), prefix="init.msi.guest")
    assert judge("pkru", tcg, Seen(0x55555554, 0, 0)).verdict == "skip"
    assert _views("pkru", tcg._replace(prefix="init.msi.views"), 0, 1, "").verdict == "skip"
    assert judge("pkru", tcg._replace(prefix="init.msi.host"), Seen(0x55555554, 0, 0)).verdict == "fail"
    assert judge("cr0", tcg, Seen(0x80050033, 0x60000010, 0x11)).verdict == "fail"
    bochs = tcg._replace(host=HOST._replace(lab={"emulator": "Bochs 2.7"}))
    assert judge("msr.spec_ctrl", bochs, Seen(1, 0, 0)).verdict == "skip"
    assert judge("msr.spec_ctrl", bochs._replace(host=HOST), Seen(1, 0, 0)).verdict == "known"


def test_what_a_cpu_loses_for_kvm_is_judged_in_no_view() -> None:
    item, kept = "msr.pl0_ssp", Seen(8, 0, 8)
    for number, verdict in (("3.0", "skip"), ("3.1", "fail")):
        bochs = INIT_AP._replace(host=HOST._replace(lab={"emulator": f"Bochs {number}"}))
        for view in ("host", "guest"):
            assert judge(item, bochs._replace(prefix=f"init.msi.{view}"), kept).verdict == verdict
        assert _views(item, bochs._replace(prefix="init.msi.views"), 0, 8, "").verdict == verdict


def test_tsc_counts_on_from_the_planted_value() -> None:
    planted = 1 << 46
    assert judge("msr.tsc", INIT_AP, Seen(planted, 100, planted + 5000)).verdict == "pass"
    assert judge("msr.tsc", INIT_AP, Seen(planted, 100, 5000)).verdict == "fail"
    assert judge("msr.tsc", INIT_AP, Seen(200, 100, 5000)).verdict == "skip"


@given(planted=U64, baseline=U64, observed=U64, item=st.sampled_from(sorted(spec.ENTRIES)))
def test_judge_never_raises_and_always_says_why(planted: int, baseline: int, observed: int, item: str) -> None:
    for ctx in (INIT_AP, RESET_BSP, INIT_AP._replace(vendor="amd")):
        seen = Seen(None, None, observed) if ctx is RESET_BSP else Seen(planted, baseline, observed)
        result = judge(item, ctx, seen)
        assert result.reason or result.verdict in ("pass", "fail")
        assert result.cite


@given(planted=U64, observed=U64)
def test_unchanged_never_passes_a_changed_value(planted: int, observed: int) -> None:
    verdict = judge("msr.star", INIT_AP, Seen(planted, 0, observed)).verdict
    assert verdict == ("fail" if planted != observed else "skip" if planted == 0 else "pass")


def _on(backend: str, kernel: str, prefix: str = "init.msi.host") -> Context:
    host = HOST._replace(backend=backend, kernel=kernel)
    return INIT_AP._replace(host=host, prefix=prefix, case=f"{prefix}/ap,intel,xapic,plant-a")


def test_a_kept_value_is_known_only_where_it_is_the_planted_one() -> None:
    old = _on("svm", "5.10.0-46")
    kept = judge("cr3", old, Seen(0x5000, 0, 0x5000))
    assert (kept.verdict, kept.deviation) == ("known", "03a6e84069d1") and "v5.15" in kept.reason
    assert judge("cr3", old, Seen(0x5000, 0, 0x6000)).verdict == "fail"
    assert judge("cr3", old, Seen(0x5000, 0, 0)).verdict == "fixed"
    assert judge("cr3", _on("svm", "6.1.0"), Seen(0x5000, 0, 0x5000)).verdict == "fail"
    assert judge("gdt.base", _on("vmx", "5.10.0"), Seen(0x5000, 0, 0x5000)).verdict == "fail"


@given(planted=U64, observed=U64)
def test_no_value_but_the_planted_one_is_known_as_kept(planted: int, observed: int) -> None:
    for seen in (observed, planted):
        verdict = judge("gdt.base", _on("svm", "5.10.0"), Seen(planted, 0, seen)).verdict
        assert (verdict == "known") == (seen == planted != 0)


def test_what_a_broadcast_shows_may_be_a_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    id = "init.broadcast.host.reached"
    listed = deviations.Deviation(id, "init", "6 of 7", "f()", "why", "open", backends="vmx")
    monkeypatch.setitem(deviations._BY_ITEM, (id, "init"), (listed,))
    record = Record("reached", Verdict.FAIL, None, Expected(("7 of 7",)), "6 of 7")
    where = ("init", "intel", "ap", "host", "x")
    known = excused(record, id, HOST, *where)
    assert (known.verdict, known.deviation, known.reason) == ("known", "f()", "why")
    assert excused(record._replace(observed="5 of 7"), id, HOST, *where) == record._replace(observed="5 of 7")
    assert excused(record, id, HOST._replace(backend="svm"), *where) == record
    assert excused(record._replace(observed=None), id, HOST, *where).verdict == "fail"


def test_a_pass_with_the_deviations_own_value_says_nothing_of_it() -> None:
    # Both bits were set: what KVM forced before v5.15 is what the manuals ask for.
    forced = judge("cr0", _on("svm", "5.10.0"), Seen(0xE0000031, 0x60000010, 0x60000010))
    assert (forced.verdict, forced.deviation) == ("pass", None)
    assert judge("cr0", _on("svm", "5.10.0"), Seen(0x80000031, 0x60000010, 0x60000010)).verdict == "known"
    assert judge("cr0", _on("svm", "5.10.0"), Seen(0x80000031, 0x60000010, 0x10)).verdict == "fixed"


def test_a_stable_kernels_backport_is_no_news_and_its_lack_is_known() -> None:
    assert judge("cr4", _on("svm", "5.10.262"), Seen(0x20, 0, 0)).verdict == "pass"
    assert judge("cr4", _on("svm", "5.10.3"), Seen(0x20, 0, 0x20)).verdict == "known"
    assert judge("cr4", _on("svm", "5.11.0"), Seen(0x20, 0, 0)).verdict == "fixed"


def test_a_shutdown_goes_by_its_own_deviations() -> None:
    old = _on("svm", "5.10.0", "shutdown.triple-fault.host")
    assert judge("rbx", old, Seen(0x55, 0, 0x55)).deviation == "265e43530cb2"
    assert judge("rbx", old, Seen(0x55, 0, 0x56)).verdict == "fail"
    # A SHUTDOWN intercept cleared the VMCB in every kernel.
    assert judge("gdt.base", old, Seen(0x5000, 0, 0)).verdict == "pass"
    assert judge("gdt.base", old, Seen(0x5000, 0, 0x5000)).verdict == "fail"


def test_a_vcpu_written_back_to_reset_has_deviations_of_its_own() -> None:
    old = AGAIN._replace(host=HOST._replace(kernel="6.1.0"))
    own = Rule("value", 0)
    assert judge("msr.hwcr", old, Seen(0x40000, 0, 0x40000), own).deviation == "598a790fc20f"
    assert judge("msr.hwcr", old, Seen(0x40000, 0, 0x1000000), own).verdict == "fail"
    new = AGAIN._replace(host=HOST._replace(kernel="6.12.0"))
    assert judge("msr.hwcr", new, Seen(0x40000, 0, 0x40000), own).verdict == "fail"


def test_the_text_of_a_check_is_known_to_the_letter() -> None:
    old = HOST._replace(backend="svm", kernel="5.10.0")
    case = "init.msi/bsp,intel,idt-moved"

    def judged(observed: str, host: Host, case: str = case) -> Record:
        verdict = Verdict.PASS if observed == "through 0:03FC" else Verdict.FAIL
        record = Record("delivered", verdict, observed=observed)
        return excused(record, "init.msi.guest.delivered", host, "init", "intel", "bsp", "guest", case)

    known = judged("through the old table", old)
    assert (known.verdict, known.deviation) == ("known", "4f117ce4aefc")
    assert judged("through the old table", old, "init.msi/bsp,intel,another").verdict == "fail"
    assert judged("through the old tables", old).verdict == "fail"
    assert judged("through 0:03FC", old).verdict == "fixed"
    assert judged("through 0:03FC", old._replace(kernel="6.1.0")).verdict == "pass"
    assert judged("through the old table", old._replace(backend="vmx")).verdict == "fail"


AGAIN = Context("reset.vmm-reset.host", "reset.vmm-reset.host/test", HOST, "intel", True, 0, signature=0x506E3)


def test_a_rule_of_the_case_itself_goes_before_the_manuals() -> None:
    own = Rule("value", 0x600, cite=("a new vCPU",))
    good = judge("rdx", AGAIN, Seen(5, 0x600, 0x600), own)
    assert (good.verdict, good.expected, good.cite) == ("pass", Expected((0x600,)), ("a new vCPU",))
    assert judge("rdx", AGAIN, Seen(5, 0x600, 5), own).verdict == "fail"
    assert judge("rdx", AGAIN, Seen(0x600, 0x600, 0x600), own).verdict == "skip"
    assert judge("rdx", AGAIN, Seen(None, 0x600, 0x600), own).verdict == "skip"
    assert judge("mp_state", AGAIN, Seen(3, 0, 0), Rule("value", 0)).expected == Expected((0,))


def test_a_counter_that_is_written_back_counts_on_from_there() -> None:
    own = Rule("formula", "TSC-new")
    assert judge("msr.tsc", AGAIN, Seen(0x555555555555, 1000, 900000), own).verdict == "pass"
    assert judge("msr.tsc", AGAIN, Seen(0x555555555555, 1000, 0x555555565555), own).verdict == "fail"
    assert judge("msr.tsc", AGAIN, Seen(5000, 1000, 900000), own).verdict == "skip"


def test_what_is_listed_for_later_kernels_is_known_on_one_that_may_have_their_code() -> None:
    """Of an item and of a behaviour, for its exact value alone."""
    ctx = _on("svm", "5.14.0-570.el9.x86_64")._replace(apic_mode="x2apic")
    known = judge("lapic.icr2", ctx, Seen(0x55, 0, 0x55))
    assert (known.verdict, known.deviation) == ("known", "kvm_lapic_reset()")
    assert known.reason.startswith("listed for 5.18 and later, seen on 5.14: ")
    assert judge("lapic.icr2", ctx, Seen(0x55, 0, 0x54)).verdict == "fail"
    # A fix that the kernel's number promises is not news.
    assert judge("lapic.icr2", ctx, Seen(0x55, 0, 0)).verdict == "pass"
    assert judge("lapic.icr2", ctx._replace(host=ctx.host._replace(kernel="unknown")), Seen(0x55, 0, 0x55)).verdict == "fail"
    record = Record("runs", Verdict.FAIL, None, Expected(("restarts",)), "executes nothing")
    where = ("init.msi.guest.runs", ctx.host, "init", "intel", "ap", "guest", "init.msi/ap,intel,in-shutdown")
    assert excused(record, *where).reason.startswith("listed for 5.15 and later, seen on 5.14: ")
    assert excused(record._replace(observed="executes"), *where).verdict == "fail"


def test_a_fixed_deviation_on_a_kernel_that_has_the_fix_is_a_fail() -> None:
    """No distribution takes a fix out: whoever breaks it sees that."""
    assert judge("cr3", _on("svm", "5.14.0"), Seen(0x5000, 0, 0x5000)).verdict == "known"
    assert judge("cr3", _on("svm", "6.1.0-56-amd64"), Seen(0x5000, 0, 0x5000)).verdict == "fail"
