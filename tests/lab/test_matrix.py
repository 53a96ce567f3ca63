# SPDX-License-Identifier: GPL-2.0-only
"""A matrix says what differs between its cells, in as few lines as do."""

from __future__ import annotations

from kvmtest.engine.result import Result
from kvmtest.lab.cell import Spec, Times
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.matrix import Outcome, table


def _outcome(name: str, backend: str, **verdicts: tuple[str, ...]) -> Outcome:
    outcome = Outcome(Spec(backend, Kernel(name, f"{name}.0", "", "", "")))
    for verdict, ids in verdicts.items():
        for id in ids:
            event, trigger, view, item = id.split(".", 3)
            outcome.add(Result(id, event, trigger, view, item, "case", None, None, None, verdict, "", (), None))
    outcome.times = Times(1.0, 2.0, 0.5)
    return outcome


_BOTH = tuple(f"init.{trigger}.host.{item}" for trigger in ("latched", "msi") for item in ("cr3", "gdt.base"))


def test_ids_that_differ_in_the_same_way_are_one_line() -> None:
    lines = table([_outcome("5.10", "svm", known=_BOTH), _outcome("6.1", "svm", **{"pass": _BOTH})])
    assert "    init.{latched, msi}.host.{cr3, gdt.base}" in lines
    (row,) = [line for line in lines if line.endswith("(4)")]
    assert row.split() == ["known", "pass", "(4)"]


def test_the_worst_comes_first_and_what_agrees_is_not_shown() -> None:
    a = _outcome("5.10", "svm", fail=("init.msi.host.cr2",), known=("init.msi.host.cr3",), **{"pass": ("init.msi.host.cr0",)})
    b = _outcome("6.1", "vmx", **{"pass": ("init.msi.host.cr0", "init.msi.host.cr2", "init.msi.host.cr3")})
    text = "\n".join(table([a, b]))
    assert text.index("cr2") < text.index("cr3") and "cr0" not in text
    assert "5.10/svm" in text and "6.1/vmx" in text and "2 ids differ between the cells, in 2 ways" in text


def test_eight_cells_fit_a_terminal() -> None:
    items = tuple(f"init.msi.host.msr.mtrr_physbase{i}" for i in range(40))
    kernels = [(kernel, backend) for backend in ("svm", "vmx") for kernel in ("5.10", "6.1", "6.12", "7.2")]
    outcomes = [_outcome(*cell, **{"pass" if i else "fail": items}) for i, cell in enumerate(kernels)]
    assert max(map(len, table(outcomes, 100))) <= 100


def test_each_cell_tells_its_totals_times_and_kernel() -> None:
    broken = _outcome("7.2", "vmx")
    broken.times, broken.failed = None, "no such file"
    first, second = table([_outcome("6.1", "svm", fail=("init.msi.host.cr2",)), broken])[1:3]
    assert first.split() == ["6.1/svm", ".", "1", ".", ".", ".", ".", ".", "1.0s", "2.0s", "0.5s", "6.1.0"]
    assert second.endswith("no such file")


def test_cells_that_agree_say_so() -> None:
    cells = [_outcome(name, "svm", **{"pass": ("init.msi.host.cr0",)}) for name in ("5.10", "6.1")]
    assert table(cells)[-1] == "No id has a different verdict in one of the cells."
