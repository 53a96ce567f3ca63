# SPDX-License-Identifier: GPL-2.0-only
"""The result ids that only a lab gives: what the kernel under test said, or how it died."""

from __future__ import annotations

from fnmatch import fnmatchcase

__all__ = ("ID", "LAB", "wanted")

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


def wanted(selectors: tuple[str, ...]) -> list[str]:
    """The ids that one of ``selectors``, globs as those of the engine, takes; none where there are no selectors."""
    names = [ID + item for item in LAB]
    return [name for name in names if any(fnmatchcase(name, s) or fnmatchcase(name, s + ".*") for s in selectors)]
