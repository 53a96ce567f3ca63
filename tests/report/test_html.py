# SPDX-License-Identifier: GPL-2.0-only
"""The page as text: it holds what it should, and nothing in a file gets out of its place."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings

from kvmtest.model.record import Observation, Record
from kvmtest.model.run import Run
from kvmtest.model.value import Expected
from kvmtest.model.verdict import VERDICTS, Verdict, overall
from tests.report.samples import HOSTILE, LAB, made, observation, of_each, record, saved, saved_runs, written
from tests.sample import at_most


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


def _expanded(spans: list[int | list[int]]) -> list[int]:
    return [n for span in spans for n in ([span] if isinstance(span, int) else range(span[0], span[1] + 1))]


def _rows(data: Any) -> list[tuple[str, str, str]]:
    """Each result's id, case and verdict, put together again from the page's tables."""
    found = []
    for run in data["runs"]:
        for seen in _expanded(run[2]):
            group, case, look = data["seen"][seen]
            for number in _expanded(data["looks"][look]):
                verdict, item = data["records"][number][:2]
                name = ".".join([*data["groups"][group], data["items"][item]])
                found.append((name, data["cases"][case], data["verdicts"][verdict]))
    return found


def _results(seen: list[Observation]) -> list[tuple[str, str, str]]:
    return [(result.id, result.case, result.verdict) for one in seen for result in one.results]


def test_the_data_are_the_results() -> None:
    data = _Page(written("html", saved(of_each()))).data
    assert _rows(data) == _results(of_each())
    strings = {data["strings"][i] for record in data["records"] for i in record[2:-1]}
    assert {"0x5000", "0x0", "because known", "03a6e84069d1"} <= strings


def test_the_order_of_verdicts_is_that_of_a_tests_overall() -> None:
    order = [Verdict(verdict) for verdict in _Page(written("html", saved(()))).data["verdicts"]]
    assert sorted(order) == sorted(VERDICTS)
    assert all(overall((a, b)) is a for i, a in enumerate(order) for b in order[i:])


def test_the_differing_bits_go_along_by_name() -> None:
    record = Record("cr0", Verdict.FAIL, 0x5000, Expected((0x10,)), 0x80000010)
    page = _Page(written("html", saved([observation([record])])))
    (detail,) = page.data["records"]
    assert [page.data["strings"][i] for i in detail[2:6]] == ["0x5000", "0x10  ET", "0x80000010  PG|ET", "PG"]
    assert "PG|ET" in page.shown


def test_a_run_costs_what_differs() -> None:
    seen = [observation([Record(f"i{i}", Verdict.PASS, observed=c % 3) for i in range(40)], f"c{c}") for c in range(30)]
    other = [*seen[:15], made("fail", "i3", "c15"), *seen[16:]]
    two, ten = (len(written("html", *[saved(seen)] * runs)) for runs in (2, 10))
    assert 0 < (ten - two) / 8 < 1000, "a run like another is its name, its host and one span"
    data = _Page(written("html", saved(seen), saved(other))).data
    assert [run[2] for run in data["runs"]] == [[[0, 29]], [[0, 14], 30, [16, 29]]]
    assert len(data["records"]) == 121 and len(data["looks"]) == 4


def test_it_begins_with_the_findings() -> None:
    page = _Page(written("html", saved(of_each(), host=LAB)))
    said = "3 findings unexpected in 4 of 14 results"
    for part in (said, "QEMU 9", "kvmtest lab run --backend svm", "kvmtest explain item-fail"):
        assert part in " ".join(page.shown.split())
    assert "item-pass" not in page.shown
    order = [page.shown.index(part) for part in ("item-fail keeps the planted value after INIT", "1 known: ", "because known")]
    assert order == sorted(order)


def test_a_finding_has_its_records() -> None:
    seen = [made("fail"), made("fail", "cr4"), made("pass", "cr4"), made("known", "cr0")]
    seen += [made("known", "cr3", "b"), made("fail", where=("sipi", "msi", "host"))]
    data = _Page(written("html", saved(seen))).data
    found = {
        (event, title): {(data["items"][data["records"][i][1]], data["verdicts"][data["records"][i][0]]) for i in _expanded(of)}
        for title, event, _, of in data["findings"]
    }
    assert found == {
        ("init", "cr3, cr4 keep the planted value after INIT"): {("cr3", "fail"), ("cr4", "fail")},
        ("sipi", "cr3 keeps the planted value after SIPI"): {("cr3", "fail")},
        ("init", "cr0, cr3 are not as expected after INIT"): {("cr0", "known"), ("cr3", "known")},
    }


def _cells(page: _Page) -> list[tuple[str, str]]:
    """The finding's number and the run's of each mark in the table of findings by runs."""
    return [(a["data-find"] or "", a["data-run"] or "") for tag, a in page.elements if tag == "button" and a.get("data-run")]


def test_runs_are_compared_by_their_findings() -> None:
    both = [made("fail"), made("fail", words="again"), made("known", "cr0")]
    runs = [saved(both, "one"), saved([*both[:1], made("fail", "cr4", where=("sipi", "msi", "host")), *both[2:]], "two", LAB)]
    page = _Page(written("html", *runs))
    assert [finding[0].split()[0] for finding in page.data["findings"]] == ["cr3", "cr4", "cr0"]
    assert _cells(page) == [("0", "0"), ("0", "1"), ("1", "1"), ("2", "0"), ("2", "1")]
    assert "1 known in all runs" in page.shown and "in some runs" not in page.shown


def test_a_great_many_findings_are_counted() -> None:
    page = _Page(written("html", saved([made("fail", f"i{i}", f"case{i}") for i in range(230)])))
    assert len(page.data["findings"]) == 200
    assert "230 findings unexpected" in page.shown and "The guest" not in page.shown
    assert "Only the host sees it, by ioctl: 30 more" in page.shown


def test_nothing_is_fetched() -> None:
    text = written("html", saved(of_each()))
    page = _Page(text)
    links = [value for _, a in page.elements for name, value in a.items() if name in ("src", "href", "action", "srcset")]
    assert set(links) <= {"#results"}
    (policy,) = [a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy and policy.startswith("default-src 'none'; style-src 'sha256-") and "url(" not in text and "@import" not in text


def _map(page: _Page) -> dict[tuple[str, ...], tuple[str, str]]:
    """Return the verdict and counts in the page's map, by event, trigger, view and the number of the state."""
    found = {}
    groups: list[str | None] = []
    state, column = "", -1
    for tag, a in page.elements:
        if tag == "table":
            groups = []
        elif "data-group" in a:
            groups.append(a["data-group"])
        elif "data-state" in a:
            state, column = a["data-state"] or "", -1
        elif tag == "td":
            column += 1
        elif tag == "a" and a.get("href") == "#results":
            found[*page.data["groups"][int(groups[column] or "")], state] = (a["class"] or "", a["title"] or "")
    return found


