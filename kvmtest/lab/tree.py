# SPDX-License-Identifier: GPL-2.0-only
"""A kernel tree before and after a change: the files that KVM's modules are built from, and the lines that differ.

The change is a commit, a range of commits, what is not committed yet, or a patch, also of a tree that is not a repository.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kvmtest.lab import deb, kbuild, program
from kvmtest.lab.build import KVM
from kvmtest.lab.error import LabError, NotFound

__all__ = ("Change", "committed", "patched", "uncommitted")

#: The folders of files that `kbuild.SOURCE` matches.
_FOLDERS = (KVM, "virt", "arch/x86/include", "include")
_VERSION = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(\S*)$", re.MULTILINE)
_PATCHED = re.compile(r"^(?:---|\+\+\+) [^/\s]+/([^\t\n]+)", re.MULTILINE)
_NONE = "/dev/null"


class Change(NamedTuple):
    """A change to try. ``before`` and ``after`` are folders with KVM's part of the tree, ``old`` and ``new`` their names,
    ``title`` that of the change, ``version`` that of the tree. ``diff`` is the unified diff of each file that KVM's modules are
    built from; ``outside`` are the other files that it changes.
    """

    before: str
    after: str
    old: str
    new: str
    title: str
    version: str
    diff: dict[str, tuple[str, ...]]
    outside: tuple[str, ...]

    @property
    def vendors(self) -> set[str]:
        """``svm`` or ``vmx`` where nothing but that vendor's code changed; both otherwise."""
        places = {name.removeprefix(f"{KVM}/").partition("/")[0] for name in self.diff}
        return places if len(places) == 1 and places <= {"svm", "vmx"} else {"svm", "vmx"}

    def counts(self, name: str) -> tuple[int, int]:
        """Count the lines of the file ``name`` that were added and removed."""
        lines = self.diff[name][2:]
        return sum(line.startswith("+") for line in lines), sum(line.startswith("-") for line in lines)


def _git(tree: str, *words: str) -> str:
    """Run git and return its output. Raises LabError, NotFound."""
    return _git_bytes(tree, *words).decode(errors="replace")


