# SPDX-License-Identifier: GPL-2.0-only
"""Judging outside of the lab gives the same results as judging inside."""

from __future__ import annotations

import pytest

from kvmtest.engine import host, plan, run
from kvmtest.judge.evidence import Again, Ended, Look, Measured, Played, Untried
from kvmtest.kvm import Kvm
from kvmtest.lab import relay
from kvmtest.lab.stream import Decoder, Encoder
from kvmtest.model.host import Host
from kvmtest.model.record import Observation
from kvmtest.spec.untouched import COUNTERS


def _judged(sent: bytes, facts: Host) -> list[Observation]:
    receiver = relay.Receiver()
    outside: list[Observation] = []
    look: Look | None = None
    for letter, fields in Decoder().feed(sent):
        if letter in "DV":
            receiver.take(letter, fields[0])
        elif letter == "C":
            look = receiver.look(*fields)
        elif letter == "O":
            assert look
            outside += receiver.observations(look, fields[0], facts)
    return outside


def test_judged_outside_as_inside(kvm: Kvm) -> None:
    facts = host.detect()
    cases = plan.select(plan.plan(), ("init.msi", "init.broadcast", "sipi.msi", "reset", "shutdown"))[::7]
    assert any(case.sequence for case in cases)
    direct = [one for done in run.run(kvm, facts, cases) for one in done.seen]

    sent = bytearray()
    out = Encoder(sent.extend)
    judging = relay.Sender(out).judging
    for done in run.run(kvm, facts, cases, started=lambda case: out.case(case.name, case.view), judging=judging):
        assert not done.seen
    out.flush()
    outside = _judged(bytes(sent), facts)

    # Counters went on between the two runs.
    def reported(seen: list[Observation]) -> list[tuple[object, ...]]:
        results = (result for one in seen for result in one.results)
        return [(r.case, r.id, r.verdict, "" if r.item in COUNTERS else r.expected, r.reason, r.cite) for r in results]

    assert reported(outside) == reported(direct)
    assert [one.case for one in outside] == [one.case for one in direct]


def _counted(lost: int) -> Played:
    return Played(((0, Measured({"lost": (lost, "as it says"), "doubled": (0, ""), "astray": (0, "")})),))


@pytest.mark.parametrize(
    ("seen", "verdict", "reason"),
    [
        (_counted(0), "pass", "as it says"),
        (_counted(2), "fail", "as it says"),
        (Played((), Ended(0, "error", "the guest stopped")), "error", "the guest stopped"),
        (Untried("skip", "no such thing"), "skip", "no such thing"),
        (Untried("error", "out of time", late=True), "error", "out of time"),
        (Again(_counted(0), "no exit at the first try"), "info", "as it says; no exit at the first try"),
        (Again(_counted(2), "no exit at the first try"), "fail", "as it says"),
    ],
)
def test_what_was_measured_is_judged_outside(seen: object, verdict: str, reason: str) -> None:
    case = next(case for case in plan.plan() if case.sequence == "stress")
    facts = Host("9.9.9", "svm", "AuthenticAMD", "A CPU", {})
    sent = bytearray()
    out = Encoder(sent.extend)
    out.case(case.name, case.view)
    assert not relay.Sender(out).judging(case.look(), facts, (), seen)
    out.flush()
    (found,) = _judged(bytes(sent), facts)
    record = next(record for record in found.records if record.item == "lost")
    assert (found.case, found.prefix) == (case.look().case, case.prefix)
    assert (record.verdict, record.reason) == (verdict, reason) and record.cite
