# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest run --coverage`` with something in KCOV's place: no kernel here has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.coverage import disassembly, file, native
from kvmtest.kvm import Kvm, kcov
from tests.coverage.made import made_blocks

_CASE, _OTHER = "init.msi/ap,intel,xapic,plant-a", "init.msi/bsp,intel,xapic,plant-a"


class _Fake:
    """Each look finds a block of one more case."""

    found = (0x5, 0x11, 0x24)

    def __init__(self) -> None:
        self.cut = True
        self._looks = iter([set(), *({0xFFFF_FFFF_C000_0000 + offset + 1} for offset in self.found)])

    @contextlib.contextmanager
    def thread(self) -> Iterator[None]:
        yield

    def take(self) -> set[int]:
        return next(self._looks, set())

    def close(self) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[_Fake]:
    """KCOV, and a root folder where kvm.ko lies."""
    sections = tmp_path / "sys/module/kvm/sections"
    sections.mkdir(parents=True)
    for name in (".text", ".text.unlikely"):
        (sections / name).write_text("0xffffffffc0000000\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/kallsyms").write_text("ffffffff81000000 T _text\n")
    (tmp_path / "kvm.ko").touch()
    made = native.Native
    monkeypatch.setattr(native, "Native", lambda *args: made(*args, root=str(tmp_path)))
    monkeypatch.setattr(disassembly, "read", lambda path: made_blocks())
    monkeypatch.setattr(kcov, "Kcov", _Fake)
    return _Fake


def test_each_case_has_what_was_executed_since_the_one_before(
    kvm: Kvm, fake: type[_Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cov.json"
    assert main(["run", "--coverage", str(out), "--kvm-modules", str(tmp_path), _CASE, _OTHER]) in (0, 1)
    assert "executed more than KCOV has room for" in capsys.readouterr().err
    (table,) = file.load(str(out))
    (cell,) = table.cells
    assert set(cell.cases) == {_CASE, _OTHER}
    assert [list(cell.who(block)) for block in range(3)] == [[cell.cases[0]], [cell.cases[1]], []]
    assert main(["lab", "coverage", "--from", str(out), "--of", "accept"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["accept", "3", "2", "66.7", "%"]


def test_without_kcov_nothing_runs(kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if Path(kcov.PATH).exists():
        pytest.skip("this kernel has it")
    assert main(["run", "--coverage", str(tmp_path / "cov.json"), _CASE]) == 3
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and f"no {kcov.PATH}" in shown.err
    assert not (tmp_path / "cov.json").exists()


def test_without_the_modules_nothing_runs(
    kvm: Kvm, fake: type[_Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--coverage", str(tmp_path / "cov.json"), "--kvm-modules", str(tmp_path / "proc"), _CASE]) == 3
    assert "no kvm.ko in" in capsys.readouterr().err
