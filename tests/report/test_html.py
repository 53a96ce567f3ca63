# SPDX-License-Identifier: GPL-2.0-only
"""The page as text: it holds what it should, and nothing in a file gets out of its place."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings

from kvmtest.engine.result import VERDICTS
from kvmtest.report.saved import Saved
from kvmtest.report.tally import WORST
from tests.report.samples import HOSTILE, LAB, made, of_each, saved, saved_runs, written


class _Page(HTMLParser):
    """Elements by name with their attributes, and the text in each script element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.shown = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.shown += data

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def _rows(data: Any) -> list[tuple[str, str, str]]:
    """Each result's id, case and verdict, put together again from the page's tables."""
    found = []
    for run in data["runs"]:
        for i in range(0, len(run["rows"]), 3):
            (group, item), case, detail = data["ids"][run["rows"][i]], *run["rows"][i + 1 : i + 3]
            name = ".".join([*data["groups"][group], data["items"][item]])
            found.append((name, data["cases"][case], data["verdicts"][data["details"][detail][0]]))
    return found


def test_the_data_are_the_results() -> None:
    data = _Page(written("html", saved(of_each()))).data
    assert _rows(data) == [(r.id, r.case, r.verdict) for r in of_each()]
    strings = {data["strings"][i] for detail in data["details"] for i in detail[1:-1]}
    assert {"0x5000", "0x0", "because known", "03a6e84069d1"} <= strings


def test_the_differing_bits_go_along_by_name() -> None:
    result = made("fail", "cr0")._replace(expected="0x10", observed="0x80000010")
    page = _Page(written("html", saved([result])))
    (detail,) = page.data["details"]
    assert [page.data["strings"][i] for i in detail[1:5]] == ["0x5000", "0x10  ET", "0x80000010  PG|ET", "PG"]
    assert "PG|ET" in page.shown


def test_what_needs_attention_is_on_the_page_itself() -> None:
    shown = _Page(written("html", saved(of_each(), host=LAB))).shown
    for part in ("4 unexpected", "of 14 results", "QEMU 9", "init.msi.host.item-fail", "kvmtest lab run --backend svm"):
        assert part in shown
    assert "init.msi.host.item-pass" not in shown


def test_nothing_is_fetched() -> None:
    text = written("html", saved(of_each()))
    page = _Page(text)
    assert not [a for _, attributes in page.elements for a in attributes if a in ("src", "href", "action", "srcset")]
    (policy,) = [a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy and policy.startswith("default-src 'none'; style-src 'sha256-") and "url(" not in text and "@import" not in text


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_an_element(text: str) -> None:
    plain, hostile = (
        _Page(written("html", saved([made(v, case=said, reason=said) for v in VERDICTS], said, LAB._replace(kernel=said), said)))
        for said in ("plain", text)
    )
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert not set("<>&\u2028") & set(hostile.scripts[0])
    assert len(hostile.scripts) == 2 and hostile.scripts[1] == plain.scripts[1]
    assert len(_rows(hostile.data)) == len(VERDICTS)


@settings(max_examples=50)
@given(saved_runs())
def test_any_run_is_a_page(runs: list[Saved]) -> None:
    text = written("html", *runs)
    page = _Page(text)
    assert [(name, verdict) for name, _, verdict in _rows(page.data)] == [(r.id, r.verdict) for run in runs for r in run.results]
    assert page.data["verdicts"] == list(WORST) and len(page.scripts) == 2
    assert all(c.isprintable() or c == "\n" for c in text)
