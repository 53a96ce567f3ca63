# SPDX-License-Identifier: GPL-2.0-only
"""Every format, from results made up for the purpose: no KVM needed."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest import report
from kvmtest.engine.result import VERDICTS, CaseTime, Host, Result
from kvmtest.report.show import short
from kvmtest.report.text import Text

HOST = Host("6.1.0-1-amd64", "svm", "AuthenticAMD", "EPYC", {"npt": "Y"})


def _result(verdict: str, item: str = "cr3", case: str = "ap,xapic,plant-a", reason: str = "") -> Result:
    values = ("0x5000", "0x0", "0x5000")
    return Result(
        f"init.msi.host.{item}",
        "init",
        "msi",
        "host",
        item,
        f"init.msi.host/{case}",
        *values,
        verdict,
        reason or ("" if verdict in ("pass", "fail") else "because"),
        ("SDM vol. 3",),
        None,
    )


def _write(name: str, results: list[Result]) -> str:
    out = io.StringIO()
    writer = report.writer(name, out)
    writer.begin(HOST, "2026-11-22T18:00:00Z", 1)
    writer.running("init.msi.host/x")
    for result in results:
        writer.result(result)
    writer.case(CaseTime("init.msi.host/x", 0.001))
    writer.end(0.5, Counter(r.verdict for r in results))
    return out.getvalue()


@pytest.fixture(scope="session")
def schema() -> Any:
    path = os.environ.get("KVMTEST_SHARED", "../shared") + "/contracts/results.schema.json"
    if not os.path.exists(path):
        pytest.skip(f"the schema is not there: {path}; set KVMTEST_SHARED")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def test_json_is_valid_against_the_contract(schema: Any) -> None:
    results = [_result(verdict) for verdict in VERDICTS]
    document = json.loads(_write("json", results))
    jsonschema.validate(document, schema)
    assert [r["verdict"] for r in document["results"]] == list(VERDICTS)
    assert document["totals"] == dict.fromkeys(VERDICTS, 1)


def test_json_of_a_run_without_results_is_valid(schema: Any) -> None:
    jsonschema.validate(json.loads(_write("json", [])), schema)


def test_jsonl_has_the_same_records() -> None:
    results = [_result("pass"), _result("fail")]
    lines = [json.loads(line) for line in _write("jsonl", results).splitlines()]
    assert lines == json.loads(_write("json", results))["results"]


def test_text_shows_what_failed_with_its_values_and_why() -> None:
    text = _write("text", [_result("fail", "cr0"), _result("pass")])
    for part in ("FAIL", "init.msi.host.cr0", "planted", "expected", "observed", "SDM vol. 3", "ap,xapic,plant-a"):
        assert part in text
    assert "2 results" in text and "1 failure (1 result)" in text
    assert "init.msi.host.cr3" not in text.replace("init.msi.host.cr0", "")


def test_text_joins_the_same_failure_of_many_cases() -> None:
    text = _write("text", [_result("fail", case=f"case-{i}") for i in range(9)])
    assert text.count("FAIL") == 2 and "and 6 more" in text


def test_text_joins_the_same_failure_of_several_triggers() -> None:
    msi = _result("fail")
    text = _write("text", [msi, msi._replace(id="init.irqfd.host.cr3", trigger="irqfd", case="init.irqfd.host/x")])
    assert text.count("FAIL") == 2 and "init.{msi,irqfd}.host.cr3" in text


def test_text_has_colour_on_a_terminal_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    writer = Text(out, progress=io.StringIO())
    writer.begin(HOST, "now", 1)
    writer.result(_result("fail"))
    writer.end(1.0, Counter(fail=1))
    assert "\x1b[" in out.getvalue()
    assert "\x1b[" not in _write("text", [_result("fail")])


def test_progress_goes_to_a_terminal_and_is_wiped() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, out = Terminal(), io.StringIO()
    writer = Text(out, progress=terminal)
    writer.begin(HOST, "now", 2)
    writer.running("init.msi.host/some-case")
    writer.case(CaseTime("init.msi.host/some-case", 0.1))
    writer.end(1.0, Counter())
    assert "/2" in terminal.getvalue()
    assert "some-case" not in out.getvalue()


def test_long_values_keep_their_ends() -> None:
    value = f"{(1 << 8191) | 0x1234:#x}"
    assert short(value).startswith(value[:14]) and "1234 (1024 bytes)" in short(value)


@given(st.text(max_size=60), st.sampled_from(VERDICTS))
def test_no_reason_breaks_a_format(reason: str, verdict: str) -> None:
    results = [_result(verdict, reason=reason)]
    _write("text", results)
    assert json.loads(_write("json", results))["results"][0]["reason"] == results[0].reason
    assert len(_write("jsonl", results).split("\n")) == 2
