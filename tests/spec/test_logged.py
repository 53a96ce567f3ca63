# SPDX-License-Identifier: GPL-2.0-only
"""Reports that kernels are known to log: their cases exist, those that a kernel dies of come last, and each is a deviation."""

from __future__ import annotations

from kvmtest.engine.plan import plan
from kvmtest.spec.deviations import listed
from kvmtest.spec.logged import LOGGED, fatal


def test_each_names_a_case_of_the_plan_and_why() -> None:
    names = [case.name for case in plan()]
    assert all(any(one.case in name for name in names) and one.why and one.commit for one in LOGGED)


def test_only_the_kernels_that_die_of_it_have_it_last() -> None:
    names = [case.name for case in plan()]
    last = sorted(names, key=lambda name: fatal(name, "svm", (5, 10)))
    count = sum("in-svm-l2-with-nested-paging" in name for name in names)
    assert all("in-svm-l2-with-nested-paging" in name for name in last[-count:]) and count
    assert [name for name in last if name not in last[-count:]] == [name for name in names if name not in last[-count:]]
    assert not any(fatal(name, backend, kernel) for name in names for backend, kernel in (("svm", (6, 1)), ("vmx", (5, 10))))


def test_each_is_a_deviation_of_the_log_and_of_the_run_if_it_ends_that() -> None:
    for one in LOGGED:
        for item in ("log", "run"):
            found = listed(f"none.lab.kernel.{item}", "none", one.backend, (5, 10), view="kernel", case=one.case)
            assert any(deviation.explains(one.said, None) for deviation in found) == (item == "log" or one.fatal)
            assert not listed(f"none.lab.kernel.{item}", "none", one.backend, one.until, view="kernel", case=one.case)
