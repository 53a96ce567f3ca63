# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest explain``: the rules of an item, where KVM keeps it, and the deviations that concern it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from kvmtest import spec
from kvmtest.checks import CHECKS, Check
from kvmtest.engine.plan import BROADCAST
from kvmtest.spec import deviations
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


class UnknownName(ValueError):
    """Neither an item nor a commit that the tool knows."""


def explain(name: str) -> Iterator[str]:
    """Lines about an item, a result id (its item is taken) or a commit. Raises UnknownName."""
    if listed := [d for d in deviations.DEVIATIONS if len(name) >= 7 and d.commit.startswith(name)]:
        yield f"{listed[0].commit}:"
        for deviation in listed:
            yield from _deviation(deviation)
        return
    if checks := [check for check in CHECKS.values() if name in (check.id, check.name)]:
        for check in checks:
            yield from _check(check)
        return
    parts = name.split(".", 3)
    item = parts[3] if len(parts) == 4 and parts[0] in (*EVENTS, "none") else name
    if item in BROADCAST:
        yield f"{item}: what a broadcast shows besides its targets' items"
        yield from (f"  cites    {cite}" for cite in BROADCAST[item])
        return
    if item not in spec.ENTRIES and not item.startswith("msr.0x"):
        near = [known for known in spec.ENTRIES if known.endswith(item) or known.startswith(item)]
        hint = f"; did you mean {', '.join(near[:5])}?" if near else "; kvmtest list shows all result ids"
        raise UnknownName(f"no item or listed commit {name!r}{hint}")
    yield from _item(item)


def _check(check: Check) -> Iterator[str]:
    yield check.id
    yield f"  expected    {check.expected}"
    for cite in check.cite:
        yield from _wrapped(cite)
    if check.undefined:
        yield from _wrapped(f"note: {check.undefined}")


def _item(item: str) -> Iterator[str]:
    entry = spec.lookup(item)
    yield item
    placed = static_fields()
    section = placed[item].section if item in placed else {"msr": "msrs", "cpuid": "cpuid"}.get(item.partition(".")[0], "xsave")
    read, function = _KVM[section]
    index = f" {msr.index_of(item.removeprefix('msr.')):#x}" if section == "msrs" else ""
    yield f"  read by     {read}{index}"
    yield f"  in KVM      {function}"
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
    for deviation in deviations.DEVIATIONS:
        if deviation.item == item:
            yield from _deviation(deviation)


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
    return textwrap.wrap(text, 100, initial_indent=" " * 14, subsequent_indent=" " * 16)


def _rule(event: str, vendor: str, rule: Rule) -> Iterator[str]:
    yield f"  {(event.upper() + vendor):11} {_said(rule)}"
    for cite in rule.cite:
        yield from _wrapped(cite)
    if rule.note:
        yield from _wrapped(f"note: {rule.note}")


def _deviation(d: deviations.Deviation) -> Iterator[str]:
    where = d.backends or "every backend"
    target = f", {d.target} only" if d.target else ""
    target += f", guests of vendor {d.vendor} only" if d.vendor else ""
    since = f" since {d.since[0]}.{d.since[1]}" if d.since > (0, 0) else ""
    until = f" before {d.until[0]}.{d.until[1]}" if d.until < (1 << 16, 0) else ""
    target += f", {d.view} view only" if d.view else ""
    when = "in the guest where the host shows another value" if d.event == "views" else f"after {d.event.upper()}"
    yield f"  deviation   {d.item} reads {d.observed:#x} {when}, on {where}{target}{since}{until} [{d.commit}]"
    yield from _wrapped(d.why)
