# SPDX-License-Identifier: GPL-2.0-only
"""The man page and the completions, as man and the shells see them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from kvmtest.cli import parser

pytestmark = pytest.mark.program

pytest.importorskip("argparse_manpage", reason="argparse-manpage is not installed (make docs)")
pytest.importorskip("shtab", reason="shtab is not installed (make docs)")


def tool(name: str) -> str:
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def load() -> ModuleType:
    path = Path(__file__).parents[2] / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    generate.main(folder)
    return folder


def test_every_file_is_made(made: Path) -> None:
    assert sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()) == sorted(generate.PATHS)


def test_man_has_no_warning_and_shows_every_option_and_epilog(made: Path) -> None:
    done = subprocess.run(
        [tool("man"), "--warnings", "-E", "UTF-8", "-l", str(made / generate.MAN)],
        env=os.environ | {"MANWIDTH": "200", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    words = set(re.sub(r".\x08", "", done.stdout).split())
    whole = " ".join(re.sub(r".\x08", "", done.stdout).split())
    for command in generate.commands(parser()):
        assert command.prog in whole
        for action in command._actions:
            assert set(action.option_strings[-1:]) - {"--help"} <= words
        for line in (command.epilog or "").split("\n"):
            assert " ".join(line.split()) in whole


def test_mandoc_finds_nothing(made: Path) -> None:
    done = subprocess.run(
        [tool("mandoc"), "-T", "lint", "-W", "warning", str(made / generate.MAN)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


#: Typed text, and the completions of its last word.
TYPED = [
    ("kvmtest expl", {"explain"}),
    ("kvmtest run init.msi.h", {"init.msi.host"}),
    ("kvmtest run reset init.msi.h", {"init.msi.host"}),
    ("kvmtest explain cr", {"cr0", "cr2", "cr3", "cr4", "cr8"}),
    ("kvmtest lab run --backend s", {"svm"}),
]
_BASH = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
declared=$(complete -p kvmtest); function=${declared##*-F }; function=${function%% *}
"$function" kvmtest "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(("typed", "offered"), TYPED)
def test_bash_completes(made: Path, typed: str, offered: set[str]) -> None:
    script = str(made / generate.COMPLETIONS["bash"])
    done = subprocess.run([tool("bash"), "-c", _BASH, "bash", script, *typed.split()], capture_output=True, text=True, check=True)
    assert (set(done.stdout.split()), done.stderr) == (offered, "")


@pytest.mark.parametrize(("typed", "offered"), TYPED)
def test_fish_completes(made: Path, typed: str, offered: set[str]) -> None:
    command = f"source {made / generate.COMPLETIONS['fish']}; complete -C '{typed}'"
    done = subprocess.run([tool("fish"), "--no-config", "-c", command], capture_output=True, text=True, check=True)
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} == offered


def test_zsh_can_read_it(made: Path) -> None:
    subprocess.run([tool("zsh"), "-n", str(made / generate.COMPLETIONS["zsh"])], check=True)
    assert (made / generate.COMPLETIONS["zsh"]).read_text().startswith("#compdef kvmtest")


def test_selectors_and_items_are_those_that_exist() -> None:
    assert {"init", "init.msi", "init.msi.host", "reset.create.guest"} <= set(generate.selectors())
    assert {"cr0", "lapic.svr", "msr.pat"} <= set(generate.items())


def test_help_in_roff_keeps_what_roff_would_eat() -> None:
    text = "A line\n.beginning with a dot\n\n  two  spaces \\ 'quoted'\n\nthe end"
    want = ["A line", "\\&.beginning with a dot", ".PP", ".nf", "  two  spaces \\e 'quoted'", ".fi", ".PP", "the end"]
    assert list(generate._roff(text)) == want
