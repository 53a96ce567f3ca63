# SPDX-License-Identifier: GPL-2.0-only
"""INIT leaves RAM alone, and no translation of before it."""

from __future__ import annotations

import random

from kvmtest.checks.check import Check, Observation, Stopped, Subject, Untestable
from kvmtest.checks.stage import Stage
from kvmtest.guests import behaviour
from kvmtest.kvm import GuestMemory
from kvmtest.spec.cite import A_CACHES, A_T1, A_TLB, S_OVERVIEW, S_T1, S_T22
from kvmtest.triggers import msi

__all__ = ("CHECKS",)

_PAGE = 0x1000
#: The RAM of the first check, in as many slots: at 0, below and above 1 MiB, and above 4 GiB.
_SLOTS = ((2, 0, 0x10000), (3, 0x80000, 0x8000), (4, 0x100000, 0x10000), (5, 1 << 32, 0x4000))
#: What the guest of the other sums up: all but its own first pages, and the beginning of what real mode reaches last.
_RAM_SIZE, _FIRST = 0x8000, 0x2000
_HIGH_SLOT, _HIGH, _HIGH_SIZE = 6, 0x90000, 0x2000

_PRESENT, _GLOBAL, _CR4_PGE = 3, 1 << 8, 1 << 7
_PAGE_TABLE, _OLD, _NEW = 0x3000, 0x20000, 0x21000
_OLD_WORD, _NEW_WORD = 0x0A0A0A0A, 0x0B0B0B0B


def _different(memory: GuestMemory, before: bytes) -> list[int]:
    now = memory.read(memory.gpa, memory.size)
    return [] if now == before else [memory.gpa + i for i in range(memory.size) if now[i] != before[i]]


def _ram_by_host(subject: Subject) -> Observation:
    vcpu, dice = subject.vcpu, random.Random(subject.effort.seed)
    patterns = []
    for slot, gpa, size in _SLOTS:
        memory = vcpu.vm.add_memory(slot, gpa, size)
        pattern = dice.randbytes(size)
        memory.write(gpa, pattern)
        patterns.append((memory, pattern))
    _init(subject)
    changed = [address for memory, pattern in patterns for address in _different(memory, pattern)]
    if changed:
        return Observation(f"{len(changed)} bytes changed", f"the first at {changed[0]:#x}")
    return Observation("unchanged")


def _init(subject: Subject) -> None:
    msi.init(subject.vcpu)
    subject.vcpu.get_mp_state()


def _sum(data: bytes) -> int:
    """What the guest makes of these bytes."""
    total = 0
    for i in range(0, len(data), 4):
        total = (total << 1 & 0xFFFFFFFF | total >> 31) + int.from_bytes(data[i : i + 4], "little") & 0xFFFFFFFF
    return total


def _ram_by_guest(subject: Subject) -> Observation:
    dice = random.Random(subject.effort.seed)
    stage = Stage(subject, behaviour.TOPIC_SUM, _RAM_SIZE)
    high = subject.vcpu.vm.add_memory(_HIGH_SLOT, _HIGH, _HIGH_SIZE)
    parts = ((stage.ram, _FIRST, _RAM_SIZE - _FIRST), (high, _HIGH, _HIGH_SIZE))
    wanted = []
    for memory, gpa, size in parts:
        pattern = dice.randbytes(size)
        memory.write(gpa, pattern)
        wanted.append(_sum(pattern))
    before = [_sum_up(stage, gpa, size, first=gpa == _FIRST) for _, gpa, size in parts]
    if before != wanted:
        raise Stopped("the guest's sums before INIT are not those of what is there")
    stage.expect(behaviour.PORT_READY)
    stage.set(ARG_FIRST=_FIRST >> 4, ARG_LAST=_RAM_SIZE >> 4)
    msi.init(subject.vcpu)
    stage.expect(behaviour.PORT_RESET)
    after = [_sum_up(stage, gpa, size) for _, gpa, size in parts]
    return Observation("unchanged" if after == before else "changed", f"sums {[hex(v) for v in after]}")


def _sum_up(stage: Stage, gpa: int, size: int, first: bool = False) -> int:
    if first:
        stage.boot()
    else:
        stage.expect(behaviour.PORT_READY)
    stage.set(ARG_FIRST=gpa >> 4, ARG_LAST=gpa + size >> 4)
    return stage.expect(behaviour.PORT_VALUE)


def _tlb(subject: Subject) -> str | Observation:
    stage = Stage(subject, behaviour.TOPIC_TLB)
    ram = stage.ram
    # One page directory, at 0, since CR3 is 0 after INIT and a write to it would flush; the table maps each page to itself.
    ram.write_int(0, _PAGE_TABLE | _PRESENT, 4)
    for i in range(_PAGE_TABLE // 4, _PAGE_TABLE // 4 + (ram.size >> 12)):
        ram.write_int(4 * i, (4 * i - _PAGE_TABLE) // 4 << 12 | _PRESENT, 4)
    ram.write_int(behaviour.PTE, _OLD | _GLOBAL | _PRESENT, 4)
    ram.write_int(_OLD, _OLD_WORD, 4)
    ram.write_int(_NEW, _NEW_WORD, 4)
    stage.set(ARG_CR4=_CR4_PGE, ARG_PTE=_NEW | _GLOBAL | _PRESENT)
    stage.expect(behaviour.PORT_RESET)
    port, word = stage.word()
    if port == behaviour.PORT_FAULT:
        raise Untestable("this KVM does not let the guest turn 32-bit paging on: MOV to CR0 raises an exception")
    if word != _OLD_WORD:
        raise Stopped("the guest does not read the page that its page table maps")
    stage.expect(behaviour.PORT_READY)
    if not _stale(stage.expect(behaviour.PORT_VALUE)):
        raise Untestable(
            "nothing to tell: even without INIT, this host shows no translation that was changed without a flush;"
            " where KVM shadows page tables (kvm_amd.npt=0, kvm_intel.ept=0) it does"
        )
    stage.set(ARG_CR4=0)
    stage.restart()
    if not _stale(stage.expect(behaviour.PORT_VALUE)):
        return "the new page"
    # The SDM's text and an erratum of Intel's say that INIT invalidates; of the APM's two places neither outweighs the other.
    open_ = "the APM calls the TLB not modified in one place and invalidated in another" if subject.vendor == "amd" else ""
    return Observation("the old page", "a translation of before INIT is still used", open_)


def _stale(word: int) -> bool:
    return word == _OLD_WORD


CHECKS = (
    Check("init", "msi", "ram", (), "unchanged", _ram_by_host, (S_T1, S_OVERVIEW, A_CACHES), alone=True),
    Check(
        "init", "msi", "ram", (), "unchanged", _ram_by_guest, (S_T1, S_OVERVIEW, A_CACHES),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "tlb", (), "the new page", _tlb, (S_OVERVIEW, S_T22, A_TLB, A_T1),
        target="bsp", view="guest", alone=True,
    ),
)  # fmt: skip
