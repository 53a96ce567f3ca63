# SPDX-License-Identifier: GPL-2.0-only
"""Compare what was observed with what the manuals say. Pure: works on saved values, without KVM."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.checks.check import Check, Observation
from kvmtest.engine.host import kernel_version
from kvmtest.engine.result import Host, Result
from kvmtest.spec import rule_for
from kvmtest.spec.deviations import Deviation, listed
from kvmtest.spec.emulators import cannot_tell
from kvmtest.spec.rule import Rule
from kvmtest.state.layout import text

__all__ = ("BOTH_VIEWS", "Context", "Seen", "excused", "judge", "judge_check", "judge_views")


class Context(NamedTuple):
    """What a rule may depend on besides the item: the case, the vCPU, the host.

    ``vendor`` is the guest's CPUID vendor or "" before KVM_SET_CPUID2. ``signature`` is CPUID.1:EAX of the vCPU,
    ``apic_id`` its id, ``apic_mode`` its local APIC's mode when the event came, ``vector`` the SIPI's. ``before`` is whether
    the state before the event is known; else bits that must be as before are not judged. ``cycles`` is how far a new vCPU's TSC
    can have counted. ``extended_apic`` is CPUID's ExtApicSpace, None where that is not known.
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


class Seen(NamedTuple):
    """One item's values: what was planted (read back), at creation, and after the event; None where there is none.

    ``refused`` says why the plant is not what was asked for; ``unreadable`` why this host has no observed value to show,
    ``failed`` what went wrong where it should have had one.
    """

    planted: int | None
    baseline: int | None
    observed: int | None
    refused: str = ""
    unreadable: str = ""
    failed: str = ""


#: Cycles between two values of the TSC that counting alone does not explain: minutes, where a case takes milliseconds.
_TSC_LEAP = 1 << 40
_COUNTED = "the counter only counted on when another value was written: KVM did not take it"
#: What comparing the two views rests on.
BOTH_VIEWS = "one vCPU has one state, whoever reads it"


class _Verdict(NamedTuple):
    expected: str | None
    verdict: str
    reason: str = ""


def _formula(name: str, ctx: Context) -> int | str:
    """The value of a formula for this case, or the reason why it has none."""
    event = ctx.prefix.split(".", 1)[0]
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


def _counts(name: str, seen: Seen, observed: int, cycles: int) -> _Verdict | None:
    """Rules of what counts on by itself: at least the planted value, or small after RESET."""
    if name == "TSC>=":
        if seen.planted is None or seen.planted - (seen.baseline or 0) < _TSC_LEAP:
            return _Verdict(None, "skip", _COUNTED)
        # A day at 10 GHz is more than any run takes, and far below the distance between the plants.
        good = seen.planted <= observed < seen.planted + (1 << 50)
        return _Verdict(f"{seen.planted:#x}", "pass" if good else "fail", "" if good else "must have counted on from here")
    if name == "TSC-new" and seen.planted is not None and seen.baseline is not None:
        if abs(seen.planted - seen.baseline) < _TSC_LEAP:
            return _Verdict(None, "skip", _COUNTED)
        good = abs(observed - seen.baseline) < _TSC_LEAP
        return _Verdict(f"{seen.baseline:#x}", "pass" if good else "fail", "" if good else "must have counted on from here")
    if name == "TSC-small":
        good = observed < cycles
        return _Verdict("0x0", "pass" if good else "fail", "" if good else "must count from 0 at RESET")
    return None


def _bits(rule: Rule, seen: Seen, observed: int) -> _Verdict:
    """``value``, ``masked`` and ``unchanged``: one expected value under a mask."""
    everything = (1 << max(observed.bit_length(), (seen.planted or 0).bit_length(), 64)) - 1
    keep = everything if rule.kind == "unchanged" else rule.unchanged
    judged = everything & ~rule.ignore
    if keep and seen.planted is None:
        return _Verdict(None, "skip", seen.refused or "nothing was planted")
    value = rule.value if isinstance(rule.value, int) else 0
    planted = seen.planted or 0
    expected = value & ~keep | planted & keep
    shown = f"{expected:#x}"
    if (observed ^ expected) & judged:
        return _Verdict(shown, "fail")
    if seen.planted is None:
        return _Verdict(shown, "pass")
    if (planted ^ expected) & judged:
        return _Verdict(shown, "pass")
    if keep & judged and seen.baseline is not None and (planted ^ seen.baseline) & keep & judged:
        return _Verdict(shown, "pass")
    same = "equals its value at creation" if keep == everything else "equals the expected one"
    return _Verdict(shown, "skip", seen.refused or f"the planted value {same}: nothing to tell")


