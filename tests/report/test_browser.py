# SPDX-License-Identifier: GPL-2.0-only
"""The page in a browser: Debian's Chromium, headless. Screenshots go to the folder KVMTEST_SHOTS, or a temporary one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from kvmtest.engine.result import VERDICTS, Result
from kvmtest.report.saved import Saved
from tests.report.samples import HOSTILE, LAB, counts, made, saved, written

_SIZES = {"desktop": (1400, 1000), "phone": (390, 844)}
_EVENTS = ("reset", "init", "sipi")
Opened = Callable[..., Page]


def _many() -> list[Result]:
    """A few thousand results of all verdicts."""
    return [
        made(VERDICTS[(i * 7 + e) % 97 % 7 if i % 5 == 0 else 0], f"item{i:03}", f"case-{c}", where=(event, "msi", view))
        for e, event in enumerate(_EVENTS)
        for view in ("host", "guest")
        for i in range(200)
        for c in range(3)
    ]


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

    def open_page(*runs: Saved, size: str = "desktop", scheme: str = "light") -> Page:
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
    told = counts(results)
    assert _shown(page) == len(results)
    for chip in page.locator(".chip").all():
        verdict = (chip.get_attribute("class") or "").split()[-1]
        assert chip.locator(".count").inner_text().replace(",", "") == str(told[verdict])
    page.locator(".chip.pass").click()
    assert page.locator(".chip.pass").get_attribute("aria-pressed") == "false"
    assert _shown(page) == len(results) - told["pass"]
    page.locator("#only").click()
    assert _shown(page) == sum(told[v] for v in ("fail", "error", "fixed", "known"))
    page.locator("#only").click()
    page.locator("#event").select_option("sipi")
    assert _shown(page) == sum(r.event == "sipi" for r in results)


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
    _wait(page, sum(r.event == "init" and "item00" in r.id for r in results))
    page.keyboard.press("Escape")
    assert _shown(page) == len(results)
    page.keyboard.type("*.guest.item1*")
    _wait(page, sum(r.view == "guest" and r.item.startswith("item1") for r in results))
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


def test_details_say_all_of_a_result(opened: Opened) -> None:
    page = opened(saved([made("fail", "cr0")._replace(expected="0x10", observed="0x80000010"), made("known", "cr0", "other")]))
    page.locator("#body .cell").click()
    text = page.locator("#detail").inner_text()
    for part in ("init.msi.host.cr0", "0x5000", "0x10  ET", "0x80000010  PG|ET", "SDM vol. 3", "03a6e84069d1", "because known"):
        assert part in text
    assert "kvmtest run init.msi.host.cr0" in text and "ap,xapic,plant-a" in text and "other" in text


def test_roles_and_only_the_rows_in_sight(opened: Opened) -> None:
    page = opened(saved(_many()))
    grid = page.get_by_role("grid")
    assert grid.get_attribute("aria-rowcount") == "201" and grid.get_attribute("aria-colcount") == "7"
    assert page.get_by_role("columnheader").count() == 7
    assert 0 < page.locator("#body .row").count() < 100
    page.locator("#grid").evaluate("grid => { grid.scrollTop = grid.scrollHeight; }")
    page.wait_for_selector("#body .row[aria-rowindex='201']")


def test_an_entry_is_shown_in_the_table(opened: Opened) -> None:
    page = opened(saved(_many()))
    page.locator(".block").first.locator("summary").click()
    page.locator(".block").first.locator(".find").click()
    assert page.locator("#detail").is_visible() and page.locator("#search").input_value()


def test_runs_stand_side_by_side(opened: Opened) -> None:
    page = opened(saved([made("pass"), made("skip", "x")], "6.1/svm"), saved([made("fail")], "7.2/svm", LAB))
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
    results = [made(verdict, f"i{i}", said, said)._replace(observed=said, cite=(said,)) for i, said, verdict in each]
    page = opened(saved(results, "</script>", LAB._replace(kernel="<b>&amp;</b>", cpu_model="{{ 7 * 7 }}")))
    assert _shown(page) == len(results)
    head = page.locator("header").first.inner_text()
    assert "<b>&amp;</b>" in head and "{{ 7 * 7 }}" in head
    for cell in page.locator("#body .cell").all():
        cell.click()
    assert page.locator("#detail script, #detail b:not([aria-hidden])").count() == 0
