# SPDX-License-Identifier: GPL-2.0-only
"""Each expectation of a recorded scenario, each state and each trigger can fail, by one thing of the evidence."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from kvmtest.judge.evidence import Exited, Played, Untried
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import looks as of
from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue import SCENARIOS
from kvmtest.scenario.states import GUEST_PLANTS, STATES
from kvmtest.scenario.triggers import TRIGGERS
from kvmtest.spec.alone import follows
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.sections import Snapshot
from kvmtest.state.values import PLANTS
from kvmtest.state.vmm_reset import SECTIONS
from tests.judge import recorded
from tests.judge.trial import Place, Trial, flipped, judged_bits, replaced, trials
from tests.sample import one_in, some

#: The tables of which each entry is shown to be able to fail.
_EVERY: dict[str, Iterable[str]] = {"state": STATES, "trigger": TRIGGERS, "plant": (*PLANTS, *GUEST_PLANTS)}
#: The scenarios that nothing is recorded of, and why not.
_UNREACHED: dict[str, str] = {
    "init.msi/in-vmx-l2-beside-monitor-trap": "monitor trap flag",
    "none.vm-exit/monitor-trap-in-vmx-l2": "monitor trap flag",
    "init.msi/page-remapped": "this host shows no translation that was changed without a flush",
    "none.vm-exit/cr3-load-in-repaged-vmx-l2": "needs kvm_intel's parameter unrestricted_guest=0",
    "reset.create/by-rdpid": "the guest's CPUID has no RDPID",
    "sipi.icr-x2apic/stress": "not recorded",
    "init.gsi-msi/no-pmu": "KVM_CAP_PMU_CAPABILITY is not there with 0x1",
    "init.latched/bus-lock-exits": "KVM_CAP_X86_BUS_LOCK_EXIT is not there with 0x2",
    # Its HLT makes no exit, and the host's interrupts end it in both emulators.
    "reset.vmm-reset/halted-without-exit": "this CPU goes on after HLT when the host has an interrupt",
    # A VM entry that KVM leaves pending shows up to 6.1.
    **dict.fromkeys(
        ("init.msi/vmrun-pending", "init.msi/vmrun-pending-intercepted", "none.nested-state/vmrun-pending-restored"),
        "no VM entry is pending",
    ),
    **dict.fromkeys(
        (
            *("none.vm-exit/breakpoint-kept-in-svm-l2", "none.vm-exit/software-interrupt-kept-in-svm-l2"),
            *("none.vmrun/breakpoint-injected", "none.vmrun/software-interrupt-injected"),
        ),
        "VMRUN takes no next RIP for software interrupts",
    ),
}
_QUIET, _HYPERCALL = Exited("quiet", 0, None, ""), Exited("exit", 3, None, "KVM_EXIT_HYPERCALL")


def _other_item(trial: Trial, snapshot: Snapshot, items: tuple[str, ...]) -> tuple[str, Snapshot]:
    """One of ``items`` that was read, and the snapshot in which its lowest bit that shows is otherwise."""
    layout = trial.bases[0].layout
    for item in items:
        if (value := snapshot.get(layout, item)) is not None:
            for bit in range(8 * layout.fields[item].size):
                wrong = flipped(layout, snapshot, item, bit)
                if wrong.get(layout, item) != value:
                    return item, wrong
    raise AssertionError(f"nothing of {items} was read")


def _others(trial: Trial, step: s.Expect, values: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield other results of the step, each with the item whose record changes with it."""
    condition, value, item = step.condition, values[-1], of.item_of(step)
    if isinstance(condition, s.Same):
        compared = tuple(one for one in trial.bases[0].layout.fields if one not in COUNTERS.union(condition.but))
        yield item, [*values[:-1], _other_item(trial, value, compared)[1]]
    elif isinstance(condition, s.Zero):
        zero, wrong = _other_item(trial, value, condition.items)
        yield zero, [*values[:-1], wrong]
    elif isinstance(condition, s.Reached):
        # One more or one less; of those of which only one gets it, another one as well.
        wanted, bit = condition.value & condition.mask, condition.mask & -condition.mask
        for number, seen in enumerate(values):
            yield item, [*values[:number], seen ^ bit if seen == wanted else wanted, *values[number + 1 :]]
    elif isinstance(condition, s.Words):
        for number, (word, exited) in enumerate(zip(condition.words, values, strict=True)):
            yield item, [*values[:number], _QUIET, *values[number + 1 :]]
            if word.value is not None:
                other = exited._replace(value=exited.value ^ word.mask & -word.mask)
                yield item, [*values[:number], other, *values[number + 1 :]]
    elif isinstance(value, Exited):
        yield item, [*values[:-1], _HYPERCALL if value.kind == "quiet" else _QUIET]
        if isinstance(condition, s.Word) and condition.value is not None:
            yield item, [*values[:-1], value._replace(value=value.value ^ condition.mask & -condition.mask)]
    elif isinstance(condition, s.Answer):
        yield item, [*values[:-1], -errno.EXDEV]
        yield item, [*values[:-1], -errno.EINVAL if value >= 0 else 0]
    elif isinstance(condition, s.Past):
        yield item, [*values[:-1], condition.least - 1]
        yield item, [*values[:-1], condition.most]
    elif isinstance(condition, s.Written):
        layout = trial.bases[0].layout
        free = {one.item for section in SECTIONS for one in follows(section) if one.free}
        compared = [one for one in layout.fields if one not in COUNTERS | free and not one.startswith("lapic.")]
        yield item, [*values[:-1], _other_item(trial, value, tuple(compared))[1]]
        written = tuple(one for one in compared if layout.fields[one].section == condition.section)
        if written and condition.section not in ("msrs", "lapic"):
            yield item, [*values[:-1], _other_item(trial, value, written)[1]]
    elif isinstance(condition, s.Filled):
        yield item, [*values[:-1], (1, condition.gpa)]
    else:
        assert isinstance(condition, (s.Is, s.Holds))
        mask = condition.mask if isinstance(condition, s.Is) else 1
        yield item, [*values[:-1], value ^ mask & -mask]


