# SPDX-License-Identifier: GPL-2.0-only
"""``--shard``: parts that are the whole when their results are merged, for a run, a matrix and random scenarios."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.commands import cells
from kvmtest.fuzz.generate import Generator
from kvmtest.kvm import Kvm
from kvmtest.lab import cell, kernels
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.steps import Spec
from kvmtest.model.shard import Shard
from kvmtest.results import saved

_SELECTOR = "init.msi.host.cr*"
_KERNEL = Kernel("6.1", "6.1.0", "", "", "")


def _rows(path: Path) -> list[str]:
    (run,) = saved.load(str(path))
    return [f"{result.case} {result.id} {result.verdict}" for result in run.results]


def test_the_parts_of_a_run_are_the_run(kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [tmp_path / f"part-{number}.json" for number in (1, 2, 3)]
    whole, all_of_them = tmp_path / "whole.json", tmp_path / "merged.json"
    for number, path in enumerate(parts, 1):
        assert main(["run", "--shard", f"{number}/3", "--format", "json", "-o", str(path), _SELECTOR]) in (0, 1)
        assert json.loads(path.read_text())["runs"][0]["shard"] == f"{number}/3"
    assert main(["run", "--format", "json", "-o", str(whole), _SELECTOR]) in (0, 1)
    found = [_rows(path) for path in parts]
    assert sorted(itertools.chain(*found)) == sorted(_rows(whole))
    assert main(["report", "--format", "json", "-o", str(all_of_them), *map(str, reversed(parts))]) == 0
    assert "shard" not in json.loads(all_of_them.read_text())["runs"][0] and _rows(all_of_them) == _rows(whole)
    capsys.readouterr()
    # A part is compared with a part of the whole, and a part of a merged run with all of it.
    assert main(["report", "--baseline", str(whole), str(parts[1])]) == 0
    said = capsys.readouterr()
    assert "0 new, 0 gone" in said.out and "only" not in said.out
    assert "shard 1/3, 3/3 of this run are missing" in said.err
    assert main(["run", "--shard", "1/3", "--baseline", str(whole), _SELECTOR]) == 0


def test_a_part_without_a_case_is_no_failure(kvm: Kvm, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--shard", "2/10000", "init.msi.host.cr3/ap,intel,xapic,plant-a"]) == 0
    assert "none of the selected cases is in shard 2/10000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "want", "says"),
    [("0/3", 2, "'0/3' is not I/N"), ("1,2/3", 2, "more than one part"), ("x", 2, "'x' is not I/N"),
     # git bisect run has to stop.
     ("1/3 --bisect cr3", 255, "leave out --shard")],
)  # fmt: skip
def test_what_is_no_part_is_one_line(arguments: str, want: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["run", "--shard", *arguments.split()])
    except SystemExit as ended:
        status = int(str(ended.code))
    assert status == want and says in capsys.readouterr().err


def _specs(monkeypatch: pytest.MonkeyPatch, shard: str) -> tuple[list[tuple[str, str, str]], list[str]]:
    """The cells of a shard of a matrix of two backends and two kernels, and the kernels that were fetched for it."""
    fetched: list[str] = []

    def find(name: str, modules: str, say: object) -> Kernel:
        fetched.append(name)
        return Kernel(name, f"{name}.0", "", "", "")

    monkeypatch.setattr(kernels, "find", find)
    monkeypatch.setattr(cells, "_pairs", lambda backends, cpus: [(backend, cpu) for cpu in cpus for backend in backends])
    args = argparse.Namespace(
        selectors=[], commit=[], scenario=[], full=False, cpu="", accel=None, smp=1, emulator="", modules="", kvm_modules="",
        module_param=[], timeout=1.0, rounds=1, seed=1, fresh_boot=False, shard=Shard.parse(shard),
    )  # fmt: skip
    found = cells.specs(args, ["svm", "vmx"], ["6.1", "7.2"])
    return [(spec.backend, spec.kernel.name, str(spec.shard or "")) for spec in found], fetched


def test_a_matrix_is_dealt_by_cells_and_no_kernel_is_fetched_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _specs(monkeypatch, "1/2") == ([("svm", "6.1", ""), ("vmx", "6.1", "")], ["6.1"])
    assert _specs(monkeypatch, "2/2") == ([("svm", "7.2", ""), ("vmx", "7.2", "")], ["7.2"])


def test_a_cell_is_shared_by_several_where_there_are_more_parts_than_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [_specs(monkeypatch, f"{number}/6")[0] for number in range(1, 7)]
    assert list(itertools.chain(*found)) == [
        ("svm", "6.1", "1/2"), ("svm", "7.2", "1/2"), ("vmx", "6.1", ""),
        ("vmx", "7.2", ""), ("svm", "6.1", "2/2"), ("svm", "7.2", "2/2"),
    ]  # fmt: skip


def test_the_parts_of_a_cell_run_all_of_its_cases() -> None:
    whole = cell.cases(Spec("svm", _KERNEL, ("init.msi",)))
    parts = [cell.cases(Spec("svm", _KERNEL, ("init.msi",), shard=Shard((number,), 3))) for number in (1, 2, 3)]
    assert all(parts) and sorted(map(repr, itertools.chain(*parts))) == sorted(map(repr, whole))


def test_each_part_of_random_scenarios_has_numbers_of_its_own() -> None:
    names = [
        {one.sequence for one in itertools.islice(Generator(3, shard=Shard((number,), 3)).each(), 20)} for number in (1, 2, 3)
    ]
    assert set.union(*names) == {f"fuzz-3-{number}" for number in range(1, 61)}
