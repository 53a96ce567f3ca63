# SPDX-License-Identifier: GPL-2.0-only
"""Items that KVM accepts and does not keep fail by themselves; changes that KVM is known to make are skips that say so."""

from __future__ import annotations

import random

import pytest

from kvmtest.judge.cache import Cache
from kvmtest.judge.evidence import Played
from kvmtest.model.record import Record
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import looks as of
from kvmtest.scenario import step as s
from kvmtest.spec.kept import FACTS
from kvmtest.state.sections import Snapshot
from tests.judge import recorded
from tests.judge.trial import Trial, flipped, replaced, trials
from tests.sample import at_most

_PREFIX = ".".join(of.PLANT)
_LAB = ("7.2-svm", "7.2-vmx")


def _at(trial: Trial) -> int | None:
    """Return the index of the first read of the vCPU after its plant; None if that is not judged."""
    scenario = trial.look.scenario
    writing = of.written(scenario) if scenario and isinstance(trial.seen, Played) else None
    if not writing or not trial.bases[0].plant:
        return None
    return next((at for at, (number, _) in enumerate(trial.seen.evidence) if number == writing.observed), None)


def _of_plants(name: str) -> list[tuple[Trial, int]]:
    return [(trial, at) for trial in trials(name) if (at := _at(trial)) is not None]


def _kept(records: dict[tuple[str, str], Record]) -> dict[str, Record]:
    return {item: record for (prefix, item), record in records.items() if prefix == _PREFIX}


def _with(trial: Trial, at: int, item: str, bit: int) -> dict[str, Record]:
    """The records of the plant where that bit of ``item`` reads otherwise."""
    wrong = flipped(trial.bases[0].layout, trial.seen.evidence[at][1], item, bit)
    return _kept(trial.by_place(replaced(trial.seen, at, wrong)))


@pytest.mark.parametrize("name", _LAB)
def test_the_lab_keeps_what_it_accepts(name: str) -> None:
    """The true list of what is not kept: each of it is a fact."""
    found = [record for trial, _ in _of_plants(name) for record in _kept(trial.before).values()]
    assert len(found) > 100_000 and {record.verdict for record in found} == {Verdict.PASS, Verdict.SKIP}
    explained = {record.reason.partition(": ")[2] for record in found if "was written, but KVM_GET_* returned" in record.reason}
    assert explained and explained <= {fact.says for fact in FACTS}


