# SPDX-License-Identifier: GPL-2.0-only
"""The lines of a source that a patch is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmtest.coverage.patch import hunks, patched
from kvmtest.coverage.source import Sources
from tests.coverage.made import FILE, source

_HEAD = f"diff --git a/{FILE} b/{FILE}\nindex 123..456 100644\n--- a/{FILE}\n+++ b/{FILE}\n"
#: Replaces line 9, and adds one after it.
_REPLACE = (
    "@@ -6,6 +6,7 @@ int accept(int x)\n int accept(int x)\n {\n \tif (x)\n-\t\treset(x);\n"
    "+\t\treset(x, true);\n+\t\tagain();\n \telse\n \t\twait(x);\n"
)
#: Adds a line between 8 and 9.
_ADD = "@@ -8,2 +8,3 @@\n \tif (x)\n+\t\tfirst();\n \t\treset(x);\n"
_REMOVE = "@@ -8,3 +8,2 @@\n \tif (x)\n-\t\tsecond();\n \t\treset(x);\n"
#: The hunk that made lines 7 to 9 of the source.
_MADE = "@@ -6,3 +6,4 @@\n int accept(int x)\n-{ x++;\n+{\n+\tif (x)\n \t\treset(x);\n"


def _lines(diff: str, folder: Path) -> list[tuple[str, tuple[int, ...], bool]]:
    fit, unfit = patched(hunks(diff), Sources([str(source(folder))]))
    assert not unfit
    return [(one.file, one.lines, one.made) for one in fit]


@pytest.mark.parametrize(
    ("hunk", "lines", "made"),
    [
        (_REPLACE, (9,), False),
        (_ADD, (8, 9), False),
        (_REMOVE, (8, 9), True),
        (_MADE, (7, 8), True),
        # Of another version, where the same lines have other numbers.
        (_REPLACE.replace("-6,6 +6,7", "-106,6 +105,7"), (9,), False),
        (_MADE.replace("-6,3 +6,4", "-1,3 +1,4"), (7, 8), True),
    ],
)
def test_lines_are_those_made_or_to_be_changed(hunk: str, lines: tuple[int, ...], made: bool, tmp_path: Path) -> None:
    assert _lines(_HEAD + hunk, tmp_path) == [(FILE, lines, made)]


def test_what_stands_twice_is_found_where_the_patch_has_it(tmp_path: Path) -> None:
    sources = Sources([str(tmp_path)])
    (tmp_path / "a.c").write_text("x\ny\n" * 10)
    head = "--- a/a.c\n+++ b/a.c\n"
    for first in (1, 7, 19):
        (one,), _ = patched(hunks(f"{head}@@ -{first},2 +{first} @@\n x\n-y\n"), sources)
        assert one.lines == (first + 1,) and not one.made


def test_a_mail_and_a_commit_have_words_besides(tmp_path: Path) -> None:
    mail = f"From: me\nSubject: [PATCH] KVM: x86\n\n--- is not a file\n---\n lapic.c | 2 +-\n\n{_HEAD}{_REPLACE}-- \n2.39\n\n"
    assert _lines(mail, tmp_path) == [(FILE, (9,), False)]


def test_several_hunks_and_files(tmp_path: Path) -> None:
    other = "--- a/Documentation/x.rst\n+++ b/Documentation/x.rst\n@@ -1 +1 @@\n-x\n+y\n"
    new = "--- /dev/null\n+++ b/arch/x86/kvm/new.c\n@@ -0,0 +1,2 @@\n+int x;\n+int y;\n"
    far = "@@ -15,4 +16,5 @@\n void unused(void)\n {\n+\tonce();\n \twait(0);\n }\n\\ No newline at end of file\n"
    diff = other + new + _HEAD + _ADD + far
    assert _lines(diff, tmp_path) == [(FILE, (8, 9), False), (FILE, (16, 17), False)]
    (tmp_path / "arch/x86/kvm/new.c").write_text("int x;\nint y;\n")
    assert _lines(other + new, tmp_path) == [("arch/x86/kvm/new.c", (1, 2), True)]


def test_a_source_has_all_of_a_patch_or_none(tmp_path: Path) -> None:
    """An empty line is found anywhere: alone it does not make a source one that has the patch."""
    blank = "@@ -17 +17 @@\n-\twait(0);\n+\n"
    assert _lines(_HEAD + _ADD + blank, tmp_path) == [(FILE, (8, 9), False), (FILE, (17,), False)]


def test_a_hunk_of_another_source_is_reported(tmp_path: Path) -> None:
    fit, (unfit,) = patched(hunks(_HEAD + _REPLACE.replace("reset(x)", "init(x)") + _ADD), Sources([str(source(tmp_path))]))
    assert [one.lines for one in fit] == [(8, 9)] and unfit.old == 6


@pytest.mark.parametrize(
    "text", ["", "no diff", "@@ -1 +1 @@\n-x\n+y\n", _HEAD, f"{_HEAD}@@ -1,{'9' * 5001} +1 @@\n-x\n+y\n"]
)
def test_what_is_no_diff_has_no_hunks(text: str) -> None:
    assert list(hunks(text)) == []


def test_a_hunk_that_is_cut_short_ends_where_it_does() -> None:
    (one,) = hunks(_HEAD + "@@ -6,6 +6,7 @@\n int accept(int x)\n")
    assert one.side(" ") == [(" ", "int accept(int x)")]