def _passed(trial: Trial) -> Iterator[tuple[of.Look, s.Expect, Played]]:
    """Each expectation that was met, and what was seen until then."""
    for look in {look.step: look for look in of.looks(trial.look.scenario)}.values():
        step = trial.look.scenario.steps[look.step]
        if isinstance(step, s.Expect) and any(number == look.step for number, _ in trial.seen.evidence):
            until = Played(tuple(one for one in trial.seen.evidence if one[0] <= look.step))
            # Of a Zero, which has several items, each.
            if trial.by_place(until)[_place(look, look.item)].verdict is Verdict.PASS:
                yield look, step, until


def _place(look: of.Look, item: str) -> Place:
    return f"{look.event}.{look.trigger}.{look.view}", item


def _fails(trial: Trial, look: of.Look, step: s.Expect, until: Played) -> None:
    """An expectation that is not met is one record, and the last one."""
    met = trial.by_place(until)
    values = [value for number, value in until.evidence if number == look.step]
    before = tuple(one for one in until.evidence if one[0] < look.step)
    after = tuple(one for one in trial.seen.evidence if one[0] > look.step) if step.ends else ()
    for item, others in _others(trial, step, values):
        seen = (*before, *((look.step, value) for value in others), *after)
        unmet = trial.by_place(trial.seen._replace(evidence=seen) if step.ends else Played(seen))
        assert unmet.keys() == met.keys(), (trial.look.case.name, look, others)
        changed = {place: record for place, record in unmet.items() if record != met[place]}
        assert changed.keys() == {_place(look, item)}, (trial.look.case.name, look, others)
        assert changed.popitem()[1].verdict in (Verdict.FAIL, Verdict.KNOWN)


def _played(name: str) -> Iterator[Trial]:
    return (trial for trial in trials(name) if isinstance(trial.seen, Played))


@pytest.mark.parametrize("name", recorded.NAMES)
def test_an_expectation_that_is_not_met_is_one_record_and_the_last(name: str) -> None:
    found = [(trial, *one) for trial in some(list(_played(name))) for one in _passed(trial)]
    for one in found:
        _fails(*one)
    assert len(found) > 100 // one_in()


# States, triggers, plants


def _fails_by_an_item(trial: Trial) -> int | None:
    """The step whose table gets another verdict by one bit, of that item alone; None where no table was read."""
    layout = trial.bases[0].layout
    for look in of.looks(trial.look.scenario)[::-1]:
        at = [at for at, (number, _) in enumerate(trial.seen.evidence) if number == look.step]
        if look.item or look.view != "host" or look.trigger in ("plant", "migrate") or not at:
            continue
        after = trial.seen.evidence[at[0]][1]
        for (prefix, item), record in trial.before.items():
            if (prefix, "") == _place(look, "") and item in layout.fields and item != "events.smi_latched_init":
                for bit in judged_bits(record, layout.fields[item].size):
                    wrong = flipped(layout, after, item, bit)
                    if wrong.get(layout, item) != after.get(layout, item):
                        changed = trial.changed(replaced(trial.seen, at[0], wrong))
                        assert changed.keys() >= {(prefix, item)} and {place[1] for place in changed} == {item}
                        assert changed[prefix, item].verdict.departs
                        return look.step
    return None


def _names(trial: Trial, last: int) -> set[tuple[str, str]]:
    """Return the causes of a departure in the step ``last``; one may be an NMI, which is not judged itself."""
    steps = trial.look.scenario.steps[:last]
    found = {("trigger", step.by) for step in steps if isinstance(step, s.Send)}
    if "sequence" not in trial.params:
        how = trial.params.get("how")
        found |= {("trigger", f"{trial.look.trigger}/{how}" if how else trial.look.trigger)}
        found |= {(kind, str(trial.params.get(kind, ""))) for kind in ("state", "plant")}
    return found


def test_each_state_trigger_and_plant_fails_by_one_item() -> None:
    shown: set[tuple[str, str]] = set()
    for trial in (trial for name in recorded.NAMES for trial in _played(name)):
        if _names(trial, len(trial.look.scenario.steps)) <= shown:
            continue
        if (step := _fails_by_an_item(trial)) is not None:
            shown |= _names(trial, step)
        for look, expect, until in _passed(trial):
            if not _names(trial, look.step) <= shown:
                _fails(trial, look, expect, until)
                shown |= _names(trial, look.step)
    every = {(kind, name) for kind, names in _EVERY.items() for name in names}
    assert every - shown == set()


def test_what_no_recording_reaches() -> None:
    reached, why = set(), dict.fromkeys(SCENARIOS, "not recorded")
    for trial in (trial for name in recorded.NAMES for trial in trials(name) if "sequence" in trial.params):
        look, seen = trial.look, trial.seen
        key = f"{look.event}.{look.trigger}/{trial.params['sequence']}"
        if isinstance(seen, Played) and {one.step for one in of.looks(look.scenario)} & {number for number, _ in seen.evidence}:
            reached.add(key)
        else:
            why[key] += seen.reason if isinstance(seen, Untried) else seen.end.why
    assert SCENARIOS.keys() - reached == _UNREACHED.keys()
    for key, reason in _UNREACHED.items():
        assert reason in why[key], key
