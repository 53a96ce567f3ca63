# SPDX-License-Identifier: GPL-2.0-only
"""The cases of a run: which plant, trigger and view, on which kind of VM."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from kvmtest.engine.lookup import Lookup
from kvmtest.judge.evidence import Look
from kvmtest.model.case import Case as Named
from kvmtest.model.select import Selector as _Selector
from kvmtest.model.select import SelectorError, near
from kvmtest.scenario import file
from kvmtest.scenario import looks as of
from kvmtest.scenario import step as s
from kvmtest.scenario.covering import Tried, covering, inits, leaves, paired
from kvmtest.scenario.items import CONTINUE, Item
from kvmtest.scenario.items import broadcast as of_broadcast
from kvmtest.scenario.items import scenario as of_item
from kvmtest.scenario.migrated import migrated
from kvmtest.scenario.migrated import ways as migrations
from kvmtest.scenario.setup import SPARSE, VENDORS, Setup
from kvmtest.scenario.states import GUEST_PLANTS, STATES
from kvmtest.scenario.step import Scenario
from kvmtest.scenario.triggers import TRIGGERS
from kvmtest.spec import SYNTHETIC
from kvmtest.state.values import PLANTS, SIPI

__all__ = ("CONTINUE", "SPARSE", "Case", "Setup", "chosen", "finds", "ids", "items", "looks", "of_file", "plan", "select")

#: SIPI vectors: both ends of the first megabyte's usable range and one in the middle.
SIPI_VECTORS = (0x00, 0x01, 0x9F, 0xFF)
#: The triggers whose cases the others' can be compared with.
_CORE = ("latched", "msi")
#: The migration of an AP whose local APIC is the VMM's: it has IA32_APIC_BASE from KVM_SET_SREGS alone.
_LONE = "reset.create/ap,no-irqchip,intel,migrated-after-kvm"


def _catalogue() -> dict[str, Scenario]:
    """The scenarios of the catalogue by event, trigger and sequence. To make them is a third of what imports take."""
    from kvmtest.scenario.catalogue import SCENARIOS

    return SCENARIOS


class Case(NamedTuple):
    """One plant x trigger x view. ``target`` is ``bsp`` or ``ap``; ``plant`` and ``apic_mode`` are "" for a new vCPU.

    ``view`` is ``host``, or ``guest``: then the guest reports its state, and the host's and the guest's view of it are
    compared as well. ``state`` is what the target is doing when the event comes, ``how`` a variant of the trigger, ``sequence``
    the name of a scenario of the catalogue, ``migrated`` when its VM is migrated, and in which order. ``given`` are the steps of
    a case that no table has: a user's scenario.
    """

    event: str
    trigger: str
    view: str
    setup: Setup
    target: str
    apic_mode: str = ""
    plant: str = ""
    vector: int | None = None
    state: str = ""
    how: str = ""
    sequence: str = ""
    migrated: str = ""
    given: Scenario | None = None

    @property
    def scenario(self) -> Scenario | None:
        """The steps, where they say all about the case."""
        return migrated(self._steps, self.migrated) if self._steps and self.migrated else self._steps

    @property
    def _steps(self) -> Scenario | None:
        """The steps without a migration."""
        if self.given:
            return self.given
        if self.sequence:
            return _catalogue()[f"{self.event}.{self.trigger}/{self.sequence}"]
        if self.trigger == "vmm-reset":
            return None
        guest = self.view == "guest"
        item = Item(self.event, self.trigger_name, self.target, self.apic_mode, self.plant, self.state, self.vector, guest)
        return of_broadcast(item) if self.many else of_item(item)

    @property
    def needs(self) -> tuple[str, ...]:
        """The needs of the VM and of the steps, by their names in NEEDS."""
        return (*self.setup.needs, *(self.scenario.needs if self.scenario else ()))

    @property
    def many(self) -> bool:
        """True where the event reaches several vCPUs."""
        trigger = TRIGGERS.get(self.trigger_name)
        return trigger is not None and trigger.many

    @property
    def packed(self) -> tuple[object, ...]:
        """All of it as plain data."""
        given = file.dump(self.given) if self.given else None
        return (*(tuple(field) if isinstance(field, Setup) else field for field in self[:-1]), given)

    @classmethod
    def unpacked(cls, fields: tuple[Any, ...]) -> Case:
        """The case that ``fields`` were made from."""
        made = cls._make(fields)
        return made._replace(setup=Setup._make(made.setup), given=made.given and file.loads(made.given))

    @property
    def alone(self) -> Scenario | None:
        """The steps with all that they need, as a file has them: `of_file` makes the case of them again, named by its steps."""
        if not (scenario := self.scenario):
            return None
        migrated = f"migrated-{self.migrated}" if self.migrated else ""
        words = (f"plant-{self.plant}" if self.plant else "", self.state, self.how, self.sequence, migrated)
        name = "-".join(filter(None, words)) or "as-created"
        return scenario._replace(sequence=name, setup=self.setup._replace(vendor=""), vendors=(self.setup.vendor,))

    @property
    def trigger_name(self) -> str:
        """The trigger in its variant, as the table of triggers names it."""
        return f"{self.trigger}/{self.how}" if self.how else self.trigger

    @property
    def prefix(self) -> str:
        """The prefix of all result ids of the case."""
        return f"{self.event}.{self.trigger}.{self.view}"

    @property
    def params(self) -> dict[str, str | int]:
        """The parameters that are not the usual ones, by name; the target always."""
        setup = self.setup
        given: dict[str, str | int | None] = {
            "target": self.target,
            "irqchip": setup.irqchip if self.event == "reset" or setup.irqchip != "full" else None,
            "vendor": setup.vendor or None,
            "boot_id": setup.boot_id or None,
            "vcpus": None if setup.vcpus == 2 else setup.vcpus or "sparse-ids",
            "apic_mode": self.apic_mode or None,
            "plant": self.plant or None,
            "state": self.state or None,
            "how": self.how or None,
            "sequence": self.sequence or None,
            "vector": self.vector,
            "migrated": self.migrated or None,
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def words(self) -> str:
        """The parameters in words, separated by commas."""
        irqchip = {"none": "no-irqchip"}.get(self.setup.irqchip, f"{self.setup.irqchip}-irqchip")
        said = {
            "irqchip": irqchip,
            "boot_id": f"boot-id-{self.setup.boot_id}",
            "vcpus": f"{self.setup.vcpus}-vcpus" if self.setup.vcpus else "sparse-ids",
            "plant": f"plant-{self.plant}",
            "vector": "" if self.vector is None else f"vector-{self.vector:02x}",
            "migrated": f"migrated-{self.migrated}",
        }
        parts = [said.get(name, str(value)) for name, value in self.params.items()]
        if not self.setup.vendor:
            parts.insert(parts.index(irqchip) + 1 if irqchip in parts else 1, "no-cpuid")
        return ",".join(parts)

    @property
    def name(self) -> str:
        """``<event>.<trigger>/<words>``: the same in each view."""
        return f"{self.event}.{self.trigger}/{self.words}"

    def look(self) -> Look:
        """Return what to judge of this case."""
        named = Named(self.name, tuple(self.params.items()))
        where, scenario = (self.event, self.trigger, self.view), self.scenario
        names = () if scenario else items(self)
        vector = CONTINUE if self.event == "init" and self.target == "ap" else self.vector
        mode = self.apic_mode or "xapic"
        return Look(named, *where, self.setup.vendor, self.target, names, scenario, mode, vector)


def _resets() -> list[Case]:
    setups = [Setup(irqchip, vendor, 0) for irqchip in ("none", "split", "full") for vendor in ("", *VENDORS)]
    setups += [Setup("full", vendor, 1) for vendor in ("", *VENDORS)]

    def view(setup: Setup, target: str) -> str:
        # Without CPUID the guest cannot know which instructions it has.
        return "guest" if target == "bsp" and setup in (Setup("full", vendor) for vendor in VENDORS) else "host"

    return [Case("reset", "create", view(setup, target), setup, target) for setup in setups for target in ("bsp", "ap")]


def _vmm_resets() -> list[Case]:
    """A used vCPU written back to RESET: from what ioctls and what guest code planted, in each mode of the local APIC."""
    cases = []
    for vendor in VENDORS:
        setup, guest = Setup("full", vendor, mce=True), Setup("full", vendor, memory=True)
        by_ioctl = [("xapic", plant) for plant in PLANTS] + [("x2apic", "a"), ("disabled", "b"), ("relocated", "c")]
        by_guest = [("xapic", plant) for plant in GUEST_PLANTS]
        cases += [Case("reset", "vmm-reset", "host", setup, "bsp", *used) for used in by_ioctl + by_guest]
        cases += [Case("reset", "vmm-reset", "host", setup, "ap", *used) for used in by_ioctl]
        # The guest's code does not depend on the vendor; what KVM restores may.
        shown = by_ioctl[:4] + by_guest if vendor == VENDORS[0] else by_ioctl[:1]
        cases += [Case("reset", "vmm-reset", "guest", guest, "bsp", *used) for used in shown]
    return cases


def _setup(vendor: str, irqchip: str = "full", *, guest: bool = False) -> Setup:
    """The VM of an item case. Without KVM_X86_SETUP_MCE, KVM shows a guest all banks that it has."""
    return Setup(irqchip, vendor, mce=not guest)


def _of(event: str, one: Tried, vector: int | None = None) -> Case:
    """The case of a combination."""
    trigger, _, how = one.trigger.partition("/")
    setup = _setup(one.vendor, TRIGGERS[one.trigger].irqchip if one.trigger in TRIGGERS else "full", guest=one.guest)
    view = "guest" if one.guest else "host"
    return Case(event, trigger, view, setup, one.target, one.mode, one.plant, vector, state=one.state, how=how)


def _inits(full: bool) -> list[Case]:
    """INIT to one vCPU in any state, by any trigger. Triggers that reach a vCPU outside KVM_RUN are tried with every plant."""
    every = inits()
    core = [one for one in every if one.trigger in _CORE and not one.state and one.plant in PLANTS and not one.guest]
    chosen = every if full else dict.fromkeys((*core, *covering(every)))
    cases = [_of("init", one) for one in chosen]
    by_guest = {case.name for case in cases if case.view == "guest"}
    return [case for case in cases if case.view == "guest" or case.name not in by_guest]


def _shutdowns() -> list[Case]:
    every = product(VENDORS, ("bsp", "ap"))
    return [_of("shutdown", Tried("triple-fault", t, v, "xapic", "guest-long", "at-triple-fault", True)) for v, t in every]


def _broadcasts() -> list[Case]:
    """INIT from one vCPU's code to all others: the APs, or the BSP among them."""
    cases = []
    for mode, vendor in (("xapic", "intel"), ("x2apic", "amd")):
        pairs = [Setup("full", v, mce=True) for v in VENDORS]
        some = [Setup("full", v, vcpus=8) for v in VENDORS]
        # Of the large VMs one a mode: Machines keeps one only.
        large = [Setup("full", vendor, vcpus=n, x2apic_ids=mode == "x2apic" and n == SPARSE) for n in (64, SPARSE)]
        cases += [Case("init", "broadcast", "host", setup, "ap", mode, "a") for setup in pairs]
        cases += [Case("init", "broadcast", "guest", setup, "ap", mode, "a") for setup in some + large]
        cases += [Case("init", "broadcast", "host", setup._replace(mce=True), "bsp", mode, "b") for setup in some]
    return cases


