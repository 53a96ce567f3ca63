# SPDX-License-Identifier: GPL-2.0-only
"""Ids, cases and selectors in the documentation, the recipes and --help match something."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmtest.cli import parser
from kvmtest.engine import plan
from kvmtest.lab import cell

ROOT = Path(__file__).parents[2]
RECIPES = (path for path in ROOT.glob("contrib/**/*") if path.is_file() and path.suffix != ".pyc")
FILES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md"), *RECIPES]
_ID = re.compile(
    r"(?<![\w./-])(?:reset|init|sipi|shutdown|none)\.[a-z*][a-z0-9*{},_-]*"
    r"(?:\.[a-z0-9*{},_.-]*[a-z0-9*}])?(?:/[a-z0-9*{},_-]+)?"
)
#: In backticks, what begins as no id does.
_GLOB = re.compile(r"`(\*[a-z0-9*{},_./-]+)`")
#: The beginning of assert_state()'s ids for a state from a caller.
_EXTERNAL = "reset.external."


PLAN, FULL = plan.plan(), plan.plan(full=True)


def _helps(made: argparse.ArgumentParser) -> Iterator[str]:
    yield made.format_help()
    for action in made._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _helps(command)


TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in FILES} | {"--help": "\n".join(_helps(parser()))}
SELECTORS = sorted({found for text in TEXTS.values() for found in (*_ID.findall(text), *_GLOB.findall(text))})

def _selectable(selector: str) -> None:
    plan.select(PLAN, cell.inner((selector,)), FULL)


@pytest.mark.parametrize("selector", [found for found in SELECTORS if not found.startswith(_EXTERNAL)])
def test_a_selector_takes_something(selector: str) -> None:
    _selectable(selector)


def test_what_is_not_there_is_found() -> None:
    assert _ID.findall("`init.smm.host.cr0`, init.msi/ap,in-nowhere.") == ["init.smm.host.cr0", "init.msi/ap,in-nowhere"]
    with pytest.raises(plan.SelectorError):
        _selectable("init.smm.host.cr0")


def test_the_page_on_results_names_every_trigger() -> None:
    table = TEXTS["docs/results.md"].partition("\n## Triggers")[2].partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([a-z0-9-]+)`", row)}
    assert named == {case.trigger for case in PLAN}
