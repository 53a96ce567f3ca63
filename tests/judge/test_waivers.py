# SPDX-License-Identifier: GPL-2.0-only
"""A user's own waivers: what they match, for how long, what matched nothing, and files that are none."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from kvmtest.judge.findings import findings
from kvmtest.judge.waivers import Waiver, WaiverError, Waivers, load
from kvmtest.model.record import Block, Record
from kvmtest.model.value import Expected
from kvmtest.model.verdict import Verdict
from tests.report.samples import made, observation, record

TODAY = date(2026, 11, 28)


def _waivers(*known: Waiver) -> Waivers:
    return Waivers(known, TODAY)


def test_a_fail_and_an_error_become_known_by_reason_and_bug() -> None:
    waivers = _waivers(Waiver("init.*.host.cr3", "ours", "bug-7"))
    fail, error, other = made("fail"), made("error", reason="EFAULT"), made("fail", "cr2")
    first, second, third = waivers.apply([fail, error, other])
    assert [(r.verdict, r.reason, r.deviation) for r in first.records] == [(Verdict.KNOWN, "ours", "bug-7")]
    assert [(r.verdict, r.reason) for r in second.records] == [(Verdict.KNOWN, "ours; EFAULT")]
    assert third is other
    assert list(waivers.said()) == []
    (finding,) = findings([first])
    assert finding.verdict is Verdict.KNOWN and finding.deviation == "bug-7" and not finding.open


@pytest.mark.parametrize("verdict", ["pass", "known", "fixed", "info", "skip"])
def test_nothing_else_is_touched(verdict: str) -> None:
    waivers = _waivers(Waiver("cr3", "ours", "bug"))
    seen = made(verdict)
    assert waivers.apply([seen])[0] is seen
    assert list(waivers.said()) == ["the waiver of cr3 (bug) matched nothing"]


@pytest.mark.parametrize(
    ("value", "waived"),
    [("0x5000", True), ("0x00005000", True), ("0X5000", True), ("0x6000", False), ("5000", False), (None, True)],
)
def test_a_value_is_exact(value: str | None, waived: bool) -> None:
    (seen,) = _waivers(Waiver("cr3", "ours", "bug", value)).apply([made("fail")])
    assert [r.verdict is Verdict.KNOWN for r in seen.records] == [waived]


def test_values_with_names() -> None:
    seen = observation(
        [Record("mp_state", Verdict.FAIL, 0, Expected((1,)), 3), Record("first", Verdict.FAIL, None, None, "no exit")]
    )
    waivers = _waivers(Waiver("mp_state", "a", "1", "HALTED"), Waiver("first", "b", "2", "no exit"))
    assert {r.deviation for r in waivers.apply([seen])[0].records} == {"1", "2"}


def test_a_selector_may_name_the_case_and_the_first_waiver_counts() -> None:
    waivers = _waivers(Waiver("init.msi.host.cr3/ap,one", "a", "1"), Waiver("cr3", "b", "2"))
    found = waivers.apply([made("fail", words="ap,one"), made("fail", words="ap,two")])
    assert [r.deviation for seen in found for r in seen.records] == ["1", "2"]


def test_one_that_expired_is_not_applied_and_said() -> None:
    last, over = Waiver("cr3", "a", "1", until=TODAY), Waiver("cr2", "b", "2", until=date(2026, 11, 27))
    waivers = _waivers(last, over)
    found = waivers.apply([made("fail"), made("fail", "cr2")])
    assert [r.verdict for seen in found for r in seen.records] == [Verdict.KNOWN, Verdict.FAIL]
    assert list(waivers.said()) == ["the waiver of cr2 (2) expired on 2026-11-27, and is not applied"]


def test_blocks_of_which_nothing_is_waived_are_shared_on() -> None:
    good, bad = Block((record("pass"),)), Block((record("fail", "cr2"), record("pass", "cr4")))
    seen = observation([])._replace(blocks=(good, bad))
    (found,) = _waivers(Waiver("cr2", "a", "1")).apply([seen])
    assert found.blocks[0] is good and found.blocks[1] is not bad
    assert found.blocks[1].records[1] is bad.records[1]


_GOOD = '[[known]]\nselector = "cr3"\nreason = "ours"\nbug = "b"\n'


def _load(tmp_path: Path, text: str | bytes) -> Waivers:
    path = tmp_path / "known.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(str(path), TODAY)


def test_a_file(tmp_path: Path) -> None:
    waivers = _load(tmp_path, _GOOD + "value = 0x5000\nuntil = 2027-01-31\n\n" + _GOOD.replace("cr3", "init.msi/{ap,bsp},*"))
    (seen,) = waivers.apply([made("fail")])
    assert [r.deviation for r in seen.records] == ["b"]
    assert list(waivers.said()) == ["the waiver of init.msi/{ap,bsp},* (b) matched nothing"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"expected \[\[known\]\] entries"),
        ("known = []", r"expected \[\[known\]\] entries"),
        ("known = [7]", "entry 1 is not a table"),
        (_GOOD + "[more]\n", "not more"),
        (_GOOD + _GOOD.replace('bug = "b"\n', ""), "entry 2 has no bug"),
        (_GOOD.replace('"ours"', '" "'), "entry 1 has no reason"),
        (_GOOD.replace('"cr3"', '"{cr3"'), "entry 1: '{cr3' has a {"),
        (_GOOD.replace('"cr3"', "3"), "entry 1: selector is not a string"),
        (_GOOD + "value = true", "entry 1: value is not a string"),
        (_GOOD + "value = [1]", "entry 1: value is not a string"),
        (_GOOD + 'until = "2027"', "entry 1: until is not a date"),
        (_GOOD + "until = 2027-01-31T10:00:00", "entry 1: until is not a date"),
        (_GOOD + "why = 1", "entry 1: 'why' is not one of selector"),
        ("[[known]\n", "line 1"),
        (_GOOD + 'reason = "again"', "Cannot overwrite a value"),
        (b"\xff\xfe", "no TOML in UTF-8"),
        ("x = " + "[" * 100_000, "TOML"),
        ("x = " + "9" * 10_000, "TOML"),
    ],
)
def test_a_bad_file_is_one_line_that_says_where(text: str | bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(WaiverError, match=says) as error:
        _load(tmp_path, text)
    assert "\n" not in str(error.value) and "known.toml" in str(error.value) and len(str(error.value)) < 300


def test_the_examples_can_be_read(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    shown = (root / "docs/hosts.md").read_text().partition("```toml\n")[2].partition("```")[0]
    for text in ((root / "contrib/known.toml").read_text(), shown):
        waivers = _load(tmp_path, text)
        (seen,) = waivers.apply([made("fail", "cr2")])
        assert [r.deviation for r in seen.records] == ["https://bugs.example.org/1234"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WaiverError, match="cannot read .*: No such file"):
        load(str(tmp_path / "none"), TODAY)
