# SPDX-License-Identifier: GPL-2.0-only
"""The page in a browser: Debian's Chromium, headless. Screenshots go to the folder KVMTEST_SHOTS, or a temporary one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from kvmtest.coverage import html
from kvmtest.coverage.source import Sources
from kvmtest.model.record import Observation, Record, Result
from kvmtest.model.run import Run
from kvmtest.model.value import Expected
from kvmtest.model.verdict import VERDICTS, Verdict
from tests.coverage.made import FILE, source, table
from tests.report.samples import HOSTILE, LAB, counts, made, observation, saved, written

_SIZES = {"desktop": (1400, 1000), "phone": (390, 844)}
_EVENTS = ("reset", "init", "sipi")
Opened = Callable[..., Page]


def _many() -> list[Observation]:
    """A few thousand results of all verdicts."""
    return [
        made(VERDICTS[(i * 7 + e) % 97 % 7 if i % 5 == 0 else -1], f"item{i:03}", f"case-{c}", where=(event, "msi", view))
        for e, event in enumerate(_EVENTS)
        for view in ("host", "guest")
        for i in range(200)
        for c in range(3)
    ]


def _results(seen: list[Observation]) -> list[Result]:
    return [result for one in seen for result in one.results]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if not path:
        pytest.skip("no chromium here: apt-get install chromium, or make test-html")
    with sync_playwright() as playwright:
        # Its sandbox does not work for root, and the page is our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.getuid() == 0 else [])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Opens the page of runs; fails on anything that the browser complains of or that the page fetches."""
    complaints: list[str] = []
    contexts = []

    def open_page(*runs: Run, size: str = "desktop", scheme: str = "light") -> Page:
        file = tmp_path / "page.html"
        file.write_text(written("html", *runs), encoding="utf-8")
        width, height = _SIZES[size]
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith("file:") else complaints.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _shown(page: Page) -> int:
    return int(page.locator("#count").get_attribute("data-shown") or -1)


