# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest explain``: an item's rules and what departs from them, a case's steps, the story of a commit."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from kvmtest import spec
from kvmtest.engine.plan import Case, plan, select
from kvmtest.lab import ids
from kvmtest.model.select import SelectorError, near
from kvmtest.report.show import columns, count, wrapped
from kvmtest.scenario import looks as of
from kvmtest.scenario import setup_text, text
from kvmtest.scenario.step import Scenario
from kvmtest.spec import commits, contradictions, deviations, opinions
from kvmtest.spec.commits.entry import KEPT, LESS, Entry, Sign
from kvmtest.spec.opinions import Opinion
from kvmtest.spec.rule import EVENTS, Rule
from kvmtest.state.layout import static_fields
from kvmtest.state.plant import WHY, XCR0
from kvmtest.state.values import APIC_MODES, CR4_CANDIDATES, EFER_CANDIDATES, PLANTS, values
from kvmtest.x86 import msr

__all__ = ("UnknownName", "explain", "one_case")

_RESET = "kvm_vcpu_reset() in arch/x86/kvm/x86.c"
_VENDOR = f"vmx_vcpu_reset() or init_vmcb(), called by {_RESET}"
_ACCEPT = "kvm_apic_accept_events() in arch/x86/kvm/lapic.c"
_LAPIC = "kvm_lapic_reset() in arch/x86/kvm/lapic.c"
#: The function of KVM that sets an item at RESET or INIT, by the item, or by its section. Items that are not here are set by
#: code that differs from register to register, or from kernel to kernel.
_KVM = {
    "regs": _RESET,
    "sregs": _VENDOR,
    **dict.fromkeys(("cr0", "cr2", "cr3", "cr4", "efer", "msr.efer", "xcr0", "msr.xss", "debugregs"), _RESET),
    "cr8": "",
    "events": "",
    **{f"events.{name}": _RESET for name in ("interrupt_injected", "nmi_injected", "nmi_pending")},
    **{f"events.exception_{name}": _RESET for name in ("injected", "pending")},
    **dict.fromkeys(("events.smi_latched_init", "events.sipi_vector"), _ACCEPT),
    "mp_state": f"kvm_arch_vcpu_create() at RESET; {_ACCEPT} from then on",
    **dict.fromkeys(("msr.fs_base", "msr.gs_base"), _VENDOR),
    **dict.fromkeys(("apic_base", "msr.apic_base", "lapic"), _LAPIC),
    "nested": f"kvm_leave_nested(), called by {_RESET}",
    "cpuid": "kvm_update_cpuid_runtime() in arch/x86/kvm/cpuid.c, after CR4, XCR0, XSS or APIC_BASE",
}
#: The value of each formula, in words.
_FORMULAS = {
    "APIC_BASE": "0xfee00900 on the BSP, 0xfee00800 on an AP",
    "APIC_ID": "the vCPU's APIC id in bits 31:24",
    "APIC_VERSION": "0x10 in bits 7:4, CPUID's ExtApicSpace in bit 31",
    "CPUID.1:EAX": "the vCPU's CPUID.1:EAX",
    "GP_COUNTERS": "a 1 for each general-purpose counter",
    "LDR": "0 in xAPIC mode; derived from the APIC id in x2APIC mode",
    "SIPI.BASE": "the SIPI's vector << 12",
    "SIPI.CS": "the SIPI's vector << 8",
    "TSC-small": "0, then counts",
    "TSC>=": "counts on from its value",
}
_STATES = {
    "reset": "KVM_MP_STATE_RUNNABLE on the BSP, KVM_MP_STATE_UNINITIALIZED on an AP",
    "init": "KVM_MP_STATE_RUNNABLE on the BSP, KVM_MP_STATE_INIT_RECEIVED on an AP",
    "sipi": "KVM_MP_STATE_RUNNABLE",
    "shutdown": "KVM_MP_STATE_RUNNABLE",
}
_WHEN = {
    "vmm-reset": "after userspace wrote RESET's values",
    "none": "after KVM_SET_MP_STATE, which is not an event",
    "migrate": "after a migration",
}
#: Of the cases that are not written in steps.
_RESET_BY_IOCTLS = "a used vCPU that userspace writes back to RESET by ioctls; every item is judged"


class UnknownName(ValueError):
    """Neither an item nor a commit that the tool knows."""


