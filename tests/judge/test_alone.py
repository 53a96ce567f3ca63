# SPDX-License-Identifier: GPL-2.0-only
"""A single section that is written back, judged item by item."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kvmtest.judge.alone import AS_ASKED, departs

_COUNTER, _FULL = "msr.pmc0", "msr.pmc0_full"


def _snapshot(**values: int) -> Any:
    items = {f"msr.{name}": value for name, value in values.items()}
    return SimpleNamespace(get=lambda layout, item: items.get(item))


@pytest.mark.parametrize(
    ("refused", "departure"),
    [
        ((), ""),
        # Its other number is written all the same.
        ((_FULL,), ""),
        ((_COUNTER,), ""),
        ((_COUNTER, _FULL), f"{_COUNTER} = 0x0, {_FULL} = 0x0"),
    ],
)
def test_a_register_is_written_by_any_of_its_numbers(refused: tuple[str, ...], departure: str) -> None:
    layout = SimpleNamespace(fields=dict.fromkeys((_COUNTER, _FULL), SimpleNamespace(section="msrs")))
    plant = SimpleNamespace(asked={_COUNTER: 0, _FULL: 0}, refused=dict.fromkeys(refused, "EINVAL"))
    baseline, context = _snapshot(pmc0=0, pmc0_full=0), SimpleNamespace(apic_mode="xapic")
    basis: Any = SimpleNamespace(layout=layout, plant=plant, baseline=baseline, ctx=context)
    assert departs(basis, "msrs", _snapshot(pmc0=5, pmc0_full=5), baseline) == (departure or AS_ASKED)
