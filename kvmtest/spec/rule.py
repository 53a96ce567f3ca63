# SPDX-License-Identifier: GPL-2.0-only
"""Rules: the statement of a manual about one item after one event."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.spec.cite import A_SHUTDOWN_INTERCEPT, LINUX_SHUTDOWN, S_DF, S_VMX_SAVING, SDM_SIPI

__all__ = (
    "EVENTS",
    "VENDORS",
    "Entry",
    "Rule",
    "Vendored",
    "cited",
    "entry",
    "formula",
    "masked",
    "of_svm_shutdown",
    "one_of",
    "unchanged",
    "undefined",
    "value",
    "vendors",
)

#: MSRs that live in the VMCB's save area, which is undefined after a SHUTDOWN intercept (APM vol. 2, VMCB Layout).
_IN_VMCB = frozenset(
    f"msr.{name}"
    for name in (
        *("star", "lstar", "cstar", "sfmask", "kernel_gs_base", "sysenter_cs", "sysenter_esp", "sysenter_eip", "pat"),
        *("debugctl", "lastbranchfromip", "lastbranchtoip", "lastintfromip", "lastinttoip", "spec_ctrl", "u_cet", "s_cet"),
        *("pl0_ssp", "pl1_ssp", "pl2_ssp", "pl3_ssp", "int_ssp_tab"),
    )
)
_M64, _RF = (1 << 64) - 1, 1 << 16
EVENTS = ("reset", "init", "sipi", "shutdown")
VENDORS = ("intel", "amd")


class Rule(NamedTuple):
    """One rule, not yet tied to an item.

    ``kind`` is one of ``value``, ``unchanged``, ``masked``, ``formula``, ``one-of`` and ``undefined``. In a ``masked``
    rule the bits set in ``unchanged`` keep their planted value, those in ``ignore`` are not judged, the rest equal
    ``value``. ``mp_state`` alone has names instead of integers. A formula is named, and resolved by the engine from the
    case.
    """

    kind: str
    value: int | str | None = None
    values: tuple[int | str, ...] = ()
    unchanged: int = 0
    ignore: int = 0
    cite: tuple[str, ...] = ()
    note: str = ""


class Vendored(NamedTuple):
    """A rule that differs by CPU vendor."""

    intel: Rule
    amd: Rule


class Entry(NamedTuple):
    """All rules of one item.

    ``hidden`` marks state in the backend's format, chiefly descriptor-cache attributes, which no instruction reads:
    there the rule follows the backend (vmx: Intel's, svm: AMD's, another: either one's), not the guest's CPUID vendor.
    ``own_shutdown`` is whether a shutdown has a rule of its own, and not the one that follows from the backend.
    """

    item: str
    rules: dict[str, Vendored]
    rows: tuple[int, ...]
    hidden: bool = False
    own_shutdown: bool = False

    def rule(self, event: str, vendor: str) -> Rule:
        """The rule for ``event`` (one of EVENTS) and ``vendor`` (one of VENDORS)."""
        pair = self.rules[event]
        return pair.intel if vendor == "intel" else pair.amd


def value(v: int | str, note: str = "") -> Rule:
    """The item equals ``v``."""
    return Rule("value", value=v, note=note)


def unchanged(note: str = "") -> Rule:
    """The item keeps its value from before the event."""
    return Rule("unchanged", note=note)


def masked(v: int, *, unchanged: int = 0, ignore: int = 0, note: str = "") -> Rule:
    """Bits of ``unchanged`` keep their value, bits of ``ignore`` are not judged, the rest equals ``v``."""
    return Rule("masked", value=v, unchanged=unchanged, ignore=ignore, note=note)


def formula(name: str, note: str = "") -> Rule:
    """The item equals what the named formula gives for the case, e.g. ``CPUID.1:EAX``."""
    return Rule("formula", value=name, note=note)


def one_of(*values: int | str, note: str = "") -> Rule:
    """The item equals one of ``values``."""
    return Rule("one-of", values=values, note=note)


def undefined(note: str) -> Rule:
    """The manuals say undefined or contradict each other; ``note`` says which."""
    return Rule("undefined", note=note)


def cited(rule: Rule, *cite: str) -> Rule:
    """``rule`` with its own citations instead of its entry's."""
    return rule._replace(cite=cite)


def _at_fault(item: str, sipi: Rule | Vendored) -> Rule:
    """Return the rule for the value of ``item`` that VT-x saves at a triple fault. Counters keep counting, as across a SIPI."""
    if item == "rflags":
        return masked(0, unchanged=_M64 & ~_RF, ignore=_RF, note="RF is set in what a fault saves")
    if isinstance(sipi, Rule) and (sipi.kind == "undefined" or sipi.value == "TSC>="):
        return sipi
    return unchanged()


def of_svm_shutdown(item: str, init: Rule) -> Rule:
    """Return KVM's promise for ``item`` after a shutdown with SVM; ``init`` is the rule after INIT."""
    if item in _IN_VMCB and init.kind == "unchanged":
        init = init._replace(kind="undefined", note="INIT leaves it, and the VMCB that holds it is undefined after a shutdown")
    return init._replace(cite=(A_SHUTDOWN_INTERCEPT, LINUX_SHUTDOWN, *init.cite))


def vendors(*, intel: Rule, amd: Rule) -> Vendored:
    """A rule that differs by CPU vendor."""
    return Vendored(intel, amd)


def entry(
    item: str,
    *,
    row: int | tuple[int, ...],
    reset: Rule | Vendored,
    init: Rule | Vendored,
    sipi: Rule | Vendored | None = None,
    shutdown: Rule | None = None,
    cite: tuple[str, ...],
    hidden: bool = False,
) -> Entry:
    """The rules of ``item``: one line in a table.

    Without ``sipi`` a SIPI leaves the item alone. Without ``shutdown`` a shutdown does so too on VT-x, where the VM exit saves
    the state at the fault; with SVM the saved state is undefined, and KVM promises that of an INIT instead.
    """

    def pair(rule: Rule | Vendored) -> Vendored:
        both = rule if isinstance(rule, Vendored) else Vendored(rule, rule)
        return Vendored(*(r if r.cite else r._replace(cite=cite) for r in both))

    sipi = sipi or cited(unchanged(), SDM_SIPI)
    inits = pair(init)
    if shutdown:
        shutdowns = pair(shutdown)
    else:
        shutdowns = Vendored(cited(_at_fault(item, sipi), S_DF, S_VMX_SAVING), of_svm_shutdown(item, inits.amd))
    rules = {"reset": pair(reset), "init": inits, "sipi": pair(sipi), "shutdown": shutdowns}
    return Entry(item, rules, (row,) if isinstance(row, int) else row, hidden, bool(shutdown))
