# SPDX-License-Identifier: GPL-2.0-only
"""A finding in words, for every format: its title, the values, the cases, the rule, and what to do next."""

from __future__ import annotations

import re
import shlex
from typing import Any

from kvmtest.judge.findings import Finding
from kvmtest.model.host import Host
from kvmtest.model.verdict import Verdict
from kvmtest.report.show import difference, inline, printable, repeat
from kvmtest.spec.untouched import COUNTERS

__all__ = ("details", "explain", "fields", "summary", "title")

#: Items that a title names; more are counted.
_ITEMS = 4
_AFTER = {"none": "without an event"}
_MIGRATED = "by a migration"
#: The fields of an exit of KVM's emulator besides its name: the values show them.
_DUMPED = re.compile(r"(?<=KVM_INTERNAL_ERROR_EMULATION) ndata=.*")


def title(finding: Finding) -> str:
    """One line: which items do what after which event."""
    first = finding.example
    after = _AFTER.get(finding.event, f"after {finding.event.upper()}")
    if finding.triggers == ("migrate",):
        after = _MIGRATED
    if finding.symptom == "reason":
        return printable(f"{first.prefix}: {first.reason.split(chr(10), 1)[0]}")
    if finding.symptom == "behaves" or finding.symptom == "deviation" and isinstance(first.record.observed, str):
        sequence = first.of.case.get("sequence") if first.of.case else None
        where = f", {sequence}" if sequence else ""
        return printable(f"{first.prefix}.{first.item}{where}: {_DUMPED.sub('', str(first.observed))}")
    items = _items(finding.items)
    several = len(finding.items) > 1
    if finding.verdict is Verdict.FIXED:
        return f"{items} {'are' if several else 'is'} right {after}, though a deviation is listed"
    if finding.triggers == ("plant",):
        what = f"bits {finding.bits:#x} of {items}" if finding.symptom == "bits" else items
        return f"KVM accepts what is written to {what} and does not keep it"
    does = {
        "kept": f"{'keep' if several else 'keeps'} the planted value",
        "zeroed": f"{'are' if several else 'is'} zeroed",
        "bits": f"{'have' if several else 'has'} bits {finding.bits:#x} wrong",
        "disagree": f"{'read' if several else 'reads'} otherwise in the guest than by ioctl",
    }.get(finding.symptom)
    if does is None and several:  # each departs in its own way
        does = "are not as expected"
    elif does is None:
        does = "is wrong" if first.item in COUNTERS else f"is {inline(first.item, first.observed)}"
    return f"{items} {does} {after}"


def _items(items: tuple[str, ...]) -> str:
    if len(items) <= _ITEMS + 1:
        return ", ".join(items)
    return f"{', '.join(items[:_ITEMS])} and {len(items) - _ITEMS} more items"


def summary(finding: Finding) -> str:
    """The title, and in how many cases it shows: as other formats name the finding."""
    return f"{title(finding)} ({finding.cases} {'case' if finding.cases == 1 else 'cases'})"


def values(finding: Finding) -> list[str]:
    """The planted, expected and observed value of the first item, and the differing bits; empty if there are none."""
    first = finding.example
    if first.observed is None and first.expected is None:
        return []
    values = [("planted", first.planted), ("expected", first.expected), ("observed", first.observed)]
    shown = [f"{name} {inline(first.item, value)}" for name, value in values if value is not None]
    if differs := difference(first.record):
        shown.append(f"differs {differs}")
    # Only the first item's are at hand.
    return [f"{first.item}: {shown[0]}", *shown[1:]] if len(finding.items) > 1 else shown


def details(finding: Finding, host: Host) -> list[tuple[str, str]]:
    """Return the details of a finding by label, each in one printable line."""
    first = finding.example
    said: list[tuple[str, str]] = []
    if shown := values(finding):
        said.append(("values", ", ".join(shown)))
    # The reason of a plant that is lost is the title.
    if first.reason and finding.symptom != "reason" and (finding.triggers != ("plant",) or first.deviation):
        said.append(("because", printable(first.reason + (f" [{first.deviation}]" if first.deviation else ""))))
    if finding.where:
        said.append(("where", printable(finding.where)))
    if first.cite and finding.verdict is not Verdict.ERROR:
        said.append(("rule", printable("; ".join(first.cite))))
    said.append(("again", repeat(host, first.selector)))
    if shown_by := explain(finding):
        said.append(("explain", shown_by))
    return said


def explain(finding: Finding) -> str:
    """The command that explains its first item; "" for what no table has."""
    first = finding.example
    if first.view == "kernel":
        return ""
    what = first.id if finding.symptom == "behaves" else first.item
    return f"kvmtest explain {shlex.quote(printable(what))}"


def fields(finding: Finding) -> dict[str, Any]:
    """The finding as the ``end`` of ``kvmtest.results/2`` has it."""
    made: dict[str, Any] = {
        "title": title(finding),
        "verdict": finding.verdict,
        "event": finding.event,
        "symptom": finding.symptom,
        "effect": finding.effect,
        "items": list(finding.items),
        "triggers": list(finding.triggers),
        "views": list(finding.views),
        "cases": finding.cases,
        "where": finding.where,
        "example": finding.example.selector,
    }
    if finding.deviation is not None:
        made["deviation"] = finding.deviation
    if finding.kind:
        made["kind"] = finding.kind
    return made
