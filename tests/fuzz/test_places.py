# SPDX-License-Identifier: GPL-2.0-only
"""Random scenarios find a broken line of KVM by themselves. The cells take minutes: make nightly."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmtest.fuzz.generate import EVENTS, STATES
from kvmtest.lab import kernels
from kvmtest.lab.cell import Cell
from kvmtest.lab.error import LabError
from kvmtest.lab.steps import Answer, Spec
from tests.fuzz.places import PLACES, Place
from tests.lab.builds import KERNEL, modules_with

#: Seconds of the guest's clock, with nothing broken and with a place: in Bochs each takes several real ones.
_SECONDS = {"svm": (120.0, 600.0), "vmx": (30.0, 120.0)}


def test_the_list() -> None:
    names = [place.name for place in PLACES]
    assert len(names) >= 40 and len(set(names)) == len(names)
    assert len({(place.file, place.line, place.statement) for place in PLACES}) == len(PLACES)
    for place in PLACES:
        assert "MUTANT" in place.statement and place.breaks and place.function, place.name


@pytest.fixture(scope="module")
def modules() -> Path:
    """KVM's modules with all places in them."""
    return modules_with(PLACES)


def _found(modules: Path, number: int, seconds: float, backend: str, parameters: dict[str, str]) -> Iterator[tuple[object, ...]]:
    """The keys of what ``lab fuzz`` finds with the place ``number`` broken, in order; 0 is none."""
    fuzzing = (seconds, 1, tuple(EVENTS), tuple(STATES), 0, "")
    job = {"programs": {}, "selectors": (), "minimise": False, "fuzz": fuzzing}
    kernel = kernels.find(KERNEL)
    given = {"kvm": f"mutant={number}", **parameters}
    cell = Cell(Spec(backend, kernel, (), own_modules=str(modules), parameters=given, job=job))
    try:
        cell.emulator.check()
    except LabError as error:
        pytest.skip(str(error))
    steps = cell.steps()
    try:
        for step in steps:
            if isinstance(step, Answer) and step.value[0] != "counts":
                yield from map(tuple, step.value[2])
    finally:
        steps.close()


#: The findings with nothing broken, by backend and parameters.
_STOCK: dict[tuple[object, ...], set[tuple[object, ...]]] = {}


@pytest.mark.lab
@pytest.mark.nightly
@pytest.mark.parametrize("place", random.Random(7).sample(PLACES, 12), ids=lambda place: place.name)
def test_a_broken_place_is_found(modules: Path, place: Place) -> None:
    where = (place.backend, tuple(place.parameters.items()))
    stock_s, broken_s = _SECONDS[place.backend]
    if where not in _STOCK:
        _STOCK[where] = set(_found(modules, 0, stock_s, place.backend, place.parameters))
    found = _found(modules, PLACES.index(place) + 1, broken_s, place.backend, place.parameters)
    assert any(key not in _STOCK[where] for key in found), place.breaks
