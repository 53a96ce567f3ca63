# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest explain``: the rules of an item, where KVM keeps it, and what departs from them; the story of a commit."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

from kvmtest import spec
from kvmtest.lab import ids
from kvmtest.model.select import near
from kvmtest.report.show import columns
from kvmtest.spec import commits, deviations
from kvmtest.spec.commits.entry import KEPT, Entry, Sign
from kvmtest.spec.rule import EVENTS, Rule
from kvmtest.state.layout import static_fields
from kvmtest.state.values import PLANTS, values
from kvmtest.x86 import msr

__all__ = ("UnknownName", "explain")

_RESET = "kvm_vcpu_reset() in arch/x86/kvm/x86.c"
_VENDOR = f"{_RESET}, then vmx_vcpu_reset() or init_vmcb()"
#: How the host reads a section, and which function of KVM gives it its value at RESET and INIT.
_KVM = {
    "regs": ("KVM_GET_REGS", _RESET),
    "sregs": ("KVM_GET_SREGS", _VENDOR),
    "debugregs": ("KVM_GET_DEBUGREGS", _RESET),
    "events": ("KVM_GET_VCPU_EVENTS", _RESET),
    "xcrs": ("KVM_GET_XCRS", _RESET),
    "xsave": ("KVM_GET_XSAVE", f"fpu_alloc_guest_fpstate() at creation; components that INIT clears: {_RESET}"),
    "lapic": ("KVM_GET_LAPIC", "kvm_lapic_reset() in arch/x86/kvm/lapic.c"),
    "msrs": ("KVM_GET_MSRS", f"kvm_arch_vcpu_create() and {_RESET}"),
    "mp_state": ("KVM_GET_MP_STATE", "kvm_arch_vcpu_create() and kvm_apic_accept_events()"),
    "nested": ("KVM_GET_NESTED_STATE", f"kvm_leave_nested(), called by {_RESET}"),
    "ssp": ("KVM_GET_ONE_REG", _VENDOR),
    "cpuid": ("KVM_GET_CPUID2", "kvm_update_cpuid_runtime() in arch/x86/kvm/cpuid.c, after CR4, XCR0, XSS or APIC_BASE"),
}


_WHEN = {
    "views": "in the guest where the host shows another value",
    "vmm-reset": "on a vCPU that was written back to RESET",
    "none": "in what is no event",
}


class UnknownName(ValueError):
    """Neither an item nor a commit that the tool knows."""


def explain(name: str) -> Iterator[str]:
    """Lines about an item, a result id (its item is explained), a commit or a place in the series. Raises UnknownName."""
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
    above, _, words = name.partition("/")
    parts = above.split(".", 3)
    item = parts[3] if len(parts) == 4 and parts[0] in (*EVENTS, "none") else above
    if item not in spec.ENTRIES and not item.startswith("msr.0x"):
        if words and len(parts) == 2:
            example = f"{above}.host.cr0/{words}"
            raise UnknownName(f"{name!r} is a case, which kvmtest run runs; explain one of its items: {example}")
        close = list(near(item, tuple(spec.ENTRIES)))
        hint = f"; did you mean {', '.join(close)}?" if close else "; kvmtest list shows all result ids"
        raise UnknownName(f"no item or listed commit {name!r}{hint}")
    yield from _item(item)


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
    for text, count in Counter(_where(d) for d in deviations.DEVIATIONS if d.commit == entry.commit).items():
        yield from _field("deviation", f"reads {text}" if count == 1 else f"{count} items read {text}")


def _place(place: str) -> str:
    version, _, number = place.partition("#")
    return f"patch {number} of the series' {version}" if number else f"the series' {version} alone"


def _sign(sign: Sign, name: str) -> Iterator[str]:
    for prefix in dict.fromkeys(".".join(id.split(".", 3)[:3]) for id in sign.ids):
        named = sign.items[0] if len(sign.items) == 1 else "{" + ", ".join(sign.items) + "}"
        yield from _field(name, f"{prefix}.{named}")
    if sign.old is not None:
        limits = (sign.backends, sign.target, sign.case, sign.vendor and f"{sign.vendor} guests", sign.view)
        where = ", ".join(filter(None, limits))
        yield from _wrapped(f"was {_value(sign.old)}{f' ({where})' if where else ''}")


