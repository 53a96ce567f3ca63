# SPDX-License-Identifier: GPL-2.0-only
"""Run random scenarios on a KVM, and keep those that show something new."""

from __future__ import annotations

import contextlib
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from kvmtest.engine import plan
from kvmtest.engine.bind import Facts
from kvmtest.engine.machine import Machines
from kvmtest.engine.run import run_case
from kvmtest.fuzz import values
from kvmtest.fuzz.generate import Generator
from kvmtest.fuzz.model import BLOCKS
from kvmtest.fuzz.moves import BY_CODE, read_once
from kvmtest.judge.cache import Cache
from kvmtest.judge.cases import judge
from kvmtest.judge.symptom import symptoms
from kvmtest.kvm import Kvm, KvmError, RunStopped
from kvmtest.model.host import Host
from kvmtest.model.record import Observation, Result
from kvmtest.model.select import Selection
from kvmtest.model.shard import Shard
from kvmtest.model.verdict import Verdict
from kvmtest.scenario.needs import unmet
from kvmtest.scenario.setup import VENDORS, Setup
from kvmtest.scenario.step import Load, Plant, Quiet, Reporter, Resume, Scenario, Send, Start, Step, Until
from kvmtest.x86.msr import index_of

__all__ = ("Counts", "Found", "Fuzzer", "Key", "alike", "changed", "departures", "key_of", "reachable", "refused")

#: The key of a departure: event, item, and how it departs; for errors the reason, whatever the item.
Key = tuple[str, str, str, str]
#: Seconds that a vCPU is given for an exit, and where it is to make none.
_TIMEOUT_S, _QUIET_S = 1.0, 0.05
#: The multiple of that for what came too late.
_PATIENCE = 20
#: Judgements are kept to be known again, but random values seldom come back.
_KNOWN = 2000


class Found(NamedTuple):
    """A ``scenario`` that shows what no earlier one did: the ``keys`` that are new, and a line for each. ``again`` is whether it
    shows the same on a VM that nothing has happened to.
    """

    scenario: Scenario
    keys: tuple[Key, ...]
    said: tuple[str, ...]
    again: bool


class Counts(NamedTuple):
    """Totals: ``scenarios`` run in ``seconds``; ``departed`` and ``skipped`` ones among them; ``known``, those that departed
    only as listed deviations say; ``found``, the number of findings.
    """

    scenarios: int
    seconds: float
    departed: int
    skipped: int
    known: int
    found: int


def key_of(result: Result, mode: str = "") -> Key:
    """Return the key that the same departure has in all scenarios.

    ``mode`` is that of the local APIC: its registers differ between modes.
    """
    symptom = next(symptoms(result.record, result.view))
    if symptom.kind == "reason":
        return (result.event, "", symptom.kind, symptom.text)
    # Bits of one item differ with the values.
    text = f"{symptom.text} {mode}".strip() if result.item.startswith("lapic.") else symptom.text
    return (result.event, result.item, symptom.kind, text)


#: Kinds of symptoms of a wrong value: which one follows from the values of before.
_OF_BITS = ("kept", "zeroed", "bits")


def alike(key: Key, other: Key) -> bool:
    """Return True if both are the same departure: of the same item after the same event.

    An error is the same after any event, since it ends the scenario.
    """
    if key[2] in _OF_BITS and other[2] in _OF_BITS:
        return key[:2] == other[:2] and key[3] == other[3]
    return key == other or key[1:] == other[1:] and key[2] == "reason"


def departures(seen: Iterable[Observation], selection: Selection, mode: str = "") -> dict[Key, Result]:
    """The unexpected results of ``seen`` that ``selection`` matches, one for each key; ``mode`` as in `key_of`."""
    found: dict[Key, Result] = {}
    for one in seen:
        for result in one.attention:
            if result.verdict.unexpected and selection.takes_id(result.id):
                found.setdefault(key_of(result, mode), result)
    return found


def refused(machines: Machines) -> set[str]:
    """The items with random values that this host does not read, or does not accept."""
    found: set[str] = set()
    for vendor in VENDORS:
        target = machines.kept(Setup("full", vendor, mce=True)).target("ap")
        plants = [target.plant(name, "xapic") for name in ("a", "b")]
        for item in values.names():
            if item not in target.layout.fields or any(item in plant.refused for plant in plants):
                found.add(item)
        # No plant has these.
        for item in values.PARAVIRT:
            index = index_of(item.removeprefix("msr."))
            with contextlib.suppress(KvmError):
                if target.vcpu.set_msrs({index: 0x1000}) and target.vcpu.set_msrs({index: 0}):
                    continue
            found.add(item)
        # Each needs a capability.
        found |= {item for item in (values.PENDING, values.TRIPLE) if any(item not in plant.asked for plant in plants)}
    return found


def changed(machines: Machines) -> set[str]:
    """The items of which this KVM does not keep a plant's value as it was written, for the guests of one vendor at least."""
    found: set[str] = set()
    for vendor in VENDORS:
        target = machines.kept(Setup("full", vendor, mce=True)).target("ap")
        for name in ("a", "b"):
            plant = target.plant(name, "xapic")
            plant.write(target.vcpu)
            seen = target.reader.read()
            there = (item for item in values.names() if item in plant.asked)
            found |= {item for item in there if seen.get(target.layout, item) != plant.asked[item]}
    return found


