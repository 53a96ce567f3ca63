# SPDX-License-Identifier: GPL-2.0-only
"""Items that have to be the same after a migration: all that have a rule, except those listed."""

from __future__ import annotations

from kvmtest.spec import ENTRIES, rule_for
from kvmtest.spec.migrated import COUNTED, About, added, rule


def test_everything_is_as_it_was_saved_but_for_a_few_items() -> None:
    others = {item: rule(item) for item in ENTRIES if rule(item).kind != "unchanged"}
    assert others.keys() == {*COUNTED, "msr.hv_vp_runtime", "msr.hv_time_ref_count", "lapic.ppr"}
    assert all(one.cite and (one.note or item in COUNTED) for item, one in others.items())
    assert rule_for("rax", "migrate", "intel", "svm") == rule("rax")


def test_bits_that_an_order_loses_are_not_judged_and_the_rest_is() -> None:
    about = About((("lapic.tpr", 0xF, "a reason"),))
    lost = rule("lapic.tpr", about)
    assert (lost.kind, lost.ignore, lost.unchanged & 0xFF, lost.note) == ("masked", 0xF, 0xF0, "a reason")
    assert rule("lapic.svr", about).kind == "unchanged"


def test_a_bit_of_cpuid_that_did_not_follow_cr4_is_not_judged_and_the_others_are() -> None:
    about = About(stale=("cpuid.1.ecx",))
    stale = rule("cpuid.1.ecx", about)
    assert (stale.kind, stale.ignore, stale.unchanged & 0xFFFFFFFF) == ("masked", 1 << 27, 0xFFFFFFFF ^ 1 << 27)
    assert rule("cpuid.7.ecx", about).kind == rule("cpuid.1.ecx").kind == "unchanged"


def test_an_msr_that_is_not_listed_is_excused_where_it_depends_on_the_cpu_alone() -> None:
    about = About(unlisted=("msr.xss", "msr.vm_cr", "msr.osvw_status", "msr.tsx_ctrl"))
    kinds = {item: rule(item, about).kind for item in about.unlisted}
    assert kinds == {"msr.xss": "undefined", "msr.tsx_ctrl": "undefined", "msr.vm_cr": "unchanged", "msr.osvw_status": "unchanged"}
    assert rule("msr.xss").kind == "unchanged"


def test_vmms_add_what_kvm_never_lists() -> None:
    assert all(map(added, ("msr.mtrr_def_type", "msr.mc0_ctl", "msr.mc31_ctl2", "msr.sgxlepubkeyhash3", "msr.hv_sint0", "msr.hv_simp")))
    assert not any(map(added, ("msr.mcg_ctl", "msr.star", "msr.vm_cr", "msr.hv_eoi")))
