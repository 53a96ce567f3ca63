# SPDX-License-Identifier: GPL-2.0-only
"""Judging one item: the observed value is compared with the manuals' rule.

It is done in two steps. A question is all that decides the judgement but the values: the rule as it holds for this case, why
there may be nothing to judge, the deviations listed. Its record follows from the values alone. Cases by the hundred have the same
question and the same values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kvmtest.model.host import NO_KVM, Host
from kvmtest.model.record import Record
from kvmtest.model.value import Expected, text
from kvmtest.model.verdict import Verdict
from kvmtest.spec import rule_for
from kvmtest.spec.deviations import CASES, Deviation, has, listed
from kvmtest.spec.emulators import cannot_tell, wrong
from kvmtest.spec.rule import Rule

__all__ = ("BOTH_VIEWS", "Context", "Question", "Seen", "answer", "ask", "ask_views", "compare_views", "excused", "judge")


class Context(NamedTuple):
    """The facts that a rule may depend on besides the item: the case, the vCPU, the host.

    ``vendor`` is the guest's CPUID vendor or "" before KVM_SET_CPUID2. ``signature`` is CPUID.1:EAX of the vCPU,
    ``apic_id`` its id, ``apic_mode`` its local APIC's mode when the event came, ``vector`` the SIPI's. ``before`` is set if
    the state before the event is known; else bits that must be unchanged are not judged. ``cycles`` is an upper bound for the TSC
    of a new vCPU. ``extended_apic`` is CPUID's ExtApicSpace, None if unknown.
    """

    prefix: str
    case: str
    host: Host
    vendor: str
    is_bsp: bool
    apic_id: int
    irqchip: bool = True
    apic_mode: str = "xapic"
    signature: int | None = None
    vector: int | None = None
    gp_counters: int | None = None
    before: bool = True
    cycles: int = 1 << 32
    extended_apic: bool | None = None

    @property
    def event(self) -> str:
        """The event of the prefix."""
        return self.prefix.split(".", 1)[0]

    @property
    def view(self) -> str:
        """The view of the prefix."""
        return self.prefix.rpartition(".")[2]

    @property
    def created(self) -> bool:
        """A new vCPU, on which nothing was planted."""
        return self.prefix.startswith("reset.create.")

    @property
    def kind(self) -> tuple[object, ...]:
        """All fields that a judgement depends on, except the vCPU's id and the time: equal for many cases."""
        return (*self.plain, self.parts(CASES), self.vector)

    @property
    def plain(self) -> tuple[object, ...]:
        """The same of an item whose rule knows no vector, and whose deviations do not depend on the case."""
        return (self.event, self.view, self.created, *self[3:5], *self[6:9], *self[10:12], self.extended_apic)

    def parts(self, cases: Iterable[str]) -> tuple[str, ...]:
        """Those of ``cases`` that are a part of this case's name."""
        return tuple([part for part in cases if has(self.case, part)])


class Seen(NamedTuple):
    """One item's values: planted (read back), at creation, and after the event; None if there is none.

    ``refused`` says why the plant is not what was asked for; ``unreadable`` why this host has no observed value to show,
    ``failed`` what went wrong where it should have had one.
    """

    planted: int | None
    baseline: int | None
    observed: int | None
    refused: str = ""
    unreadable: str = ""
    failed: str = ""


class Question(NamedTuple):
    """All that decides the judgement of ``item`` but its values.

    ``rule`` is resolved: of a formula that has a value it is a ``value``, and ``formula`` its name. ``skip`` says why nothing is
    judged, however readable it is. ``listed`` are the deviations of this place, ``news`` those of them that a pass would be news
    of. ``created`` is whether nothing was planted because the vCPU is new, ``before`` as in `Context`; ``cycles`` is 0 where the
    rule does not count.
    """

    item: str
    rule: Rule
    formula: str
    skip: str
    listed: tuple[Deviation, ...]
    news: tuple[Deviation, ...]
    created: bool
    before: bool
    cycles: int


_M64 = (1 << 64) - 1
#: Cycles between two values of the TSC that counting alone does not explain: minutes, where a case takes milliseconds.
_TSC_LEAP = 1 << 40
#: A day at 10 GHz is more than any run takes, and far below the distance between the plants.
_TSC_RUN = 1 << 50
_COUNTED = "KVM ignored the write: the counter continued from its old value"
_COUNTING = frozenset(("TSC>=", "TSC-new", "TSC-small", "TSC-on", "timer-on"))
#: The source for comparing the two views.
BOTH_VIEWS = "one vCPU has one state, whoever reads it"


