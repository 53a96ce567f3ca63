# SPDX-License-Identifier: GPL-2.0-only
"""A matrix says what differs between its cells, in as few lines as do."""

from __future__ import annotations

import errno
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from kvmtest.cli import main
from kvmtest.engine.result import Result
from kvmtest.lab import emulator
from kvmtest.lab.cell import Spec, Times
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.matrix import Outcome, table
from kvmtest.report import saved


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


class _Full(io.FileIO):
    """A file on a disk that is full after some bytes."""

    room = 0

    def write(self, data: Any) -> int:
        left = type(self).room - self.tell()
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(bytes(data)[:left])


def _two_cells(kernel: Kernel, fake: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """A matrix of the fake kernel and of one named other: status and document, which kvmtest itself accepts."""
    other, out = fake / "other", fake / "m.json"
    other.write_bytes(Path(kernel.image).read_bytes())
    kernels = f"{other},{kernel.image}"
    command = ["lab", "matrix", "--backend", "svm", "--kernel", kernels, "--modules", kernel.modules, "--jobs", "1"]
    status = main([*command, "--format", "json", "-o", str(out), *more])
    assert len(saved.load(str(out))) == 2
    return status, json.loads(out.read_text())


def _verdicts(cell: dict[str, Any]) -> list[str]:
    return [result["verdict"] for result in cell["document"]["results"]]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RecursionError("too deep"), "RecursionError: too deep"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
)
def test_what_goes_wrong_in_one_cell_fails_that_one(
    error: Exception, says: str, fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    qemu = emulator.for_backend("svm")
    prepare = qemu.prepare

    def broken(*args: str) -> emulator.Started:
        if "other" in args[1]:
            raise error
        return prepare(*args)

    monkeypatch.setattr(qemu, "prepare", broken)
    status, document = _two_cells(kernel, fake, "--fresh-boot")
    failed, whole = document["cells"]
    assert status == 1 and says in failed["failed"] and not _verdicts(failed)
    assert not whole["failed"] and _verdicts(whole) == ["pass", "pass", "pass", "fail", "pass"]
    assert f"other/svm: {failed['failed']}" in capsys.readouterr().err


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (100, 0), (1200, 2), (1600, 4)])
def test_a_full_disk_keeps_the_cases_until_then(
    room: int, kept: int, fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Full, "room", room)
    files = iter([_Full(str(fake / "full"), "w+"), io.FileIO(str(fake / "file"), "w+")])
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: next(files))
    status, document = _two_cells(kernel, fake)
    failed, whole = document["cells"]
    assert status == 1 and "No space left on device" in failed["failed"]
    assert len(_verdicts(failed)) == kept == sum(failed["document"]["totals"].values())
    assert not whole["failed"] and len(_verdicts(whole)) == 5


def test_a_cell_that_does_not_end_is_given_up(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the one that was over before is written."""

    def late(number: int, at_once: Any, until: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyboardInterrupt
        return wait(number, None, until)

    calls = 0
    from kvmtest.lab import matrix

    wait = matrix.wait
    monkeypatch.setattr(matrix, "wait", late)
    status, document = _two_cells(kernel, fake)
    whole, given_up = document["cells"]
    assert status == 130 and len(_verdicts(whole)) == 5 and not whole["failed"]
    assert given_up["failed"] == "interrupted" and not _verdicts(given_up)
