# SPDX-License-Identifier: GPL-2.0-only
"""Shrinking keeps what shows a departure, and leaves out the rest."""

from __future__ import annotations

from kvmtest.fuzz.moves import BETWEEN
from kvmtest.fuzz.shrink import shrunk
from kvmtest.scenario import step as s

_RBX, _RCX, _CR2 = (s.Set(((name, 5),)) for name in ("rbx", "rcx", "cr2"))
_INIT = (BETWEEN, s.Observe(), s.Send("init"), s.Observe())
_SIPI = (BETWEEN, s.Observe(), s.Send("sipi", vector=3), s.Observe())
_PLANT = (BETWEEN, s.Plant())
_LONG = s.Scenario("none", "fuzz", "one", (*_PLANT, BETWEEN, _RBX, _CR2, _RCX, *_INIT, *_SIPI, *_INIT, *_SIPI), ("x",))


def test_what_does_not_matter_is_left_out() -> None:
    small = shrunk(_LONG, lambda tried: _CR2 in tried.steps and any(isinstance(step, s.Send) for step in tried.steps))
    assert small.steps == (*_PLANT, _CR2, *_INIT)


def test_a_sipi_keeps_its_init() -> None:
    small = shrunk(_LONG, lambda tried: any(isinstance(step, s.Send) and step.event == "sipi" for step in tried.steps))
    assert small.steps == (*_PLANT, *_INIT, *_SIPI)


def test_what_departs_no_more_stays_as_it_is() -> None:
    assert shrunk(_LONG, lambda tried: False) == _LONG
