# SPDX-License-Identifier: GPL-2.0-only
"""A report of KernelCI, held to the schema by KCIDB's own validator."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from kcidb_io.schema import LATEST

from kvmtest.model.run import Run
from kvmtest.report.kcidb import VERSION, Kcidb
from kvmtest.report.play import Gatherer, play
from tests.report.samples import LAB, made, of_each, saved, saved_runs, written
from tests.sample import at_most

_STATUS = {"pass": "PASS", "fail": "FAIL", "error": "ERROR", "known": "FAIL", "fixed": "PASS", "skip": "SKIP", "info": "DONE"}


def _read(text: str) -> Any:
    report = json.loads(text)
    LATEST.validate_exactly(report)
    return report


def test_it_is_of_the_newest_schema() -> None:
    assert VERSION == {"major": LATEST.major, "minor": LATEST.minor}


def test_each_verdict_has_its_status() -> None:
    report = _read(written("kcidb", saved(of_each(), host=LAB)))
    tests = {test["path"]: test for test in report["tests"]}
    for verdict, status in _STATUS.items():
        assert tests[f"kvmtest.init.msi.host.item-{verdict}"]["status"] == status
    everything = tests["kvmtest.init.msi.host.all"]
    assert everything["status"] == "FAIL" and everything["misc"]["cases"] == dict.fromkeys(_STATUS, 1)
    assert everything["start_time"] == "2026-11-22T18:00:00Z" and "QEMU 9" in everything["environment"]["comment"]


def test_what_a_test_refers_to_is_there() -> None:
    report = _read(written("kcidb", saved(of_each())))
    (build,), (checkout,) = report["builds"], report["checkouts"]
    assert build["checkout_id"] == checkout["id"]
    assert {test["build_id"] for test in report["tests"]} == {build["id"]}


def test_a_known_deviation_is_an_incident_of_an_issue() -> None:
    report = _read(written("kcidb", saved(of_each())))
    (issue,) = report["issues"]
    assert issue["misc"]["deviation"] == "03a6e84069d1"
    tests = {test["id"]: test["misc"]["verdict"] for test in report["tests"]}
    assert {tests[i["test_id"]]: i["present"] for i in report["incidents"]} == {"known": True, "fixed": False}


def test_a_test_names_its_findings() -> None:
    report = _read(written("kcidb", saved([made("fail"), made("fail", "cr4"), made("known", "cr0"), made("pass", "cr2")])))
    misc = {test["path"].rpartition(".")[2]: (test["misc"].get("findings"), test.get("comment")) for test in report["tests"]}
    both = "cr3, cr4 keep the planted value after INIT"
    assert misc["cr3"] == misc["cr4"] == ([f"{both} (2 cases)"], both)
    assert misc["cr0"][1] == "because known [03a6e84069d1]" and len(misc["cr0"][0]) == 1
    assert misc["cr2"] == (None, None)


def test_ids_are_the_same_when_made_again_and_others_of_another_run() -> None:
    def ids(*runs: Run) -> set[str]:
        return {test["id"] for test in _read(written("kcidb", *runs))["tests"]}

    once = saved([made("pass")])
    assert ids(once) == ids(once)
    assert not ids(once) & ids(saved([made("pass")], started="2026-11-22T18:00:01Z"))
    assert ids(once) < ids(once, once._replace(duration_s=3.0))
    assert len(ids(once, once)) == 2


def test_a_build_that_was_submitted() -> None:
    out = io.StringIO()
    writer = Kcidb(out)
    writer.origin, writer.build = "mine", "mine:123"
    play(saved(of_each()), Gatherer(writer))
    report = _read(out.getvalue())
    assert {test["build_id"] for test in report["tests"]} == {"mine:123"} and not report["builds"]
    assert all(test["id"].startswith("mine:") for test in report["tests"])


@settings(max_examples=at_most(50))
@given(saved_runs())
def test_any_run_is_valid(runs: list[Run]) -> None:
    report = _read(written("kcidb", *runs))
    assert len(report["tests"]) == sum(len({r.id for r in run.results}) for run in runs)
    assert len({test["id"] for test in report["tests"]}) == len(report["tests"])
    assert all(line.isprintable() for text in _texts(report) for line in text.split("\n"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for part in pair for text in _texts(part))
    elif isinstance(value, list):
        yield from (text for part in value for text in _texts(part))