def _sipis() -> list[Case]:
    """SIPI to a vCPU that waits for one, and to one that is in what drops it."""
    # Not a guest at vector 00: its page holds the guest's own interrupt vectors.
    waiting = [
        _of("sipi", Tried(trigger, "ap", vendor, "xapic", SIPI, "", bool(vector)), vector)
        for trigger, vendor, vector in product(("msi", "mp-state"), VENDORS, SIPI_VECTORS)
    ]
    lost = [one for one in leaves() if "sipi" in STATES[one.state].drops and one.target == "ap"]
    return waiting + [_of("sipi", one._replace(trigger="msi"), SIPI_VECTORS[1]) for one in lost]


def _nones() -> list[Case]:
    """KVM_SET_MP_STATE(INIT_RECEIVED), which is not an INIT; and each state entered and left without an event."""
    used = (*(("xapic", plant) for plant in PLANTS), ("x2apic", "a"))
    every = product(VENDORS, ("bsp", "ap"), used)
    written = [_of("none", Tried("mp-state", t, v, *modes, "", False)) for v, t, modes in every]
    return written + [_of("none", one) for one in leaves()]


def _scenarios() -> list[Case]:
    return [
        Case(one.event, one.trigger, one.view, one.setup._replace(vendor=vendor), one.target, sequence=one.sequence)
        for one in _catalogue().values()
        for vendor in one.vendors
    ]


