# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest list``: the plan in numbers, whose first column can be pasted."""

from __future__ import annotations

import pytest

from kvmtest.cli import main
from kvmtest.commands import overview
from kvmtest.engine import plan

PLAN = plan.plan()


def _rows(text: str) -> dict[str, list[int]]:
    """The rows of the tables by their first column."""
    rows = [line.split() for line in text.splitlines() if line and line[0] in "*abcdefghijklmnopqrstuvwxyz"]
    return {row[0]: [int(word) for word in row[1:]] for row in rows if row[1:] and all(word.isdigit() for word in row[1:])}


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["list"]) == 0
    return str(capsys.readouterr().out)


def test_each_row_is_a_selector_with_its_number_of_cases(shown: str) -> None:
    rows = _rows(shown)
    assert {"init.msi", "none.plant", "*/*,in-smm*", "*/*,plant-a*", "*/*,migrated-after-qemu*"} <= set(rows)
    for selector in ("init.msi", "sipi.mp-state", "*/*,in-smm*", "*/*,plant-guest-v86*", "*/*,migrated-before-kvm*"):
        assert rows[selector][0] == len({case.name for case in plan.select(PLAN, (selector,))}), selector


def test_every_case_is_counted_once_below_its_event(shown: str) -> None:
    events = ("reset", "init", "sipi", "nmi", "shutdown", "none")
    for event in events:
        lines = [line for line in shown.splitlines() if line.startswith((f"{event}.", f"{event},", f"{event} "))]
        assert lines, event
    assert shown.startswith(f"{len({case.name for case in PLAN})} cases, {len(plan.ids(PLAN))} result ids.")


def test_it_fits_a_terminal_of_80_columns(shown: str) -> None:
    assert max(map(len, shown.splitlines()[:-1])) <= 80


def test_few_results_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "init.msi.host.cr?"]) == 0
    out = capsys.readouterr().out
    assert "  init.msi.host.cr3\n" in out and list(_rows(out))[:1] == ["init.msi"]
    assert "sipi.msi" not in out
    assert "init.msi.host.cr3" not in "\n".join(overview.lines(PLAN, plan.ids(PLAN)))


def test_ids_and_cases_are_one_or_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["list", "--ids", "--cases"])
    assert done.value.code == 2
