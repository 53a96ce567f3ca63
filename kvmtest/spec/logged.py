# SPDX-License-Identifier: GPL-2.0-only
"""Reports of their own faults that kernels are known to log while cases run, and cases that they die of.

A cell has the latter last, so that all others are tried before.
"""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.spec.commits.entry import Version

__all__ = ("ID", "LOGGED", "OOPS", "Logged", "fatal")

#: The ids of results of the kernel itself begin with it: `kvmtest.lab.ids`.
ID = "none.lab.kernel."
OOPS = "Oops in "


class Logged(NamedTuple):
    """Kernels before ``until`` log ``said`` on ``backend`` in cases whose names have ``case``, for the reason ``why``.

    ``said`` is ``WARNING in FUNCTION()`` or ``Oops in FUNCTION()``; ``commit`` fixed it.
    """

    said: str
    backend: str
    until: Version
    commit: str
    why: str
    case: str = ""

    @property
    def fatal(self) -> bool:
        """The kernel, or the process that runs the cases, does not survive it."""
        return self.said.startswith(OOPS)

    @property
    def ids(self) -> tuple[str, ...]:
        """The results that show it."""
        return (f"{ID}log", f"{ID}run") if self.fatal else (f"{ID}log",)


LOGGED = (
    Logged(
        f"{OOPS}copy_vmcb_control_area()", "svm", (6, 1), "ed129ec9057f",
        "kvm_vcpu_reset() clears HF_GUEST_MASK before anything leaves L2: INIT frees what nested_svm_vmexit() copies from, and the "
        "MMU is L2's still, so that the next fault is handled as a nested one",
        case="in-svm-l2-with-nested-paging",
    ),
    Logged(
        "WARNING in ept_save_pdptrs()", "vmx", (5, 14), "0aa1837533e5",
        "after an INIT out of PAE paging the MMU is that of before when KVM emulates the first instruction",
    ),
)  # fmt: skip


def fatal(case: str, backend: str, kernel: Version) -> bool:
    """Return True if this kernel is known to die of ``case``."""
    return any(one.fatal and one.case in case and one.backend == backend and kernel < one.until for one in LOGGED)
