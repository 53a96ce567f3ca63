# SPDX-License-Identifier: GPL-2.0-only
"""Verdicts, values, cases, records and runs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.model.case import Case
from kvmtest.model.host import version_of
from kvmtest.model.record import Block, Observation, Record, Result
from kvmtest.model.run import counted
from kvmtest.model.value import MP_STATES, Expected, differing, parse, text
from kvmtest.model.verdict import VERDICTS, Verdict, overall, worst
from tests.report.samples import OBSERVATIONS, TEXTS, counts


def test_what_each_verdict_means() -> None:
    by = {name: {v for v in VERDICTS if getattr(v, name)} for name in ("unexpected", "attention", "judged", "departs")}
    assert by["unexpected"] == {"fail", "error"}
    assert by["attention"] == {"fail", "error", "fixed", "known"}
    assert by["judged"] == {"pass", "fail", "known", "fixed"}
    assert by["departs"] == {"fail", "error", "known"}
    assert [v.severity for v in VERDICTS] == list(range(7)) and VERDICTS[0] is Verdict.FAIL and VERDICTS[-1] is Verdict.PASS


@pytest.mark.parametrize(
    ("verdicts", "one", "all_in_all"),
    [
        ("pass pass", "pass", "pass"),
        ("pass fail", "fail", "fail"),
        ("error fail", "fail", "fail"),
        ("known fixed", "fixed", "fixed"),
        # A skip of one does not undo the result of another, and is not a pass.
        ("pass skip", "skip", "pass"),
        ("pass info", "info", "pass"),
        ("info skip", "info", "info"),
        ("error skip", "error", "error"),
    ],
)
def test_the_worst_and_the_one_of_several_ways(verdicts: str, one: str, all_in_all: str) -> None:
    for order in itertools.permutations(Verdict(name) for name in verdicts.split()):
        assert (worst(order), overall(order)) == (one, all_in_all)


def test_none_has_no_verdict() -> None:
    for function in (worst, overall):
        with pytest.raises(ValueError):
            function([])


_NUMBERS = st.integers(0, 1 << 65536)


@given(st.sampled_from(["cr3", "mp_state"]), _NUMBERS | st.sampled_from(sorted(MP_STATES)))
def test_a_number_is_read_back(item: str, value: int) -> None:
    said = text(item, value)
    assert said is not None and parse(item, said) == value


@given(
    st.sampled_from(["cr3", "mp_state"]),
    TEXTS | st.sampled_from(["0x", "0x01", "0X1", "0x1 ", "0xg", "1", "0x10000, 7 LVT entries", "0x1|0x2"]),
)
def test_a_text_is_a_text_unless_it_is_what_a_number_looks_like(item: str, said: str) -> None:
    value = parse(item, said)
    assert text(item, value) == said
    if isinstance(value, int):
        assert said == f"{value:#x}" or MP_STATES.get(value) == said


def test_no_value_is_none() -> None:
    assert text("cr3", None) is None and parse("cr3", None) is None


@given(st.integers(0, 2**64), st.integers(0, 2**64), st.none() | st.integers(0, 2**64))
def test_the_bits_that_differ_are_judged_ones(expected: int, observed: int, mask: int | None) -> None:
    one = Expected((expected,), mask)
    bits = differing(one, observed)
    assert one.allows(observed) == (bits == 0)
    assert bits & ~(mask if mask is not None else -1) == 0 and (expected ^ observed) & (-1 if mask is None else mask) == bits
    record = Record("cr0", Verdict.FAIL, 0, one, observed)
    assert record.differing == bits


def test_alternatives_and_texts_have_no_bits() -> None:
    several = Expected((1, 3))
    assert several.allows(3) and not several.allows(2) and differing(several, 2) == 0
    behaviour = Expected(("no exit",))
    assert behaviour.allows("no exit") and not behaviour.allows("exit") and differing(behaviour, "exit") == 0
    # A number is not a text that looks like it.
    assert not Expected((1,)).allows("0x1") and differing(None, 1) == 0 and differing(Expected((1,)), None) == 0


def test_a_case_has_its_parameters_as_data() -> None:
    case = Case("init.msi/ap,intel,vector-ff", (("target", "ap"), ("vendor", "intel"), ("vector", 255)))
    assert (case.words, case.get("vector"), case.get("target"), case.get("plant")) == ("ap,intel,vector-ff", 255, "ap", None)
    assert Case("odd").words == ""


def test_a_result_says_what_its_observation_and_record_do() -> None:
    record = Record("cr3", Verdict.FAIL, 0x5000, Expected((0, 1)), 0x5000, "why", ("SDM",), None)
    seen = Observation(Case("init.msi/ap"), "init", "msi", "host", (Block((record,)), Block(())))
    (result,) = seen.results
    assert result == Result(seen, record) == next(seen.attention)
    assert (result.id, result.case, result.selector) == ("init.msi.host.cr3", "init.msi/ap", "init.msi.host.cr3/ap")
    assert (result.planted, result.expected, result.observed) == ("0x5000", "0x0|0x1", "0x5000")
    outside = Result(seen._replace(case=None), record)
    assert (outside.case, outside.selector) == ("", "init.msi.host.cr3")


@given(st.lists(OBSERVATIONS, max_size=5))
def test_totals_are_counted_block_by_block(seen: list[Observation]) -> None:
    twice = [*seen, *seen]
    assert counted(twice) == counts(twice)
    for one in seen:
        assert [result.record for result in one.attention] == [record for record in one.records if record.verdict.attention]


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-56-cloud-amd64", (6, 1)), ("5.10.262", (5, 10)), ("7.2-rc1", (7, 2)), ("", (0, 0)), ("next", (0, 0))],
)
def test_a_kernels_version(release: str, version: tuple[int, int]) -> None:
    assert version_of(release) == version
