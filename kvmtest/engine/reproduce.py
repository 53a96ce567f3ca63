# SPDX-License-Identifier: GPL-2.0-only
"""Find a departure of a case on this host's KVM, and make a reproducer of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kvmtest import spec
from kvmtest.emit.head import About, Shown, value
from kvmtest.emit.reduce import reduced, used
from kvmtest.emit.reporter import Untold
from kvmtest.emit.repro import NoRepro, Repro, Wanted, Witness, body
from kvmtest.emit.reset import of_reset
from kvmtest.emit.written import keeping
from kvmtest.engine import trial
from kvmtest.engine.bind import Scene, Unmet
from kvmtest.engine.machine import Machine, Machines, SetupError, Target
from kvmtest.engine.plan import Case
from kvmtest.engine.vmm_reset import VmmReset
from kvmtest.guests import GuestMissing
from kvmtest.judge.book import Book
from kvmtest.judge.cases import judge
from kvmtest.kvm import Kvm
from kvmtest.model.host import Host
from kvmtest.model.record import Record, Result
from kvmtest.model.select import Selection
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import looks as of
from kvmtest.scenario import program as p
from kvmtest.scenario import step as s
from kvmtest.scenario.lower import of_plant
from kvmtest.scenario.orders import Order
from kvmtest.scenario.program import DEFAULT_EFFORT
from kvmtest.spec.rule import Rule
from kvmtest.state.inside import GuestStopped, PlantRefused
from kvmtest.state.plant import Plant
from kvmtest.state.saved import Part
from kvmtest.state.snapshot import Unread
from kvmtest.uapi.kvm import KVM_MP_STATE_INIT_RECEIVED
from kvmtest.x86 import cpuid

__all__ = ("first", "reproduce")

#: The verdicts of departures, the one that is wanted most first.
_DEPARTURES = (Verdict.FAIL, Verdict.KNOWN, Verdict.ERROR)


class _Planting:
    """A vCPU that lowering a plant needs no more of."""

    effort = DEFAULT_EFFORT

    def __init__(self, id: int, plant: Plant) -> None:
        self.target = self.other = id
        self.each: tuple[int, ...] = (id,)
        self._plant = plant

    def plant(self, who: int, name: str, apic_mode: str) -> Plant:
        """The one plant."""
        return self._plant

    def saved(self, who: int, order: Order) -> dict[str, tuple[Part, ...]]:
        """Nothing: a plant migrates nothing."""
        return {}


class _Source:
    """What a reproducer is made from, of one vCPU."""

    def __init__(self, target: Target) -> None:
        self.layout, self.baseline, self.reads = target.layout, target.baseline, target.reader.made()


def reproduce(
    case: Case,
    machines: Machines,
    selection: Selection,
    timeout_s: float = 1.0,
    *,
    minimise: bool = True,
    told: Callable[[str], None] = lambda what: None,
) -> Shown:
    """The reproducer of the first result of ``case`` that ``selection`` takes and that departs; of all that pass where none does.

    ``told`` hears how far it is. Raises NoRepro where there is none, KvmError, Unmet, SetupError.
    """
    machine = machines.fresh(case.setup)
    try:
        ran = (Scene if case.scenario else VmmReset)(case, machine, machines.host, timeout_s)
        seen = judge(Book(), case.look(), machines.host, ran.bases, ran.observe())
        chosen = _chosen([one for of in seen for one in of.results if selection.takes_id(one.id)])
        candidates = list(_candidates(case, machine, ran, chosen))
    finally:
        machines.release(machine)
    about = _about(case, chosen)
    trials = trial.Trials(machines.kvm, timeout_s)
    for made in candidates:
        first = trials.run(made)
        if first.verdict == ("fail" if about.departs else "pass"):
            break
    else:
        why = f": {first.why}" if first.why else ""
        does = "departs" if about.departs else "passes"
        raise NoRepro(f"{about.name} {does}, but alone, on a VM of its own, it ends as {first.verdict}{why}")
    ops = len(made.vm.ops) + len(made.body.ops)
    if not about.departs or not minimise:
        return Shown(used(made), about, ops)

    now = first.observed

    def shows(repro: Repro, before: int, after: int) -> bool:
        nonlocal now
        found = trials.run(repro)
        # A value that is kept is another one where another one was written.
        if found.verdict != "fail" or found.observed not in (now, (after,) if now == (before,) != (after,) else now):
            return False
        now = found.observed
        return True

    trials.hasten()
    told(f"{about.name} departs alone, too; leaving out what it does not need")
    smallest = used(reduced(made, shows))
    if smallest.checks and isinstance(now[0], int):
        about = about._replace(observed=value(about.item, now[0]))
    return Shown(smallest, about, ops, trials.count)


def _chosen(results: list[Result]) -> tuple[Result, ...]:
    """The result that departs, or those that pass in the host's view. Raises NoRepro."""
    for verdict in _DEPARTURES:
        for one in results:
            if one.verdict is verdict:
                return (one,)
    if passing := tuple(one for one in results if one.verdict is Verdict.PASS and one.view == "host"):
        last = passing[-1].of
        return tuple(one for one in passing if one.of is last)
    verdicts = ", ".join(sorted({str(one.verdict) for one in results})) or "nothing"
    raise NoRepro(f"none of its results departs, and none passes in the host's view: {verdicts}")