def _migrated(cases: Sequence[Case], full: bool) -> list[Case]:
    """``cases`` whose VM is migrated, before the event or after it.

    Of the catalogue's those in which a guest shows what comes next, each trigger with each moment, and each event with each
    order; of the others each trigger and state with each moment, and what the vCPU holds with each order. With ``full`` all.
    """
    tried = ((case, case.scenario) for case in cases if not case.setup.many)
    every = [case._replace(migrated=how) for case, steps in tried if steps for how in migrations(steps)]
    if full:
        return every
    by_guest = [case for case in every if case.sequence and case.view == "guest"]
    ways = [(c.event, c.trigger, c.migrated.partition("-")[0]) for c in by_guest]
    kinds = [(c.event, c.setup.vendor, *c.migrated.split("-", 1)) for c in by_guest]
    others = [case for case in every if not case.sequence]
    moments = [(c.event, c.trigger_name, c.state, c.view, c.migrated.partition("-")[0]) for c in others]
    orders = [(c.target, c.setup.vendor, c.apic_mode, c.plant, *c.migrated.split("-", 1)) for c in others]
    found = [others[number] for number in paired(moments, orders)] + [by_guest[number] for number in paired(ways, kinds)]
    return list(dict.fromkeys((*found, *(case for case in others if case.name == _LONE))))


