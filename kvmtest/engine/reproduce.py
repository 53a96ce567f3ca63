# SPDX-License-Identifier: GPL-2.0-only
"""Find a departure of a case on this host's KVM, and make a reproducer of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kvmtest.emit import moving
from kvmtest.emit.head import About, Shown, value
from kvmtest.emit.keep import keeping_guest, setting
from kvmtest.emit.reduce import reduced, used
from kvmtest.emit.reporter import Unreportable
from kvmtest.emit.repro import Leaf, NoRepro, Repro, body
from kvmtest.emit.reset import of_reset
from kvmtest.emit.several import Several, rests_on
from kvmtest.emit.wanted import Wanted
from kvmtest.emit.written import keeping
from kvmtest.engine import showing, trial
from kvmtest.engine.bind import BoundCase, Unmet
from kvmtest.engine.machine import Machine, Machines, SetupError, Target
from kvmtest.engine.plan import Case
from kvmtest.engine.vmm_reset import VmmReset
from kvmtest.guests import GuestMissing
from kvmtest.judge.cache import Cache
from kvmtest.judge.cases import judge
from kvmtest.judge.evidence import Played
from kvmtest.kvm import Kvm
from kvmtest.model.host import Host
from kvmtest.model.record import Result
from kvmtest.model.select import Selection
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import program as p
from kvmtest.scenario import step as s
from kvmtest.scenario.lower import of_plant
from kvmtest.scenario.orders import Order
from kvmtest.scenario.program import DEFAULT_ROUNDS
from kvmtest.state.inside import GuestStopped, PlantRefused
from kvmtest.state.plant import Plant
from kvmtest.state.saved import Part
from kvmtest.state.snapshot import Unread
from kvmtest.x86 import cpuid, msr

__all__ = ("first", "reproduce")

#: The verdicts of departures, the one that is wanted most first.
_DEPARTURES = (Verdict.FAIL, Verdict.KNOWN, Verdict.ERROR)


class _Planting:
    """A vCPU that lowering a plant needs no more of."""

    stress_rounds = DEFAULT_ROUNDS

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

    def cpuid(self, who: int) -> p.Cpuid:
        """None: a plant gives no CPUID."""
        return p.Cpuid(who, ())


class _Source:
    """The sources for a reproducer, of one vCPU."""

    def __init__(self, target: Target) -> None:
        self.layout, self.baseline, self.reads = target.layout, target.baseline, target.reader.made()


def reproduce(
    case: Case,
    machines: Machines,
    selection: Selection,
    timeout_s: float = 1.0,
    *,
    minimise: bool = True,
    small_guest: bool = False,
    tried: trial.Tried | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Shown:
    """The reproducer of the first result of ``case`` that ``selection`` matches and that departs; of all that pass if none does.

    Where guest code reports the result, or sends the event, nothing is left out of it, its memory, CPUID and the registers
    that it begins with, but with ``small_guest``. The outcomes of some reproducers may be known already (``tried``).
    ``progress`` is called with the progress.

    Raises NoRepro where there is none, KvmError, Unmet, SetupError.
    """
    machine = machines.fresh(case.setup)
    try:
        ran = (BoundCase if case.scenario else VmmReset)(case, machine, machines.host, timeout_s)
        shown = ran.observe()
        seen = judge(Cache(), case.look(), machines.host, ran.bases, shown)
        chosen = _chosen([one for of in seen for one in of.results if selection.takes_id(one.id)])
        candidates = list(_candidates(case, machine, ran, chosen, shown))
    finally:
        machines.release(machine)
    about = _about(case, chosen)
    trials = trial.Trials(machines.kvm, timeout_s, tried)
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

    if made.checks and isinstance(several := made.checks[0].place, Several):
        needed = (rests_on(made.body, several.event, idle) for idle in (frozenset(), trials.idle(made)))
        made = made._replace(pinned=made.pinned - next(needed) | next(needed))
    if not small_guest and _by_guest(made):
        made = keeping_guest(made)
    trials.hasten()
    progress(f"{about.name} departs on a new VM, too; reducing it")
    smallest = used(reduced(made, shows))
    if smallest.checks and isinstance(now[0], int) and isinstance(smallest.checks[0].place, (p.Place, Leaf)):
        about = about._replace(observed=value(about.item, now[0]))
    return Shown(smallest, about, ops, trials.count)


def _by_guest(made: Repro) -> bool:
    """Return True if the reproducer depends on guest code of which nothing else proves that it ran."""
    runs = any(isinstance(op, (p.Enter, p.Start)) for _, op in made.body.ops)
    return runs and (not made.checks or isinstance(made.checks[0].place, Several))


def _chosen(results: list[Result]) -> tuple[Result, ...]:
    """The result that departs, or those that pass in the host's view, or one in the guest's. Raises NoRepro."""
    for verdict in _DEPARTURES:
        for one in results:
            if one.verdict is verdict:
                return (one,)
    passing = [one for one in results if one.verdict is Verdict.PASS]
    if hosts := [one for one in passing if one.view == "host"]:
        return tuple(one for one in hosts if one.of is hosts[-1].of)
    if guests := [one for one in passing if one.view == "guest"]:
        return (guests[-1],)
    verdicts = ", ".join(sorted({str(one.verdict) for one in results})) or "nothing"
    raise NoRepro(f"none of its results departs, and none passes in one view: {verdicts}")


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


def _candidates(
    case: Case, machine: Machine, ran: BoundCase | VmmReset, chosen: tuple[Result, ...], shown: Any
) -> Iterator[Repro]:
    """Yield reproducers that may show the result: one for each step that observes it, or one for each order of the ioctls."""
    if isinstance(ran, BoundCase):
        assert case.scenario
        for step in showing.steps(case.scenario, chosen[-1]):
            if isinstance(case.scenario.steps[step], s.Migrate):
                yield from _moved(machine, ran, chosen, step, shown)
            else:
                yield from (_made(case, machine, ran, chosen, step, shown, whole) for whole in (False, True))
        return
    target = machine.target(case.target)
    plant = of_plant(s.Plant(case.plant, case.apic_mode), _Planting(target.vcpu.id, ran.plant))
    items, planted = showing.items(chosen, {one.item: None for one in chosen})
    if not items:
        raise NoRepro(f"{chosen[0].id}: {chosen[0].record.reason or 'there is no value that is expected'}")
    wanted = Wanted(0, items, planted or _plants(chosen), guest=chosen[0].view != "host")
    for order in ran.orders:
        made = of_reset(plant, _Source(target), order, wanted, target.vcpu.id, cpuid.xcr0_mask(machine.leaves))
        yield made._replace(vm=machine.program)


def _plants(results: Iterable[Result]) -> tuple[tuple[str, int], ...]:
    # PPR is what TPR and ISR make of it.
    return tuple((one.item, value) for one in results if isinstance(value := one.record.planted, int) and one.item != "lapic.ppr")


def _made(
    case: Case, machine: Machine, bound: BoundCase, chosen: tuple[Result, ...], step: int, shown: Played, whole: bool
) -> Repro:
    """The reproducer of what ``step`` observes, as large as the case is; each section is written ``whole``."""
    assert case.scenario
    sources = {target.vcpu.id: _Source(target) for target in machine.targets}
    backend = bound.bases[0].ctx.host.backend
    rules = {one.item: showing.rules(one, case, backend) for one in chosen}
    witness = showing.witness(chosen[0]) if chosen[0].event in showing.EVENTS and chosen[0].view == "host" else None
    ops = [op for number, op in bound.program.ops if number <= step]
    looked = isinstance(case.scenario.steps[step], s.Observe) or bool(ops) and isinstance(ops[-1], p.Look)
    target = ops[-1].vcpu if looked and isinstance(ops[-1], p.Look) and not _of_each(case.scenario, step) else bound.target
    basis = bound.bases[0]._replace(layout=sources[target].layout)
    wanted = showing.changed(case.scenario, step, shown, basis, chosen[0].verdict in _DEPARTURES) or showing.wanted(
        case.scenario, step, looked, chosen, rules, witness
    )
    made = body(moving.plain(bound.program), dict(sources), wanted, target, cpuid.xcr0_mask(machine.leaves), whole=whole)
    # If nothing else proves the event, the way to it does, and the ops that send it.
    way = set(_way(case.scenario, made))
    if witness:
        # A guest that runs may come to the same by another way: then what sends the event stays, too.
        sent, runs = showing.sent(case.scenario), any(isinstance(op, (p.Enter, p.Start)) for _, op in made.body.ops)
        way = {at for at in way if runs and made.body.ops[at][0] in sent}
    vm = showing.addressing(machine.program) if wanted.together else frozenset()
    made = made._replace(vm=machine.program, pinned=made.pinned | way, cpuid=showing.functions(chosen, rules), pinned_vm=vm)
    if not wanted.items or isinstance(case.scenario.steps[step], s.Expect):
        # Such a step's expectation is about the whole scenario, not an item after an event.
        made = setting(made, showing.explicit(case.scenario))
    lost = chosen[0].of.trigger == "plant" and chosen[0].verdict in _DEPARTURES
    return keeping(made, bound.bases[0].layout, chosen[0].item) if lost else made


def _moved(machine: Machine, bound: BoundCase, chosen: tuple[Result, ...], step: int, shown: Played) -> Iterator[Repro]:
    """The reproducers of what a migration lost, of each vCPU that did, or of what KVM refused."""
    sources: dict[int, Any] = {target.vcpu.id: _Source(target) for target in machine.targets}
    xcr0, program = cpuid.xcr0_mask(machine.leaves), bound.program
    if refused := showing.refused(shown, step, chosen):
        made = body(moving.plain(program, refused), sources, Wanted(step), bound.target, xcr0)
        yield made._replace(vm=machine.program)
        return
    values = [value for at, value in shown.evidence if at == step]
    for vcpu, wanted in showing.moved(step, chosen, bound.bases, values):
        item, departs = wanted.items[0][0], bool(wanted.planted)
        index = msr.index_of(item.removeprefix("msr.")) if item.startswith("msr.") and departs else None
        unlisted = None if index is None or moving.saved(program, index) else (vcpu, index)
        made = body(moving.plain(program, None, unlisted), sources, wanted, vcpu, xcr0)._replace(vm=machine.program)
        yield moving.restoring(made, bound.bases[0].layout, item) if departs else made


def _of_each(scenario: s.Scenario, step: int) -> bool:
    """Return True if a step observes all vCPUs, of which the target is the first."""
    return getattr(scenario.steps[step], "who", "") == "each"


def _way(scenario: s.Scenario, repro: Repro) -> Iterator[int]:
    """The ops that say what has to happen before the result, and those that send the event."""
    sent = showing.sent(scenario)
    for at, (number, op) in enumerate(repro.body.ops):
        if number in sent and not isinstance(op, p.Write) or isinstance(op, (p.Enter, p.Join, p.Poll, p.Start, p.Finish)):
            yield at
        elif isinstance(op, p.Compare) and op.otherwise.verdict and isinstance(scenario.steps[number], (s.Require, s.Expect)):
            yield at


def first(
    kvm: Kvm,
    host: Host,
    cases: Iterable[Case],
    selection: Selection,
    timeout_s: float = 1.0,
    *,
    minimise: bool = True,
    small_guest: bool = False,
    tried: trial.Tried | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Shown:
    """The reproducer of the first of ``cases`` that departs and has one, APs first, whose INIT is the easier one to show.

    Of the first that passes where none departs. The options are those of `reproduce`.

    Raises NoRepro, with the last reason, where no case has one.
    """
    machines = Machines(kvm, host)
    how: dict[str, Any] = {"minimise": minimise, "small_guest": small_guest, "tried": tried, "progress": progress}
    passing: Case | None = None
    why: list[str] = []
    try:
        for case in sorted(cases, key=lambda case: case.target != "ap"):
            try:
                shown = reproduce(case, machines, selection, timeout_s, **how)
            except (GuestMissing, GuestStopped, NoRepro, Unreportable, OSError, PlantRefused, SetupError, Unmet, Unread) as error:
                why.append(str(error))
                continue
            if shown.about.departs:
                return shown
            passing = passing or case
        if passing:
            return reproduce(passing, machines, selection, timeout_s, **how)
    finally:
        machines.close()
    more = f"; and {len(why) - 1} more cases have none" if len(why) > 1 else ""
    raise NoRepro(f"{why[0]}{more}" if why else "no case has such a result")
