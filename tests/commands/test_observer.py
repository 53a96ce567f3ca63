# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest observer`` and ``kvmtest vmm``: images, logs and VMMs, and how each that is none is reported."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from kvmtest import cli
from tests.observer import made

#: Stands in for QEMU: prints a log to where the option -chardev says.
_FAKE = """#!{python}
import re, sys, time
log = next(word for word in sys.argv if word.startswith("file,id=observer,")).partition("path=")[2]
data = open({data!r}, "rb").read()
open(log, "wb").write(data)
print({says!r}, file=sys.stderr)
time.sleep({seconds})
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "serial.log"
    path.write_bytes(made.RECORDED)
    return path


def _fake(folder: Path, data: bytes, seconds: float = 60, says: str = "a warning") -> str:
    (folder / "printed").write_bytes(data)
    path = folder / "qemu-system-fake"
    path.write_text(_FAKE.format(python=sys.executable, data=str(folder / "printed"), seconds=seconds, says=says))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_an_image_is_written(tmp_path: Path) -> None:
    path = tmp_path / "observer.elf"
    assert cli.main(["observer", "build", "-o", str(path)]) == 0 and path.read_bytes().startswith(b"\x7fELF")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["observer", "build", "-o", "{}/x", "--resets", "cf9"], "only as firmware"),
        (["observer", "build", "-o", "{}/none/x"], "cannot write"),
        (["observer", "judge", "{}/none"], "cannot read"),
        (["observer", "judge", "/dev/null"], "the log is cut short: it has no line of an observer"),
        (["vmm"], "name a VMM"),
        (["vmm", "crosvm", "run"], "crosvm has no template"),
        (["vmm", "--form", "bios", "firecracker"], "--form pvh"),
        (["vmm", "{}/qemu-system-none"], "cannot run"),
        (["vmm", "--form", "multiboot", "bochs"], "Bochs cannot boot a kernel"),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word.format(tmp_path) for word in words]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_corrupted_log_is_refused_with_one_line(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_bytes(made.RECORDED.replace(b"CR0 60000010", b"CR0 60000011", 1))
    assert cli.main(["observer", "judge", str(log)]) == 2
    assert capsys.readouterr().err.endswith("the log is corrupted\n")


def test_a_log_becomes_results_like_any(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "saved.json"
    assert cli.main(["observer", "judge", str(log), "--report", f"json={saved}", "--name", "box"]) == 1
    assert "cr0 has bits 0x60000000 wrong after INIT" in capsys.readouterr().out
    run = json.loads(saved.read_text())["runs"][0]
    assert run["host"]["backend"] == "none" and run["host"]["name"] == "box" and run["findings"]
    assert cli.main(["report", "--baseline", str(saved), str(saved)]) == 0
    assert "0 new, 0 gone" in capsys.readouterr().out
    assert cli.main(["observer", "judge", str(log), "--baseline", str(saved)]) == 0


def test_a_vmm_that_ends_well_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept"
    assert cli.main(["vmm", "--log", str(kept), _fake(tmp_path, made.RECORDED)]) == 1
    assert kept.read_bytes() == made.RECORDED
    seen = capsys.readouterr()
    assert "msr.mtrr_def_type" in seen.out and not seen.err


def test_a_reset_that_does_not_come_is_a_failure_of_that_reset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = made.RECORDED[: made.RECORDED.index(b"KVMTEST", 1)]
    assert cli.main(["vmm", "--format", "ktap", _fake(tmp_path, cut, 0)]) == 1
    seen = capsys.readouterr()
    assert "reset.cf9.guest.runs" in seen.out and "a warning" in seen.err


@pytest.mark.parametrize("data", [b"", b"SeaBIOS\n", made.RECORDED[:2000]])
def test_a_vmm_that_says_nothing_cannot_be_tested(data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vmm", _fake(tmp_path, data, 0)]) == 3
    assert "before the observer had printed anything" in capsys.readouterr().err


def test_a_kvm_that_cannot_emulate_the_image_has_a_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = _fake(tmp_path, b"", 0, "KVM internal error. Suberror: 1")
    assert cli.main(["vmm", fake]) == 3
    assert "--without-xsave" in capsys.readouterr().err
    assert cli.main(["vmm", "--without-xsave", fake]) == 3
    assert "--without-xsave does" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["loaded", "alone"])
def test_a_log_without_an_event_cannot_be_judged(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, path = made.loaded(), tmp_path / "log"
    if name == "alone":
        log = log._replace(boots=[log.boots[0]._replace(looks=log.boots[0].looks[:1])])
    path.write_bytes(made.printed(log))
    assert cli.main(["observer", "judge", str(path)]) == (3 if name == "alone" else 1)
    assert ("needs a second one" in capsys.readouterr().err) == (name == "alone")


def test_another_vmm_has_its_image_and_log_filled_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "printed").write_bytes(made.RECORDED)
    code = "import sys, shutil; assert open(sys.argv[1], 'rb').read(4) == b'\\x7fELF'; shutil.copy(sys.argv[3], sys.argv[2])"
    words = [sys.executable, "-c", code, "{image}", "{log}", str(tmp_path / "printed")]
    assert cli.main(["vmm", "--form", "pvh", *words]) == 1
    assert "cr0 has bits 0x60000000 wrong after INIT" in capsys.readouterr().out


@pytest.mark.program
def test_qemu_is_reset_from_outside_and_by_init(tmp_path: Path) -> None:
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("no qemu-system-x86_64: apt-get install qemu-system-x86")
    saved = tmp_path / "saved.json"
    words = ["vmm", "--resets", "wait,init", "--format", "json", "-o", os.fspath(saved)]
    assert cli.main([*words, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max"]) == 1
    seen = json.loads(saved.read_text())
    items = {record["item"] for record in seen["records"] if record["verdict"] == "pass"}
    assert {"rdx", "cs.selector", "idt.limit", "msr.star"} <= items
    assert "runs" not in {record["item"] for record in seen["records"]}
