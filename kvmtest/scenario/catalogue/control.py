# SPDX-License-Identifier: GPL-2.0-only
"""Bits of CR0 and CR4 that guest code sets and clears, what they do, and INIT over them."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.access import GP, READY, SAY, Access, cr0, cr4, load, makes, says, store
from kvmtest.scenario.catalogue.common import RESTARTS
from kvmtest.scenario.hypervisor import CR4, enter
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_CR0, A_CR4, A_PCID, A_T1, S_CONTROL, S_PCID, S_SMEP, S_T1, S_WP
from kvmtest.uapi.kvm import KVM_EXIT_SHUTDOWN

__all__ = ("SCENARIOS",)

#: Without CD and NW, which RESET leaves set.
_PE, _PG, _WP, _ET = 1 << 0, 1 << 31, 1 << 16, 1 << 4
_PSE, _PGE, _PCIDE, _SMEP = 1 << 4, 1 << 7, 1 << 17, 1 << 20
#: Page-directory entries of 4 MiB pages: the first one where it is, and once more, which a supervisor may only read with CR0.WP.
_PRESENT, _WRITE, _USER, _LARGE = 1 << 0, 1 << 1, 1 << 2, 1 << 7
_WORD, _ALIAS = 0x3000, 0x403000
_PROTECTED = _ET | _PE
_PAGED = _PROTECTED | _PG
_PF = 14
#: A page fault of a supervisor's write to a page that is present.
_DENIED = s.Word("FAULT", _PF << 24 | _WRITE | _PRESENT)
_INIT = (s.Observe(), s.Send("init"), RESTARTS, s.Observe())


def _tables(code: int = 0) -> s.Step:
    """CR3 is 0 after RESET."""
    entries = (_LARGE | _WRITE | _PRESENT | code, _LARGE | _PRESENT)
    return s.Poke(0, b"".join(entry.to_bytes(4, "little") for entry in entries))


def _case(
    sequence: str, cite: tuple[str, ...], steps: tuple[s.Step, ...], *needs: str, then: tuple[s.Step, ...] = _INIT
) -> Scenario:
    """Return the scenario in which guest code writes bits, and ``then`` an INIT comes."""
    return Scenario("init", "msi", sequence, (*steps, *then), cite, "bsp", "guest", needs)


def _makes(*accesses: Access, code: int = 0) -> tuple[s.Step, ...]:
    return (*makes(*accesses), _tables(code), s.Event("none", "control-register"))


def _written(value: int) -> tuple[Access, ...]:
    """Write ``value`` by the alias, and read it back."""
    return (store(_ALIAS, value), load(_WORD))


def _sets(value: int) -> tuple[s.Step, ...]:
    """The guest in 64-bit mode sets CR4, and reads it."""
    return (s.Poke("ARG_CR4", value), s.Expect(s.Word("VALUE", value), "cr4"), s.Until(READY))


#: The guest in 64-bit mode.
_LONG = (*enter("svm", (("TOPIC", "TOPIC_CR4"),)), s.Until(READY), s.Event("none", "control-register"))
_T1 = (S_T1, A_T1)

SCENARIOS = (
    # A page that may only be read: written to with CR0.WP clear, refused with it set, written to again.
    _case(
        "write-protect-toggled", (S_CONTROL, S_WP, A_CR0, *_T1),
        (
            *_makes(
                cr4(_PSE), cr0(_PAGED), *_written(1), cr0(_PAGED | _WP), *_written(2), cr0(_PAGED), *_written(3),
                cr0(_PAGED | _WP), SAY,
            ),
            *says(("memory", 1), _DENIED, ("memory", 1), ("memory", 3), READY),
        ),
    ),
    _case(
        "write-protect-without-paging", (S_CONTROL, A_CR0, *_T1),
        (
            *_makes(cr0(_PROTECTED | _WP), SAY, cr0(_PROTECTED), SAY, cr0(_PROTECTED | _WP), SAY), *says(READY),
            s.Expect(s.Is("cr0", _PROTECTED | _WP), "cr0"), *says(READY), s.Expect(s.Is("cr0", _PROTECTED), "cr0"), *says(READY),
        ),
    ),
    # A supervisor that executes pages of users does so no more.
    _case(
        "smep-on-user-pages", (S_SMEP, A_CR4),
        (
            *_makes(cr4(_PSE), cr0(_PAGED), SAY, cr4(_PSE | _SMEP), SAY, code=_USER), *says(READY),
            s.Expect(s.Exit(KVM_EXIT_SHUTDOWN), "runs"),
        ),
        "smep", then=(),
    )._replace(event="none", trigger="control-register"),
    _case(
        "smep-on-supervisor-pages", (S_SMEP, A_CR4, *_T1),
        (*_makes(cr4(_PSE), cr0(_PAGED), cr4(_PSE | _SMEP), SAY), *says(READY)), "smep",
    ),
    # PCIDs are of 64-bit mode, and CR3 has none when they are turned on.
    _case("pcide-in-protected-mode", (S_PCID, A_PCID), (*_makes(cr4(_PCIDE), SAY), *says(GP, READY)), "pcid"),
    _case(
        "pcide-toggled", (S_PCID, A_PCID, *_T1),
        (*_LONG, *(step for bits in (_PCIDE, 0, _PCIDE | _PGE, _PGE, _PCIDE) for step in _sets(CR4 | bits))), "pcid",
    ),
    _case(
        "pcide-with-pcid", (S_PCID, A_PCID),
        (
            *_LONG, s.Complete(), s.Set((("cr3", 0x8001),)), s.Poke("ARG_CR4", CR4 | _PCIDE),
            s.Expect(s.Words((s.Word("FAULT", 13 << 24, "exception {:#x}", mask=0xFF000000),)), "delivered"),
        ),
        "pcid",
    ),
)  # fmt: skip
