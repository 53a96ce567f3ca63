# SPDX-License-Identifier: GPL-2.0-only
"""Requirements on a reproducer of a result: the items with expected values, the proof of the event, and their preconditions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kvmtest import spec
from kvmtest.emit.moving import Refused
from kvmtest.emit.repro import NoRepro
from kvmtest.emit.wanted import Together, Wanted, Witness
from kvmtest.engine.plan import Case
from kvmtest.judge import alone, migration
from kvmtest.judge.differing import differences
from kvmtest.judge.evidence import Basis, Played
from kvmtest.model.record import Record, Result
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import looks as of
from kvmtest.scenario import program as p
from kvmtest.scenario import step as s
from kvmtest.spec.migrated import COUNTED
from kvmtest.spec.rule import Rule
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.sections import Snapshot
from kvmtest.uapi import kvm as uapi

__all__ = (
    "EVENTS", "Rules", "addressing", "changed", "explicit", "functions", "items", "moved", "refused",
    "rules", "sent", "steps", "wanted", "witness",
)  # fmt: skip

#: The item that KVM may recompute when a vCPU runs.
_COMPUTED = "lapic.ppr"
#: Events that leave a trace in the vCPU.
EVENTS = ("init", "sipi", "shutdown")
#: Items that may show an event, the clearest first.
_WITNESSES = ("mp_state", "rip", "cs.selector", "rflags", "rax", "cr0", "efer")


def witness(result: Result) -> Witness | None:
    """An item that the event changed as it has to."""
    there = {record.item: record for record in result.of.records}
    for item in _WITNESSES:
        one = there.get(item)
        if one and item != result.item and one.verdict is Verdict.PASS and isinstance(one.planted, int):
            if not isinstance(one.observed, int) or one.observed == one.planted:
                continue
            # A halted vCPU may wake up for other reasons.
            if item != "mp_state" or uapi.KVM_MP_STATE_INIT_RECEIVED in (one.planted, one.observed):
                return Witness(item, one.observed)
    return None


def sent(scenario: s.Scenario) -> set[int]:
    """The steps that send the event which is judged."""
    return {number for number, step in enumerate(scenario.steps) if isinstance(step, s.Send) and step.judged}


def explicit(scenario: s.Scenario) -> set[int]:
    """The steps that write single values, or call KVM: a scenario is about these."""
    return {number for number, step in enumerate(scenario.steps) if isinstance(step, (s.Set, s.SetBits, s.Call, s.Count))}


def steps(scenario: s.Scenario, result: Result) -> list[int]:
    """The steps that observe ``result``: of an expectation that is made again and again each, the last one first."""
    where = (result.event, result.of.trigger, result.view)
    here = [one for one in of.looks(scenario) if (one.event, one.trigger, one.view) == where]
    found = [one.step for one in here if one.item == result.item]
    found = found or [one.step for one in here if one.item == of.TABLE]
    if not found:
        raise NoRepro(f"no step observes {result.id}")
    return found[::-1]


#: The rule of an item of the table for the guest's vendor, and for the other one; None for a scenario's own expectation.
Rules = dict[str, tuple[Rule, Rule] | None]


def rules(result: Result, case: Case, backend: str) -> tuple[Rule, Rule] | None:
    """Those of ``result``."""
    if result.item not in spec.ENTRIES and not result.item.startswith("msr.0x"):
        return None
    vendors = ("amd", "intel") if case.setup.vendor == "amd" else ("intel", "amd")
    mine, other = (spec.rule_for(result.item, result.event, vendor, backend) for vendor in vendors)
    return mine, other


def wanted(
    scenario: s.Scenario, step: int, looked: bool, results: Iterable[Result], rules: Rules, witness: Witness | None
) -> Wanted:
    """Return what to show; with ``looked``, the ``step`` is judged by an observation of the whole vCPU."""
    guest, condition = isinstance(scenario.steps[step], s.Guest), getattr(scenario.steps[step], "condition", None)
    if isinstance(condition, s.Reached):
        either = tuple((id,) for id in condition.ids) if condition.one else (condition.ids,)
        return Wanted(step, together=Together(condition.of, either, _begins(scenario, step)))
    if not guest and not looked or guest and next(iter(results)).item == "runs":
        return Wanted(step, guest=guest)
    found, planted = items(results, rules)
    if not found:
        one = next(iter(results))
        raise NoRepro(f"{one.id}: {one.record.reason or 'there is no value that is expected'}")
    if compared := {one.item for one in results if one.view == "views"}:
        # It is the host's value that is expected, and has to be there.
        planted = tuple((item, value) for item, (value, *_), _ in found if item in compared)
    return Wanted(step, found, planted, witness, guest)


def _begins(scenario: s.Scenario, step: int) -> int:
    """The step with which the event before ``step`` begins."""
    events = {at for at, one in enumerate(scenario.steps[:step]) if isinstance(one, s.Event)}
    return max(events | {at for at in sent(scenario) if at < step}, default=0)


def addressing(vm: p.Program) -> frozenset[int]:
    """The ops that say what an address means, and who there is."""
    found = set()
    for at, (_, op) in enumerate(vm.ops):
        if isinstance(op, p.Ioctl) and op.request == uapi.KVM_ENABLE_CAP and isinstance(op.arg, str):
            cap = int.from_bytes(vm.buffers[op.arg].contents[:4], "little")
            found |= {at} if cap == uapi.KVM_CAP_X2APIC_API else set()
        elif isinstance(op, p.Create):
            found.add(at)
    return frozenset(found)


def changed(scenario: s.Scenario, step: int, played: Played, basis: Basis, departs: bool = True) -> Wanted | None:
    """To show what changed though it was to stay, where ``step`` expects that of a vCPU, or what one section alone did not do.

    Where nothing ``departs``, all that is as it has to be. None where the step expects something else.
    """
    expect, layout = scenario.steps[step], basis.layout
    if not isinstance(expect, s.Expect) or not isinstance(expect.condition, (s.Same, s.Written)):
        return None
    looks = [at for at, one in enumerate(scenario.steps) if isinstance(one, (s.Observe, s.Expect)) and one.who == expect.who]
    seen = [(at, one) for at, one in played.evidence if at in looks and isinstance(one, Snapshot)]
    after = next((one for at, one in reversed(seen) if at == step), None)
    before = next((one for at, one in reversed(seen) if at < step), None)
    if not before or not after:
        raise NoRepro("the vCPU was not read both before and after it")
    if isinstance(expect.condition, s.Written):
        judged = alone.judged(basis, expect.condition.section, before, after)
        found = [(item, value) for item, value, seen in judged if value is not None and departs == (seen != value)]
    else:
        others = differences(layout, before, after, expect.condition.but)
        left_out = {*others, *COUNTERS, *expect.condition.but, _COMPUTED}
        names = others if departs else [name for name in layout.fields if name not in left_out]
        found = [(name, value) for name in names if (value := before.get(layout, name)) is not None]
    if not found:
        raise NoRepro("nothing changed that the host can read of the vCPU")
    kept = tuple((item, value) for item, value in found if before.get(layout, item) == value) if departs else ()
    return Wanted(step, tuple((item, (value,), None) for item, value in found), kept)


def refused(played: Played, step: int, results: Iterable[Result]) -> Refused | None:
    """Return KVM's refusal in the migration ``step``, if that is the result. Raises NoRepro for results without a reproducer."""
    items = {one.item for one in results if one.verdict is not Verdict.PASS}
    if items & {"irqchip", "clock"}:
        raise NoRepro("devices outside the vCPUs are compared byte by byte")
    if "refused" not in items or not played.end:
        return None
    found = [value for at, value in played.evidence if at == step]
    return Refused(step, len(found), found[-1])


