# SPDX-License-Identifier: GPL-2.0-only
"""``--bisect``: what each way to end says to ``git bisect run``, and a bisection by git itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.lab.kernels import Kernel
from tests.lab.conftest import KVMTEST

_ID, _OTHER, _THIRD = "init.msi.host.ram", "init.msi.host.halted", "init.msi.host.vector-ignored"
_LOG = "none.lab.kernel.log"
_START = "begin()\n"
_END = "say('E')\n"
_PASS, _FAIL, _SKIP, _ERROR = (f"ran('{_ID}', '{v}')\n" for v in ("pass", "fail", "skip", "error"))
_AGAIN_PASS, _AGAIN_FAIL, _AGAIN_ERROR = (f"ran('{_ID}', '{v}', 'amd')\n" for v in ("pass", "fail", "error"))
#: Of one that is listed for kernels before 6.0.
_LISTED = "reset.create.host.msr.misc_enable"
_KNOWN, _FIXED = (f"begin('5.10.0')\ncase('{_LISTED}')\nread({value})\ndone()\n" for value in (0, 0x1800))
#: Within a case.
_IN_CASE = f"case('{_OTHER}')\n"
_PANIC = "console('Kernel panic - not syncing: Fatal exception')\nsys.exit(1)\n"
_LOADING = "say('B', '9.9.9-fake')\nsay('M', 'kvm')\n"
_OOPS = "console('kernel BUG at arch/x86/kvm/x86.c:1!')\nwhile True:\n    time.sleep(0.1)\n    out.beat()\n"
_WARN = "say('L', 'WARNING: CPU: 0 PID: 1 at arch/x86/kvm/x86.c:1 f+0x1/0x2')\n"
_GOOD, _BAD = _START + _PASS + _END, _START + _FAIL + _END


def _command(kernel: Kernel, *more: str) -> list[str]:
    return ["lab", "run", "--bisect", "--backend", "svm", "--kernel", kernel.image, "--modules", kernel.modules, *more]


@pytest.mark.parametrize(
    ("guest", "ids", "status"),
    [
        (_GOOD, [_ID], 0),
        (_BAD, [_ID], 1),
        (_BAD, ["ram"], 1),
        # Listed for a range of kernels, and yet what may be looked for.
        (_KNOWN + _END, [_LISTED], 1),
        (_FIXED + _END, [_LISTED], 0),
        (_START + _PASS + f"ran('{_OTHER}', 'fail')\nran('{_THIRD}', 'error')\n" + _END, [_ID], 0),
        (_START + _SKIP + _END, [_ID], 125),
        (_START + _SKIP + _AGAIN_PASS + _END, [_ID], 0),
        (_START + _PASS + _AGAIN_ERROR + _END, [_ID], 125),
        (_START + _ERROR + _AGAIN_FAIL + _END, [_ID], 1),
        (_START + _PASS + _AGAIN_FAIL + _END, [f"{_ID}/ap,intel,ram"], 0),
        # Each id has to be reported.
        (_GOOD, [_ID, _OTHER], 125),
        (_BAD, [_ID, _OTHER], 1),
        # It does not boot; its modules do not load; it hangs before, in and after the case.
        ("sys.exit(1)", [_ID], 125),
        ("say('B', '9.9.9-fake')\nsay('M', 'kvm')\nsay('X', 'cannot load kvm.ko: Invalid argument')\ntime.sleep(9)", [_ID], 125),
        (_START + _PANIC, [_ID], 125),
        (_START + _IN_CASE + _PANIC, [_ID], 125),
        (_START + _PASS + _PANIC, [_ID], 125),
        (_START + _FAIL + _PANIC, [_ID], 1),
        # A module's init, or a thread, is killed by the kernel, and another thread lives on.
        (_LOADING + _OOPS, [_ID], 125),
        (_LOADING + _OOPS, [_ID, _LOG], 1),
        (_START + _OOPS, [_ID], 125),
        (_START + _FAIL + _OOPS, [_ID], 1),
        # The kernel's log counts if a selector names it.
        (_START + _IN_CASE + _PANIC, [_ID, _LOG], 1),
        (_START + _IN_CASE + "out.flush()\nsys.exit(1)\n", [_ID, _LOG], 125),
        (_START + _PASS + _IN_CASE + _WARN + "done()\n" + _END, [_ID], 0),
        (_START + _PASS + _IN_CASE + _WARN + "done()\n" + _END, [_ID, _LOG], 1),
        (_GOOD, [_ID, _LOG], 0),
        (_GOOD, ["*"], 0),
    ],
)
def test_the_ids_alone_decide(
    guest: str, ids: list[str], status: int, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE", guest)
    assert main(_command(kernel, *ids)) == status
    says = {0: "bisect: good", 1: "bisect: bad: ", 125: "bisect: not testable: "}[status]
    assert f"kvmtest: {says}" in capsys.readouterr().err


def test_modules_that_were_not_built_are_125(kernel: Kernel, fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fake / "empty").mkdir()
    assert main(_command(kernel, "--kvm-modules", str(fake / "empty"), _ID)) == 125
    assert "neither kvm.ko nor" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["init.msi.host.renamed"],
        [_ID, "init.msi.host.renamed"],
        ["--kvm-modules", "/nonexistent", _ID],
        ["--kernel", "/nonexistent", _ID],
        ["--module-param", "npt", _ID],
        ["--format", "xml", _ID],
        ["--output", "/nonexistent/file", _ID],
        ["--baseline", "/nonexistent", _ID],
        ["--no-such-option", _ID],
    ],
)
def test_what_no_commit_can_change_stops_the_bisection(arguments: list[str], kernel: Kernel) -> None:
    try:
        status: object = main(_command(kernel, *arguments))
    except SystemExit as done:
        status = done.code
    assert status == 255


def test_no_emulator_stops_the_bisection(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert main(_command(kernel, _ID)) == 255


def test_a_fault_of_our_own_stops_the_bisection(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: object) -> None:
        raise ValueError("ours")

    monkeypatch.setattr("kvmtest.commands.cells.specs", broken)
    assert main(_command(kernel, _ID)) == 255
    assert main([word for word in _command(kernel, _ID) if word != "--bisect"]) == 70
    assert capsys.readouterr().err.count("kvmtest: ValueError: ours (") == 2


class _Repository:
    """Commits whose guest.py is what the guest of the lab does then."""

    def __init__(self, folder: Path, kernel: Kernel) -> None:
        self.folder = folder
        folder.mkdir()
        who = {f"GIT_{role}_{what}": "x@y" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "LC_ALL": "C"}
        self.environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        step = " ".join([*KVMTEST, *_command(kernel)])
        (folder / "step").write_text(f'FAKE="$(cat guest.py)" exec {step} "$@" >/dev/null\n')
        self.git("init", "-q")

    def history(self, *guests: str) -> None:
        """A commit for each guest."""
        for number, guest in enumerate(guests, 1):
            (self.folder / "guest.py").write_text(f"# {number}\n{guest}")
            self.git("add", "guest.py")
            assert self.git("commit", "-qm", f"commit {number}").returncode == 0

    def git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def repository(kernel: Kernel, fake: Path) -> _Repository:
    """A repository without commits."""
    if not shutil.which("git"):
        pytest.skip("git is not here")
    return _Repository(fake / "repository", kernel)


def test_git_passes_by_what_does_not_boot_and_finds_the_commit(repository: _Repository) -> None:
    repository.history(_GOOD, _GOOD, _GOOD, "sys.exit(1)", _GOOD, _BAD, _BAD)
    repository.git("bisect", "start", "HEAD", "HEAD~6")
    done = repository.git("bisect", "run", "sh", "step", _ID)
    assert done.returncode == 0, done.stderr
    found = repository.git("log", "-1", "--format=%s", "refs/bisect/bad").stdout
    assert found == "commit 6\n"
    log = repository.git("bisect", "log").stdout
    assert "# skip: " in log and "commit 4" in log
    assert f"bisect: bad: fail {_ID}" in done.stderr


def test_git_stops_at_an_id_that_is_not(repository: _Repository) -> None:
    repository.history(_GOOD, _GOOD, _BAD)
    repository.git("bisect", "start", "HEAD", "HEAD~2")
    done = repository.git("bisect", "run", "sh", "step", "init.msi.host.renamed")
    assert done.returncode != 0 and "255" in done.stderr + done.stdout
    assert "nothing matches 'init.msi.host.renamed'" in done.stderr
    log = [line for line in repository.git("bisect", "log").stdout.splitlines() if line.startswith("git bisect ")]
    # Nothing was marked: the two commits of the start are all there is.
    assert len(log) == 1


def test_git_finds_what_fixed_it(repository: _Repository) -> None:
    """As docs/patch.md has it."""
    repository.history(_BAD, _BAD, "sys.exit(1)", _BAD, _GOOD, _GOOD)
    repository.git("bisect", "start", "--term-old=broken", "--term-new=fixed")
    repository.git("bisect", "fixed", "HEAD")
    repository.git("bisect", "broken", "HEAD~5")
    step = f"sh step {_ID}; s=$?; [ $s -gt 1 ] || s=$((1 - s)); exit $s"
    done = repository.git("bisect", "run", "sh", "-c", step)
    assert done.returncode == 0, done.stderr
    assert repository.git("log", "-1", "--format=%s", "refs/bisect/fixed").stdout == "commit 5\n"
