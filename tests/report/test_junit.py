# SPDX-License-Identifier: GPL-2.0-only
"""JUnit XML, against the schema of the Jenkins xUnit plugin and read back by junitparser."""

from __future__ import annotations

from pathlib import Path

import junitparser
import pytest
from hypothesis import given, settings
from lxml import etree

from kvmtest.model.run import Run
from kvmtest.model.verdict import VERDICTS
from tests.report.samples import HOSTILE, LAB, made, of_each, saved, saved_runs, written
from tests.sample import at_most

_XSD = Path(__file__).parents[1] / "data/junit-10.xsd"


@pytest.fixture(scope="session")
def xsd() -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(_XSD))


def _suites(text: str) -> list[junitparser.TestSuite]:
    return list(junitparser.JUnitXml.fromstring(text.encode()))


def test_each_verdict_has_its_element(xsd: etree.XMLSchema) -> None:
    text = written("junit", saved(of_each(), host=LAB))
    xsd.assertValid(etree.fromstring(text.encode()))
    (suite,) = _suites(text)
    assert (suite.name, suite.tests, suite.failures, suite.errors, suite.skipped) == ("init.msi.host", 8, 2, 1, 3)
    assert suite.timestamp == "2026-11-22T18:00:00"
    facts = {p.name: p.value for p in suite.properties()}
    assert facts["kernel"] == LAB.kernel and facts["backend"] == "svm" and facts["lab.emulator"] == "QEMU 9"
    found = {case.name: case for case in suite}
    assert all(case.classname == "init.msi.host" for case in suite)
    for verdict, kind in {"known": "xfail", "skip": "skip", "info": "info", "fail": "fail", "error": "error"}.items():
        (said,) = found[f"item-{verdict}"].result
        assert said.type == kind
    assert not found["item-pass"].result and not found["item-fixed"].result
    assert "03a6e84069d1" in (found["item-fixed"].system_out or "")
    (failure,) = found["all"].result
    assert failure.message == "expected 0x0, observed 0x5000" and "kvmtest lab run --backend svm" in (failure.text or "")


def test_runs_are_suites_of_their_own(xsd: etree.XMLSchema) -> None:
    text = written("junit", saved([made("pass")], "6.1/svm"), saved([made("fail")], "7.2/svm", LAB))
    xsd.assertValid(etree.fromstring(text.encode()))
    failures = {suite.name: suite.failures for suite in _suites(text)}
    assert failures == {"6_1/svm.init.msi.host": 0, "7_2/svm.init.msi.host": 1}


def test_a_suite_and_a_test_name_their_findings(xsd: etree.XMLSchema) -> None:
    seen = [made("fail"), made("fail", "cr4"), made("pass", "cr0"), made("pass", where=("sipi", "msi", "guest"))]
    text = written("junit", saved(seen))
    root = etree.fromstring(text.encode())
    xsd.assertValid(root)
    said = "cr3, cr4 keep the planted value after INIT (2 cases)"
    assert [suite.findtext("system-out") for suite in root] == [f"finding: fail: {said}", None]
    init, _ = _suites(text)
    for case in init:
        assert [f"finding: {said}\n" in (result.text or "") for result in case.result] == ([True] if case.name != "cr0" else [])


def test_a_suite_says_where_it_ran_and_how_long() -> None:
    one = made("pass")
    of_two = [one._replace(seconds=None), one._replace(view="guest", seconds=0.25)]
    for host, name in ((LAB, "amd1"), (LAB._replace(name=""), f"{LAB.kernel} svm")):
        suites = _suites(written("junit", saved(of_two, host=host)))
        assert [suite.hostname for suite in suites] == [name, name]
        assert sum(suite.time for suite in suites) == 0.25


@pytest.mark.parametrize("reason", HOSTILE)
def test_no_reason_breaks_out(reason: str, xsd: etree.XMLSchema) -> None:
    text = written("junit", saved([made(verdict, verdict, reason=reason) for verdict in VERDICTS]))
    xsd.assertValid(etree.fromstring(text.encode()))
    (suite,) = _suites(text)
    assert sorted(case.name for case in suite) == sorted(VERDICTS)


@settings(max_examples=at_most(50))
@given(saved_runs())
def test_any_run_is_valid(xsd: etree.XMLSchema, runs: list[Run]) -> None:
    text = written("junit", *runs)
    xsd.assertValid(etree.fromstring(text.encode()))
    assert sum(len(list(suite)) for suite in _suites(text)) == sum(len({r.id for r in run.results}) for run in runs)
