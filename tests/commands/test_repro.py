# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest repro`` as a user meets it: files, one clear line, exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.kvm import Kvm

_PASSES = "init.msi.host.cr3/ap,intel,xapic,plant-a"
_OTHER = "init.msi.host.rip/ap,intel,xapic,plant-a"
#: A measurement, which no list of ops makes.
_NONE = "sipi.icr-x2apic/ap,intel,stress"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name a result"),
        (["init.msi.host.nonsense"], "init.msi.host.nonsense"),
        ([_PASSES, _OTHER], "-o DIR"),
        ([_PASSES, _OTHER, "-o", "/nonexistent/a.c"], "-o DIR"),
        (["--backend", "svm", _PASSES], "both --backend and --kernel"),
        (["--kernel", "6.1", _PASSES], "both --backend and --kernel"),
        (["--scenario", "/nonexistent.json"], "/nonexistent.json"),
        (["--backend", "svm", "--kernel", "/nonexistent/bzImage", _PASSES], "/nonexistent/bzImage"),
    ],
)
def test_wrong_usage_is_a_line_and_2(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repro", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and says in shown.err and shown.err.startswith("kvmtest: ")


def test_without_kvm_it_is_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repro", "--device", "/nonexistent", _PASSES]) == 3
    assert "/nonexistent" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["repro", "--help"])
    assert done.value.code == 0 and "Exit status: 0 written" in capsys.readouterr().out


def test_to_standard_output(kvm: Kvm, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repro", _PASSES, "--no-minimise"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("// SPDX-License-Identifier: GPL-2.0-only\n/*\n * cr3") and "int main(void)" in shown.out
    assert f"{_PASSES}: {len(shown.out.splitlines())} lines" in shown.err


def test_to_a_file(kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "cr3.c"
    assert main(["repro", _PASSES, "-o", str(to)]) == 0
    assert "int main(void)" in to.read_text() and str(to) in capsys.readouterr().err


def test_several_to_a_folder(kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repro", _PASSES, _OTHER, "-o", str(tmp_path)]) == 0
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {f"{one.replace('/', '-')}.c" for one in (_PASSES, _OTHER)}


def test_of_a_scenario_file(kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.json"
    assert main(["explain", "init.msi/ap,intel,xapic,plant-a", "--format", "json"]) == 0
    mine.write_text(capsys.readouterr().out)
    assert main(["repro", "--scenario", str(mine)]) == 0
    assert "int main(void)" in capsys.readouterr().out


def test_what_has_none_is_said_and_nothing_is_written(kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "none.c"
    assert main(["repro", _NONE, "-o", str(to)]) == 1
    shown = capsys.readouterr()
    assert not to.exists() and shown.out == "" and shown.err.count("\n") == 1 and shown.err.startswith("kvmtest: ")


def test_one_without_does_not_keep_the_others_back(kvm: Kvm, tmp_path: Path) -> None:
    assert main(["repro", _NONE, _PASSES, "-o", str(tmp_path)]) == 1
    assert [file.name for file in tmp_path.iterdir()] == [f"{_PASSES.replace('/', '-')}.c"]


