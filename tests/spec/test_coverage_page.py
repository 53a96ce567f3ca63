# SPDX-License-Identifier: GPL-2.0-only
"""docs/coverage.md says what the data says."""

from __future__ import annotations

from pathlib import Path

from kvmtest.spec.uncovered import NOT_HOST_READABLE

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"


def test_every_row_without_an_item_is_on_the_page_with_its_reason() -> None:
    rows = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].isdigit():
            rows[int(cells[0])] = cells[-1]
    assert rows == NOT_HOST_READABLE
