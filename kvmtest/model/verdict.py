# SPDX-License-Identifier: GPL-2.0-only
"""The seven verdicts, their one order of severity, and what each means for a run."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

__all__ = ("ATTENTION", "UNEXPECTED", "VERDICTS", "Verdict", "overall", "worst")


class Verdict(StrEnum):
    """The judgement of one item. The members stand in the order of severity, the worst first.

    A listed deviation that was not seen (``fixed``) is news, so it outranks one that was (``known``). A result that was not seen
    everywhere (``skip``) outranks ``pass``.
    """

    FAIL = "fail"
    ERROR = "error"
    FIXED = "fixed"
    KNOWN = "known"
    INFO = "info"
    SKIP = "skip"
    PASS = "pass"

    @property
    def severity(self) -> int:
        """0 for the worst."""
        return _SEVERITY[self]

    @property
    def unexpected(self) -> bool:
        """Makes the run exit with 1; ``known`` does so too under ``--strict``."""
        return self in UNEXPECTED

    @property
    def attention(self) -> bool:
        """Says something that a report must show."""
        return self in ATTENTION

    @property
    def judged(self) -> bool:
        """An observed value was compared with a rule."""
        return self in _JUDGED

    @property
    def departs(self) -> bool:
        """KVM is not as the manuals say, or could not be asked."""
        return self in _DEPARTS


#: The worst first: also the order of columns.
VERDICTS = tuple(Verdict)
UNEXPECTED = frozenset((Verdict.FAIL, Verdict.ERROR))
ATTENTION = frozenset((Verdict.FAIL, Verdict.ERROR, Verdict.FIXED, Verdict.KNOWN))
_JUDGED = frozenset((Verdict.FAIL, Verdict.FIXED, Verdict.KNOWN, Verdict.PASS))
_DEPARTS = frozenset((Verdict.FAIL, Verdict.ERROR, Verdict.KNOWN))
_SEVERITY = {verdict: rank for rank, verdict in enumerate(Verdict)}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The most severe of ``verdicts``: what holds where each of them has to be good. Raises ValueError for none."""
    return min(verdicts, key=_SEVERITY.__getitem__)


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of a test that was run in several ways: the worst of those judged or failed.

    What could not be tried in one way does not undo what was shown in another. Raises ValueError for none.
    """
    found = set(verdicts)
    return worst(found - {Verdict.INFO, Verdict.SKIP} or found)
