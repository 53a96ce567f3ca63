# SPDX-License-Identifier: GPL-2.0-only
"""Results that only the lab has: the kernel's log, and how the guest died."""

from __future__ import annotations

from kvmtest.model.case import Case
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.select import parse
from kvmtest.model.verdict import Verdict

__all__ = ("ID", "LAB", "of_kernel", "wanted")

ID = "none.lab.kernel."
#: Item -> what it is, and how it comes to be.
LAB = {
    "log": (
        "what the kernel under test logs while the cases run: WARN, BUG, Oops, KASAN and UBSAN reports, a panic",
        "fail for each report, with its lines and the case that ran; one pass where there was none",
    ),
    "boot": (
        "the kernel under test came up, loaded KVM, and found /dev/kvm",
        "error where it did not, with the end of its log and of its console; otherwise there is no such result",
    ),
    "run": (
        "the kernel under test lived to the end of the run",
        "error where it did not, with the case it died in and how many were left; otherwise there is no such result",
    ),
}
_CITE = ("a kernel has nothing to warn of while it is used by its documented interface",)


def of_kernel(item: str, verdict: Verdict, reason: str, case: Case | None = None) -> Observation:
    """The observation of an item of `LAB`, while ``case`` ran."""
    record = Record(item, verdict, reason=reason, cite=_CITE if item == "log" else ())
    return Observation(case, "none", "lab", "kernel", (Block((record,)),))


def wanted(selectors: tuple[str, ...]) -> list[str]:
    """The ids that one of ``selectors`` matches, as an id or a bare item; none if there are no selectors."""
    asked = [one for selector in selectors for one in parse(selector) if not one.case]
    return [ID + item for item in LAB if any(one.id_matches(ID + item) for one in asked)]