def _formula(name: str, ctx: Context) -> int | str:
    """The value of a formula for this case, or the reason why it has none."""
    event = ctx.event
    if name == "CPUID.1:EAX":
        return ctx.signature if ctx.signature is not None else "the vCPU has no CPUID.1 before KVM_SET_CPUID2"
    if name == "mp_state":
        if not ctx.irqchip:
            return "without an in-kernel local APIC the activity state is the VMM's (KVM API, KVM_GET_MP_STATE)"
        if event == "none":
            return 2
        if event in ("sipi", "shutdown") or ctx.is_bsp:
            return 0
        return 1 if event == "reset" else 2
    if name == "APIC_BASE":
        return 0xFEE00900 if ctx.is_bsp else 0xFEE00800
    if name == "APIC_ID":
        return ctx.apic_id << 24
    if name == "LDR":
        return (ctx.apic_id >> 4 << 16 | 1 << (ctx.apic_id & 0xF)) if ctx.apic_mode == "x2apic" else 0
    if name == "SIPI.CS" and ctx.vector is not None:
        return ctx.vector << 8
    if name == "SIPI.BASE" and ctx.vector is not None:
        return ctx.vector << 12
    if name == "APIC_VERSION":
        return "the vCPU has no CPUID.80000001H" if ctx.extended_apic is None else ctx.extended_apic << 31 | 0x10
    if name == "GP_COUNTERS":
        return (1 << ctx.gp_counters) - 1 if ctx.gp_counters else "CPUID.0AH gives this vCPU no general-purpose counters"
    return f"formula {name} has no value in this case"


def _absent(item: str, ctx: Context) -> str:
    """Return why this view or the local APIC's mode has no such register, though KVM has bytes for it; "" if there is one."""
    if item.startswith("lapic.") and ctx.apic_mode == "disabled":
        return "with IA32_APIC_BASE.EN clear there is no local APIC"
    if item in ("fop", "fip", "fdp") and ctx.host.cpu_vendor == "AuthenticAMD" and ctx.view != "host":
        return "an AMD CPU need not load and store the x87 error pointers while no exception is pending (APM vol. 2, FXSAVE)"
    if item == "lapic.dfr" and ctx.apic_mode == "x2apic":
        return "there is no DFR in x2APIC mode"
    if ctx.host.backend == NO_KVM:
        return ""
    return wrong(ctx.host.names, item) if ctx.view == "host" else cannot_tell(ctx.host.names, item)


def _rule(item: str, ctx: Context) -> Rule:
    if ctx.vendor:
        return rule_for(item, ctx.event, ctx.vendor, ctx.host.backend)
    intel, amd = (rule_for(item, ctx.event, vendor, ctx.host.backend) for vendor in ("intel", "amd"))
    if intel._replace(cite=(), note="") == amd._replace(cite=(), note=""):
        return intel
    note = "the vCPU has no CPUID vendor yet, and the vendors' manuals differ"
    return Rule("undefined", cite=tuple(dict.fromkeys(intel.cite + amd.cite)), note=note)


def _listed(item: str, event: str, ctx: Context) -> tuple[Deviation, ...]:
    target = "bsp" if ctx.is_bsp else "ap"
    return _shown(item, event, ctx.host, ctx.vendor, target, ctx.view, ctx.case, ctx.apic_mode)


def _shown(item: str, event: str, host: Host, *where: str) -> tuple[Deviation, ...]:
    """The deviations that are listed and that this host's KVM can show."""
    return tuple(d for d in listed(item, event, host.backend, host.version, *where) if d.shows(host.parameters))


def ask(item: str, ctx: Context, own: Rule | None = None) -> Question:
    """The question of ``item`` in a case, by the manuals' rule or the case's ``own``: of a vCPU reset by ioctls, or migrated."""
    rule = own or _rule(item, ctx)
    formula = str(rule.value) if rule.kind == "formula" else ""
    skip = _absent(item, ctx)
    if formula and formula not in _COUNTING and not skip:
        value = _formula(formula, ctx)
        if isinstance(value, str):
            skip = value
        else:
            rule = rule._replace(kind="value", value=value)
    here = _listed(item, "vmm-reset" if own and ctx.event == "reset" else ctx.event, ctx)
    # A stable release may have the fix: there the manuals' value is no news.
    news = tuple(d for d in here if d.expected(ctx.host.version))
    return Question(
        item, rule, formula, skip, here, news, ctx.created, ctx.before, ctx.cycles if formula == "TSC-small" else 0
    )


class _Judged(NamedTuple):
    verdict: Verdict
    expected: Expected | None = None
    reason: str = ""


