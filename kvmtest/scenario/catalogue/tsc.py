# SPDX-License-Identifier: GPL-2.0-only
"""The TSC, and the timer that waits for it, written by KVM_SET_MSRS: past, future and 0, and one before the other."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import LISTENS, boot, reported, turn
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_TSC, KVM_API, LINUX_USER_TSC, S_TSC, S_TSC_DEADLINE
from kvmtest.uapi.kvm import KVM_SET_MSRS
from kvmtest.x86 import msr

__all__ = ("SCENARIOS",)

_TSC = "msr.tsc"
#: Cycles: less than a second, below which KVM assumes that a VMM synchronises vCPUs; and more than any run takes.
_NEAR, _FAR = 1 << 29, 1 << 40
#: As far as a TSC can have counted by the time that it is read.
_SLACK = 1 << 38
#: So near to each other have to be the TSCs of vCPUs that were written one after the other.
_TOGETHER = 1 << 28
_WRITTEN = s.Expect(s.Past(_TSC, 0, _SLACK))
_CITE = (S_TSC, A_TSC, KVM_API)
_VECTOR, _DEADLINE = 0x60, 2 << 17
#: A TSC that no VM here comes to, and a deadline soon after it and shortly before it.
_THEN, _SOON = 1 << 45, 1 << 22
_THERE = s.Require(
    s.Is(_TSC, _THEN, ~(_SLACK - 1) & (1 << 64) - 1), "KVM has another TSC than what was written", skip=True,
)  # fmt: skip
#: Cycles that the guest gives the timer.
_LIMIT = 1 << 26


def _case(sequence: str, *steps: s.Step, fresh: bool = False, vendor: str = "intel", more: tuple[str, ...] = ()) -> Scenario:
    return Scenario("none", "set-msrs", sequence, steps, (*_CITE, *more), vendors=(vendor,), fresh=fresh)


def _far(who: s.Who = "target") -> s.Step:
    """A TSC beyond what a second or two makes."""
    return s.Count(_TSC, _FAR, who)


def _msrs(*pairs: tuple[str, int]) -> s.Step:
    """KVM_SET_MSRS of these, in this order."""
    entries = b"".join(msr.index_of(name).to_bytes(8, "little") + value.to_bytes(8, "little") for name, value in pairs)
    return s.Call(KVM_SET_MSRS, len(pairs).to_bytes(8, "little") + entries, kind="kvm_msrs")


def _deadline(sequence: str, came: int, *pairs: tuple[str, int]) -> Scenario:
    """A guest in TSC-deadline mode whose ``pairs`` are restored: an interrupt ``came``."""
    return Scenario(
        "none", "set-msrs", sequence,
        (
            LISTENS, s.Poke("ARG_LVT", _DEADLINE | _VECTOR), s.Poke("ARG_LIMIT", _LIMIT), *boot("bsp"), *turn(0), _msrs(*pairs),
            _THERE, *reported(came),
        ),
        (S_TSC_DEADLINE, KVM_API), "bsp", "guest", ("tsc-deadline",), Setup(leaves="deadline"), vendors=("intel",),
    )  # fmt: skip


_AT, _LATER = ("tsc", _THEN), ("tsc_deadline", _THEN + _SOON)

SCENARIOS = (
    # A VMM that restores a guest which has run for less than a second.
    _case("tsc-first-and-near", s.Count(_TSC, _NEAR), _WRITTEN, fresh=True, more=(LINUX_USER_TSC,)),
    _case(
        "tsc-first-and-near-of-other", s.Count(_TSC, _NEAR, "other"), s.Expect(s.Past(_TSC, 0, _SLACK), who="other"), fresh=True
    ),
    _case("tsc-first-and-far", _far(), _WRITTEN, fresh=True),
    _case("tsc-now", _far(), s.Count(_TSC, 0), _WRITTEN),
    _case("tsc-in-the-future", _far(), _far(), _WRITTEN),
    _case("tsc-in-the-past", _far(), _far(), s.Count(_TSC, -_FAR), _WRITTEN),
    _case("tsc-1", _far(), s.Count(_TSC, 1, from_0=True), _WRITTEN),
    _case("tsc-back-to-0", _far(), s.Count(_TSC, 0, from_0=True), _WRITTEN),
    _case("tsc-0-on-new-vcpu", s.Count(_TSC, 0, from_0=True), _WRITTEN, fresh=True),
    _case("tsc-largest-positive", s.Count(_TSC, (1 << 63) - 1, from_0=True), _WRITTEN),
    # A VMM's reset of the whole VM: all vCPUs begin together, those that are parked as well.
    *(
        _case(
            f"tsc-{value}-of-each", _far("other"), _far(), _far(), s.Count(_TSC, value, "other", from_0=True),
            s.Count(_TSC, value, from_0=True), s.Expect(s.Past(_TSC, -_TOGETHER, _TOGETHER, of="other")),
            vendor="amd",
        )
        for value in (0, 1)
    ),
    # The timer's deadline does not depend on the order.
    _deadline("tsc-before-tsc-deadline", 1, _AT, _LATER),
    _deadline("tsc-deadline-before-tsc", 1, _LATER, _AT),
    _deadline("tsc-deadline-in-the-past", 1, _AT, ("tsc_deadline", _THEN - _SOON)),
    _deadline("tsc-deadline-1", 1, _AT, ("tsc_deadline", 1)),
    _deadline("tsc-deadline-0", 0, _AT, ("tsc_deadline", 0)),
    _deadline("tsc-deadline-far", 0, _AT, ("tsc_deadline", 2 * _THEN)),
    _deadline("tsc-deadline-taken-back", 0, _AT, _LATER, ("tsc_deadline", 0)),
)  # fmt: skip
