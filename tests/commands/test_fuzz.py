# SPDX-License-Identifier: GPL-2.0-only
"""kvmtest fuzz: what it finds is a file that runs alone and can be made small; what it is given wrong is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.fuzz import moves
from kvmtest.kvm import Kvm
from kvmtest.scenario import file


def test_nothing_departs_where_kvm_does_as_it_has_to(kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "--time", "2", "-o", str(tmp_path), "*.rax", "*.mp_state"]) == 0
    assert "0 findings" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_departure_is_written_once_runs_alone_and_is_made_small(
    kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A wrong expectation is as good as a wrong KVM.
    monkeypatch.setattr(moves, "WAITS", 1)
    arguments = ["fuzz", "--time", "60", "--stop-at", "1", "-o", str(tmp_path), "*.mp_state"]
    assert main(arguments) == 1
    (path,) = tmp_path.iterdir()
    said = capsys.readouterr().err
    assert f"one alone: kvmtest run --scenario {path}\n" in said and f"kvmtest fuzz --shrink {path}\n" in said
    assert main(["run", "--scenario", str(path), "*.mp_state"]) == 1
    assert "mp_state" in capsys.readouterr().out
    assert main(["fuzz", "--shrink", str(path), "*.mp_state"]) == 0
    small = tmp_path / f"{path.stem}-small.json"
    assert len(file.load(str(small)).steps) <= len(file.load(str(path)).steps)
    assert main(["run", "--scenario", str(small), "*.mp_state"]) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--event", "reset"], "--event: no 'reset'; there are none, init"),
        (["--state", "hlt"], "--state: no 'hlt'; there are smm, gif, vmx, none"),
        (["--shrink", "/nowhere.json"], "cannot read /nowhere.json: No such file"),
        (["-o", "/dev/null/x"], "cannot write to /dev/null/x"),
        (["nothing.such"], "nothing matches 'nothing.such'"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], says: str, kvm: Kvm, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "--time", "1", *arguments]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--time", "0"], ["--stop-at", "x"], ["--seed", "a"]])
def test_numbers_are_numbers(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fuzz", *arguments])
    assert ended.value.code == 2