def _plan() -> list[Observation]:
    """Two cases, by each of two triggers at rest and by one in SMM; of each an item that cannot be tried."""
    return [
        observation([record("pass"), record("skip", "x")], f"{state}{n}", ("init", trigger, view), state=state)
        for state, trigger in (("", "latched"), ("", "msi"), ("in-smm", "msi"))
        for view in ("host", "guest")
        for n in range(2)
    ]


def test_each_cell_of_the_map_shows_the_worst_verdict() -> None:
    groups = [(trigger, view) for trigger in ("latched", "msi") for view in ("host", "guest")]
    good = {("init", *group, state): ("pass", "2 pass") for group in groups for state in "01"}
    del good["init", "latched", "host", "1"], good["init", "latched", "guest", "1"]
    page = _Page(written("html", saved(_plan())))
    assert _map(page) == good
    assert page.shown.index("plain") < page.shown.index("in-smm")
    seen = _plan()
    for verdict, reported in (("fail", "1 fail, 1 pass"), ("known", "1 known, 1 pass"), ("skip", "2 pass"), ("info", "2 pass")):
        wrong = observation([record("pass"), record(verdict, "cr4")], "in-smm0", ("init", "msi", "guest"), state="in-smm")
        place = next(i for i, one in enumerate(seen) if (one.case, one.prefix) == (wrong.case, wrong.prefix))
        changed = _map(_Page(written("html", saved([*seen[:place], wrong, *seen[place + 1 :]]))))
        worst = reported.split()[1].rstrip(",")
        assert changed == {**good, ("init", "msi", "guest", "1"): (worst, reported)}
    nothing = _map(_Page(written("html", saved([made("skip"), made("skip", "cr4"), made("skip", words="b")]))))
    assert nothing == {("init", "msi", "host", "0"): ("skip", "2 skip")}
    twice = _map(_Page(written("html", saved([made("known"), made("pass", "cr4"), made("skip", words="b")]))))
    assert twice == {("init", "msi", "host", "0"): ("known", "1 known, 1 skip")}


def test_the_map_is_of_all_runs_until_one_is_chosen() -> None:
    runs = [saved([made("pass"), made("known", words="b", state="in-l2")], "one"), saved([made("fail")], "two")]
    data = _Page(written("html", *runs)).data
    charts = [[data["cells"][number] for number in data["charts"][chart]] for chart in data["chart"]]
    assert [[cell and cell[2] for cell in chart] for chart in charts] == [
        ["1 fail, 1 pass", "1 known"],
        ["1 pass", "1 known"],
        ["1 fail", None],
    ]


def test_what_the_kernel_says_is_no_case_of_the_map() -> None:
    seen = Observation(None, "none", "lab", "kernel", observation([record("fail", "log")]).blocks)
    assert "Map" not in _Page(written("html", saved([seen]))).shown


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_an_element(text: str) -> None:
    seen = {said: [made(v, words=said, reason=said, state=said) for v in VERDICTS] for said in ("plain", text)}
    plain, hostile = (_Page(written("html", saved(of, said, LAB._replace(kernel=said), said))) for said, of in seen.items())
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert not set("<>&\u2028") & set(hostile.scripts[0])
    assert len(hostile.scripts) == 2 and hostile.scripts[1] == plain.scripts[1]
    assert len(_rows(hostile.data)) == len(VERDICTS)


@settings(max_examples=at_most(50))
@given(saved_runs())
def test_any_run_is_a_page(runs: list[Run]) -> None:
    text = written("html", *runs)
    page = _Page(text)
    assert [(name, verdict) for name, _, verdict in _rows(page.data)] == [(r.id, r.verdict) for run in runs for r in run.results]
    data = page.data
    departs = {i for i, record in enumerate(data["records"]) if Verdict(data["verdicts"][record[0]]).attention}
    assert {i for _, _, _, of in data["findings"] for i in _expanded(of)} == departs
    assert len(page.scripts) == 2
    assert all(c.isprintable() or c == "\n" for c in text)
