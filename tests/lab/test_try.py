# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest lab try`` as a user meets it: what changed, the exit status, one clear line; compiler and emulator are none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.emit.head import About, Shown
from kvmtest.emit.plain import dump
from kvmtest.lab.kernels import Kernel
from tests.emit.made import msr_check
from tests.lab import fakes
from tests.lab.conftest import GOOD, KVMTEST

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")

_RAM, _HALTED = "init.msi.host.ram", "init.msi.host.halted"
#: The first guest says one thing of a case, the next one another.
_TWO = """
first = not os.path.exists(os.environ["FIRST"])
open(os.environ["FIRST"], "w").close()
begin()
ran("init.msi.host.ram", "pass")
ran("init.msi.host.halted", "{}" if first else "{}")
say("E")
"""


@pytest.fixture
def tree(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two commits, and what it is built with."""
    monkeypatch.chdir(fake)
    monkeypatch.setenv("FIRST", str(fake / "first"))
    fakes.programs(fake / "build-programs", monkeypatch)
    fakes.headers(Path(kernel.modules))
    tree = fakes.tree(fake / "linux")
    for number in range(2):
        (tree / "arch/x86/kvm/svm/svm.c").write_text(f"svm {number}\n")
        if not number:
            subprocess.run(["git", "init", "-q", "-b", "main", tree], check=True)
        who = ["-c", "user.name=A", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tree, "add", "-A"], check=True)
        subprocess.run(["git", "-C", tree, *who, "commit", "-qm", f"SVM: Number {number}"], check=True)
    return tree


def _command(tree: Path, kernel: Kernel, *more: str) -> list[str]:
    cells = ["--kernel", kernel.image, "--modules", kernel.modules, "--jobs", "1", "--fresh-boot", "--no-coverage"]
    return ["lab", "try", "--tree", str(tree), *cells, *more]


def _guests(monkeypatch: pytest.MonkeyPatch, before: str, after: str) -> None:
    monkeypatch.setenv("FAKE", _TWO.format(before, after))


def test_what_fails_only_after_the_commit(
    tree: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _guests(monkeypatch, "pass", "fail")
    assert main(_command(tree, kernel)) == 1
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].endswith(" SVM: Number 1") and lines[1] == "  arch/x86/kvm/svm/svm.c  +1 -1"
    assert ": 1 new, 0 gone, 0 the same" in shown.out and "\nNew (1 finding, 1 result):\n" in shown.out
    again = next(line for line in lines if "again" in line)
    assert f"--kvm-modules {os.environ['XDG_CACHE_HOME']}/kvmtest/builds/" in again
    assert again.endswith(f"{_HALTED}/ap,intel,halted")
    assert "kernel_source" not in shown.out
    assert lines[-4] == "Which lines of the change the cases ran was not recorded."
    # The same words as those that run it again.
    assert lines[-1] == "  kvmtest repro " + again.partition("kvmtest lab run ")[2] and "--repro DIR" in lines[-2]
    # svm/ alone changed.
    assert "2 cells, 1 at once" in shown.err and "/svm " in shown.err and "/vmx " not in shown.err


def test_what_is_gone_is_no_failure(
    tree: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _guests(monkeypatch, "fail", "pass")
    assert main(_command(tree, kernel, "--report", "json=both.json", "HEAD")) == 0
    assert ": 0 new, 1 gone, 0 the same" in capsys.readouterr().out
    names = [run["name"] for run in json.loads(Path("both.json").read_text())["runs"]]
    log = subprocess.run(["git", "-C", tree, "log", "--format=%h", "--abbrev=12"], capture_output=True, text=True, check=True)
    assert names == [f"bzImage/svm {commit}" for commit in reversed(log.stdout.split())]


#: The answers of the third guest and later ones.
_ANSWERS = """
if os.path.exists(os.environ["FIRST"] + "2"):
    begin()
    out.blob("R", ("shown", {!r}, {!r}))
    out.flush()
    say("E")
    sys.exit()
if os.path.exists(os.environ["FIRST"]):
    open(os.environ["FIRST"] + "2", "w").close()
"""


@pytest.mark.parametrize(("before", "after"), [("pass", "fail"), ("fail", "pass")])
def test_programs_of_what_is_new_or_gone(
    before: str, after: str, tree: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"{_HALTED}/ap,intel,halted"
    about = About(_HALTED, "init.msi/ap,intel,halted", "halted", "init", "msi", "1", "0", (), True)
    answers = _ANSWERS.format(where, dump(Shown(msr_check(1), about, 30, 12)))
    monkeypatch.setenv("FAKE", answers + _TWO.format(before, after))
    Path("c").mkdir()
    main(_command(tree, kernel, "--repro", "c"))
    (program,) = Path("c").iterdir()
    assert program.name == f"{where.replace('/', '-')}.c" and "int main(void)" in program.read_text()
    shown = capsys.readouterr()
    assert "kvmtest repro" not in shown.out and f"{where}: " in shown.err and "found by 12 tries" in shown.err


def test_a_program_that_cannot_be_made_changes_nothing(
    tree: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE", _ANSWERS.format(_HALTED, "it passes, but not alone") + _TWO.format("fail", "pass"))
    Path("c").mkdir()
    assert main(_command(tree, kernel, "--repro", "c")) == 0
    assert not list(Path("c").iterdir()) and f"kvmtest: {_HALTED}: it passes, but not alone\n" in capsys.readouterr().err


def test_what_fails_before_and_after_is_nothing_new(
    tree: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE", GOOD)
    assert main(_command(tree, kernel)) == 0
    assert ": 0 new, 0 gone, 1 the same" in capsys.readouterr().out


def test_nothing_tested_is_status_3(
    tree: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE", "begin()\nran('init.msi.host.halted', 'skip')\nsay('E')")
    assert main(_command(tree, kernel)) == 3
    assert "nothing could be tested" in capsys.readouterr().err


def test_a_cell_of_the_change_that_dies_is_new(
    tree: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    died = _TWO.format("pass", "pass").replace('say("E")', 'say("E") if first else sys.exit()')
    monkeypatch.setenv("FAKE", died)
    assert main(_command(tree, kernel)) == 1
    shown = capsys.readouterr().out
    assert "\nERROR none.lab.kernel: died " in shown and "none.lab.kernel.run" in shown


@pytest.mark.parametrize("change", [("--uncommitted",), ("--diff", "fix.patch"), ("--diff", "fix.patch", "HEAD~1")])
def test_a_change_that_is_no_commit(
    change: tuple[str, ...], tree: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "arch/x86/kvm/x86.c").write_text("one\n2\nthree\n")
    diff = subprocess.run(["git", "-C", tree, "diff"], capture_output=True, text=True, check=True).stdout
    Path("fix.patch").write_text(diff)
    _guests(monkeypatch, "pass", "fail")
    assert main(_command(tree, kernel, "--backend", "svm", *change)) == 1
    assert "  arch/x86/kvm/x86.c  +1 -1\n" in capsys.readouterr().out


def test_a_change_that_does_not_build_says_so(tree: Path, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "arch/x86/kvm/svm/svm.c").write_text("an error\n")
    assert main(_command(tree, kernel, "--uncommitted")) == 3
    reported = capsys.readouterr().err.splitlines()
    assert reported[-3] == "kvmtest: the working tree does not build against the headers of 9.9.9-fake:"
    assert reported[-2] == "  arch/x86/kvm/svm/svm.c:1:2: error: an error"
    assert reported[-1].endswith(" does: it is the change that does not")


def test_a_tree_that_does_not_build_gets_advice(tree: Path, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "arch/x86/kvm/x86.c").write_text("an error\n")
    subprocess.run(["git", "-C", tree, "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qam", "broken"], check=True)
    (tree / "arch/x86/kvm/svm/svm.c").write_text("more\n")
    assert main(_command(tree, kernel, "--uncommitted")) == 3
    reported = capsys.readouterr().err
    assert "the tree is Linux 9.9.3-rc4; the headers of another kernel may do: --kernel 7.2, 6.12, 6.1, 5.10," in reported


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["nowhere"], "has no commit 'nowhere'"),
        (["--uncommitted"], "nothing that KVM's modules are built from differs"),
        (["--uncommitted", "HEAD"], "--uncommitted compares with HEAD: leave out HEAD"),
        (["a{b"], "has no commit 'a{b'"),
        (["init.msi"], "has no commit 'init.msi'; a SELECTOR comes after a COMMIT: HEAD init.msi"),
        (["--commit", "HEAD"], "which has no HEAD; to try a commit, give it without an option: HEAD"),
        (["--diff", "none.patch"], "cannot read none.patch: No such file or directory"),
        (["HEAD", "no.such.id"], "no.such.id"),
        (["--kernel", "none.img"], "none.img"),
        (["--repro", "nowhere"], "--repro: no such folder: nowhere"),
    ],
)
def test_wrong_usage_is_one_line(
    more: list[str], said: str, tree: Path, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_command(tree, kernel, *more)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_on_a_terminal_it_says_how_far_it_is(tree: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", GOOD.replace('say("E")', 'time.sleep(1)\nsay("E")'))
    ours, theirs = os.openpty()
    command = [*KVMTEST, *_command(tree, kernel)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, stdin=subprocess.DEVNULL, timeout=120, check=False)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "files, svm" in shown and "bzImage/svm" in shown.split("at once")[1]
    lines = [line.rpartition("\r")[2] for line in shown.replace("\r\n", "\n").rstrip("\n").split("\n")]
    assert not [line for line in lines if not line.startswith("kvmtest: ")], shown
    assert lines[-1].startswith("kvmtest: all of it: ")