def _wait(page: Page, shown: int) -> None:
    page.wait_for_selector(f"#count[data-shown='{shown}']")


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits(size: str, scheme: str, opened: Opened, tmp_path: Path) -> None:
    page = opened(saved(_many(), host=LAB), size=size, scheme=scheme)
    shots = Path(os.environ.get("KVMTEST_SHOTS", tmp_path))
    page.screenshot(path=shots / f"top-{size}-{scheme}.png")
    page.keyboard.press("n")
    page.keyboard.press("Enter")
    page.locator("#results-title").scroll_into_view_if_needed()
    page.screenshot(path=shots / f"details-{size}-{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page itself scrolls sideways"
    assert page.locator("#detail").is_visible()


def test_the_counts_are_those_of_the_results(opened: Opened) -> None:
    results = _many()
    page = opened(saved(results))
    reported = counts(results)
    assert _shown(page) == len(results)
    for chip in page.locator(".chip").all():
        verdict = Verdict((chip.get_attribute("class") or "").split()[-1])
        assert chip.locator(".count").inner_text().replace(",", "") == str(reported[verdict])
    page.locator(".chip.pass").click()
    assert page.locator(".chip.pass").get_attribute("aria-pressed") == "false"
    assert _shown(page) == len(results) - reported[Verdict.PASS]
    page.locator("#only").click()
    assert _shown(page) == sum(reported[v] for v in VERDICTS if v.attention)
    page.locator("#only").click()
    page.locator("#event").select_option("sipi")
    assert _shown(page) == sum(r.event == "sipi" for r in _results(results))


def test_each_cell_shows_the_worst_of_its_cases(opened: Opened) -> None:
    results = [made(v, f"item-{w}", f"{v}{i}") for w in VERDICTS for i, v in enumerate(("pass", w))]
    page = opened(saved(results))
    for verdict in VERDICTS:
        row = page.locator("#body .row", has=page.locator(f".name[title='item-{verdict}']"))
        worst = "pass" if verdict in ("skip", "info") else verdict
        assert row.locator(".cell").get_attribute("aria-label") == f"{worst}, 2 results"


def test_search_takes_words_and_globs(opened: Opened) -> None:
    results = _many()
    page = opened(saved(results))
    page.keyboard.press("/")
    page.keyboard.type("init. item00")
    _wait(page, sum(r.event == "init" and "item00" in r.id for r in _results(results)))
    page.keyboard.press("Escape")
    assert _shown(page) == len(results)
    page.keyboard.type("*.guest.item1*")
    _wait(page, sum(r.view == "guest" and r.item.startswith("item1") for r in _results(results)))
    page.locator("#search").fill("init.*.{host,guest}.item00{1,2}")
    _wait(page, sum(r.event == "init" and r.item in ("item001", "item002") for r in _results(results)))
    page.locator("#search").fill(next(r.selector for r in _results(results) if r.item == "item001"))
    _wait(page, 1)
    page.locator("#search").fill("init.msi/case-0 item001")
    _wait(page, 2)
    page.locator("#search").fill("}{ [(.*")
    _wait(page, 0)
    page.locator("#search").fill("nothing at all")
    _wait(page, 0)
    assert "Nothing matches" in page.locator("#body").inner_text()


def test_keys(opened: Opened) -> None:
    page = opened(saved(_many()))
    grid = page.locator("#grid")
    page.locator("#order").select_option("run")
    grid.focus()

    def active() -> str | None:
        return grid.get_attribute("aria-activedescendant")

    assert active() == "c0-0"
    steps = {"ArrowDown": "c1-0", "ArrowRight": "c1-1", "End": "c1-5", "Control+End": "c199-5", "Control+Home": "c0-0"}
    for key, cell in steps.items():
        page.keyboard.press(key)
        assert active() == cell and page.locator(f"#{cell}").is_visible()
    page.keyboard.press("PageDown")
    assert active() not in ("c0-0", "c1-0")
    page.keyboard.press("n")
    label = page.locator(f"#{active()}").get_attribute("aria-label") or ""
    assert label.split(",")[0] in ("fail", "error", "fixed", "known")
    page.keyboard.press("Enter")
    assert page.locator("#detail").is_visible() and page.evaluate("document.activeElement.id") == "detail"
    page.keyboard.press("Escape")
    assert page.locator("#detail").is_hidden() and page.evaluate("document.activeElement.id") == "grid"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "focus cannot be seen"
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.keyboard.press("t")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


def test_chips_count_what_the_search_finds(opened: Opened) -> None:
    results = _many()
    page = opened(saved(results))
    page.locator("#search").fill("item005")
    _wait(page, sum("item005" in r.id for r in _results(results)))
    reported = counts([one for one in results if "item005" in next(one.results).id])
    found = {chip.get_attribute("class"): chip.locator(".count").inner_text() for chip in page.locator(".chip").all()}
    assert found == {f"chip {verdict}": str(reported[verdict]) for verdict in VERDICTS}


def test_the_item_that_is_searched_for_comes_first(opened: Opened) -> None:
    page = opened(saved([made("fail", "lapic.icr2"), made("pass", "cr2"), made("fail", "cr3")]))
    page.locator("#search").fill("cr2")
    _wait(page, 2)
    assert page.locator("#body .name").all_inner_texts() == ["cr2", "lapic.icr2"]


def test_details_say_all_of_a_result(opened: Opened) -> None:
    wrong = Record("cr0", Verdict.FAIL, 0x5000, Expected((0x10,)), 0x80000010, cite=("SDM vol. 3",))
    page = opened(saved([observation([wrong]), made("known", "cr0", "other")]))
    page.locator("#body .cell").click()
    text = page.locator("#detail").inner_text()
    for part in ("init.msi.host.cr0", "0x5000", "0x10  ET", "0x80000010  PG|ET", "SDM vol. 3", "03a6e84069d1", "because known"):
        assert part in text
    assert "kvmtest run init.msi.host.cr0" in text and "ap,intel,xapic,plant-a" in text and "other" in text


def test_roles_and_only_the_rows_in_sight(opened: Opened) -> None:
    page = opened(saved(_many()))
    grid = page.get_by_role("grid")
    assert grid.get_attribute("aria-rowcount") == "201" and grid.get_attribute("aria-colcount") == "7"
    assert grid.get_by_role("columnheader").count() == 7
    assert 0 < page.locator("#body .row").count() < 100
    page.locator("#grid").evaluate("grid => { grid.scrollTop = grid.scrollHeight; }")
    page.wait_for_selector("#body .row[aria-rowindex='201']")


def _title(page: Page, place: str) -> str:
    return page.locator(f"{place} > summary .title").inner_text()


def test_from_a_finding_to_its_results_and_back(opened: Opened) -> None:
    failed = [made("fail"), made("fail", "cr4"), made("fail", "cr4", "b", where=("init", "irqfd", "host"))]
    others = [made("pass", words="b"), made("known", "cr0"), made("fail", "cr2", where=("sipi", "msi", "host"))]
    page = opened(saved([*failed, *others]))
    titles = page.locator("section > .finding .title").all_inner_texts()
    assert sorted(titles) == [
        "cr2 keeps the planted value after SIPI",
        "cr3 keeps the planted value after INIT",
        "cr4 keeps the planted value after INIT",
    ]
    finding = page.locator("section > .finding", has_text="cr4 keeps")
    finding.locator("summary").click()
    assert "kvmtest explain cr4" in finding.inner_text()
    finding.locator(".find").click()
    assert _shown(page) == 2 and page.locator("#finding-title").inner_text() == "cr4 keeps the planted value after INIT"
    assert page.locator("#body .name").all_inner_texts() == ["cr4"] and page.locator("#detail").is_visible()
    page.locator("#finding-off").click()
    assert _shown(page) == 6 and page.locator("#finding").is_hidden()
    # The known ones are folded, until a result says that it is one of theirs.
    known = page.locator(".folded .finding")
    assert not known.is_visible()
    page.locator("#body .row", has=page.locator(".name[title='cr0']")).locator(".cell.known").click()
    page.locator("#detail .finding a").click()
    assert known.is_visible() and known.get_attribute("open") is not None and "because known" in known.inner_text()


def test_findings_of_several_runs(opened: Opened) -> None:
    one = [made("fail"), made("fail", words="b"), made("pass", "cr4")]
    page = opened(saved(one, "one"), saved([*one[:1], made("fail", "cr4", where=("sipi", "msi", "host"))], "two", LAB))
    found = page.locator(".across tr[id]").all()
    rows = {row.locator(".title").inner_text(): row.locator("td").all_inner_texts() for row in found}
    assert rows == {"cr3 keeps the planted value after INIT": ["2", "1"], "cr4 keeps the planted value after SIPI": ["", "1"]}
    page.locator(".across tr[id]", has_text="cr3 keeps").locator("td .find").last.click()
    assert page.locator("#view").input_value() == "1" and _shown(page) == 1
    assert "two" in page.locator("#detail").inner_text()
    row = page.locator(".across tr[id]", has_text="cr3 keeps")
    row.locator("summary").click()
    row.locator(".inside .find").click()
    assert _shown(page) == 3 and page.locator("#body .cell").count() == 2


def test_from_the_map_to_the_cases(opened: Opened) -> None:
    seen = [
        made("pass"),
        made("fail", "cr4", "b"),
        made("known", "cr0", "c", state="in-smm"),
        made("fail", "cr0", "d", state="in-smm"),
    ]
    page = opened(saved([*seen, made("pass", words="e", where=("init", "irqfd", "host"))], "one"), saved(seen[:3], "two"))
    row = page.locator(".map tr", has_text="in-smm")
    cell = row.locator("a")
    assert cell.inner_text() == "F\n3" and cell.get_attribute("title") == "1 fail, 2 known"
    cell.focus()
    page.keyboard.press("Enter")
    assert _shown(page) == 3 and page.locator("#finding-title").inner_text() == "init.msi.host, in-smm"
    assert page.locator("#body .name").all_inner_texts() == ["init.msi.host.cr0"]
    reported = page.locator("#detail").inner_text()
    assert "init.msi/c" in reported and "init.msi/d" in reported
    # Of one run it shows what that one tried, and leads to that alone.
    page.locator("#map-run").select_option("1")
    assert page.locator("#view").input_value() == "1" and cell.get_attribute("title") == "1 known"
    assert cell.get_attribute("class") == "known" and page.locator(".map a:visible").count() == 2
    page.locator(".map tr", has_text="plain").locator("a:visible").click()
    assert _shown(page) == 2 and page.locator("#body .name").all_inner_texts() == ["cr4", "cr3"]
    page.locator("#finding-off").click()
    assert _shown(page) == 3


def test_runs_that_are_the_same_are_left_out_until_they_are_asked_for(opened: Opened) -> None:
    page = opened(saved([made("pass"), made("pass", "cr0")], "one"), saved([made("fail"), made("pass", "cr0")], "two"))
    names = page.locator("#body .name")
    assert names.all_inner_texts() == ["init.msi.host.cr3"]
    page.locator("#view").select_option("-1")
    assert names.all_inner_texts() == ["init.msi.host.cr3", "init.msi.host.cr0"]
    page.locator("#view").select_option("-2")
    page.locator("#search").fill("cr0")
    _wait(page, 2)
    assert names.all_inner_texts() == ["init.msi.host.cr0"]


def test_runs_stand_side_by_side(opened: Opened) -> None:
    page = opened(saved([made("pass"), made("skip", "x")], "6.1/svm"), saved([made("fail")], "7.2/svm", LAB))
    page.locator("#view").select_option("-1")
    rows = page.locator("#body .row").all()
    assert [row.locator(".name").inner_text() for row in rows] == ["init.msi.host.cr3", "init.msi.host.x"]
    assert [cell.get_attribute("aria-label") for cell in rows[0].locator(".cell").all()] == ["pass, 1 result", "fail, 1 result"]
    assert rows[1].locator(".cell").last.get_attribute("aria-label") == "none"
    page.locator("#view").select_option("1")
    assert _shown(page) == 1
    page.locator("#body .cell").click()
    assert "7.2/svm" in page.locator("#detail").inner_text() and "kvmtest lab run" in page.locator("#detail").inner_text()


def test_hostile_text_stays_text(opened: Opened) -> None:
    each = [(i, said, verdict) for i, said in enumerate(HOSTILE) for verdict in VERDICTS]
    results = [
        observation([Record(f"i{i}", verdict, observed=said, reason=said, cite=(said,), deviation=said)], said)
        for i, said, verdict in each
    ]
    page = opened(saved(results, "</script>", LAB._replace(kernel="<b>&amp;</b>", cpu_model="{{ 7 * 7 }}")))
    assert _shown(page) == len(results)
    head = page.locator("header").first.inner_text()
    assert "<b>&amp;</b>" in head and "{{ 7 * 7 }}" in head
    for cell in page.locator("#body .cell").all():
        cell.click()
    assert page.locator("#detail script, #detail b:not([aria-hidden])").count() == 0
    for folded in page.locator(".folded > summary, section > .finding > summary").all()[:20]:
        folded.click()
    assert page.locator("main b:not([aria-hidden], .map b), main script").count() == 0


def test_the_cases_of_a_line_are_shown_beside_the_source(chromium: Browser, tmp_path: Path) -> None:
    html.folder(table(), Sources([str(source(tmp_path))]), str(tmp_path / "pages"))
    page = chromium.new_page()
    page.goto((tmp_path / "pages/index.html").as_uri())
    page.click(f"text={FILE}")
    line = page.locator("li.run", has_text="reset(x);")
    line.locator("button").click()
    assert line.locator("li").all_inner_texts() == [
        "6.1/svm  init.msi/ap,intel",
        "6.1/svm  init.msi/bsp,intel",
        "6.1/vmx  init.msi/ap,intel",
    ]
    line.locator("button").click()
    assert line.locator("li").count() == 0
    assert page.locator("li.not").first.inner_text().endswith("{")
    page.close()