def _counts(name: str, seen: Seen, observed: int, cycles: int) -> _Judged:
    """Judge counters: at least the planted value, or small after RESET."""
    if name == "TSC-small":
        return _counted(name, 0, observed < cycles, "must count from 0 at RESET")
    if name in ("TSC-on", "timer-on"):
        if seen.planted is None:
            return _Judged(Verdict.SKIP, None, "it was not saved")
        if name == "timer-on":
            return _counted(name, seen.planted, observed <= seen.planted, "must have counted down from here")
        return _counted(name, seen.planted, seen.planted <= observed < seen.planted + _TSC_LEAP, "must have counted on from here")
    if name == "TSC>=":
        if seen.planted is None or seen.planted - (seen.baseline or 0) < _TSC_LEAP:
            return _Judged(Verdict.SKIP, None, _COUNTED)
        good = seen.planted <= observed < seen.planted + _TSC_RUN
        return _counted(name, seen.planted, good, "must have counted on from here")
    if seen.planted is None or seen.baseline is None:
        return _Judged(Verdict.SKIP, None, f"formula {name} has no value in this case")
    if abs(seen.planted - seen.baseline) < _TSC_LEAP:
        return _Judged(Verdict.SKIP, None, _COUNTED)
    good = abs(observed - seen.baseline) < _TSC_LEAP
    return _counted(name, seen.baseline, good, "must have counted on from here")


def _counted(name: str, value: int, good: bool, why: str) -> _Judged:
    expected = Expected((value,), formula=name)
    return _Judged(Verdict.PASS, expected) if good else _Judged(Verdict.FAIL, expected, why)


def _bits(rule: Rule, formula: str, seen: Seen, observed: int) -> _Judged:
    """``value``, ``masked`` and ``unchanged``: one expected value under a mask."""
    everything = (1 << max(observed.bit_length(), (seen.planted or 0).bit_length(), 64)) - 1
    keep = everything if rule.kind == "unchanged" else rule.unchanged
    judged = everything & ~rule.ignore
    if keep and seen.planted is None:
        return _Judged(Verdict.SKIP, None, seen.refused or "nothing was planted")
    value = rule.value if isinstance(rule.value, int) else 0
    planted = seen.planted or 0
    wanted = value & ~keep | planted & keep
    expected = Expected((wanted,), judged if rule.ignore else None, formula)
    if (observed ^ wanted) & judged:
        return _Judged(Verdict.FAIL, expected)
    if seen.planted is None or (planted ^ wanted) & judged:
        return _Judged(Verdict.PASS, expected)
    if keep & judged and seen.baseline is not None and (planted ^ seen.baseline) & keep & judged:
        return _Judged(Verdict.PASS, expected)
    same = "equals its value at creation" if keep == everything else "equals the expected one"
    return _Judged(Verdict.SKIP, expected, seen.refused or f"the planted value {same}, which proves nothing")


def _one_of(rule: Rule, seen: Seen, observed: int) -> _Judged:
    expected = Expected(tuple(value for value in rule.values if isinstance(value, int)))
    if observed not in rule.values:
        return _Judged(Verdict.FAIL, expected)
    if seen.planted is not None and seen.planted in rule.values:
        why = seen.refused or "the planted value is one of the expected ones, which proves nothing"
        return _Judged(Verdict.SKIP, expected, why)
    return _Judged(Verdict.PASS, expected)


def _apply(question: Question, seen: Seen) -> _Judged:
    rule = question.rule
    if seen.failed:
        return _Judged(Verdict.ERROR, None, seen.failed)
    if seen.observed is None:
        return _Judged(Verdict.SKIP, None, seen.unreadable or "not readable here")
    if question.skip:
        return _Judged(Verdict.SKIP, None, question.skip)
    if rule.kind == "undefined":
        return _Judged(Verdict.INFO, None, rule.note or "undefined in the manuals")
    unknown = rule.kind == "unchanged" or rule.value in ("TSC>=", "TSC-on", "timer-on")
    if seen.planted is None and not question.created and (question.before or unknown):
        return _Judged(Verdict.SKIP, None, seen.refused or "the planted value could not be read back")
    observed = seen.observed
    if rule.kind == "formula":
        return _counts(question.formula, seen, observed, question.cycles)
    if rule.kind == "one-of":
        return _one_of(rule, seen, observed)
    if kept := 0 if question.before else rule.unchanged & ~rule.ignore:
        value = (rule.value if isinstance(rule.value, int) else 0) & ~kept | observed & kept
        judged = rule._replace(value=value, unchanged=0, ignore=rule.ignore | kept)
        if not ~judged.ignore & _M64:
            return _Judged(Verdict.SKIP, None, seen.refused)
        return _bits(judged, question.formula, seen, observed)._replace(reason=f"bits {kept:#x} are not judged: {seen.refused}")
    return _bits(rule, question.formula, seen, observed)


