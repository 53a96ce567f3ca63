# SPDX-License-Identifier: GPL-2.0-only
"""Deviations explain one exact value of something that exists."""

import re

from kvmtest import spec
from kvmtest.engine import plan
from kvmtest.spec import commits, logged
from kvmtest.spec.deviations import CASES, DEVIATIONS, FOREVER, KEPT, KINDS, has, listed
from kvmtest.spec.rule import EVENTS
from tests.listed import everywhere


def test_each_names_an_item_or_a_check_and_a_source() -> None:
    for deviation in DEVIATIONS:
        if deviation.item not in spec.ENTRIES:
            assert deviation.item.startswith(f"{deviation.event}.") and isinstance(deviation.observed, str)
        assert deviation.event in (*EVENTS, "nmi", "none", "views", "vmm-reset", "migrate")
        assert deviation.kind in KINDS and deviation.commit and deviation.why
        assert deviation.since < deviation.until


def test_what_is_listed_is_in_a_case_of_the_plan() -> None:
    """By default; of what one commit fixed, by one of the triggers that show it (tests/spec/test_commits.py)."""
    of_cases = [one for one in DEVIATIONS if not one.item.startswith(logged.ID)]
    assert not [one for one in of_cases if not plan.finds(everywhere(one), full=one.kind == "fixed")]
    rotten = (DEVIATIONS[0]._replace(case="no-such-case"), DEVIATIONS[0]._replace(event="nmi"), DEVIATIONS[0]._replace(mode="x3apic"))
    assert not any(plan.finds(everywhere(one)) for one in rotten)


def test_no_two_explain_the_same_value_in_the_same_place() -> None:
    places = [deviation._replace(commit="", why="", kind="") for deviation in DEVIATIONS]
    assert len(set(places)) == len(places)


def test_what_was_fixed_names_the_commit_that_did() -> None:
    for deviation in DEVIATIONS:
        if re.fullmatch("[0-9a-f]{12}", deviation.commit):
            assert [entry.commit for entry in commits.find(deviation.commit)] == [deviation.commit]
        else:
            assert deviation.kind != "fixed" and deviation.commit.endswith("()")


def test_a_fix_ends_the_deviation_with_its_release() -> None:
    assert listed("cr3", "init", "svm", (5, 14)) and not listed("cr3", "init", "svm", (5, 15))
    assert listed("gdt.base", "init", "svm", (5, 10)) and not listed("gdt.base", "init", "vmx", (5, 10))


def test_a_deviation_of_one_case_or_target_excuses_no_other() -> None:
    where = ("apic_base", "reset", "vmx", (5, 10), "intel")
    assert listed(*where, "ap", "host", "reset.create.host/ap,no-irqchip,intel")
    assert not listed(*where, "ap", "host", "reset.create.host/ap,full-irqchip,intel")
    assert not listed(*where, "bsp", "host", "reset.create.host/bsp,no-irqchip,intel")


#: Named by the vendor before the state, where a file names the mode of its plant.
_BY_VENDOR = {"intel,in-shutdown", "amd,in-shutdown"}


def test_a_case_from_a_file_has_the_same_deviations() -> None:
    there = [case for case in plan.plan() if case.alone]
    for case in there:
        (again,) = plan.of_file(case.alone)  # type: ignore[arg-type]
        wrong = {part for part in CASES if has(case.name, part) != has(again.name, part)}
        assert wrong <= _BY_VENDOR, case.name
    assert any(has(case.name, part) for case in there for part in CASES if "," in part)
    assert not has("init.msi/ap,intel,x2apic,plant-b,irq-requested", "x2apic,plant-guest-long,irq-requested")


def test_what_counts_may_be_behind_and_no_more() -> None:
    """A new vCPU's own TSC is less than the one that was restored; a larger one has another cause."""
    (behind,) = (d for d in listed("msr.tsc", "migrate", "svm", (6, 1)) if d.commit == "bf328e22e472")
    assert behind.explains(99, 100) and not behind.explains(100, 100) and not behind.explains(101, 100)
    assert not behind.explains(99, None) and not behind.explains("99", 100)
    # It is so within a second after creation: the right value is no news.
    assert behind.sometimes and not behind.expected((6, 1)) and not listed("msr.tsc", "migrate", "svm", (6, 12))


def test_what_was_planted_with_another_bit_is_that_and_nothing_else() -> None:
    case = "init.msi.host/ap,intel,xapic,plant-guest-long,in-smi-handler"
    where = ("cpuid.1.ecx", "init", "svm", (5, 10), "intel", "ap", "host", case)
    (found,) = (d for d in listed(*where) if d.observed != KEPT)
    assert found.explains(0x8000001, 0x1) and not found.explains(0x1, 0x1) and not found.explains(0x8000003, 0x1)
    assert not found.explains(0x8000000, None)
    assert not [d for d in listed(*where[:-1], case.replace("smi-handler", "loop")) if d.observed != KEPT]


def test_a_deviation_of_one_mode_excuses_no_other() -> None:
    where = ("lapic.icr2", "init", "svm", (7, 2), "intel", "ap", "host", "init.icr-x2apic.host/ap,intel")
    assert listed(*where, "x2apic") and not listed(*where, "xapic") and not listed(*where)


def test_a_kernel_to_which_a_deviation_was_brought_is_named() -> None:
    """A distribution's kernel has code of later ones: RHEL's 5.14 that of 6.x."""
    where = ("svm", (5, 14), "intel", "ap", "host", "init.icr-x2apic/ap,intel", "x2apic")
    (found,) = listed("lapic.icr2", "init", *where)
    assert found.why.startswith("listed for 5.18 and later, seen on 5.14: ") and found.observed == KEPT
    # There the manuals' value is no news.
    assert found.sometimes and not found.expected((5, 14))
    assert not listed("lapic.icr2", "init", "vmx", *where[1:])
    # Nothing is known of a kernel without a number.
    assert not listed("lapic.icr2", "init", "svm", (0, 0), *where[2:])


def test_a_kernel_that_has_the_fix_and_departs_all_the_same_is_not_excused() -> None:
    assert not [d for d in listed("cr3", "init", "svm", (6, 1)) if d.explains(0x5000, 0x5000)]


def test_the_range_of_a_deviation_in_words() -> None:
    one = DEVIATIONS[0]
    assert one._replace(since=(6, 1), until=(6, 12)).range == "6.1-6.11"
    assert one._replace(since=(6, 1), until=(7, 0)).range == "6.1 to before 7.0"
    assert one._replace(since=(0, 0), until=(5, 15)).range == "kernels before 5.15"
    assert one._replace(since=(0, 0), until=FOREVER).range == "all kernels"
