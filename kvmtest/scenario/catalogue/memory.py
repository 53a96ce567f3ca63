# SPDX-License-Identifier: GPL-2.0-only
"""INIT leaves RAM alone, and no translation of before it."""

from __future__ import annotations

import random

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import RESTARTS, boot
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_CACHES, A_T1, A_TLB, S_OVERVIEW, S_T1, S_T22

__all__ = ("SCENARIOS",)

_DICE = random.Random(1)
#: Slot, address and contents of RAM in as many slots: at 0, below and above 1 MiB, and above 4 GiB.
_SLOTS = tuple((slot, gpa, _DICE.randbytes(0x4000)) for slot, gpa in ((2, 0), (3, 0x80000), (4, 0x100000), (5, 1 << 32)))
#: The RAM that the guest adds up: after its own first pages, and near the end of what real mode reaches.
_PARTS = tuple((gpa, _DICE.randbytes(0x2000)) for gpa in (0x2000, 0x9E000))

_PRESENT, _GLOBAL, _CR4_PGE = 3, 1 << 8, 1 << 7
_PAGE_TABLE, _OLD, _NEW = 0x3000, 0x20000, 0x21000
_OLD_WORD, _NEW_WORD = 0x0A0A0A0A, 0x0B0B0B0B
_STALE = (
    "not testable here: even without INIT, this host shows no translation that was changed without a flush;"
    " where KVM shadows page tables (kvm_amd.npt=0, kvm_intel.ept=0) it does"
)
_RAM = (S_T1, S_OVERVIEW, A_CACHES)


def _sum(data: bytes) -> int:
    """Compute the guest's checksum of these bytes."""
    total = 0
    for i in range(0, len(data), 4):
        total = (total << 1 & 0xFFFFFFFF | total >> 31) + int.from_bytes(data[i : i + 4], "little") & 0xFFFFFFFF
    return total


def _sums(after: bool) -> tuple[s.Step, ...]:
    """The words of the guest from one READY to the next: its checksum of each part must be right."""
    steps: list[s.Step] = []
    for gpa, data in _PARTS:
        sum_ = s.Word("VALUE", _sum(data))
        look = s.Expect(sum_, "memory", says=((_sum(data), "what was written"),)) if after else s.Until(sum_)
        steps += (s.Poke("ARG_FIRST", gpa >> 4), s.Poke("ARG_LAST", gpa + len(data) >> 4), look, s.Until(s.Word("READY")))
    return tuple(steps)


SCENARIOS = (
    Scenario(
        "init", "msi", "ram-of-all-kinds",
        (
            *(s.Fill(gpa, data, slot) for slot, gpa, data in _SLOTS), s.Send("init"), s.Settle(),
            *(s.Expect(s.Filled(gpa, data)) for _, gpa, data in _SLOTS),
        ),
        _RAM,
    ),
    Scenario(
        "init", "msi", "ram-summed-up",
        (
            s.Load("behaviour", (("TOPIC", "TOPIC_SUM"),)), *(s.Poke(gpa, data) for gpa, data in _PARTS), *boot("bsp"),
            *_sums(after=False), s.Observe(), s.Send("init"), RESTARTS, s.Observe(), s.Until(s.Word("READY")),
            *_sums(after=True),
        ),
        _RAM, "bsp", "guest",
    ),
    Scenario(
        "init", "msi", "page-remapped",
        (
            s.Load("behaviour", (("TOPIC", "TOPIC_TLB"), ("ARG_CR4", _CR4_PGE), ("ARG_PTE", _NEW | _GLOBAL | _PRESENT))),
            # One page directory, at 0: CR3 is 0 after INIT, and a write to it would flush. Its table maps pages to themselves.
            s.Poke(0, _PAGE_TABLE | _PRESENT),
            s.Poke(_PAGE_TABLE, b"".join((page << 12 | _PRESENT).to_bytes(4, "little") for page in range(160))),
            s.Poke("PTE", _OLD | _GLOBAL | _PRESENT), s.Poke(_OLD, _OLD_WORD), s.Poke(_NEW, _NEW_WORD),
            s.Until(s.Word("RESET")),
            s.Require(s.Word("VALUE"), "this KVM does not let the guest turn 32-bit paging on", skip=True),
            s.Require(s.Is("rax", _OLD_WORD), "the guest does not read the page that its page table maps"),
            s.Until(s.Word("READY")), s.Require(s.Word("VALUE", _OLD_WORD), _STALE, skip=True),
            s.Poke("ARG_CR4", 0), s.Observe(), s.Send("init"), RESTARTS, s.Observe(),
            # The SDM's text and an erratum of Intel's say that INIT invalidates; of the APM's two places neither outweighs.
            s.Expect(
                s.Word("VALUE", _NEW_WORD), "memory", says=((_OLD_WORD, "the old page"), (_NEW_WORD, "the new page")),
                undefined="the APM calls the TLB not modified in one place and invalidated in another", vendor="amd",
            ),
        ),
        (S_OVERVIEW, S_T22, A_TLB, A_T1), "bsp", "guest",
    ),
)  # fmt: skip
