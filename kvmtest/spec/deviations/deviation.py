# SPDX-License-Identifier: GPL-2.0-only
"""The type of a deviation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kvmtest.model.host import NO_KVM
from kvmtest.spec.commits.entry import LESS, Version, meant

__all__ = ("FOREVER", "KINDS", "Deviation", "has")

#: ``admitted``: KVM's comments or documentation say so. ``fixed``: a bug that ``commit`` fixed. ``open``: neither.
KINDS = ("admitted", "fixed", "open")
FOREVER: Version = (1 << 16, 0)


class Deviation(NamedTuple):
    """``item`` shows ``observed`` after ``event`` on ``backends`` ("" is any) of kernels ``since`` to before ``until``.

    ``item`` may be the id of a check, whose text is then ``observed``. ``observed`` may be KEPT, exactly what was planted, that with
    more bits, or LESS, anything less than that. The event ``views`` is that the guest reads ``observed`` where the host's ioctls
    show another value, ``vmm-reset`` that a vCPU shows it which was written back to RESET by ioctls.

    ``view`` is "host" or "guest", ``target`` "bsp" or "ap", ``vendor`` the guest's CPUID vendor, ``case`` a part of the case's
    name, ``mode`` its local APIC's mode when the event came, where only one of them departs. ``commit`` is the upstream commit or the function of the kernel's source that admits
    it; ``why`` says it in a sentence. ``backports`` are kernels of which some stable releases have the fix: what they show
    decides. ``sometimes`` is whether the manuals' value is seen as well. ``without`` is a module parameter that has to be off.
    """

    item: str
    event: str
    observed: int | str
    commit: str
    why: str
    kind: str
    backends: str = ""
    target: str = ""
    vendor: str = ""
    view: str = ""
    since: Version = (0, 0)
    until: Version = FOREVER
    case: str = ""
    backports: tuple[Version, ...] = ()
    sometimes: bool = False
    mode: str = ""
    without: str = ""

    def value(self, planted: int | None) -> int | str | None:
        """Return the value that the item has if ``planted`` was there before the event; None if nothing was planted."""
        return meant(self.observed, planted)

    def explains(self, observed: int | str | None, planted: int | None) -> bool:
        """Return True if it explains the value ``observed`` where ``planted`` was there before the event."""
        if self.observed == LESS:
            return isinstance(observed, int) and planted is not None and observed < planted
        return self.value(planted) == observed

    def expected(self, kernel: Version) -> bool:
        """Return True if this kernel, which it names, always shows it."""
        return not self.sometimes and kernel not in self.backports

    def names(self, backend: str, kernel: Version) -> bool:
        """Return True if this kernel's KVM has it on this backend; an unknown kernel (0, 0) has no bug that was fixed."""
        if kernel == (0, 0) and self.until != FOREVER:
            return False
        return self._on(backend) and self.since <= kernel < self.until

    def brought(self, backend: str, kernel: Version) -> Deviation | None:
        """The same as a kernel from before it shows it, to which a distribution has brought the code that departs.

        None where this backend and kernel cannot be such. One from after it has the fix: if it shows this all the same, the fix is
        broken, which nothing excuses.
        """
        if not self._on(backend) or not (0, 0) < kernel < self.since:
            return None
        return self._replace(why=f"listed for {self.range}, seen on {_said(kernel)}: {self.why}", sometimes=True)

    @property
    def range(self) -> str:
        """The kernels that show it, in words."""
        if self.until == FOREVER:
            return f"{_said(self.since)} and later" if self.since > (0, 0) else "all kernels"
        major, minor = self.until
        if self.since == (0, 0):
            return f"kernels before {_said(self.until)}"
        return f"{_said(self.since)}-{major}.{minor - 1}" if minor else f"{_said(self.since)} to before {_said(self.until)}"

    def shows(self, parameters: Mapping[str, str]) -> bool:
        """Return True if a module with these ``parameters`` can show it."""
        return not self.without or parameters.get(self.without) in ("N", "0")

    def _on(self, backend: str) -> bool:
        named = self.backends.split()
        # Without KVM, KVM's behaviour explains nothing.
        return backend in named or not named and backend != NO_KVM

    def where(self, vendor: str, target: str, view: str, case: str, mode: str = "") -> bool:
        """Return True if it applies to this case."""
        return (
            self.vendor in ("", vendor)
            and self.target in ("", target)
            and self.view in ("", view)
            and self.mode in ("", mode)
            and has(case, self.case)
        )


def has(case: str, part: str) -> bool:
    """Return True if the name of a ``case`` has this ``part``. One that comes from a file has plant, state and variant in one word."""
    return part.replace(",", "-") in case.replace(",", "-")


def _said(kernel: Version) -> str:
    return f"{kernel[0]}.{kernel[1]}"
