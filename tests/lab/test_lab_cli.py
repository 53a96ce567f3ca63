# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest lab`` as a user meets it: reports, exit status, one clear line; with an emulator that is none."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kvmtest.cli import main
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.limits import Limits
from tests.lab.conftest import KVMTEST

_RAM, _HALTED = "init.msi.host.ram", "init.msi.host.halted"
#: Hangs in a case whose evidence was heard, which is when the FIFO is empty again.
_HANG = f"""
import fcntl, termios
begin()
case("{_RAM}")
show("pass")
out.flush()
while any(fcntl.ioctl(parallel, termios.FIONREAD, bytes(4))):
    time.sleep(0.01)
open("HEARD", "w").close()
time.sleep(60)
"""


def _command(kernel: Kernel, *more: str, verb: str = "run") -> list[str]:
    return ["lab", verb, "--backend", "svm", "--kernel", kernel.image, "--modules", kernel.modules, *more]


def test_text_report(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_command(kernel)) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("kvm_amd of Linux 9.9.9-fake in QEMU 9.9.9 (TCG)\n") and ", model max,-erms" in shown.out
    assert f"FAIL  {_HALTED}, halted: that\n" in shown.out
    assert "kvmtest lab run --backend svm --kernel" in shown.out and f"{_HALTED}/ap,intel,halted\n" in shown.out
    assert "boot " in shown.err and "run " in shown.err and "shut-down " in shown.err