def _one_of(rule: Rule, seen: Seen, observed: int) -> _Verdict:
    shown = "|".join(f"{v:#x}" for v in rule.values if isinstance(v, int))
    if observed not in rule.values:
        return _Verdict(shown, "fail")
    if seen.planted is not None and seen.planted in rule.values:
        return _Verdict(shown, "skip", seen.refused or "the planted value is among the expected ones: nothing to tell")
    return _Verdict(shown, "pass")


def _absent(item: str, ctx: Context) -> str:
    """Why this view or the local APIC's mode has no such register, though KVM shows its bytes."""
    if item.startswith("lapic.") and ctx.apic_mode == "disabled":
        return "with IA32_APIC_BASE.EN clear there is no local APIC"
    if item in ("fop", "fip", "fdp") and ctx.host.cpu_vendor == "AuthenticAMD" and not ctx.prefix.endswith(".host"):
        return "an AMD CPU need not load and store the x87 error pointers while no exception is pending (APM vol. 2, FXSAVE)"
    if item == "lapic.dfr" and ctx.apic_mode == "x2apic":
        return "there is no DFR in x2APIC mode"
    return "" if ctx.prefix.endswith(".host") else cannot_tell(ctx.host.names, item)


def _apply(rule: Rule, item: str, ctx: Context, seen: Seen) -> _Verdict:
    if seen.failed:
        return _Verdict(None, "error", seen.failed)
    if seen.observed is None:
        return _Verdict(None, "skip", seen.unreadable or "not readable here")
    if absent := _absent(item, ctx):
        return _Verdict(None, "skip", absent)
    if rule.kind == "undefined":
        return _Verdict(None, "info", rule.note or "undefined in the manuals")
    unknown = rule.kind == "unchanged" or rule.value == "TSC>="
    if seen.planted is None and not ctx.prefix.startswith("reset.create.") and (ctx.before or unknown):
        return _Verdict(None, "skip", seen.refused or "what was planted could not be read back")
    observed = seen.observed
    if rule.kind == "formula":
        name = str(rule.value)
        if counted := _counts(name, seen, observed, ctx.cycles):
            return counted
        value = _formula(name, ctx)
        if isinstance(value, str):
            return _Verdict(None, "skip", value)
        found = _bits(rule._replace(kind="value", value=value), seen, observed)
        return found._replace(expected=text(item, value))
    if rule.kind == "one-of":
        return _one_of(rule, seen, observed)
    if kept := 0 if ctx.before else rule.unchanged & ~rule.ignore:
        value = (rule.value if isinstance(rule.value, int) else 0) & ~kept | observed & kept
        found = _bits(rule._replace(value=value, unchanged=0, ignore=rule.ignore | kept), seen, observed)
        return found._replace(reason=f"bits {kept:#x} are not judged: {seen.refused}")
    return _bits(rule, seen, observed)


def _rule(item: str, event: str, ctx: Context) -> Rule:
    if ctx.vendor:
        return rule_for(item, event, ctx.vendor, ctx.host.backend)
    intel, amd = (rule_for(item, event, vendor, ctx.host.backend) for vendor in ("intel", "amd"))
    if intel._replace(cite=(), note="") == amd._replace(cite=(), note=""):
        return intel
    note = "the vCPU has no CPUID vendor yet, and the vendors' manuals differ"
    return Rule("undefined", cite=tuple(dict.fromkeys(intel.cite + amd.cite)), note=note)


def judge_check(check: Check, case: str, observed: str | Observation, host: Host | None = None, vendor: str = "") -> Result:
    """The result of a behaviour that ``check`` observed; without ``host`` no deviation is looked up."""
    seen = Observation(observed) if isinstance(observed, str) else observed
    undefined = check.undefined or seen.undefined
    verdict = "info" if undefined else "pass" if seen.text == check.expected else "fail"
    reason = "; ".join(filter(None, (undefined, seen.reason)))
    where = (check.id, check.event, check.trigger, check.view, check.name, case)
    result = Result(*where, None, check.expected or None, seen.text, verdict, reason, check.cite, None)
    return excused(result, host, vendor, check.target) if host else result


def excused(result: Result, host: Host, vendor: str, target: str) -> Result:
    """The ``result`` of a behaviour, ``known`` or ``fixed`` where a listed deviation says so. ``target`` is ``bsp`` or ``ap``."""
    if result.verdict not in ("pass", "fail") or result.observed is None:
        return result
    here = listed(result.id, result.event, host.backend, kernel_version(host.kernel), vendor, target, result.view, result.case)
    verdict, why, commit = _explained(result.verdict, here, result.observed, None)
    reason = "; ".join(filter(None, (why, result.reason))) if commit else result.reason
    return result._replace(verdict=verdict, reason=reason, deviation=commit)


