# SPDX-License-Identifier: GPL-2.0-only
"""KVM's own MSRs: those by which it writes guest memory are off after RESET and INIT, of the others nothing is said."""

from __future__ import annotations

import pytest

from kvmtest.engine import plan
from kvmtest.judge.item import Context, Seen, judge
from kvmtest.model.host import Host
from kvmtest.model.verdict import Verdict
from kvmtest.spec import ENTRIES, SYNTHETIC, paravirt, rule_for

_CTX = Context("init.msi.host", "made-up", Host("6.12.0", "svm", "", "", {}), "amd", True, 0, True)


@pytest.mark.parametrize("entry", paravirt.RULES, ids=[entry.item for entry in paravirt.RULES])
def test_it_is_off_after_both_and_kept_by_a_sipi(entry: paravirt.Entry) -> None:
    assert entry.item in SYNTHETIC and ENTRIES[entry.item] is entry
    for event, backend, kind in (
        ("reset", "vmx", "value"), ("init", "svm", "value"), ("shutdown", "svm", "value"), ("shutdown", "vmx", "unchanged"),
        ("sipi", "svm", "unchanged"),
    ):  # fmt: skip
        rule = rule_for(entry.item, event, "intel", backend)
        assert (rule.kind, rule.value or 0) == (kind, 0)
    assert "no CPU manual's" in rule_for(entry.item, "init", "amd", "svm").note


def test_one_that_was_planted_and_is_left_fails() -> None:
    item = "msr.kvm_steal_time"
    assert judge(item, _CTX, Seen(0x8001, 0, 0)).verdict is Verdict.PASS
    assert judge(item, _CTX, Seen(0x8001, 0, 0x8001)).verdict is Verdict.FAIL
    assert judge(item, _CTX, Seen(0, 0, 0)).verdict is Verdict.SKIP


def test_a_result_of_it_can_be_run_alone() -> None:
    assert all(plan.finds(f"init.msi.host.{entry.item}") for entry in paravirt.RULES)
    assert not plan.finds("init.msi.host.msr.kvm_nonsense")
