# SPDX-License-Identifier: GPL-2.0-only
"""What holds for each check, and what becomes of one that cannot be judged."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import CHECKS, Check, Observation, Stopped, Subject, Untestable
from kvmtest.engine import plan
from kvmtest.engine.machine import Machines
from kvmtest.model.record import Result
from tests.cases import judged_check, ran

CHECK = Check("init", "msi", "made-up", "this", lambda subject: "this", ("a manual",), view="guest")


@pytest.mark.parametrize("id", CHECKS)
def test_a_check_has_a_case_for_each_vendor_and_a_result(id: str, machines: Machines) -> None:
    cases = [case for case in plan.plan() if case.check and f"{case.prefix}.{case.check}" == id]
    assert {case.setup.vendor for case in cases} == {"intel", "amd"}
    for case in cases:
        (result,) = ran(case, machines)
        assert result.id == id and result.verdict in ("pass", "fail", "info", "skip"), result
        assert bool(result.observed) == (result.verdict != "skip")
        assert result.reason or result.verdict not in ("skip", "info")


@pytest.mark.parametrize(
    ("seen", "verdict", "reason"),
    [
        ("this", "pass", ""),
        ("that", "fail", ""),
        (Observation("that", "the third one"), "fail", "the third one"),
        (Observation("that", "the third one", "nobody says"), "info", "nobody says; the third one"),
    ],
)
def test_an_observation_is_held_against_what_is_expected(
    seen: str | Observation, verdict: str, reason: str
) -> None:
    result = judged_check(CHECK, seen)
    assert (result.id, result.view) == ("init.msi.guest.made-up", "guest")
    assert (result.verdict, result.reason, result.expected) == (verdict, reason, "this")


@pytest.mark.parametrize(("error", "verdict"), [(Untestable("no such mode"), "skip"), (Stopped("no such mode"), "error")])
def test_what_cannot_be_observed_is_no_pass(
    error: Exception, verdict: str, judged: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def observe(subject: Subject) -> str:
        raise error

    id = "sipi.stress.host.arrivals"
    monkeypatch.setitem(CHECKS, id, CHECKS[id]._replace(observe=observe))
    result = judged(id)
    assert (result.verdict, result.reason, result.observed) == (verdict, "no such mode", None)