def reachable(machines: Machines, states: Iterable[str]) -> frozenset[str]:
    """Those of ``states`` that this host has for the guest of one vendor at least."""
    found = set()
    for vendor in VENDORS:
        machine = machines.kept(Setup("full", vendor, mce=True))
        facts = Facts(machine, machine.target("ap"))
        found |= {name for name in states if not unmet(BLOCKS[name].facts.needs, facts)}
    return frozenset(found)


class Fuzzer:
    """Runs what ``seed`` makes on ``kvm``, whose host is ``host``.

    ``selection`` are the results that count, ``events`` and ``states`` what is tried, ``shard`` the part of it that is.
    Raises SetupError, KvmError, Unread.
    """

    def __init__(
        self,
        kvm: Kvm,
        host: Host,
        seed: int,
        selection: Selection,
        *,
        events: frozenset[str],
        states: frozenset[str],
        shard: Shard | None = None,
    ) -> None:
        self.machines = Machines(kvm, host)
        self._kvm, self._selection = kvm, selection
        self._generator = Generator(seed, events=events, states=reachable(self.machines, states), shard=shard)
        self._generator.without |= refused(self.machines)
        self._generator.unchecked |= changed(self.machines)
        self._known: Counter[Key] = Counter()
        self._judged = 0
        self._cache = Cache(brief=True)
        self._judge = partial(judge, self._cache)
        self._begin = time.monotonic()
        self._scenarios = self._departed = self._skipped = self._explained = self._found = 0

    @property
    def counts(self) -> Counts:
        """The totals so far."""
        seconds = time.monotonic() - self._begin
        return Counts(self._scenarios, seconds, self._departed, self._skipped, self._explained, self._found)

    @property
    def known(self) -> Counter[Key]:
        """The number of scenarios that showed each departure."""
        return self._known

    def close(self) -> None:
        """Free all machines."""
        self.machines.close()

    def run(self, seconds: float, between: Callable[[], bool] = lambda: False) -> Iterator[Found]:
        """Yield findings for ``seconds``, or until ``kvm.stop`` is set.

        ``between`` is called after each scenario, and returns True if that ran code of KVM for the first time.
        """
        self._begin = time.monotonic()
        end = self._begin + seconds
        # Looking for cycles costs a fifth of the time; there are few, and they are looked for now and then.
        gc.disable()
        try:
            for scenario in self._generator.each():
                if time.monotonic() >= end or self._kvm.stop.seen:
                    return
                if found := self._one(scenario):
                    yield found
                if between():
                    self._generator.reached()
        except RunStopped:
            return
        finally:
            gc.enable()

    def _one(self, scenario: Scenario) -> Found | None:
        seen = self.observe(scenario)
        self._scenarios += 1
        departed = departures(seen, self._selection, _mode(scenario))
        counts = [block.counts for one in seen for block in one.blocks]
        self._explained += not departed and any(count[Verdict.KNOWN] for count in counts)
        self._skipped += not departed and bool(counts) and all(set(count) <= {Verdict.SKIP} for count in counts)
        if not departed:
            return None
        self._departed += 1
        new = [key for key in departed if not self._known[key]]
        self._known.update(departed.keys())
        if not new:
            return None
        late = all(departed[key].record.out_of_time for key in new)
        again = self.alone(scenario, _PATIENCE if late else 1)
        if late and not any(key in again for key in new):
            # The host, or the emulator that has it for a CPU, was too busy.
            for key in new:
                del self._known[key]
            self._departed -= len(new) == len(departed)
            self._skipped += len(new) == len(departed)
            return None
        self._found += 1
        return Found(scenario, tuple(new), tuple(_line(departed[key]) for key in new), any(key in again for key in new))

    def alone(self, scenario: Scenario, patience: int = 1) -> set[Key]:
        """Return the departures of ``scenario`` on a new VM, within ``patience`` times the limit."""
        return set(departures(self.observe(scenario._replace(fresh=True), patience), self._selection, _mode(scenario)))

    def observe(self, scenario: Scenario, patience: int = 1) -> list[Observation]:
        """Run ``scenario`` once, within ``patience`` times the limit. Raises RunStopped."""
        self._judged += 1
        if self._judged % _KNOWN == 0:
            self._cache.forget()
            gc.collect()
        (case,) = plan.of_file(scenario._replace(steps=read_once(scenario.steps)))
        return run_case(case, self.machines, patience * _timeout_s(scenario), judging=self._judge)


def _mode(scenario: Scenario) -> str:
    """The mode that the target's local APIC is planted in."""
    modes = [step.apic_mode for step in scenario.steps if isinstance(step, Plant) and step.who == "target"]
    return modes[-1].removesuffix("-flat") if modes else ""


def _timeout_s(scenario: Scenario) -> float:
    """Return the time limit of a vCPU. It is short if the vCPU must do nothing and no guest code runs: only time shows that."""
    steps = scenario.steps
    quiet = any(isinstance(step, Until) and isinstance(step.condition, Quiet) for step in steps)
    code = scenario.needs or any(isinstance(step, (Load, Reporter, Resume, Start)) or _by_code(step) for step in steps)
    return _QUIET_S if quiet and not code else _TIMEOUT_S


def _by_code(step: Step) -> bool:
    return isinstance(step, Send) and step.by in BY_CODE


def _line(result: Result) -> str:
    if result.verdict is Verdict.ERROR:
        return f"{result.verdict} {result.id}: {result.reason}".split("\n", 1)[0]
    planted = "" if result.planted is None else f"planted {result.planted}, "
    return f"{result.verdict} {result.id}: {planted}expected {result.expected}, observed {result.observed}"