def _git_bytes(tree: str, *words: str) -> bytes:
    if not shutil.which("git"):
        raise LabError("a commit needs git: apt-get install git")
    done = program.run(["git", "-C", tree, *words], env=os.environ | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"})
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it failed"]
        raise NotFound(f"git {words[0]} in {tree}: {said[0]}")
    return bytes(done.stdout)


def _checked(tree: str) -> None:
    if not os.path.isdir(tree):
        raise NotFound(f"no such folder: {tree}")
    if not os.path.isfile(os.path.join(tree, KVM, "Makefile")):
        raise NotFound(f"{tree} is not a kernel tree: it has no {KVM}/Makefile")


def _commit(tree: str, name: str) -> str:
    """The full id of the commit ``name``."""
    try:
        return _git(tree, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()
    except NotFound as error:
        if not _is_repository(tree):
            raise NotFound(f"{tree} is not a git repository: give --diff PATCH to try a patch on it") from error
        raise NotFound(f"{tree} has no commit {name!r}") from None


def _is_repository(tree: str) -> bool:
    try:
        return bool(_git(tree, "rev-parse", "--git-dir"))
    except NotFound:
        return False


def committed(tree: str, name: str, work: str) -> Change:
    """The commit ``name`` against its first parent, or the range ``A..B``, unpacked into ``work``. Raises NotFound, LabError."""
    _checked(tree)
    first, dots, last = name.partition("..")
    new = _commit(tree, (last.removeprefix(".") or "HEAD") if dots else name)
    if dots:
        old = _commit(tree, first or "HEAD")
    else:
        try:
            old = _commit(tree, f"{new}^1")
        except NotFound:
            raise NotFound(f"{name} has no parent in {tree}; in a shallow clone: git fetch --deepen=1") from None
    subject = _git(tree, "show", "--no-patch", "--format=%h %s", new).strip()
    count = len(_git(tree, "rev-list", f"{old}..{new}").split()) if dots else 1
    title = subject if count == 1 else f"{count} commits, the last of which is {subject}"
    names = _git(tree, "diff", "--name-only", "--no-renames", old, new).splitlines()
    before, after = _archive(tree, old, work, "before"), _archive(tree, new, work, "after")
    return _change(before, after, _short(tree, old), _short(tree, new), title, names)


def _short(tree: str, commit: str) -> str:
    return _git(tree, "rev-parse", "--short=12", commit).strip()


def uncommitted(tree: str, work: str) -> Change:
    """Return the uncommitted changes of ``tree`` against HEAD. Raises NotFound, LabError."""
    _checked(tree)
    head = _commit(tree, "HEAD")
    names = _git(tree, "diff", "--name-only", "--no-renames", "HEAD").splitlines()
    names += _git(tree, "ls-files", "--others", "--exclude-standard", "--", *_FOLDERS).splitlines()
    before, after = _archive(tree, head, work, "before"), _copy(tree, work, "after")
    return _change(before, after, _short(tree, head), "the working tree", f"what is not committed in {tree}", names)


def patched(tree: str, name: str, patch: str, work: str) -> Change:
    """The text ``patch`` on top of the commit ``name``, by default HEAD, or of the files of a ``tree`` that is not a repository.

    Raises NotFound, LabError.
    """
    _checked(tree)
    commit = _commit(tree, name or "HEAD") if name or _is_repository(tree) else ""
    before, after = (_archive(tree, commit, work, side) if commit else _copy(tree, work, side) for side in ("before", "after"))
    old = _short(tree, commit) if commit else os.path.basename(os.path.abspath(tree))
    _apply(after, patch)
    subject = re.search(r"^Subject: (?:\[[^\]]*\] *)?(.+(?:\n[ \t].+)*)", patch, re.MULTILINE)
    title = re.sub(r"\s+", " ", subject[1]) if subject else "the patch"
    return _change(before, after, old, f"{old} with the patch", title, _PATCHED.findall(patch))


def _change(before: str, after: str, old: str, new: str, title: str, names: list[str]) -> Change:
    diff = dict(_diff(Path(before), Path(after)))
    outside = tuple(name for name in dict.fromkeys(names) if name not in diff)
    if not diff:
        rest = f"; it changes {', '.join(outside[:3])}{', ...' * (len(outside) > 3)}" if outside else ""
        raise NotFound(f"{title}: nothing that KVM's modules are built from differs{rest}")
    return Change(before, after, old, new, title, _version(after), diff, outside)


def _version(tree: str) -> str:
    """The version that the tree's makefile says, "" where it says none."""
    try:
        with open(os.path.join(tree, "Makefile"), encoding="utf-8", errors="replace") as file:
            found = dict(_VERSION.findall(file.read()))
    except OSError:
        return ""
    numbers = [found.get(name, "") for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    return ".".join(number for number in numbers if number) + str(found.get("EXTRAVERSION", ""))


def _archive(tree: str, commit: str, work: str, side: str) -> str:
    """KVM's part of the tree at ``commit``, in a folder of ``work``."""
    folder = os.path.join(work, side)
    there = _git(tree, "ls-tree", "--name-only", commit, "--", *_FOLDERS, "Makefile").splitlines()
    data = _git_bytes(tree, "archive", "--format=tar", commit, "--", *there)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() and kbuild.SOURCE.fullmatch(member.name) else None
                if content:
                    path = Path(folder, member.name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content.read())
    except deb.BROKEN as error:
        raise LabError(f"git archive in {tree}: {error}") from error
    return folder


def _copy(tree: str, work: str, side: str) -> str:
    """KVM's part of the tree as its files are, in a folder of ``work``."""
    folder = Path(work, side)
    found = (Path(where, name) for part in _FOLDERS for where, _, names in os.walk(Path(tree, part)) for name in names)
    for path in (*found, Path(tree, "Makefile")):
        name = str(path.relative_to(tree))
        if path.is_file() and kbuild.SOURCE.fullmatch(name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
    return str(folder)


def _apply(folder: str, patch: str) -> None:
    """Apply what ``patch`` has for files that are in ``folder``. Raises NotFound."""
    if not shutil.which("git"):
        raise LabError("a patch needs git: apt-get install git")
    names = [name for name in dict.fromkeys(_PATCHED.findall(patch)) if kbuild.SOURCE.fullmatch(name)]
    if not names:
        return
    # The cache may be in somebody's repository, and git would read the paths as that repository's.
    environment = os.environ | {"LC_ALL": "C", "GIT_CEILING_DIRECTORIES": os.path.dirname(folder)}
    command = ["git", "apply", "-p1", "--whitespace=nowarn", *(f"--include={name}" for name in names)]
    done = program.run(command, cwd=folder, env=environment, input=patch.encode())
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it failed"]
        raise NotFound(f"the patch does not apply: {said[0].removeprefix('error: ')}")


def _diff(before: Path, after: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The files that differ, each with its unified diff."""
    names = {str(path.relative_to(side)) for side in (before, after) for path in side.rglob("*") if path.is_file()}
    for name in sorted(names - {"Makefile"}):
        old, new = (_lines(side / name) for side in (before, after))
        if old != new:
            then = f"a/{name}" if (before / name).exists() else _NONE
            now = f"b/{name}" if (after / name).exists() else _NONE
            yield name, tuple(difflib.unified_diff(old, new, then, now, lineterm=""))


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    # Not splitlines(): a form feed ends no line for git.
    return text.removesuffix("\n").split("\n") if text else []
