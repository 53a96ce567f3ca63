# SPDX-License-Identifier: GPL-2.0-only
"""Changes of a kernel tree: a commit, a range, uncommitted changes, a patch; by git, on a made-up tree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kvmtest.lab.error import LabError, NotFound
from kvmtest.lab.tree import Change, committed, patched, uncommitted
from tests.lab import fakes

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")

_X86, _SVM, _VMX = "arch/x86/kvm/x86.c", "arch/x86/kvm/svm/svm.c", "arch/x86/kvm/vmx/vmx.c"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A tree that is not a repository."""
    return fakes.tree(tmp_path / "linux")


def _git(tree: Path, *words: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@b")
    return subprocess.run(["git", "-C", tree, *who, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def tree(plain: Path) -> Path:
    """A repository of one commit."""
    _git(plain, "init", "-q", "-b", "main")
    _git(plain, "add", "-A")
    _git(plain, "commit", "-qm", "first")
    return plain


def _commit(tree: Path, subject: str, *names: str) -> str:
    for name in names:
        (tree / name).write_text((tree / name).read_text().replace("two\n", "2\n2a\n") + f"{subject}\n")
    _git(tree, "commit", "-qam", subject)
    return _git(tree, "rev-parse", "--short=12", "HEAD").strip()


@pytest.fixture
def work(tmp_path: Path) -> str:
    """A folder to unpack into."""
    (tmp_path / "work").mkdir()
    return str(tmp_path / "work")


def _read(folder: str, name: str) -> str:
    return Path(folder, name).read_text()


def test_a_commit_against_its_parent(tree: Path, work: str) -> None:
    base = _git(tree, "rev-parse", "--short=12", "HEAD").strip()
    head = _commit(tree, "x86: More", _X86, "include/linux/fs.h", "tools/testing/a.c")
    change = committed(str(tree), "HEAD", work)
    assert (change.old, change.new, change.version) == (base, head, "9.9.3-rc4")
    assert change.title.endswith(" x86: More")
    assert list(change.diff) == [_X86] and change.counts(_X86) == (3, 1)
    assert change.diff[_X86][:3] == (f"--- a/{_X86}", f"+++ b/{_X86}", "@@ -1,3 +1,5 @@")
    assert change.outside == ("include/linux/fs.h", "tools/testing/a.c")
    assert (_read(change.before, _X86), _read(change.after, _X86)) == ("one\ntwo\nthree\n", "one\n2\n2a\nthree\nx86: More\n")
    assert not Path(change.after, "tools").exists() and not Path(change.after, "include/linux/fs.h").exists()
    assert Path(change.after, "virt/kvm/Makefile.kvm").exists()


def test_a_range_is_one_change(tree: Path, work: str) -> None:
    _commit(tree, "one", _SVM)
    _commit(tree, "other", _VMX)
    change = committed(str(tree), "main~2..main", work)
    assert list(change.diff) == [_SVM, _VMX] and change.title.startswith("2 commits, the last of which is ")
    assert change.title.endswith(" other")


@pytest.mark.parametrize(
    ("files", "vendors"),
    [
        ([_SVM], {"svm"}),
        ([_VMX], {"vmx"}),
        ([_SVM, _VMX], {"svm", "vmx"}),
        ([_SVM, _X86], {"svm", "vmx"}),
        ([_X86], {"svm", "vmx"}),
    ],
)
def test_the_backends_are_those_whose_code_changed(tree: Path, work: str, files: list[str], vendors: set[str]) -> None:
    _commit(tree, "change", *files)
    assert committed(str(tree), "HEAD", work).vendors == vendors


def test_what_is_not_committed_and_what_git_does_not_know_yet(tree: Path, work: str) -> None:
    (tree / _X86).write_text("one\n")
    (tree / "arch/x86/kvm/new.c").write_text("new\n")
    (tree / "include/linux/fs.h").write_text("other\n")
    change = uncommitted(str(tree), work)
    assert change.new == "the working tree" and list(change.diff) == ["arch/x86/kvm/new.c", _X86]
    assert change.counts("arch/x86/kvm/new.c") == (1, 0) and change.diff["arch/x86/kvm/new.c"][0] == "--- /dev/null"
    assert change.outside == ("include/linux/fs.h",)


def _patch(tree: Path) -> str:
    _commit(tree, "x86: Patched", _X86, "tools/testing/a.c")
    patch = _git(tree, "format-patch", "--stdout", "HEAD~1")
    _git(tree, "reset", "-q", "--hard", "HEAD~1")
    return patch


def _of_patch(change: Change) -> None:
    assert change.title == "x86: Patched" and list(change.diff) == [_X86]
    assert change.outside == ("tools/testing/a.c",) and "x86: Patched" in _read(change.after, _X86)


def test_a_patch_on_a_commit(tree: Path, work: str) -> None:
    patch = _patch(tree)
    (tree / _X86).write_text("what is not committed is no part of it\n")
    change = patched(str(tree), "", patch, work)
    _of_patch(change)
    assert change.new == f"{change.old} with the patch" and "not committed" not in _read(change.after, _X86)


def test_a_patch_on_a_tree_that_is_no_repository(tree: Path, work: str) -> None:
    patch = _patch(tree)
    shutil.rmtree(tree / ".git")
    _of_patch(patched(str(tree), "", patch, work))


def test_a_patch_within_somebodys_repository(tree: Path, work: str) -> None:
    """The cache may be in one."""
    patch = _patch(tree)
    _git(Path(work), "init", "-q")
    _of_patch(patched(str(tree), "", patch, work))


def test_a_patch_that_adds_and_removes_files(tree: Path, work: str) -> None:
    (tree / "arch/x86/kvm/new.c").write_text("new\n")
    (tree / _SVM).unlink()
    _git(tree, "add", "-A")
    patch = _git(tree, "diff", "--cached")
    change = patched(str(tree), "HEAD", patch, work)
    assert list(change.diff) == ["arch/x86/kvm/new.c", _SVM] and not Path(change.after, _SVM).exists()
    assert change.outside == ()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "has no commit 'nowhere'"),
        ("--output=x", "has no commit '--output=x'"),
        ("HEAD", "HEAD has no parent in .*; in a shallow clone: git fetch --deepen=1"),
        ("HEAD..nowhere", "has no commit 'nowhere'"),
    ],
)
def test_no_such_commit(name: str, said: str, tree: Path, work: str) -> None:
    with pytest.raises(NotFound, match=said):
        committed(str(tree), name, work)