def explain(name: str, own: Sequence[Opinion] = ()) -> Iterator[str]:
    """Lines about an item, a result id, a case, a commit or a place in the series. Raises UnknownName.

    ``own`` are opinions on items besides those that are kept.
    """
    if entries := commits.find(name):
        for entry in entries:
            yield from _commit(entry)
        return
    if listed := [d for d in deviations.DEVIATIONS if len(name) >= 7 and d.commit.startswith(name)]:
        yield f"{listed[0].commit}:"
        for deviation in listed:
            yield from _deviation(deviation)
        return
    if name in (ids.ID + item for item in ids.LAB):
        what, verdicts = ids.LAB[name.removeprefix(ids.ID)]
        yield from (f"{name}: {what}", f"  verdicts    {verdicts}", "  comes from  kvmtest lab run and kvmtest lab matrix alone")
        return
    above, slash, _ = name.partition("/")
    item = above.split(".", 3)[3] if above.count(".") > 2 and above.partition(".")[0] in (*EVENTS, "none") else above
    known = item in spec.ENTRIES or item.startswith("msr.0x")
    if slash:
        case = one_case(name)
        if known:
            yield from (*_item(item, own), "")
        yield from _case(case)
        return
    if known:
        yield from _item(item, own)
        return
    behaviours = _behaviours()
    shown = {id: names for id, names in behaviours.items() if name in (id, id.split(".", 3)[3])}
    for id, names in shown.items():
        yield id
        some = list(dict.fromkeys(names))
        more = f", and {count(len(some) - 1, 'more case')}" if len(some) > 1 else ""
        yield from _field("shown by", some[0] + more)
        yield from _departures(id)
    if not shown:
        close = list(near(item, (*spec.ENTRIES, *behaviours)))
        hint = f"; did you mean {', '.join(close)}?" if close else "; kvmtest list shows all result ids"
        raise UnknownName(f"no item, case or listed commit {name!r}{hint}")


def one_case(name: str) -> Case:
    """The case of this name, or the one that a selector matches. Raises UnknownName."""
    try:
        found = {case.name: case for case in select(plan(), (name,))}
    except SelectorError as error:
        raise UnknownName(str(error)) from None
    if len(found) > 1:
        first = ", ".join(list(found)[:3])
        raise UnknownName(f"{name!r} is {len(found)} cases; name one of them: {first}{', ...' if len(found) > 3 else ''}")
    return next(iter(found.values()))


def _behaviours() -> dict[str, list[str]]:
    """The ids of single expectations in steps, and the names of the cases that show them."""
    found: dict[str, list[str]] = {}
    for case in plan():
        for one in of.looks(case.scenario) if case.scenario else ():
            if one.item:
                found.setdefault(f"{one.event}.{one.trigger}.{one.view}.{one.item}", []).append(case.name)
    return found


def _case(case: Case) -> Iterator[str]:
    yield case.name
    scenario = case.scenario
    if not scenario:
        yield from _field("kind", _RESET_BY_IOCTLS)
        yield from _field("set-up", setup_text.setup(case.setup))
    else:
        yield from _field("set-up", setup_text.setup(case.setup))
        yield from _field("needs", "; ".join(map(setup_text.need, scenario.needs)) or "nothing that a KVM may lack")
        yield "  steps"
        for number, sentence in enumerate(text.lines(scenario), 1):
            yield from wrapped(sentence, columns(), f"  {number:3}. ", " " * 7).splitlines()
        yield from _expected(case, scenario)
    again = shlex.quote(case.name)
    yield f"  run         kvmtest run {again}"


def _expected(case: Case, scenario: Scenario) -> Iterator[str]:
    """Yield how a scenario's steps are judged."""
    steps: dict[str, list[str]] = {}
    for one in of.looks(scenario):
        id = f"{one.event}.{one.trigger}.{one.view}.{one.item or '*'}"
        steps.setdefault(id, []).append(str(one.step + 1))
    for id, numbers in steps.items():
        verb = "recorded" if scenario.undefined and not id.endswith(".*") else "judged"
        yield from _field(verb, f"{id}, in step{'s' if len(numbers) > 1 else ''} {' and '.join(numbers)}")
    if scenario.undefined:
        yield from _field("note", scenario.undefined)
    for cite in scenario.cite:
        yield from _field("cites", cite)
    for deviation in deviations.DEVIATIONS:
        view = deviation.item.split(".")[2] if deviation.item in steps else ""
        if view and deviation.where(case.setup.vendor, case.target, view, case.name):
            yield from _deviation(deviation)


