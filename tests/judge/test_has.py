# SPDX-License-Identifier: GPL-2.0-only
"""The results that make a finding, and what it shares with the same finding of another run."""

from __future__ import annotations

from collections import Counter

from hypothesis import given

from kvmtest.judge.findings import Finding, findings
from kvmtest.model.record import Observation, Record
from kvmtest.model.run import Run
from kvmtest.model.value import Expected
from kvmtest.model.verdict import Verdict
from tests.report.samples import made, observation, saved_runs


def _wrong(item: str, bits: int, words: str) -> Observation:
    """A register of which ``bits`` are wrong in one case, and others right."""
    return observation([Record(item, Verdict.FAIL, 0xF000, Expected((1,)), 1 ^ bits)], words)


def _named(seen: list[Observation]) -> dict[str, list[Finding]]:
    """The findings of each result by item and case."""
    found = findings(seen)
    return {f"{r.item} {r.of.case.words}": [f for f in found if f.has(r)] for one in seen for r in one.results if r.of.case}


def test_a_result_belongs_to_the_finding_of_its_symptom() -> None:
    seen = [made(verdict, words=words) for verdict, words in (("fail", "a"), ("error", "b"), ("known", "c"), ("pass", "d"))]
    found = {case: [finding.symptom for finding in of] for case, of in _named(seen).items()}
    assert found == {"cr3 a": ["kept"], "cr3 b": ["reason"], "cr3 c": ["deviation"], "cr3 d": []}


def test_two_bugs_in_bits_of_one_register_are_reported_apart() -> None:
    named = _named([_wrong("cr0", 4, "a"), _wrong("cr0", 4, "b"), _wrong("cr0", 12, "c"), _wrong("cr0", 8, "d")])
    assert {case: sorted(f.bits for f in found) for case, found in named.items()} == {
        "cr0 a": [4], "cr0 b": [4], "cr0 c": [4, 8], "cr0 d": [8],
    }  # fmt: skip


def test_another_event_is_another_finding() -> None:
    init, sipi = made("fail"), made("fail", where=("sipi", "msi", "host"))
    (of_init,) = findings([init])
    assert not any(of_init.has(result) for result in sipi.results) and all(of_init.has(result) for result in init.results)


def test_the_same_finding_of_another_run_has_the_same_key() -> None:
    (first,), (again,) = (findings([made("fail", words=words)]) for words in ("a", "b"))
    assert first.key == again.key and first.where is not None
    others = [made("fail", "cr4"), made("known"), made("fail", where=("sipi", "msi", "host")), _wrong("cr3", 4, "a")]
    assert first.key not in [found.key for one in others for found in findings([one])]


def test_another_wrong_value_is_another_finding_but_of_what_counts() -> None:
    def key(item: str, observed: int) -> object:
        record = Record(item, Verdict.FAIL, 5, Expected((1, 2)), observed)
        (found,) = findings([observation([record])])
        return found.key

    assert key("cr3", 7) != key("cr3", 9)
    assert key("msr.tsc", 7) == key("msr.tsc", 9)


@given(saved_runs())
def test_every_result_that_needs_attention_is_in_as_many_findings_as_say_so(runs: list[Run]) -> None:
    for run in runs:
        found = findings(run.observations)
        shows: Counter[int] = Counter()
        for seen in run.observations:
            of = [[i for i, finding in enumerate(found) if finding.has(result)] for result in seen.results]
            assert [bool(one) for one in of] == [result.verdict.attention for result in seen.results]
            shows.update({i for one in of for i in one})
        assert shows == Counter({i: finding.cases for i, finding in enumerate(found)})
        assert len({finding.key for finding in found}) == len(found)
