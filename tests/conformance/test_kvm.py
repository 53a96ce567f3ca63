# SPDX-License-Identifier: GPL-2.0-only
"""This host's KVM against the manuals, as pytest sees it: one test an id group, e.g. ``init.msi.host.lapic``.

These tests fail where KVM departs from the manuals, so they are not part of ``make test``: pytest tests/conformance
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.engine import plan
from kvmtest.model.record import Result
from kvmtest.model.verdict import Verdict
from kvmtest.report.show import difference


def _group(item: str) -> str:
    """``cr`` for cr3, ``lapic`` for lapic.svr, ``rax`` for rax."""
    return item.partition(".")[0].rstrip("0123456789") or item


GROUPS = list(
    dict.fromkeys((case.prefix, _group(item)) for case in plan.plan() for item in plan.items(case)),
)


def _line(result: Result) -> str:
    values = f"planted {result.planted} expected {result.expected} observed {result.observed} {difference(result.record)}"
    return f"{result.verdict} {result.case} {result.item}: {values} {result.reason}".rstrip()


@pytest.mark.parametrize(("prefix", "group"), GROUPS, ids=[f"{prefix}.{group}" for prefix, group in GROUPS])
def test_group(prefix: str, group: str, results: Callable[[str], list[Result]]) -> None:
    of_group = [result for result in results(prefix) if _group(result.item) == group]
    unexpected = [_line(result) for result in of_group if result.verdict.unexpected]
    assert not unexpected, "\n" + "\n".join(unexpected)
    judged = [result for result in of_group if result.verdict is not Verdict.SKIP]
    if not judged:
        pytest.skip("; ".join(sorted({result.reason for result in of_group})))