def _commit(entry: Entry) -> Iterator[str]:
    yield f"{entry.commit or entry.place}  KVM: {entry.subject}"
    if entry.place and entry.commit:
        yield f"  place       {_place(entry.place)}"
    if entry.also:
        yield from _field("with", ", ".join(entry.also))
    if entry.release:
        backports = "".join(f"; stable {major}.{minor} has it too" for major, minor in entry.backports)
        yield f"  since       {entry.release}{backports}"
    yield f"  code        {entry.path}"
    yield from _field("changes", entry.what)
    if entry.before:
        yield from _field("before", entry.before)
    if entry.after:
        yield from _field("after", entry.after)
    if entry.unverified:
        yield from _field("unverified", entry.unverified)
    if entry.hidden:
        yield from _field("unseen", entry.hidden)
    for sign in entry.signs:
        yield from _sign(sign, "about" if entry.hidden else "shown by")
    if entry.signs:
        yield f"  run         kvmtest run --commit {entry.key}"
    alike: dict[deviations.Deviation, list[deviations.Deviation]] = {}
    for d in deviations.DEVIATIONS:
        if d.commit == entry.commit:
            alike.setdefault(d._replace(item=""), []).append(d)
    for found in alike.values():
        yield from _field("deviation", _shown(found[0], len(found)))


def _place(place: str) -> str:
    version, _, number = place.partition("#")
    return f"patch {number} in {version} of the series" if number else f"only in {version} of the series"


def _sign(sign: Sign, name: str) -> Iterator[str]:
    for prefix in dict.fromkeys(".".join(id.split(".", 3)[:3]) for id in sign.ids):
        named = sign.items[0] if len(sign.items) == 1 else "{" + ", ".join(sign.items) + "}"
        yield from _field(name, f"{prefix}.{named}")
    if sign.old is not None:
        guests, parameter = sign.vendor and f"{sign.vendor} guests", sign.without and f"{sign.without}=0"
        limits = (sign.backends, sign.target, sign.case, guests, sign.view, parameter)
        where = ", ".join(filter(None, limits))
        yield from _wrapped(f"was {_value(sign.old)}{f' ({where})' if where else ''}")


def _value(value: int | str) -> str:
    words = {KEPT: "what was planted", LESS: "less than what was planted"}
    if isinstance(value, str) and value.startswith(f"{KEPT}|"):
        return f"the planted value with {value.partition('|')[2]} set"
    return f"{value:#x}" if isinstance(value, int) else words.get(value) or repr(value)


def _field(name: str, text: str) -> list[str]:
    return wrapped(text, columns(), f"  {name:11} ", " " * 14).splitlines()


def _departures(name: str) -> Iterator[str]:
    """The deviations of an item, and the commits that it shows."""
    for deviation in deviations.DEVIATIONS:
        if deviation.item == name:
            yield from _deviation(deviation)
    for entry in commits.ENTRIES:
        if any(name in (sign.ids if sign.check else sign.items) for sign in entry.signs):
            yield from _field("commit", f"{entry.key}  KVM: {entry.subject}")


_VENDORS = {"intel": "Intel", "amd": "AMD"}


def _measured(item: str, event: str, own: Sequence[Opinion]) -> Iterator[str]:
    """The opinions of machines without KVM on an item after an event, with ``own`` of other machines."""
    said = [one for one in (*opinions.of(item), *own) if (one.item, one.event) == (item, event)]
    if same := [one for one in said if not one.departs]:
        yield from _field("  measured", f"the same in {_who(same)}")
    shown: dict[tuple[str, str, str], list[Opinion]] = {}
    for one in said:
        if one.departs:
            shown.setdefault((contradictions.why(one), one.shows, one.asked), []).append(one)
    for (reason, value, asked), who in shown.items():
        yield from _field("  measured", f"! {_who(who)}: {value}, where the rule requires {asked}")
        yield from _wrapped(reason)


def _who(said: Sequence[Opinion]) -> str:
    """The machines, each with the vendors of its CPUID."""
    vendors: dict[str, list[str]] = {}
    for one in said:
        vendors.setdefault(one.who, []).extend(filter(None, [_VENDORS.get(one.vendor)]))
    return "; ".join(f"{who}, {' and '.join(names)}" if names else who for who, names in vendors.items())