def _about(case: Case, results: tuple[Result, ...]) -> About:
    first, record = results[0], results[0].record
    expected = " or ".join(value(first.item, one) for one in record.expected.values) if record.expected else "nothing"
    if record.expected and record.expected.mask is not None:
        expected += f" in the bits {record.expected.mask:#x}"
    return About(
        first.id,
        case.name,
        first.item,
        first.event,
        first.of.trigger,
        expected,
        value(first.item, record.observed),
        record.cite,
        first.verdict in _DEPARTURES,
        record.reason,
        record.deviation or "",
        len(results) - 1,
    )


def _candidates(case: Case, machine: Machine, ran: Scene | VmmReset, chosen: tuple[Result, ...]) -> Iterator[Repro]:
    """What may show the result: by each step that observes it, or with the ioctls in each order."""
    if isinstance(ran, Scene):
        assert case.scenario
        for step in _steps(case.scenario, chosen[-1]):
            yield _made(case, machine, ran, chosen, step)
        return
    target = machine.target(case.target)
    plant = of_plant(s.Plant(case.plant, case.apic_mode), _Planting(target.vcpu.id, ran.plant))
    items, planted = _items(chosen, {one.item: None for one in chosen})
    if not items:
        raise NoRepro(f"{chosen[0].id}: {chosen[0].record.reason or 'there is no value that is expected'}")
    wanted = Wanted(0, items, planted or _plants(chosen), guest=chosen[0].view != "host")
    for order in ran.orders:
        made = of_reset(plant, _Source(target), order, wanted, target.vcpu.id, cpuid.xcr0_mask(machine.leaves))
        yield made._replace(vm=machine.program)


def _plants(results: Iterable[Result]) -> tuple[tuple[str, int], ...]:
    return tuple((one.item, one.record.planted) for one in results if isinstance(one.record.planted, int))


def _made(case: Case, machine: Machine, scene: Scene, chosen: tuple[Result, ...], step: int) -> Repro:
    """The reproducer of what ``step`` observes, as large as the case is."""
    assert case.scenario
    sources = {target.vcpu.id: _Source(target) for target in machine.targets}
    backend = scene.bases[0].ctx.host.backend
    rules = {one.item: _rules(one, case, backend) for one in chosen}
    witness = _witness(chosen[0]) if chosen[0].event in _EVENTS and chosen[0].view == "host" else None
    ops = [op for number, op in scene.program.ops if number <= step]
    looked = isinstance(case.scenario.steps[step], s.Observe) or bool(ops) and isinstance(ops[-1], p.Look)
    wanted = _wanted(case.scenario, step, looked, chosen, rules, witness)
    made = body(scene.program, dict(sources), wanted, scene.target, cpuid.xcr0_mask(machine.leaves))
    # Where nothing else proves the event, the way to it does, and what sends it.
    way = set(_way(case.scenario, made))
    if witness:
        # A guest that runs may come to the same by another way: then what sends the event stays, too.
        sent, runs = _sent(case.scenario), any(isinstance(op, (p.Enter, p.Start)) for _, op in made.body.ops)
        way = {at for at in way if runs and made.body.ops[at][0] in sent}
    made = made._replace(vm=machine.program, pinned=made.pinned | way, cpuid=_functions(chosen, rules))
    lost = chosen[0].of.trigger == "plant" and chosen[0].verdict in _DEPARTURES
    return keeping(made, scene.bases[0].layout, chosen[0].item) if lost else made


def _way(scenario: s.Scenario, repro: Repro) -> Iterator[int]:
    """The ops that say what has to happen before the result, and those that send the event."""
    sent = _sent(scenario)
    for at, (number, op) in enumerate(repro.body.ops):
        if number in sent and not isinstance(op, p.Write) or isinstance(op, (p.Enter, p.Join, p.Poll, p.Start, p.Finish)):
            yield at
        elif isinstance(op, p.Compare) and op.otherwise.verdict and isinstance(scenario.steps[number], (s.Require, s.Expect)):
            yield at


#: Events that leave a trace in the vCPU.
_EVENTS = ("init", "sipi", "shutdown")
#: What an event may show in, what says the most first.
_WITNESSES = ("mp_state", "rip", "cs.selector", "rflags", "rax", "cr0", "efer")


def _witness(result: Result) -> Witness | None:
    """An item that the event changed as it has to."""
    there = {record.item: record for record in result.of.records}
    for item in _WITNESSES:
        one = there.get(item)
        if one and item != result.item and one.verdict is Verdict.PASS and isinstance(one.planted, int):
            if not isinstance(one.observed, int) or one.observed == one.planted:
                continue
            # What is halted may wake up for other reasons.
            if item != "mp_state" or KVM_MP_STATE_INIT_RECEIVED in (one.planted, one.observed):
                return Witness(item, one.observed)
    return None