def moved(step: int, results: Iterable[Result], bases: Sequence[Basis], values: list[Any]) -> Iterator[tuple[int, Wanted]]:
    """Return what to show of the migration ``step`` with the results ``values``: changed items, or if none departs, kept ones."""
    results = tuple(results)
    departs = results[0].verdict is not Verdict.PASS
    for basis, (layout, before, after) in zip(bases, migration.vcpus(bases, values), strict=False):
        found = []
        for one in results:
            if one.item not in layout.fields:
                continue
            old, mask = before.get(layout, one.item), one.record.expected.mask if one.record.expected else None
            if old is not None and one.item not in COUNTED and departs == _other(old, after.get(layout, one.item), mask):
                found.append((one.item, (old,), mask))
        if found:
            planted = tuple((item, value) for item, (value,), _ in found) if departs else ()
            yield basis.ctx.apic_id, Wanted(step, tuple(found), planted)
    if all(one.item in COUNTED for one in results):
        raise NoRepro("it is a counter: no single value is expected")


def _other(old: int, new: int | None, mask: int | None) -> bool:
    return new is None or bool((old ^ new) & (-1 if mask is None else mask))


_Items = tuple[tuple[str, tuple[int, ...], int | None], ...]


def items(results: Iterable[Result], rules: Rules) -> tuple[_Items, tuple[tuple[str, int], ...]]:
    """Return the expected values of items, and the planted values of those items that must be unchanged."""
    found, planted = [], []
    for one in results:
        record: Record = one.record
        if record.expected is None or any(isinstance(value, str) for value in record.expected.values):
            continue
        found.append((one.item, tuple(int(value) for value in record.expected.values), record.expected.mask))
        rule = rules[one.item]
        kept = rule and (rule[0].kind == "unchanged" or rule[0].unchanged) and one.item != _COMPUTED
        if kept and isinstance(record.planted, int):
            planted.append((one.item, record.planted))
    return tuple(found), tuple(planted)


#: The leaf that a formula's value rests on.
_OF_FORMULA = {"CPUID.1:EAX": (1, "eax"), "GP_COUNTERS": (0xA, "eax"), "APIC_VERSION": (0x80000001, "ecx")}
_VENDOR = frozenset((0, register) for register in ("ebx", "ecx", "edx"))


def functions(results: Iterable[Result], rules: Rules) -> frozenset[tuple[int, str]]:
    """The registers of CPUID that the expectation depends on: the vendor's if the rules differ, and those of formulas."""
    found: set[tuple[int, str]] = set()
    for one in results:
        expected, rule = one.record.expected, rules[one.item]
        if expected and expected.formula in _OF_FORMULA:
            found.add(_OF_FORMULA[expected.formula])
        if rule and rule[0]._replace(cite=(), note="") != rule[1]._replace(cite=(), note=""):
            found |= _VENDOR
    return frozenset(found)