def _item(item: str, own: Sequence[Opinion]) -> Iterator[str]:
    entry = spec.lookup(item)
    yield item
    placed = static_fields()
    section = placed[item].section if item in placed else {"msr": "msrs", "cpuid": "cpuid"}.get(item.partition(".")[0], "xsave")
    index = f" {msr.index_of(item.removeprefix('msr.')):#x}" if section == "msrs" else ""
    yield f"  read by     {text.ioctl('GET', section)}{index}"
    if function := _KVM.get(item, _KVM.get(section, "")):
        yield from _field("in KVM", function)
    if entry.hidden:
        yield from _field("hidden", "no instruction reads it: the rule is that of the backend, not of the guest's CPUID vendor")
    yield from _field("planted", _planted(item))
    for event in EVENTS:
        intel, amd = entry.rule(event, "intel"), entry.rule(event, "amd")
        if intel == amd:
            yield from _rule(event, "", intel)
        else:
            yield from _rule(event, "Intel: ", intel)
            yield from _rule(event, "AMD: ", amd)
        yield from _measured(item, event, own)
    yield from _departures(item)


def _planted(item: str) -> str:
    """Describe what ioctls plant in ``item``, by plant."""
    known = next((known for known in msr.MSRS if item == f"msr.{known.name}"), None)
    if known and known.sregs:
        return f"as {known.sregs}: {_planted(known.sregs)}"
    if item in ("cr4", "efer"):
        bits = CR4_CANDIDATES if item == "cr4" else EFER_CANDIDATES
        tried = "; ".join(f"{plant}: {' '.join(map(str, bits[plant]))}" for plant in PLANTS)
        return f"by ioctls, the bits that KVM accepts of {tried}"
    if item == "apic_base":
        return f"by ioctls, {' '.join(f'{mode}={base:#x}' for mode, base in APIC_MODES.items())}, bit 8 on the BSP"
    if item == "xcr0":
        return f"by ioctls, a=all that KVM supports b={XCR0['b']:#x} c={XCR0['c']:#x}"
    if planted := [f"{plant}={text.held(item, asked[item])}" for plant in PLANTS if item in (asked := values(plant))]:
        return f"by ioctls, {' '.join(planted)}{f' ({known.why})' if known and known.why else ''}"
    return f"never: {WHY.get(item) or 'no plant has a value for it'}"


def _said(event: str, rule: Rule) -> str:
    if rule.kind == "value":
        return f"{rule.value:#x}" if isinstance(rule.value, int) else str(rule.value)
    if rule.kind == "masked":
        keep = f", bits {rule.unchanged:#x} unchanged" if rule.unchanged else ""
        ignore = f", bits {rule.ignore:#x} not judged" if rule.ignore else ""
        return f"{rule.value:#x}{keep}{ignore}"
    if rule.kind == "one-of":
        return "one of " + ", ".join(f"{v:#x}" if isinstance(v, int) else v for v in rule.values)
    if rule.kind == "formula":
        return _STATES[event] if rule.value == "mp_state" else _FORMULAS[str(rule.value)]
    return rule.kind


def _wrapped(text: str) -> list[str]:
    return wrapped(text, columns(), " " * 14, " " * 16).splitlines()


def _rule(event: str, vendor: str, rule: Rule) -> Iterator[str]:
    yield from _field(event.upper(), vendor + _said(event, rule))
    for cite in rule.cite:
        yield from _wrapped(cite)
    if rule.note:
        yield from _wrapped(f"note: {rule.note}")


def _deviation(d: deviations.Deviation) -> Iterator[str]:
    yield from _field("deviation", f"{_shown(d)} [{d.commit}]")
    yield from _wrapped(d.why if d.kind == "fixed" else f"{d.kind}: {d.why}")


def _shown(d: deviations.Deviation, count: int = 1) -> str:
    """Describe what a deviation, or ``count`` deviations that differ only in the item, show, and where."""
    who, verb, what = (
        (d.item, "reads", "holds its planted value") if count == 1 else (f"{count} items", "read", "hold their planted values")
    )
    says = f"{who} still {what}" if d.observed == KEPT else f"{who} {verb} {_value(d.observed)}"
    if d.event == "views":
        says += " in the guest where the host shows another value"
    elif d.item in spec.ENTRIES or d.event != "none":
        says = f"{_WHEN.get(d.event, f'after {text.EVENTS.get(d.event, d.event)}')}, {says}"
    limits: tuple[str, ...] = (
        d.target and f"{d.target} only",
        d.case and f"{d.case} only",
        d.vendor and f"guests of vendor {d.vendor} only",
        d.view and f"{d.view} view only",
        d.without and f"with {d.without}=0 only",
        f"since {d.since[0]}.{d.since[1]}" if d.since > (0, 0) else "",
        f"before {d.until[0]}.{d.until[1]}" if d.until < deviations.FOREVER else "",
    )
    return ", ".join((says, f"on {d.backends or 'every backend'}", *filter(None, limits)))
