# SPDX-License-Identifier: GPL-2.0-only
"""KVM's modules of a Debian kernel with lines of their own, where this machine can build them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from kvmtest.lab import build as lab
from kvmtest.lab import kernels
from kvmtest.lab.build import change
from kvmtest.lab.cell import Cell
from kvmtest.lab.error import LabError
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.modules import VENDOR
from kvmtest.lab.steps import Spec
from kvmtest.model.record import Result

__all__ = ("KERNEL", "build", "change", "chosen", "modules_with", "results")

#: The kernel whose KVM is broken and fixed.
KERNEL = "bookworm"

_DECLARED, _CHOSEN = "int kvmtest_mutant;", "module_param_named(mutant, kvmtest_mutant, int, 0444);"
_FIRST = "static bool __read_mostly ignore_msrs = 0;\n"


class Broken(Protocol):
    """A line of a file of arch/x86/kvm, and the statement before it that breaks KVM where MUTANT is true."""

    @property
    def file(self) -> str:
        """Its path in arch/x86/kvm."""

    @property
    def line(self) -> str:
        """The whole line."""

    @property
    def statement(self) -> str:
        """The statement before it."""


def chosen(places: Sequence[Broken]) -> Callable[[Path], None]:
    """The edit that puts all ``places`` in, of which kvm.mutant chooses one, by its number from 1 on."""

    def edit(kvm: Path) -> None:
        change(kvm / "x86.c", _FIRST, f"{_DECLARED}\nEXPORT_SYMBOL_GPL(kvmtest_mutant);\n{_CHOSEN}\n{_FIRST}")
        change(kvm / "lapic.h", "struct kvm_lapic {\n", f"extern {_DECLARED}\nstruct kvm_lapic {{\n")
        for number, place in enumerate(places, 1):
            statement = place.statement.replace("MUTANT", f"(kvmtest_mutant == {number})")
            change(kvm / place.file, f"{place.line}\n", f"\t{statement}\n{place.line}\n")

    return edit


def build(kernel: Kernel, edit: Callable[[Path], None]) -> Path:
    """The folder with KVM's modules for ``kernel``, built after ``edit`` of arch/x86/kvm; skips where something is missing."""
    try:
        return Path(lab.build(kernel, edit=edit, flags=("-Wno-misleading-indentation", "-Wno-dangling-else")))
    except lab.Unbuildable as error:
        pytest.fail("\n".join((str(error), *error.errors)))
    except LabError as error:
        pytest.skip(str(error))


def modules_with(places: Sequence[Broken]) -> Path:
    """The folder with KVM's modules of KERNEL in which all ``places`` are; skips where something is missing."""
    try:
        kernel = kernels.find(KERNEL)
    except LabError as error:
        pytest.skip(str(error))
    return build(kernel, chosen(places))


def results(modules: Path, number: int, selectors: Iterable[str], backend: str = "svm", parameters: str = "") -> list[Result]:
    """The results of a cell with ``modules`` in which the place of this number is chosen; 0 is none.

    ``parameters`` are those of the backend's module.
    """
    given = {"kvm": f"mutant={number}"} | ({VENDOR[backend]: parameters} if parameters else {})
    cell = Cell(Spec(backend, kernels.find(KERNEL), tuple(selectors), own_modules=str(modules), parameters=given))
    try:
        cell.emulator.check()
    except LabError as error:
        pytest.skip(str(error))
    seen = [result for step in cell.steps() if isinstance(step, list) for one in step for result in one.results]
    assert seen
    return seen
