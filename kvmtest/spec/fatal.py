# SPDX-License-Identifier: GPL-2.0-only
"""Cases that kernels are known to die of: a cell has them last, so that all others are tried before."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.spec.commits.entry import Version

__all__ = ("FATAL", "Fatal", "fatal")


class Fatal(NamedTuple):
    """``case`` is a part of the case's name; kernels before ``until`` die of it on ``backend``, in the function that ``why`` names."""

    case: str
    backend: str
    until: Version
    why: str


FATAL = (
    Fatal(
        "in-svm-l2-with-nested-paging", "svm", (6, 1),
        "INIT frees what nested_svm_vmexit() copies from, and the MMU is L2's still: the next fault is handled as a nested one",
    ),
)  # fmt: skip


def fatal(case: str, backend: str, kernel: Version) -> bool:
    """Return True if this kernel is known to die of ``case``."""
    return any(one.case in case and one.backend == backend and kernel < one.until for one in FATAL)