def test_what_changes_nothing_of_kvm(tree: Path, work: str) -> None:
    _commit(tree, "elsewhere", "tools/testing/a.c")
    with pytest.raises(NotFound, match="elsewhere: nothing that KVM's .* built from differs; it changes tools/testing/a.c"):
        committed(str(tree), "HEAD", work)
    with pytest.raises(NotFound, match="what is not committed in .*: nothing that KVM's modules are built from differs$"):
        uncommitted(str(tree), work)


def test_what_is_no_tree_or_no_repository(plain: Path, work: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such folder"):
        committed(str(tmp_path / "none"), "HEAD", work)
    with pytest.raises(NotFound, match="is not a kernel tree: it has no arch/x86/kvm/Makefile"):
        committed(work, "HEAD", work)
    with pytest.raises(NotFound, match="is not a git repository: give --diff PATCH"):
        committed(str(plain), "HEAD", work)


def test_a_patch_that_does_not_apply(tree: Path, work: str) -> None:
    patch = _patch(tree).replace("two", "zwei")
    with pytest.raises(NotFound, match="the patch does not apply: patch failed: arch/x86/kvm/x86.c:1"):
        patched(str(tree), "", patch, work)


def test_without_git(tree: Path, work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", work)
    with pytest.raises(LabError, match="needs git: apt-get install git"):
        committed(str(tree), "HEAD", work)
