# SPDX-License-Identifier: GPL-2.0-only
"""Every command in the documentation and in --help can be typed; what needs no KVM, or little of it, is run."""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest

from kvmtest import cli, explain, take
from kvmtest.cli import parser
from kvmtest.engine import plan
from kvmtest.kvm import Kvm
from kvmtest.lab import cell
from kvmtest.testing.file import to_file
from tests.commands.test_judge import _sections
from tests.docs import shell
from tests.observer.made import RECORDED

PLAN, FULL = plan.plan(), plan.plan(full=True)
PARSERS = dict(shell.parsers(parser()))
#: Results of eight runs, which stand for every file of results that an example reads.
_RESULTS = shell.ROOT / "tests/data/cells.json"
#: Cases that an example may run here.
_MOST = 60
#: A word in capitals stands for one of the user's.
_STANDS_FOR = re.compile(r"(?:.*=)?[A-Z|]+(?:\.\.\.)?")


@cache
def _matched(selector: str) -> int:
    """The number of cases that a selector matches. Raises SelectorError."""
    return len(plan.select(PLAN, cell.inner((selector,)), FULL))


def typed(words: tuple[str, ...]) -> argparse.Namespace:
    """Parse a command, and look up what its selectors and names mean."""
    args = parser().parse_args(words)
    for selector in getattr(args, "selectors", ()):
        _matched(selector)
    if words[0] == "explain":
        assert list(explain.explain(args.name))
    if getattr(args, "case", None):
        assert take.named(args.case)
    return args


def mentioned(words: tuple[str, ...]) -> None:
    """Look up a command that is only mentioned: it may be cut, or have words that stand for others."""
    names = tuple(word for word in words if not word.startswith("-"))
    known = max((path for path in PARSERS if path == names[: len(path)]), key=len)
    assert known or _STANDS_FOR.fullmatch(names[0]), words
    options = {option for path in {known, known[:1]} for action in PARSERS[path]._actions for option in action.option_strings}
    assert {word for word in words if word.startswith("--")} <= options, words
    whole = len(words) > len(known) and not words[-1].startswith("-") and "..." not in words
    if whole and known and not any(_STANDS_FOR.fullmatch(word) for word in words):
        typed(tuple(shlex.split(" ".join(words))))


def shown(words: tuple[str, ...]) -> str:
    return shlex.join(words)


@pytest.mark.parametrize("words", shell.COMMANDS, ids=shown)
def test_a_command_can_be_typed(words: tuple[str, ...]) -> None:
    typed(words)


@pytest.mark.parametrize("words", shell.MENTIONED, ids=shown)
def test_a_mentioned_command_has_these_options(words: tuple[str, ...]) -> None:
    mentioned(words)


def _args(words: tuple[str, ...]) -> argparse.Namespace | None:
    """The parsed command; None for one that cannot be typed, which is another test's failure."""
    with contextlib.suppress(SystemExit):
        return parser().parse_args(words)
    return None


def _reads(words: tuple[str, ...]) -> bool:
    """True of a command that reads files, or nothing at all, and is over at once."""
    args = _args(words)
    if not args or words[0] == "list" and (args.here or args.covers):
        return False
    return words[0] in ("report", "series", "spec", "judge", "explain", "list")


@pytest.mark.parametrize("words", [words for words in shell.COMMANDS if _reads(words)], ids=shown)
def test_a_command_that_needs_no_kvm_runs(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(shell.ROOT / "contrib/known.toml", tmp_path)
    args = parser().parse_args(words)
    for name in (*getattr(args, "results", ()), getattr(args, "baseline", None)):
        if name:
            path = Path(name.partition("#")[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(_RESULTS, path)
    for name in (getattr(args, "state", None), getattr(args, "before", None)):
        if words[0] == "judge" and name:
            Path(name).write_bytes(to_file(_sections()))
    for name in getattr(args, "measured", ()):
        Path("bare.log").write_bytes(RECORDED)
        cli.main(("observer", "judge", "bare.log", "--report", f"json={name}"))
    assert cli.main(words) in (0, 1)


def _few(words: tuple[str, ...]) -> bool:
    """True of a run on this machine that is over in a moment."""
    args = _args(words)
    if not args or words[0] == "snapshot":
        return bool(args)
    given = words[0] == "run" and args.selectors and not (args.scenario or args.baseline or args.coverage or args.full)
    return bool(given) and sum(map(_matched, args.selectors)) <= _MOST


@pytest.mark.parametrize("words", [words for words in shell.COMMANDS if _few(words)], ids=shown)
def test_a_short_run_runs(words: tuple[str, ...], kvm: Kvm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # 125 and 3: this KVM does not have it.
    assert cli.main(words) in (0, 1, 3, 125)


@pytest.mark.parametrize("names", [names for names in PARSERS if names], ids=shown)
def test_every_help_has_an_example_of_its_command(names: tuple[str, ...]) -> None:
    assert any(words[: len(names)] == names for words in shell.examples(shell.helps())), names


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("kvmtest run --base-line old.json", "unrecognized"),
        ("kvmtest runs init.msi", "invalid choice"),
        ("kvmtest report --format yaml r.json", "format"),
        ("sudo kvmtest lab run --backend svm; make", "required"),
    ],
)
def test_a_wrong_option_is_found(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = shell.examples(line)
    with pytest.raises(SystemExit):
        typed(words)
    assert says in capsys.readouterr().err
    with pytest.raises((AssertionError, SystemExit, ValueError)):
        mentioned(words)


def test_a_wrong_selector_is_found() -> None:
    with pytest.raises(plan.SelectorError):
        typed(("run", "init.msi.host.cr9"))
    with pytest.raises(plan.SelectorError):
        mentioned(("run", "init.msi.host.cr9"))


def test_commands_are_found_in_what_the_shell_runs() -> None:
    text = (
        "kvmtest run --format json -o a.json; .venv/bin/kvmtest explain cr3   # a rule\n"
        "gcc -o x x.c && sudo kvmtest \\\n  spec | less\n"
        "kvmtest report a.json#6.1/svm 'init.{a,b}' > out\n"
        "kvmtest diff <(ssh one kvmtest snapshot --event init)\n"
        "kvmtest report ...\n"
    )
    assert list(shell.examples(text)) == [
        ("run", "--format", "json", "-o", "a.json"),
        ("explain", "cr3"),
        ("spec",),
        ("report", "a.json#6.1/svm", "init.{a,b}"),
        ("snapshot", "--event", "init"),
        ("diff", "FILE"),
    ]


def test_each_target_of_make_is_there() -> None:
    targets = set(re.findall(r"^([a-z][a-z -]*):", (shell.ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {name for line in targets for name in line.split()}
    for name, text in shell.PAGES.items():
        named = re.findall(r"(?:^|`)make ([a-z][a-z-]*)\b(?!=)", text, re.MULTILINE)
        assert set(named) <= known, name
