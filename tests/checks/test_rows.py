# SPDX-License-Identifier: GPL-2.0-only
"""The event table is covered, by ids that exist."""

from __future__ import annotations

from kvmtest.checks import CHECKS, rows
from kvmtest.engine import plan


def test_no_row_is_missing() -> None:
    assert rows.TABLE == (
        "E-1", "E-2", "E-3", "E-4", "E-5", "E-6", "E-7", "E-8", "E-9", "E-10", "E-11", "E-12", "E-13", "E-14",
        "E-15", "E-16", "E-17", "E-18", "E-19", "E-20", "E-21",
        "E-22", "E-23", "E-24", "E-25", "E-26", "E-27", "E-28", "E-29", "E-30",
    )  # fmt: skip
    assert all(rows.ROWS[row] for row in rows.TABLE)


def test_the_ids_of_rows_exist() -> None:
    known = set(plan.ids(plan.plan()))
    assert not [id for ids in rows.ROWS.values() for id in ids if id not in known]


def test_checks_name_rows_of_the_table_only_and_have_ids_of_their_own() -> None:
    assert {row for check in CHECKS.values() for row in check.rows} <= set(rows.TABLE)
    topics = [case for case in plan.plan() if case.check]
    assert {f"{case.prefix}.{case.check}" for case in topics} == set(CHECKS)
    assert all(check.cite and (check.expected or check.undefined) for check in CHECKS.values())
