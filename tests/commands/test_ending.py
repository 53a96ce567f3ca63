# SPDX-License-Identifier: GPL-2.0-only
"""The end of commands: status and line by exception, also with standard streams that are closed or full."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvmtest import cli
from kvmtest.cli import main
from kvmtest.commands import ending
from kvmtest.commands.common import Failed, Interrupt, say
from kvmtest.kvm import Kvm


def _raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (Failed("no", 3), 3, "no"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 0, ""),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "cannot write r.json: No space left on device"),
        (OSError(errno.EBADF, "Bad file descriptor"), 2, "cannot write r.json: it is closed"),
        (PermissionError(errno.EACCES, "Permission denied", "bzImage"), 2, "bzImage: Permission denied"),
        (OSError(errno.EMFILE, "Too many open files"), 3, "Too many open files: a limit of this process"),
        (OSError(errno.ENXIO, "No such device"), 3, "[Errno 6] No such device"),
        (MemoryError(), 3, "out of memory"),
        (RuntimeError("can't start new thread"), 3, "out of memory, or of threads"),
        (AssertionError(), 70, "AssertionError; this is a fault of kvmtest itself: please report it"),
        (KeyError("x\ny"), 70, "KeyError: 'x\\ny'"),
    ],
)
def test_each_exception_has_its_status_and_line(error: BaseException, status: int, says: str) -> None:
    found = ending.of(_raised(error), "r.json")
    assert found.status == status and found.line.startswith(says) and "\n" not in found.line
    assert bool(found.line) == bool(says)


def _break(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken(*args: object) -> None:
        raise error

    monkeypatch.setattr("kvmtest.explain.explain", broken)


def test_what_nobody_foresaw_is_one_line_that_names_the_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _break(monkeypatch, ZeroDivisionError("by zero"))
    assert main(["explain", "cr0"]) == ending.INTERNAL
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kvmtest: ZeroDivisionError: by zero (kvmtest/commands/explain.py:")
    monkeypatch.setenv(ending.DEBUG, "1")
    assert main(["explain", "cr0"]) == ending.INTERNAL
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_to_git_bisect_nothing_unforeseen_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("kvmtest.engine.doctor.open_kvm", broken)
    assert main(["run", "--bisect", "init.msi.host.cr3"]) == 255


def _kvmtest(command: str, **more: Any) -> subprocess.CompletedProcess[str]:
    script = f'K="{sys.executable} -m kvmtest"; {command}'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300, **more)


@pytest.mark.program
@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("$K list cr3 >&-", 2, "kvmtest: cannot write standard output: it is closed\n"),
        ("$K report - <&-", 2, "kvmtest: cannot read -: it is closed\n"),
        ("$K list cr3 2>&-", 0, ""),
        ("$K list cr3 2>/dev/full", 0, ""),
        ("$K list bogus 2>&-", 2, ""),
        ("$K list bogus 2>/dev/full", 2, ""),
        ("$K bogus 2>/dev/full", 2, ""),
        ("$K list cr3 <&- >&- 2>&-", 2, ""),
    ],
)
def test_streams_that_are_closed_or_full(command: str, status: int, says: str) -> None:
    done = _kvmtest(command)
    assert (done.returncode, done.stderr) == (status, says)


@pytest.mark.program
def test_a_run_with_its_streams_closed_goes_by_its_results(kvm: Kvm, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    done = _kvmtest(f"$K run reset.create.host.cr0 --format json -o {out} <&- >&- 2>&-")
    assert done.returncode == 0 and out.read_text().endswith("]}\n")
    assert _kvmtest("$K run reset.create.host.cr0 >&-").returncode == 2


def test_what_is_opened_gets_no_number_of_a_closed_stream() -> None:
    """Else a message to standard error would be written into a VM."""
    code = "import os\nfrom kvmtest import cli\ncli._descriptors()\nfd = os.open('/dev/null', os.O_RDONLY)\nos._exit(fd)"
    for streams in (">&-", "2>&-", "<&-", "<&- >&- 2>&-"):
        assert subprocess.run(["bash", "-c", f'{sys.executable} -c "$0" {streams}', code]).returncode >= 3


def test_a_message_that_nobody_can_read_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    full = open("/dev/full", "w")
    monkeypatch.setattr(sys, "stderr", full)
    say("nothing hears this")
    monkeypatch.undo()
    with contextlib.suppress(OSError):
        full.close()


def test_a_signal_while_it_imports_is_130_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_descriptors", interrupted)
    assert main(["list"]) == 130


@pytest.mark.parametrize(
    ("module", "does"),
    [
        ("kvmtest.commands.common", """eval("os.kill(os.getpid(), signal.SIGINT)")"""),
        # Before main() has begun.
        ("kvmtest.cli", "os.kill(os.getpid(), signal.SIGINT)"),
    ],
)
def test_the_status_of_a_module_that_is_interrupted_as_it_imports_is_130(module: str, does: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, signal, sys

class Signals:
    def find_spec(name, path=None, target=None):
        if name == "{module}":
            {does}

sys.meta_path.insert(0, Signals)
""")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(cli.__file__).parents[1]}"}
    words = [sys.executable, "-m", "kvmtest", "list"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, preexec_fn=_interruptible)
    assert (done.returncode, done.stderr) == (130, "kvmtest: interrupted\n")


def _interruptible() -> None:
    """Do what a shell in the foreground does: in its background SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_second_signal_right_after_the_first_raises_nothing_more() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), Interrupt():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            for _ in range(3):
                signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    signal.signal(signal.SIGTERM, before)


def test_a_signal_while_what_was_raised_is_let_go_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            gone.append(True)

    def broken(*args: object) -> None:
        late = Late()
        raise ZeroDivisionError(id(late))

    gone: list[bool] = []
    ignored: list[object] = []
    monkeypatch.setattr("kvmtest.explain.explain", broken)
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    assert main(["explain", "cr0"]) == ending.INTERNAL
    assert gone and not ignored


def test_once_the_status_is_known_no_signal_changes_it() -> None:
    with Interrupt(last=True):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
