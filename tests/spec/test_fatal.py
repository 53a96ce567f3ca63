# SPDX-License-Identifier: GPL-2.0-only
"""Cases that kernels die of exist, and come last."""

from __future__ import annotations

from kvmtest.engine.plan import plan
from kvmtest.spec.fatal import FATAL, fatal


def test_each_names_a_case_of_the_plan_and_why() -> None:
    names = [case.name for case in plan()]
    assert all(any(one.case in name for name in names) and one.why for one in FATAL)


def test_only_the_kernels_that_die_of_it_have_it_last() -> None:
    names = [case.name for case in plan()]
    last = sorted(names, key=lambda name: fatal(name, "svm", (5, 10)))
    count = sum("in-svm-l2-with-nested-paging" in name for name in names)
    assert all("in-svm-l2-with-nested-paging" in name for name in last[-count:]) and count
    assert [name for name in last if name not in last[-count:]] == [name for name in names if name not in last[-count:]]
    assert not any(fatal(name, backend, kernel) for name in names for backend, kernel in (("svm", (6, 1)), ("vmx", (5, 10))))
