# SPDX-License-Identifier: GPL-2.0-only
"""Conditions: what each is compared with, and the text of its record: lowered, run on memory and buffers alone, judged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kvmtest.engine.runner import play
from kvmtest.judge.cache import Cache
from kvmtest.judge.evidence import Ended, Exited, Look, Played
from kvmtest.judge.scenario import played
from kvmtest.model.case import Case
from kvmtest.model.host import Host
from kvmtest.model.record import Record
from kvmtest.scenario import program as p
from kvmtest.scenario import step as s
from kvmtest.scenario.memory import number

_HOST, _NAMES = Host("6.12.0", "svm", "", "", {}), ("init", "msi", "made-up")
_CASE = Case("init.msi/ap,intel,made-up", (("target", "ap"),))
_FAIL = p.Otherwise("fail", "")
_FILLED = s.Expect(s.Filled(0x2000, b"abcd"))
_VALUE = number("behaviour", "PORT_VALUE")


def _played(op: p.Op) -> Played:
    ram = bytearray(b"abXY")
    memory = SimpleNamespace(slot=0, gpa=0x2000, size=4, read=lambda gpa, size: bytes(ram[gpa - 0x2000 :][:size]))
    machine: Any = SimpleNamespace(targets=(), vm=SimpleNamespace(memory=(memory,)))
    return play(p.Program({"word": p.Buffer("u32", bytes((7, 0, 0, 0)))}, ((3, op),)), machine, 1.0)


@pytest.mark.parametrize(
    ("op", "evidence", "ended"),
    [
        (p.Match(0x2000, b"abXY", _FAIL), (0, 0), False),
        (p.Match(0x2000, b"abcd", _FAIL), (2, 0x2002), True),
        (p.Compare(p.Place("word", 0, 4), (8,), _FAIL, unlike=True), 7, False),
        (p.Compare(p.Place("word", 0, 4), (7,), _FAIL, unlike=True), 7, True),
    ],
)
def test_memory_and_another_value_are_compared(op: p.Op, evidence: object, ended: bool) -> None:
    seen = _played(op)
    assert seen.evidence == ((3, evidence),)
    assert (seen.end is not None and (seen.end.step, seen.end.verdict) == (3, "fail")) == ended


def _record(expect: s.Expect, value: object, vendor: str = "intel") -> Record:
    scenario = s.Scenario(*_NAMES, (s.Load("behaviour"), expect), ("a manual",))
    look = Look(_CASE, "init", "msi", "host", vendor, "ap", (), scenario)
    seen = Played(((1, value),))
    (observation,) = played(Cache(), look, _HOST, (), seen)
    (record,) = observation.records
    return record


def _out(value: int, port: int = _VALUE) -> Exited:
    return Exited("out", port, value, "an OUT")


_SAYS = s.Expect(s.Word("VALUE", 1), "delivered", says=((0, "none"), (1, "one")))


@pytest.mark.parametrize(
    ("expect", "value", "verdict", "observed"),
    [
        (_FILLED, (0, 0), "pass", "what was written"),
        (_FILLED, (2, 0x2002), "fail", "2 other bytes, the first at 0x2002"),
        (_SAYS, _out(1), "pass", "one"),
        (_SAYS, _out(0), "fail", "none"),
        (_SAYS, _out(5), "fail", 5),
        (_SAYS, _out(1, number("behaviour", "PORT_FAULT")), "fail", "an exception at CS:IP 0000:0001"),
        (s.Expect(s.Holds("COUNT", 0), "runs", says=((0, "nothing"),)), 0, "pass", "nothing"),
        (s.Expect(s.Holds("COUNT", 0), "runs", says=((0, "nothing"),)), 9, "fail", 9),
        (_SAYS._replace(undefined="not said"), _out(0), "info", "none"),
        (_SAYS._replace(undefined="not said", vendor="amd"), _out(0), "fail", "none"),
    ],
)
def test_an_expectation_is_judged_and_said_in_words(expect: s.Expect, value: object, verdict: str, observed: object) -> None:
    record = _record(expect, value)
    assert (record.verdict.value, record.observed) == (verdict, observed)
    assert record.reason == ("not said" if verdict == "info" else "")


def test_an_item_is_no_pass_where_its_last_expectation_was_not_tried() -> None:
    """The first expectation held; the precondition of the second is missing."""
    steps = (s.Load("behaviour"), _SAYS, s.Require(s.Word("READY"), "no READY", skip=True), _SAYS)
    look = Look(_CASE, "init", "msi", "host", "intel", "ap", (), s.Scenario(*_NAMES, steps, ("a manual",)))
    (observation,) = played(Cache(), look, _HOST, (), Played(((1, _out(1)),), Ended(2, "skip", "no READY")))
    (record,) = observation.records
    assert (record.verdict.value, record.reason) == ("skip", "no READY")
