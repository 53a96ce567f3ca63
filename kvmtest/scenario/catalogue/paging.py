# SPDX-License-Identifier: GPL-2.0-only
"""INIT out of 64-bit mode leaves no paging: guest code sees memory as real-address mode has it, then by the next tables alone."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import start
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_T1, S_T1

__all__ = ("LONG", "NEW", "NEW_TABLES", "OLD", "OLD_TABLES", "REAL", "SAYS", "SCENARIOS", "tables")

_PAGE, _PRESENT, _WRITE = 0x1000, 1, 2
_PAE, _LME = 1 << 5, 1 << 8
#: The addresses of the tables, and of the pages that they map at LINEAR; each page has its own number in its first word.
OLD_TABLES, NEW_TABLES = 0x10000, 0x18000
OLD, NEW, REAL = 0x20000, 0x21000, 0x80000
_WRITTEN = 0x5A5A5A5A
SAYS = ((OLD, "the page of other tables"), (NEW, "the page of its tables"), (REAL, "the page at the address itself"))


class _Mode(NamedTuple):
    """A paging mode: CR4, EFER, bytes of an entry, and levels of tables."""

    cr4: int
    efer: int
    entry: int
    levels: int


LONG = _Mode(_PAE, _LME, 8, 4)


def tables(at: int, mode: _Mode, page: int) -> bytes:
    """Tables that map RAM's first 2 MiB to itself, but ``page`` at LINEAR."""

    def entry(gpa: int, flags: int) -> bytes:
        return (gpa | flags).to_bytes(mode.entry, "little")

    made = b""
    for level in range(mode.levels - 1):
        # PAE's page-directory-pointer entries have no R/W bit.
        pae_top = mode.levels == 3 and level == 0
        made += entry(at + (level + 1) * _PAGE, _PRESENT if pae_top else _PRESENT | _WRITE).ljust(_PAGE, b"\0")
    for number in range(512):
        made += entry(page if number * _PAGE == REAL else number * _PAGE, _PRESENT | _WRITE)
    return made


def _looks(at: int, mode: _Mode, page: int, *then: s.Step, judged: bool = False) -> tuple[s.Step, ...]:
    """INIT and SIPI; the guest reads and writes LINEAR in real-address mode, and ``then`` reads it with paging."""
    words = {"ARG_CR3": at, "ARG_CR4": mode.cr4, "ARG_EFER": mode.efer, "ARG_WORD": _WRITTEN}
    written = ((OLD, 0), (NEW, 0), (REAL, _WRITTEN))
    sent = (s.Send("init", judged=judged), s.Settle())
    return (
        s.Poke(at, tables(at, mode, page)), *(s.Poke(word, value) for word, value in words.items()),
        *(s.Poke(gpa, gpa.to_bytes(8, "little")) for gpa in (OLD, NEW, REAL)),
        *((s.Observe(), *sent, s.Observe()) if judged else sent), *start(),
        s.Expect(s.Word("VALUE", REAL), "memory", says=SAYS), s.Until(s.Word("READY")),
        *(s.Expect(s.Filled(gpa + 4, word.to_bytes(4, "little"))) for gpa, word in written),
        *(then or (s.Expect(s.Word("VALUE", page), "memory", says=SAYS),)), s.Until(s.Word("READY")),
    )  # fmt: skip


def _scenario(sequence: str, mode: _Mode, name: str) -> Scenario:
    """Out of RESET, which shows that this KVM has the ``mode``, out of the mode, and out of 64-bit mode."""
    turned_on = s.Require(s.Word("VALUE"), f"this KVM does not let a vCPU turn {name} paging on", skip=True)
    steps = (
        s.Load("behaviour", (("TOPIC", "TOPIC_PAGING"),)),
        *_looks(NEW_TABLES, mode, NEW, turned_on, s.Expect(s.Is("rax", NEW, 0xFFFFFFFF), "memory", says=SAYS)),
        *_looks(OLD_TABLES, LONG, OLD), *_looks(NEW_TABLES, mode, NEW, judged=True),
    )  # fmt: skip
    return Scenario("init", "msi", sequence, steps, (S_T1, A_T1), view="guest")


SCENARIOS = (
    _scenario("then-32-bit-paging", _Mode(0, 0, 4, 2), "32-bit"),
    _scenario("then-pae-paging", _Mode(_PAE, 0, 8, 3), "PAE"),
    _scenario("then-4-level-paging", LONG, "4-level"),
)