def of_file(scenario: Scenario) -> list[Case]:
    """The cases of a scenario that is in no table: one for each vendor."""
    sent = [step for step in scenario.steps if isinstance(step, s.Send) and step.judged and step.event == "sipi"]
    vector = sent[-1].vector if sent else None
    where = (scenario.event, scenario.trigger, scenario.view, scenario.setup, scenario.target)
    made = Case(*where, scenario.apic_mode, vector=vector, sequence=scenario.sequence, given=scenario)
    return [made._replace(setup=scenario.setup._replace(vendor=vendor)) for vendor in scenario.vendors]


def plan(full: bool = False) -> list[Case]:
    """The cases in the order of running: a covering array, or with ``full`` all that the tables of states and triggers allow."""
    return list(_plan(full))


@cache
def _plan(full: bool) -> tuple[Case, ...]:
    inits_ = _inits(full) + _broadcasts()
    cases = (*_resets(), *_vmm_resets(), *inits_, *_shutdowns(), *_sipis(), *_nones(), *_scenarios())
    # Of the product of all other parameters there are many thousands.
    usual = [case for case in _plan(False) if not case.migrated] if full else cases
    return (*cases, *_migrated(usual, full))


@cache
def looks(case: Case) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return what a case judges: prefixes of ids, ``<event>.<trigger>.<view>``, each with its items."""
    if scenario := case.scenario:
        found: dict[str, list[tuple[str, ...]]] = {}
        look = case.look()
        for one in of.looks(scenario):
            names = (one.item,) if one.item != of.TABLE else look.names(one.view, one.event)
            found.setdefault(f"{one.event}.{one.trigger}.{one.view}", []).append(names)
        return tuple((prefix, of.together(*parts)) for prefix, parts in found.items())
    # The guest's report is compared with the host's view, too.
    prefixes = (case.prefix, case._replace(view="views").prefix) if case.view == "guest" else (case.prefix,)
    return tuple((prefix, items(case)) for prefix in prefixes)


def items(case: Case) -> tuple[str, ...]:
    """The items that a case judges in its view, as the project's tables name them."""
    if case.view != "host":
        vector = CONTINUE if case.event == "init" and case.target == "ap" else case.vector
        return of.table(case.view, case.event, case.apic_mode or "xapic", vector)
    return of.HOST


