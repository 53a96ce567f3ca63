# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the manuals for every item after RESET, INIT and SIPI."""

from __future__ import annotations

from kvmtest.spec import (
    control,
    cpuid,
    debug,
    fpu,
    gpr,
    hyperv,
    lapic,
    msr_amd,
    msr_memory,
    msr_system,
    msr_time,
    paravirt,
    pending,
    segment,
)
from kvmtest.spec.catchall import NAMED, catch_all, synthetic
from kvmtest.spec.migrated import rule as migrated
from kvmtest.spec.rule import EVENTS, VENDORS, Entry, Rule, of_svm_shutdown
from kvmtest.spec.untouched import rule as untouched
from kvmtest.x86.msr import MSRS, index_of

__all__ = ("ENTRIES", "EVENTS", "SYNTHETIC", "VENDORS", "Entry", "Rule", "document", "lookup", "rule_for")

_TOPICS = (gpr, segment, control, cpuid, debug, fpu, lapic, msr_memory, msr_system, msr_time, msr_amd, paravirt, hyperv, pending)
_BACKEND_VENDOR = {"vmx": "intel", "svm": "amd"}
_SHUTDOWN = "what a shutdown leaves is described of VT-x and of KVM's SVM module only"
#: MSRs of KVM's and Hyper-V's own, outside the ranges that CPUs use.
_KVM_OLD = (0x11, 0x12)
_KVM_FIRST, _KVM_LAST = 0x4B564D00, 0x4B564DFF
_HYPERV_FIRST, _HYPERV_LAST = 0x40000000, 0x4000FFFF


def _hyperv(index: int) -> bool:
    return _HYPERV_FIRST <= index <= _HYPERV_LAST


def _synthetic(index: int) -> bool:
    return index in _KVM_OLD or _KVM_FIRST <= index <= _KVM_LAST or _hyperv(index)


def _unlisted(item: str) -> Entry:
    """The entry of an MSR that no topic lists."""
    index = index_of(item.removeprefix("msr."))
    return synthetic(item, hyperv=_hyperv(index)) if _synthetic(index) else catch_all(item, index)


def _collect() -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for topic in _TOPICS:
        for e in topic.RULES:
            if e.item in entries:
                raise AssertionError(f"{e.item} has two entries")
            entries[e.item] = e
    for msr in MSRS:
        item = f"msr.{msr.name}"
        if item not in entries:
            if msr.name not in NAMED and not _synthetic(msr.index):
                raise AssertionError(f"{item} has no rule: it wants a line in a topic, or its name in catchall.NAMED")
            entries[item] = _unlisted(item)
    return entries


#: Every named item's rules.
ENTRIES: dict[str, Entry] = _collect()
#: MSRs of KVM's and Hyper-V's own: worth a result only where the host shows them.
SYNTHETIC = frozenset(
    item for item in ENTRIES if item.startswith("msr.") and _synthetic(index_of(item.removeprefix("msr.")))
)


def lookup(item: str) -> Entry:
    """The rules of ``item``; KeyError for an unknown one.

    An MSR without a name (``msr.0x1234``) gets the rules of the manuals' catch-all rows.
    """
    found = ENTRIES.get(item)
    if found is None:
        if not item.startswith("msr.0x"):
            raise KeyError(item)
        try:
            found = _unlisted(item)
        except ValueError:
            raise KeyError(item) from None
    return found


def _union(intel: Rule, amd: Rule) -> Rule:
    """Either rule: what a vendor module that is neither VMX nor SVM may show."""
    cite = tuple(dict.fromkeys(intel.cite + amd.cite))
    if _same(intel, amd):
        return intel._replace(cite=cite)
    values: dict[int | str, None] = {}
    for rule in (intel, amd):
        if rule.kind == "value" and rule.value is not None:
            values[rule.value] = None
        elif rule.kind == "one-of":
            values.update(dict.fromkeys(rule.values))
        else:
            note = "the vendors differ, and no manual describes what this vendor module keeps"
            return Rule("undefined", cite=cite, note=note)
    return Rule("one-of", values=tuple(values), cite=cite, note="either vendor's")


def rule_for(item: str, event: str, vendor: str, backend: str) -> Rule:
    """The rule of ``item`` after ``event`` for a guest whose CPUID says ``vendor`` ("intel" or "amd").

    Hidden state follows the ``backend``, in whose hardware's format it is kept: "vmx" has Intel's rule, "svm" AMD's,
    and any other either one. After the event "none" everything is as it was, and after "migrate" as it was saved.
    """
    if event == "migrate":
        return migrated(item)
    if event == "none":
        return untouched(item)
    found = lookup(item)
    hardware = _BACKEND_VENDOR.get(backend)
    if event == "shutdown":
        if not hardware:
            return Rule("undefined", cite=found.rule(event, "amd").cite, note=_SHUTDOWN)
        if hardware == "intel" or found.own_shutdown:
            return found.rule(event, hardware)
        return of_svm_shutdown(item, rule_for(item, "init", vendor, backend))
    if not found.hidden:
        return found.rule(event, vendor)
    return found.rule(event, hardware) if hardware else _union(*found.rules[event])


def _same(a: Rule, b: Rule) -> bool:
    """Return True if two rules are the same but for their citations."""
    return a._replace(cite=()) == b._replace(cite=())


def _text(v: int | str) -> str:
    return v if isinstance(v, str) else f"{v:#x}"


def _record(item: str, event: str, vendor: str, rule: Rule) -> dict[str, object]:
    record: dict[str, object] = {"item": item, "event": event, "vendor": vendor, "rule": rule.kind}
    if rule.value is not None:
        record["value"] = _text(rule.value)
    if rule.values:
        record["values"] = [_text(v) for v in rule.values]
    if rule.unchanged:
        record["unchanged"] = _text(rule.unchanged)
    if rule.ignore:
        record["ignore"] = _text(rule.ignore)
    record["cite"] = list(rule.cite)
    if rule.note:
        record["note"] = rule.note
    return record


def document() -> dict[str, object]:
    """All rules as a ``kvmtest.spec/1`` document: a record for each item and event, or two where the vendors differ."""
    records = []
    for item, e in ENTRIES.items():
        for event in EVENTS:
            pair = e.rules[event]
            if _same(*pair):
                cite = tuple(dict.fromkeys(pair.intel.cite + pair.amd.cite))
                records.append(_record(item, event, "any", pair.intel._replace(cite=cite)))
            else:
                records.extend(_record(item, event, vendor, e.rule(event, vendor)) for vendor in VENDORS)
    return {"schema": "kvmtest.spec/1", "rules": records}
