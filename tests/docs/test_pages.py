# SPDX-License-Identifier: GPL-2.0-only
"""The pages that docs/pages.py makes are those of the tables as they are now; each of their commands shows something."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

from kvmtest.engine import plan
from kvmtest.spec.deviations import DEVIATIONS
from tests.docs.shell import PAGES, ROOT
from tests.lab import caught


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = load()
MADE = pages.pages()
KEPT = caught.kept()


@pytest.mark.parametrize("name", MADE)
def test_a_page_is_as_its_tables(name: str) -> None:
    assert PAGES[f"docs/{name}"] == MADE[name], "run python docs/pages.py"


def test_every_cause_is_on_the_page_once_with_a_command() -> None:
    text = MADE["found.md"]
    for one in DEVIATIONS:
        why = one.why if one.kind != "fixed" else one.commit
        assert why[1:] in text, why
    open_ = text.partition("## Open")[2].partition("## Intended")[0]
    assert len(re.findall(r"^\d+\. ", open_, re.MULTILINE)) == len({(d.commit, d.why) for d in DEVIATIONS if d.kind == "open"})
    assert len(re.findall(r"```sh\n +kvmtest ", open_)) == open_.count("**\n")


def test_each_break_that_was_run_is_that_of_the_list_and_was_caught() -> None:
    of_now = {mutant.name: mutant for mutant in caught.BREAKS}
    assert len(of_now) == len(caught.BREAKS) and KEPT.keys() <= of_now.keys()
    for name, row in KEPT.items():
        mutant = of_now[name]
        now = (mutant.file, mutant.line.strip(), mutant.statement, mutant.backend)
        assert (row.file, row.line, row.statement, row.backend) == now, f"{name} has changed: make mutants ARGS={name}"
        assert row.caught and plan.select(plan.plan(), (row.selector,)), name


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("if (!MUTANT)", "without `x = 0;`"),
        ("if (!(MUTANT && f(a)))", "without `x = 0;` if `f(a)`"),
        ("if (MUTANT) y = 1;", "`y = 1;`, before `x = 0;`"),
        ("if (MUTANT && (a || b(c))) return 0; else", "`return 0;` if `(a || b(c))`, instead of `x = 0;`"),
        ("z; if (MUTANT) y = 1;", "before `x = 0;`: `z; if (MUTANT) y = 1;`"),
    ],
)
def test_a_break_in_words(statement: str, says: str) -> None:
    assert pages._broken(statement, "x = 0;") == says


def test_a_break_that_nothing_shows_is_named() -> None:
    row = next(iter(KEPT.values()))
    text = "\n".join(pages._breaks([row, row._replace(name="broken-for-nothing", caught=0, selector="")]))
    assert "Not shown by any case: broken-for-nothing." in text and "2 breaks" in text