def test_a_boot_is_one_plain_line(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    main(_command(kernel))
    assert capsys.readouterr().err.startswith("kvmtest: booting 9.9.9-fake in QEMU\nkvmtest: bzImage/svm: boot ")
    main(_command(kernel, verb="matrix"))
    assert "kvmtest: bzImage/svm: booting 9.9.9-fake in QEMU\n" in capsys.readouterr().err


def test_on_a_terminal_it_is_a_line_that_goes(kernel: Kernel, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", "say('B', '9')\ntime.sleep(0.5)\nbegin()\nsay('E')")
    ours, theirs = os.openpty()
    command = [*KVMTEST, *_command(kernel, "--format", "json")]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, stdin=subprocess.DEVNULL, timeout=60, check=False)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    first, *lines, _ = shown.partition("kvmtest: bzImage/svm: boot ")[0].split("\r")[1:]
    assert first == "kvmtest: booting 9.9.9-fake in QEMU"
    assert any(re.search(r", \d+ s: the start of its init", line) for line in lines)
    assert not lines[-1].strip() and len(lines[-1]) >= len(lines[-2].rstrip())


def test_json_is_valid_and_names_the_lab(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_command(kernel, _RAM, "--format", "json")) == 0
    document = json.loads(capsys.readouterr().out)
    (run,) = document["runs"]
    # The kernel's log was not asked for.
    assert run["host"]["lab"]["kernel_source"] == kernel.image and run["totals"]["pass"] == 1
    assert (run["host"]["accel"], run["host"]["name"]) == ("tcg", os.uname().nodename)
    with files("kvmtest").joinpath("schemas/results.schema.json").open(encoding="utf-8") as file:
        jsonschema.validate(document, json.load(file))


def test_only_what_a_baseline_has_not_fails(
    kernel: Kernel, fake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = str(fake / "old.json")
    assert main(_command(kernel, "--format", "json", "--output", old)) == 1
    assert main(_command(kernel, "--baseline", old)) == 0
    assert "depart from the manuals: 0 new, 0 gone, 1 the same" in " ".join(capsys.readouterr().out.split())
    # A kernel that does not come up fails, and what it had to say is not gone.
    monkeypatch.setenv("FAKE", "sys.exit(1)")
    assert main(_command(kernel, "--baseline", old)) == 1
    out = capsys.readouterr().out
    assert "1 new, 0 gone, 0 the same" in out and "Cases in the old results only: 2" in out


def test_a_kernels_log_keeps_its_lines(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = f"begin()\ncase('{_RAM}')\nshow('pass')\nsay('L', 'kernel BUG at x86.c:1!')\nsay('L', 'RIP: f')\n"
    monkeypatch.setenv("FAKE", script + "done()\nsay('E')")
    assert main(_command(kernel, "--format", "json")) == 1
    (log,) = [one for one in json.loads(capsys.readouterr().out)["records"] if one["item"] == "log"]
    assert log["reason"] == "kernel BUG at x86.c:1!\nRIP: f"
    assert main(_command(kernel)) == 1
    out = capsys.readouterr().out
    assert "FAIL  none.lab.kernel: kernel BUG at x86.c:1!\n" in out
    # The command of the report runs the case again, and looks for the same.
    (again,) = [line.split() for line in out.splitlines() if "kvmtest lab run" in line]
    assert again[-1] == "none.lab.kernel.log/ap,intel,ram"
    assert main(_command(kernel, again[-1], "--format", "json")) == 1
    assert {one["item"] for one in json.loads(capsys.readouterr().out)["records"]} == {"log"}


def test_a_dead_guest_is_1_and_its_document_is_whole(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE", "sys.exit(1)")
    assert main(_command(kernel, "--format", "json")) == 1
    assert json.loads(capsys.readouterr().out)["runs"][0]["totals"]["error"] == 1
    assert main(_command(kernel, "--format", "jsonl")) == 1
    *_, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert end["totals"]["error"] == 1 and end["interrupted"] is False


def test_what_fails_on_this_machine_in_the_middle_is_3_and_the_document_is_whole(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(limits: Limits, where: str, dying: str) -> None:
        if where.endswith("halted"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Limits, "check", broken)
    monkeypatch.setenv("FAKE", f"begin()\nran('{_RAM}', 'pass')\ncase('{_HALTED}')\ntime.sleep(60)")
    assert main(_command(kernel, "--fresh-boot", "--format", "json")) == 3
    shown = capsys.readouterr()
    assert "No space left on device" in shown.err
    ram, error = json.loads(shown.out)["records"]
    assert (ram["item"], ram["verdict"], error["item"], error["verdict"]) == ("ram", "pass", "run", "error")


def test_nothing_that_could_be_tested_is_3(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log without incidents alone tests nothing."""
    monkeypatch.setenv("FAKE", f"begin()\nran('{_RAM}', 'skip')\nsay('E')")
    for verb in ("run", "matrix"):
        assert main(_command(kernel, verb=verb)) == 3
        assert "nothing could be tested" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"--kernel": "/nonexistent/bzImage"}, 2),
        ({"--modules": "/nonexistent"}, 2),
        ({"--kvm-modules": "/nonexistent"}, 2),
        ({"--backend": "vmx", "PATH": "/nonexistent"}, 3),
        ({"init.msi.host.nonsense": ""}, 2),
    ],
)
def test_one_line_and_the_status(
    change: dict[str, str], status: int, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "PATH" in change:
        monkeypatch.setenv("PATH", change.pop("PATH"))
    more = [part for pair in change.items() for part in pair if part]
    assert main(_command(kernel, *more)) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("kvmtest: ")


@pytest.mark.parametrize("value", ["npt=0", "kvm_amd.npt", "kvm_amd.npt 0"])
def test_a_module_parameter_has_a_form(value: str, kernel: Kernel) -> None:
    with pytest.raises(SystemExit) as done:
        main(_command(kernel, "--module-param", value))
    assert done.value.code == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("verb", ["run", "matrix"])
def test_a_signal_keeps_what_was_measured_and_leaves_nothing(
    number: signal.Signals, times: int, verb: str, fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", _HANG.replace("HEARD", str(fake / "heard")))
    output = fake / "out.json"
    command = _command(kernel, "--format", "json", "--output", str(output), verb=verb)
    with subprocess.Popen([*KVMTEST, *command], stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not (fake / "heard").exists() and time.monotonic() < end:
            time.sleep(0.05)
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.01)
        assert process.stderr
        error = process.stderr.read()
        assert process.wait(30) == 130
    assert "interrupted" in error and "Traceback" not in error
    document: Any = json.loads(output.read_text())
    (run,) = document["runs"]
    assert run["interrupted"] and len(run["results"]) == 1
    assert [record["item"] for record in document["records"]] == ["ram"]
    assert not list((fake / "tmp").iterdir())


def test_a_signal_that_the_program_was_started_to_ignore_is_ignored(
    fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As nohup does with SIGHUP: the guest goes on when it came."""
    wait = f"while not os.path.exists({str(fake / 'sent')!r}):\n    out.beat(); time.sleep(0.05)\n"
    script = f"begin()\ncase('{_RAM}')\nopen({str(fake / 'up')!r}, 'w').close()\n{wait}"
    monkeypatch.setenv("FAKE", script + "show('pass')\ndone()\nsay('E')")
    command = [*KVMTEST, *_command(kernel)]
    with subprocess.Popen(["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command], stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while not (fake / "up").exists() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        (fake / "sent").touch()
        assert process.wait(60) == 0


def test_the_emulator_does_not_outlive_a_killed_kvmtest(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", f"open({str(fake / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    with subprocess.Popen([*KVMTEST, *_command(kernel)], stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 30
        while not (fake / "pid").exists() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)
        process.kill()
    pid = (fake / "pid").read_text()
    while os.path.exists(f"/proc/{pid}/exe") and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}/exe")


def test_matrix_shows_what_differs(
    kernel: Kernel, fake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = fake / "other"
    other.mkdir()
    (other / "image").write_bytes(Path(kernel.image).read_bytes())
    # The second cell finds an AP in HLT wrong.
    script = (
        f"begin()\nran('{_RAM}', 'fail')\nran('{_HALTED}', 'fail' if any('other' in a for a in sys.argv) else 'pass')\nsay('E')"
    )
    monkeypatch.setenv("FAKE", script)
    two = ["--kernel", f"{kernel.image},{other / 'image'}"]
    saved = str(fake / "saved.json")
    assert main([*_command(kernel, verb="matrix"), *two, "--report", f"json={saved}"]) == 1
    out = capsys.readouterr().out
    assert f"    {_HALTED}, halted: that\n" in out and _RAM not in out
    assert "In each cell that could show it: 1 more finding" in out
    document = json.loads(Path(saved).read_text())
    assert [run["name"] for run in document["runs"]] == ["bzImage/svm", "image/svm"]
    assert [run["totals"]["fail"] for run in document["runs"]] == [1, 2]
    assert len(document["cases"]) == 2
    assert main(["report", saved]) == 0
    assert f"FAIL  {_HALTED}" in capsys.readouterr().out
    assert main([*_command(kernel, verb="matrix"), *two, "--format", "jsonl"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines if "run" in line] == ["bzImage/svm", "image/svm"]


def test_kernels_lists(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "kernels"]) == 0
    assert "bullseye" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["lab"], ["lab", "run"], ["lab", "matrix"], ["lab", "kernels"], ["lab", "emulators"]])
def test_help_teaches(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([*command, "--help"])
    assert done.value.code == 0 and "usage: kvmtest lab" in capsys.readouterr().out


def test_other_reports_of_a_run_and_a_matrix(kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ktap, junit = tmp_path / "ktap", tmp_path / "junit"
    assert main(_command(kernel, "--report", f"ktap={ktap}", "--format", "junit", "-o", str(junit))) == 1
    assert "not ok" in ktap.read_text() and "<failure" in junit.read_text()
    both = ("--report", f"ktap={ktap}", "--report", f"html={tmp_path / 'html'}")
    assert main(_command(kernel, *both, verb="matrix")) == 1
    assert "cell" in capsys.readouterr().out and "kernel 9.9.9-fake, backend svm" in ktap.read_text()
    assert main(_command(kernel, "--format", "junit", "-o", str(junit), verb="matrix")) == 1
    assert junit.read_text().startswith("<?xml") and "init.msi.host" in junit.read_text()
