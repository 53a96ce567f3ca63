# SPDX-License-Identifier: GPL-2.0-only
"""JSON and JSON lines, from results made up for the purpose: no KVM needed."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from kvmtest.model.run import Run
from kvmtest.model.verdict import VERDICTS
from kvmtest.results import saved as files
from tests.report.samples import made, saved, saved_runs, written


def _read(name: str, *runs: Run) -> list[Run]:
    return files.Loader().runs("r", written(name, *runs).encode())


@given(saved_runs(), st.sampled_from(("json", "jsonl")))
def test_what_is_written_is_read_back(runs: list[Run], name: str) -> None:
    found = _read(name, *runs)
    assert [run.host for run in found] == [run.host for run in runs]
    for a, b in zip(found, runs, strict=True):
        assert [(r.id, r.case, r.record) for r in a.results] == [(r.id, r.case, r.record) for r in b.results]
        assert a.totals == b.totals and (a.duration_s, a.interrupted) == (b.duration_s, b.interrupted)


def test_a_document_has_each_record_once_and_names_its_findings() -> None:
    document = json.loads(written("json", saved([made("fail", words=f"ap,case-{i}") for i in range(100)])))
    (run,) = document["runs"]
    assert len(document["records"]) == len(document["cites"]) == 1 and len(document["cases"]) == len(run["results"]) == 100
    assert run["totals"] == dict.fromkeys(VERDICTS, 0) | {"fail": 100}
    (finding,) = run["findings"]
    assert finding["title"] == "cr3 keeps the planted value after INIT" and finding["cases"] == 100
    assert finding["example"] == "init.msi.host.cr3/ap,case-0" and finding["effect"] == "host"


def test_lines_come_with_their_cases() -> None:
    """A host that crashes in a case has named it, and lost none before it."""
    run = saved([made("pass", words="ap,a"), made("fail", words="ap,b")])
    lines = [json.loads(line) for line in written("jsonl", run).splitlines()]
    assert [next(iter(line)) for line in lines] == ["schema", "case", "cite", "record", "of", "case", "record", "of", "end"]


def test_a_case_that_is_repeated_costs_next_to_nothing() -> None:
    one, many = (written("jsonl", saved([made("pass")] * number)) for number in (1, 10_001))
    assert (len(many) - len(one)) / 10_000 <= 40


@given(st.text(max_size=60), st.sampled_from(VERDICTS))
def test_no_reason_breaks_a_format(reason: str, verdict: str) -> None:
    run = saved([made(verdict, reason=reason)])
    written("text", run)
    for name in ("json", "jsonl"):
        (found,) = _read(name, run)
        assert [record.reason for seen in found.observations for record in seen.records] == [reason]
