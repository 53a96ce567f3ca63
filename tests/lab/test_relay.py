# SPDX-License-Identifier: GPL-2.0-only
"""What is judged outside of the lab gets the results that it would have had inside."""

from __future__ import annotations

from kvmtest.engine import host, plan, run
from kvmtest.engine.result import CaseTime, Result
from kvmtest.kvm import Kvm
from kvmtest.lab import relay
from kvmtest.lab.stream import Decoder, Encoder
from kvmtest.spec.untouched import COUNTERS


def test_judged_outside_as_inside(kvm: Kvm) -> None:
    facts = host.detect()
    cases = plan.select(plan.plan(), ("init.msi", "init.broadcast", "sipi.msi", "reset", "shutdown"))[::7]
    direct = [step for step in run.run(kvm, facts, cases) if isinstance(step, Result)]

    sent = bytearray()
    out = Encoder(sent.extend)
    judging = relay.Sender(out).judging
    for step in run.run(kvm, facts, cases, started=lambda case: out.case(case.name, case.prefix), judging=judging):
        if isinstance(step, CaseTime):
            out.line("c", "0")
        else:
            out.result(step)
    out.flush()

    receiver = relay.Receiver()
    outside: list[Result] = []
    for letter, fields in Decoder().feed(bytes(sent)):
        if letter in "DV":
            receiver.take(letter, fields[0])
        elif letter == "O":
            outside += [r for r in receiver.results(fields[0], facts) if receiver.new(r)]
        elif letter == "result":
            outside += [r for r in [Result._make(fields)] if receiver.new(r)]

    # Counters went on between the two runs.
    def told(results: list[Result]) -> list[tuple[object, ...]]:
        return [(r.case, r.id, r.verdict, "" if r.item in COUNTERS else r.expected, r.reason, r.cite) for r in results]

    assert told(outside) == told(direct)