def ids(cases: list[Case]) -> list[str]:
    """The result ids of ``cases``, each once, in order."""
    shown = dict.fromkeys(one for case in cases for one in looks(case))
    return list(dict.fromkeys(f"{prefix}.{item}" for prefix, names in shown for item in names))


def _matches(selector: _Selector, prefix: str, names: tuple[str, ...]) -> bool:
    """The globs over ids of ``selector`` match one of ``names`` below ``prefix``."""
    if not selector.may_match(f"{prefix}."):
        return False
    if any(selector.id_matches(f"{prefix}.{name}") for name in names):
        return True
    # An MSR of KVM's or Hyper-V's, or one that has no name yet, is known only to the host's KVM_GET_MSR_INDEX_LIST.
    unnamed = selector.id.startswith(f"{prefix}.msr.0x")
    # Other expectations of a scenario may come before the host's table or after it.
    whole = len(names) >= len(of.HOST)
    return whole and (unnamed or any(selector.id_matches(f"{prefix}.{name}") for name in SYNTHETIC))


def chosen(selectors: tuple[str, ...], full: bool = False, given: Sequence[Case] = ()) -> list[Case]:
    """The cases with a result that a selector matches: of the plan, of the ``full`` one, or of those ``given``.

    A selector that matches nothing in the plan selects cases of the full one, so that ids in a report of those can be run alone.
    Raises SelectorError.
    """
    cases = list(given) or plan(full)
    try:
        return select(cases, selectors)
    except SelectorError:
        if full or given:
            raise
        return select(cases, selectors, plan(full=True))


def select(cases: list[Case], selectors: tuple[str, ...], others: Sequence[Case] = ()) -> list[Case]:
    """The cases with a result that a selector matches; of ``others`` if none of ``cases`` has one.

    Raises SelectorError for the first selector that matches nothing.
    """
    if not selectors:
        return cases
    ours, more = Lookup(cases, looks, _matches), Lookup(others, looks, _matches) if others else None
    taken, besides = set[int](), set[int]()
    for selector in selectors:
        found = ours.taken(selector)
        others_found = more.taken(selector) if more and not found else set()
        if not found and not others_found:
            close = " or ".join(near(selector, (*ids(cases), *(case.name for case in cases))))
            meant = f"did you mean {close}?" if close else "kvmtest list shows what there is"
            raise SelectorError(f"nothing matches {selector[:200]!r}; {meant}")
        taken |= found
        besides |= others_found
    found_there = [others[number] for number in sorted(besides)]
    return list(dict.fromkeys([*(cases[number] for number in sorted(taken)), *found_there]))


@cache
def _lookup(full: bool) -> Lookup[Case]:
    return Lookup(plan(full), looks, _matches)


def finds(selector: str, *, full: bool = True) -> bool:
    """Return True if a case of the plan has a result that ``selector`` matches; with ``full``, if only in the full plan."""
    return bool(_lookup(False).taken(selector) or full and _lookup(True).taken(selector))