def answer(question: Question, seen: Seen) -> Record:
    """The judgement of ``question`` for the values ``seen``."""
    verdict, expected, reason = _apply(question, seen)
    deviation: str | None = None
    if seen.observed is not None:
        verdict, reason, deviation = _deviated(verdict, reason, question.listed, question.news, seen.observed, seen.planted)
    return Record(question.item, verdict, seen.planted, expected, seen.observed, reason, question.rule.cite, deviation)


def judge(item: str, ctx: Context, seen: Seen, own: Rule | None = None) -> Record:
    """The judgement of one item in one case."""
    return answer(ask(item, ctx, own), seen)


def _deviated(
    verdict: Verdict,
    reason: str,
    here: tuple[Deviation, ...],
    news: tuple[Deviation, ...],
    observed: int | str | None,
    planted: int | None,
) -> tuple[Verdict, str, str | None]:
    """``known`` or ``fixed`` where a listed deviation says so: verdict, reason, the deviation's commit or function."""
    if verdict not in (Verdict.PASS, Verdict.FAIL):
        return verdict, reason, None
    there = [d for d in (news if verdict is Verdict.PASS else here) if d.value(planted) is not None]
    exact = [d for d in there if d.explains(observed, planted)]
    if verdict is Verdict.FAIL:
        return (Verdict.KNOWN, exact[0].why, exact[0].commit) if exact else (verdict, reason, None)
    # A pass may be with a deviation's own value, where that is what the manuals ask for in this case.
    return (verdict, reason, None) if exact or not there else (Verdict.FIXED, there[0].why, there[0].commit)


def excused(record: Record, result_id: str, host: Host, event: str, vendor: str, target: str, view: str, case: str) -> Record:
    """The ``record`` of a behaviour, ``known`` or ``fixed`` where a listed deviation says so. ``target`` is ``bsp`` or ``ap``."""
    if record.observed is None:
        return record
    here = _shown(result_id, event, host, vendor, target, view, case)
    if not here:
        return record
    # A deviation of a behaviour has the text that its check saw, also where that is a number.
    news = tuple(d for d in here if d.expected(host.version))
    verdict, why, commit = _deviated(record.verdict, "", here, news, text(record.item, record.observed), None)
    if not commit:
        return record
    return record._replace(verdict=verdict, reason="; ".join(filter(None, (why, record.reason))), deviation=commit)


def ask_views(item: str, ctx: Context) -> Question:
    """The question whether both views of ``item`` agree; ``ctx`` is that of the view ``views``."""
    skip = _absent(item, ctx)
    if not skip and ctx.event == "sipi" and item == "lapic.timer_current":
        skip = "it counts down between two reads"
    here = _listed(item, "views", ctx)
    news = tuple(d for d in here if d.expected(ctx.host.version))
    return Question(item, Rule("same", cite=(BOTH_VIEWS,)), "", skip, here, news, ctx.created, ctx.before, 0)


def compare_views(
    question: Question,
    host: int | None,
    guest: int | None,
    problem: str = "",
    missing: str = "",
    unread: str = "",
    lost: str = "",
) -> Record:
    """The judgement whether the host's ioctls (``host``) and the guest's instructions (``guest``) show the same of an item.

    ``missing`` says why the guest cannot read it, ``problem`` what went wrong where it should have reported it, ``unread`` why
    there is nothing of the host's, ``lost`` what went wrong where there should be. The guest reads the time-stamp counter after
    the host.
    """
    item = question.item
    deviation: str | None = None
    reason = ""
    if guest is None:
        verdict, reason = (Verdict.SKIP, missing) if missing else (Verdict.ERROR, problem or "the guest did not report it")
    elif lost:
        verdict, reason = Verdict.ERROR, lost
    elif question.skip:
        verdict, reason = Verdict.SKIP, question.skip
    elif host is None:
        verdict, reason = Verdict.SKIP, unread or "the host cannot read it here"
    else:
        same = host <= guest < host + _TSC_LEAP if item == "msr.tsc" else host == guest
        verdict = Verdict.PASS if same else Verdict.FAIL
        exact = [d for d in (question.news if same else question.listed) if d.value(None) == guest]
        if exact:
            # Agreeing on the value with which a deviation was seen says that it is gone.
            verdict, reason, deviation = (Verdict.FIXED if same else Verdict.KNOWN), exact[0].why, exact[0].commit
    expected = None if host is None else Expected((host,))
    return Record(item, verdict, None, expected, guest, reason, question.rule.cite, deviation)