@pytest.mark.parametrize("name", _LAB)
@pytest.mark.parametrize("item", ["events.nmi_masked", "events.interrupt_shadow"])
def test_an_event_that_is_accepted_and_dropped_fails_and_its_check_is_skipped(item: str, name: str) -> None:
    asking = [trial for trial, _ in _of_plants(name) if len(trial.bases) == 1 and trial.bases[0].plant.asked.get(item)]
    writings = ((trial, of.written(trial.look.scenario)) for trial in asking if trial.look.event in ("init", "sipi"))
    asking = [trial for trial, writing in writings if writing and item not in writing.items]
    assert len(asking) > 50
    for trial in asking[:: len(asking) // 20]:
        layout = trial.bases[0].layout
        shown = tuple((n, one.put(layout, item, 0) if isinstance(one, Snapshot) else one) for n, one in trial.seen.evidence)
        dropped = trial.by_place(trial.seen._replace(evidence=shown))
        record = dropped[_PREFIX, item]
        assert record.verdict is Verdict.FAIL and record.observed == 0 and record.expected.values == (1,)
        changed = {place for place, one in dropped.items() if one.verdict is not trial.before[place].verdict}
        assert (_PREFIX, item) in changed and {place[1] for place in changed} == {item}
        events = [one for place, one in dropped.items() if place[1] == item and place[0] != _PREFIX]
        assert Verdict.FAIL not in {one.verdict for one in events}


@pytest.mark.parametrize("name", _LAB)
def test_one_bit_that_is_not_kept_fails_its_item_alone(name: str) -> None:
    rng, done, seen = random.Random(name), 0, set()
    tried = _of_plants(name)
    while done < at_most(120):
        trial, at = rng.choice(tried)
        records = _kept(trial.before)
        item = rng.choice([item for item, record in records.items() if record.verdict is Verdict.PASS and record.expected])
        field = trial.bases[0].layout.fields[item]
        now = _with(trial, at, item, rng.randrange(8 * field.size))
        changed = {other for other in records if now[other] != records[other]}
        if not changed:  # a component of XSAVE that is not in use
            continue
        # A fact may be about just this value.
        failed = now[item].verdict is Verdict.FAIL or "was written, but KVM_GET_* returned" in now[item].reason
        assert item in changed and (failed or len(trial.bases) > 1), (trial.look.case.name, item)
        done += 1
        seen.add(field.section)
    assert seen >= {"regs", "sregs", "events", "lapic", "msrs", "xsave"} or done < 100


def test_what_an_emulator_loses_is_a_skip_with_its_commit() -> None:
    tried = ((trial, at) for trial, at in _of_plants("7.2-vmx") if len(trial.bases) == 1)
    trial, at = next((trial, at) for trial, at in tried if _kept(trial.before)["mxcsr"].verdict is Verdict.PASS)
    assert _with(trial, at, "mxcsr", 0)["mxcsr"].verdict is Verdict.FAIL
    other = trial.host._replace(lab={**trial.host.lab, "emulator": "Bochs 3.0"})
    record = _with(Trial(Cache(), other, trial.look, trial.bases, trial.seen), at, "mxcsr", 0)["mxcsr"]
    assert record.verdict is Verdict.SKIP and "17462bb09" in record.reason


def test_what_counts_fails_only_where_it_has_gone_back() -> None:
    trial, at = next(one for one in _of_plants("7.2-svm") if len(one[0].bases) == 1)
    layout, seen = trial.bases[0].layout, trial.seen.evidence[at][1]
    written = trial.bases[0].plant.asked["msr.tsc"]
    for value, verdict in ((written, "pass"), (written + 12345, "pass"), (written - 1, "fail"), (5, "fail")):
        assert _kept(trial.by_place(replaced(trial.seen, at, seen.put(layout, "msr.tsc", value))))["msr.tsc"].verdict == verdict


def test_a_counter_that_came_by_the_written_value_anyway_proves_nothing() -> None:
    trial, at = next(one for one in _of_plants("7.2-svm") if len(one[0].bases) == 1)
    (base,), layout = trial.bases, trial.bases[0].layout
    written = base.plant.asked["msr.tsc"]
    for stood, verdict in ((written - 5, "skip"), (written + 5, "skip"), (written - (1 << 41), "pass")):
        other = base._replace(baseline=base.baseline.put(layout, "msr.tsc", stood))
        trying = Trial(Cache(), trial.host, trial.look, (other,), trial.seen)
        counts = trial.seen.evidence[at][1].put(layout, "msr.tsc", written + 9)
        assert _kept(trying.by_place(replaced(trial.seen, at, counts)))["msr.tsc"].verdict == verdict


def test_what_comes_between_is_not_judged_as_a_plant() -> None:
    """Guest code that plants, another event, another ioctl: what is read then is not what was written."""
    a = s.Plant("a")
    for steps in (
        (s.Plant("guest-long"), s.Observe()),
        (a, s.Send("init", judged=False), s.Observe()),
        (a, s.SetBits("efer", 1), s.Observe()),
        (a._replace(keep=0x1000), s.Observe()),
        (a, s.Migrate(), s.Observe()),
        (a, s.Set((("rip", "planter.loop"),)), s.Observe()),
        (a, s.Observe("other")),
    ):
        assert of.written(s.Scenario("init", "msi", "made-up", steps, ())) is None
    writing = of.written(s.Scenario("init", "msi", "made-up", (a, s.Set((("rax", 5),)), s.Load("smm"), s.Observe()), ()))
    assert writing and writing.items == {"rax": 5} and writing.observed == 3


def test_a_kvm_of_its_own_departs_where_it_does() -> None:
    """kvm_pvm has no virtual-8086 mode, and no TSC offset."""
    failed = {i for trial, _ in _of_plants("native") for i, r in _kept(trial.before).items() if r.verdict is Verdict.FAIL}
    assert failed == {"cr0", "rflags", "msr.tsc", "msr.spec_ctrl", "msr.virt_spec_ctrl", "msr.tsx_ctrl"}
    assert recorded.read("native").host.backend == "pvm"