def _sent(scenario: s.Scenario) -> set[int]:
    """The steps that send the event which is judged."""
    return {number for number, step in enumerate(scenario.steps) if isinstance(step, s.Send) and step.judged}


def _steps(scenario: s.Scenario, result: Result) -> list[int]:
    """The steps that observe ``result``: of an expectation that is made again and again each, the last one first."""
    where = (result.event, result.of.trigger, result.view)
    here = [one for one in of.looks(scenario) if (one.event, one.trigger, one.view) == where]
    found = [one.step for one in here if one.item == result.item]
    found = found or [one.step for one in here if one.item == of.TABLE]
    if not found:
        raise NoRepro(f"no step observes {result.id}")
    return found[::-1]


#: The rule of an item of the table for the guest's vendor, and for the other one; None for a scenario's own expectation.
_Rules = dict[str, tuple[Rule, Rule] | None]


def _rules(result: Result, case: Case, backend: str) -> tuple[Rule, Rule] | None:
    if result.item not in spec.ENTRIES and not result.item.startswith("msr.0x"):
        return None
    vendors = ("amd", "intel") if case.setup.vendor == "amd" else ("intel", "amd")
    mine, other = (spec.rule_for(result.item, result.event, vendor, backend) for vendor in vendors)
    return mine, other


def _wanted(
    scenario: s.Scenario, step: int, looked: bool, results: Iterable[Result], rules: _Rules, witness: Witness | None
) -> Wanted:
    """What to show; ``looked`` is whether the ``step`` is judged by a look at the whole vCPU."""
    guest = isinstance(scenario.steps[step], s.Guest)
    if not guest and not looked:
        return Wanted(step)
    items, planted = _items(results, rules)
    if not items:
        one = next(iter(results))
        raise NoRepro(f"{one.id}: {one.record.reason or 'there is no value that is expected'}")
    return Wanted(step, items, () if guest else planted, witness, guest)


_Items = tuple[tuple[str, tuple[int, ...], int | None], ...]


def _items(results: Iterable[Result], rules: _Rules) -> tuple[_Items, tuple[tuple[str, int], ...]]:
    """What items have to hold, and what those were planted with that are to stay as they were."""
    items, planted = [], []
    for one in results:
        record: Record = one.record
        if record.expected is None or any(isinstance(value, str) for value in record.expected.values):
            continue
        items.append((one.item, tuple(int(value) for value in record.expected.values), record.expected.mask))
        rule = rules[one.item]
        if rule and (rule[0].kind == "unchanged" or rule[0].unchanged) and isinstance(record.planted, int):
            planted.append((one.item, record.planted))
    return tuple(items), tuple(planted)


#: The leaf that a formula's value rests on.
_OF_FORMULA = {"CPUID.1:EAX": (1, "eax"), "GP_COUNTERS": (0xA, "eax"), "APIC_VERSION": (0x80000001, "ecx")}
_VENDOR = frozenset((0, register) for register in ("ebx", "ecx", "edx"))


def _functions(results: Iterable[Result], rules: _Rules) -> frozenset[tuple[int, str]]:
    """The registers of CPUID on which rests what is expected: the vendor's where the rules differ, and those of formulas."""
    found: set[tuple[int, str]] = set()
    for one in results:
        expected, rule = one.record.expected, rules[one.item]
        if expected and expected.formula in _OF_FORMULA:
            found.add(_OF_FORMULA[expected.formula])
        if rule and rule[0]._replace(cite=(), note="") != rule[1]._replace(cite=(), note=""):
            found |= _VENDOR
    return frozenset(found)


def first(
    kvm: Kvm,
    host: Host,
    cases: Iterable[Case],
    selection: Selection,
    timeout_s: float = 1.0,
    *,
    minimise: bool = True,
    told: Callable[[str], None] = lambda what: None,
) -> Shown:
    """The reproducer of the first of ``cases`` that departs and has one, APs first, whose INIT is the easier one to show.

    Of the first that passes where none departs.

    Raises NoRepro, with the last reason, where no case has one.
    """
    machines = Machines(kvm, host)
    passing: Case | None = None
    why: list[str] = []
    try:
        for case in sorted(cases, key=lambda case: case.target != "ap"):
            try:
                shown = reproduce(case, machines, selection, timeout_s, minimise=minimise, told=told)
            except (GuestMissing, GuestStopped, NoRepro, Untold, OSError, PlantRefused, SetupError, Unmet, Unread) as error:
                why.append(str(error))
                continue
            if shown.about.departs:
                return shown
            passing = passing or case
        if passing:
            return reproduce(passing, machines, selection, timeout_s, minimise=minimise, told=told)
    finally:
        machines.close()
    more = f"; and {len(why) - 1} more cases have none" if len(why) > 1 else ""
    raise NoRepro(f"{why[0]}{more}" if why else "no case has such a result")
