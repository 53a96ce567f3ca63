# SPDX-License-Identifier: GPL-2.0-only
"""Many results become one: the worst, with where it was seen."""

from __future__ import annotations

from kvmtest.engine.result import VERDICTS, Result
from kvmtest.engine.worst import Worst, ranges


def _result(verdict: str, reason: str = "", observed: str = "0x0") -> Result:
    where = ("init.broadcast.host.cr3", "init", "broadcast", "host", "cr3", "case")
    return Result(*where, "0x1", "0x0", observed, verdict, reason, ("SDM",), None)


def _merged(*results: Result) -> Result:
    worst = Worst("vcpus")
    for label, result in enumerate(results, 1):
        worst.add(label, {"cr3": result}, ("cr3",))
    (merged,) = worst.results()
    return merged


def test_ids_that_follow_each_other_are_a_range() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert ranges(["sregs first", "msrs first"]) == "sregs first, msrs first"


def test_any_verdict_is_worse_than_a_pass_and_error_is_the_worst() -> None:
    for verdict in VERDICTS:
        assert _merged(_result("pass"), _result(verdict, "why")).verdict == verdict
        assert _merged(_result("error", "why"), _result(verdict)).verdict == "error"


def test_one_that_differs_is_named() -> None:
    merged = _merged(_result("pass"), _result("pass"), _result("fail", observed="0x1"), _result("pass"))
    assert (merged.verdict, merged.observed, merged.reason) == ("fail", "0x1", "vcpus 3 of 4")
    merged = _merged(_result("skip", "KVM kept 0x0"), _result("pass"))
    assert (merged.verdict, merged.reason) == ("skip", "vcpus 1 of 2: KVM kept 0x0")


def test_what_is_the_same_everywhere_is_said_as_it_is() -> None:
    assert _merged(_result("fail"), _result("fail")) == _result("fail")


def test_what_was_not_judged_anew_holds_on() -> None:
    worst = Worst("vcpus")
    results = {"cr3": _result("pass"), "dr6": _result("fail")}
    worst.add(1, results, ())
    worst.add(2, results, ())
    worst.add(3, results | {"dr6": _result("pass")}, ("dr6",))
    merged = worst.results()
    assert [(r.verdict, r.reason) for r in merged] == [("pass", ""), ("fail", "vcpus 1-2 of 3")]