def _value(value: int | str) -> str:
    return f"{value:#x}" if isinstance(value, int) else "what was planted" if value == KEPT else repr(value)


def _field(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, columns(), initial_indent=f"  {name:11} ", subsequent_indent=" " * 14)


def _departures(name: str) -> Iterator[str]:
    """The deviations of an item, and the commits that it shows."""
    for deviation in deviations.DEVIATIONS:
        if deviation.item == name:
            yield from _deviation(deviation)
    for entry in commits.ENTRIES:
        if any(name in (sign.ids if sign.check else sign.items) for sign in entry.signs):
            yield f"  commit      {entry.key}  KVM: {entry.subject}"


def _item(item: str) -> Iterator[str]:
    entry = spec.lookup(item)
    yield item
    placed = static_fields()
    section = placed[item].section if item in placed else {"msr": "msrs", "cpuid": "cpuid"}.get(item.partition(".")[0], "xsave")
    read, function = _KVM[section]
    index = f" {msr.index_of(item.removeprefix('msr.')):#x}" if section == "msrs" else ""
    yield f"  read by     {read}{index}"
    yield from _field("in KVM", function)
    if entry.hidden:
        yield "  hidden      no instruction reads it: the rule is that of the backend, not of the guest's CPUID vendor"
    planted = [f"{plant}={asked[item]:#x}" for plant in PLANTS if item in (asked := values(plant))]
    yield f"  planted     {' '.join(planted) or 'never: see the reason in the results'}"
    for event in EVENTS:
        intel, amd = entry.rule(event, "intel"), entry.rule(event, "amd")
        if intel == amd:
            yield from _rule(event, "", intel)
        else:
            yield from _rule(event, " Intel", intel)
            yield from _rule(event, " AMD", amd)
    yield from _departures(item)


def _said(rule: Rule) -> str:
    if rule.kind == "value":
        return f"{rule.value:#x}" if isinstance(rule.value, int) else str(rule.value)
    if rule.kind == "masked":
        keep = f", bits {rule.unchanged:#x} unchanged" if rule.unchanged else ""
        ignore = f", bits {rule.ignore:#x} not judged" if rule.ignore else ""
        return f"{rule.value:#x}{keep}{ignore}"
    if rule.kind == "one-of":
        return "one of " + ", ".join(f"{v:#x}" if isinstance(v, int) else v for v in rule.values)
    return str(rule.value) if rule.kind == "formula" else rule.kind


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, columns(), initial_indent=" " * 14, subsequent_indent=" " * 16)


def _rule(event: str, vendor: str, rule: Rule) -> Iterator[str]:
    yield f"  {(event.upper() + vendor):11} {_said(rule)}"
    for cite in rule.cite:
        yield from _wrapped(cite)
    if rule.note:
        yield from _wrapped(f"note: {rule.note}")


def _deviation(d: deviations.Deviation) -> Iterator[str]:
    yield from _field("deviation", f"{d.item} reads {_where(d)} [{d.commit}]")
    yield from _wrapped(d.why if d.kind == "fixed" else f"{d.kind}: {d.why}")


def _where(d: deviations.Deviation) -> str:
    """What a deviation shows, after what and where."""
    when = _WHEN.get(d.event, f"after {d.event.upper()}")
    limits: tuple[str, ...] = (
        d.target and f"{d.target} only",
        d.case and f"{d.case} only",
        d.vendor and f"guests of vendor {d.vendor} only",
        d.view and f"{d.view} view only",
        f"since {d.since[0]}.{d.since[1]}" if d.since > (0, 0) else "",
        f"before {d.until[0]}.{d.until[1]}" if d.until < deviations.FOREVER else "",
    )
    return ", ".join((f"{_value(d.observed)} {when}", f"on {d.backends or 'every backend'}", *filter(None, limits)))