def judge_views(
    item: str,
    ctx: Context,
    host: int | None,
    guest: int | None,
    problem: str,
    missing: str = "",
    unread: str = "",
    lost: str = "",
) -> Result:
    """Whether the host's ioctls (``host``) and the guest's instructions (``guest``) show the same of an item after the event.

    ``missing`` says why the guest cannot read it, ``problem`` what went wrong where it should have told, ``unread`` why there
    is nothing of the host's, ``lost`` what went wrong where there should be. The guest reads the time-stamp counter after the
    host.
    """
    event, trigger, view = ctx.prefix.split(".")
    deviation: str | None = None
    if guest is None and missing:
        verdict, reason = "skip", missing
    elif guest is None:
        verdict, reason = "error", problem or "the guest did not tell"
    elif lost:
        verdict, reason = "error", lost
    elif absent := _absent(item, ctx):
        verdict, reason = "skip", absent
    elif event == "sipi" and item == "lapic.timer_current":
        verdict, reason = "skip", "it counts down from one reading to the next"
    elif host is None:
        verdict, reason = "skip", unread or "the host cannot read it here"
    else:
        same = host <= guest < host + _TSC_LEAP if item == "msr.tsc" else host == guest
        told = Seen(None, None, guest)
        verdict, reason, deviation = _deviated("pass" if same else "fail", "", item, "views", told, ctx, same=True)
    where = (f"{ctx.prefix}.{item}", event, trigger, view, item, ctx.case)
    return Result(*where, None, text(item, host), text(item, guest), verdict, reason, (BOTH_VIEWS,), deviation)


def _deviated(
    verdict: str, reason: str, item: str, event: str, seen: Seen, ctx: Context, same: bool = False
) -> tuple[str, str, str | None]:
    """``known`` or ``fixed`` where a listed deviation says so: verdict, reason, the deviation's commit.

    ``same`` is whether a pass with a deviation's own value says that it is fixed.
    """
    assert seen.observed is not None
    kernel, view = kernel_version(ctx.host.kernel), ctx.prefix.rpartition(".")[2]
    target = "bsp" if ctx.is_bsp else "ap"
    here = listed(item, event, ctx.host.backend, kernel, ctx.vendor, target, view, ctx.case)
    if same and verdict == "pass":
        here = [d for d in here if d.value(seen.planted) == seen.observed]
        return ("fixed", here[0].why, here[0].commit) if here else (verdict, reason, None)
    here = [d for d in here if d.value(seen.planted) is not None]
    # A stable release may have the fix: there the manuals' value is no news.
    if verdict == "pass":
        here = [d for d in here if kernel not in d.backports]
    verdict, why, commit = _explained(verdict, here, seen.observed, seen.planted)
    return verdict, why or reason, commit


def _explained(verdict: str, here: list[Deviation], observed: int | str, planted: int | None) -> tuple[str, str, str | None]:
    """What the deviations that are listed ``here`` make of a ``pass`` or ``fail``: verdict, why, commit."""
    exact = next((d for d in here if d.value(planted) == observed), None)
    if verdict == "fail":
        return ("known", exact.why, exact.commit) if exact else (verdict, "", None)
    # Where the deviation has the manuals' own value, a pass says nothing of it.
    return (verdict, "", None) if exact or not here else ("fixed", here[0].why, here[0].commit)


def judge(item: str, ctx: Context, seen: Seen, own: Rule | None = None) -> Result:
    """The result of one item in one case, by the manuals' rule or the case's ``own``, that of a vCPU reset by ioctls."""
    event, trigger, view = ctx.prefix.split(".")
    rule = own or _rule(item, event, ctx)
    found = _apply(rule, item, ctx, seen)
    if own and found.expected is not None and isinstance(rule.value, int):
        found = found._replace(expected=text(item, rule.value))
    verdict, reason = found.verdict, found.reason
    deviation: str | None = None
    if verdict in ("pass", "fail") and seen.observed is not None:
        verdict, reason, deviation = _deviated(verdict, reason, item, "vmm-reset" if own else event, seen, ctx)
    return Result(
        f"{ctx.prefix}.{item}",
        event,
        trigger,
        view,
        item,
        ctx.case,
        text(item, seen.planted),
        found.expected,
        text(item, seen.observed),
        verdict,
        reason,
        rule.cite,
        deviation,
    )
