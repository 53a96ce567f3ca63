# SPDX-License-Identifier: GPL-2.0-only
"""INIT out of 64-bit mode leaves no paging: guest code sees memory as real-address mode has it, then by the next tables alone."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.checks.check import Check, Stopped, Subject, Untestable
from kvmtest.checks.stage import Stage
from kvmtest.guests import behaviour
from kvmtest.kvm import Exit, GuestMemory
from kvmtest.kvm.where import where
from kvmtest.spec.cite import A_T1, S_T1
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import KVM_EXIT_IO, KVM_EXIT_SHUTDOWN

__all__ = ("CHECKS",)

_PAGE, _PRESENT, _WRITE = 0x1000, 1, 2
_PAE, _LME = 1 << 5, 1 << 8
#: Where the tables lie, and the pages that they put at LINEAR; each page holds its own number in its first word.
_OLD_TABLES, _NEW_TABLES = 0x10000, 0x18000
#: _REAL is behaviour.LINEAR: what is expected names it, and can be listed without a built guest.
_OLD, _NEW, _REAL = 0x20000, 0x21000, 0x80000
_WRITTEN = 0x5A5A5A5A
_FAULT = "nothing, but raises an exception"


class _Mode(NamedTuple):
    """A paging mode: CR4, EFER, bytes of an entry, and levels of tables."""

    cr4: int
    efer: int
    entry: int
    levels: int


_BITS_32 = _Mode(0, 0, 4, 2)
_BITS_PAE = _Mode(_PAE, 0, 8, 3)
_LONG = _Mode(_PAE, _LME, 8, 4)


def _tables(ram: GuestMemory, at: int, mode: _Mode, page: int) -> int:
    """Write tables that map RAM's first 2 MiB to itself, but ``page`` at LINEAR; returns the value for CR3."""
    for level in range(mode.levels - 1):
        # PAE's page-directory-pointer entries have no R/W bit.
        pae_top = mode.levels == 3 and level == 0
        ram.write_int(at + level * _PAGE, at + (level + 1) * _PAGE | (_PRESENT if pae_top else _PRESENT | _WRITE), mode.entry)
    last = at + (mode.levels - 1) * _PAGE
    for number in range(512):
        target = page if number * _PAGE == _REAL else number * _PAGE
        ram.write_int(last + number * mode.entry, target | _PRESENT | _WRITE, mode.entry)
    return at


def _use(stage: Stage, at: int, mode: _Mode, page: int) -> None:
    stage.set(ARG_CR3=_tables(stage.ram, at, mode, page), ARG_CR4=mode.cr4, ARG_EFER=mode.efer)


def _fill(ram: GuestMemory) -> None:
    for page in (_OLD, _NEW, _REAL):
        ram.write_int(page, page)


def _start(stage: Stage) -> None:
    msi.init(stage.vcpu)
    stage.vcpu.get_mp_state()
    stage.start()


def _look(stage: Stage) -> tuple[str, str, str]:
    """From a SIPI on: which page is read in real-address mode, which is written, and which one is read with paging."""
    _fill(stage.ram)
    stage.set(ARG_WORD=_WRITTEN)
    _start(stage)
    real = _page(stage.run(), stage)
    if (seen := _port(stage.run())) != behaviour.PORT_READY:
        raise Stopped(f"the guest did not come to the end of its real-mode code: port {seen:#x} ({where(stage.vcpu)})")
    written = [f"{page:x}" for page in (_OLD, _NEW, _REAL) if stage.ram.read_int(page + 4, 4) == _WRITTEN]
    return real, ", ".join(written) or "nothing", _page(stage.run(), stage)


def _port(seen: Exit) -> int:
    return seen.port if seen.reason == KVM_EXIT_IO else 0


def _page(seen: Exit, stage: Stage) -> str:
    """The page that the guest's next word names, or what came instead."""
    if seen.reason == KVM_EXIT_SHUTDOWN:
        return "nothing, and shuts down"
    if _port(seen) == behaviour.PORT_FAULT:
        return _FAULT
    if _port(seen) != behaviour.PORT_VALUE:
        raise Stopped(f"the guest stopped: {seen} ({where(stage.vcpu)})")
    return f"{int.from_bytes(seen.data[:4], 'little'):x}"


def _paging(subject: Subject, mode: _Mode, name: str) -> str:
    """What a vCPU sees after INIT and SIPI out of RESET, ``mode`` and 64-bit mode: the first that is wrong, or the last."""
    stage = Stage(subject, behaviour.TOPIC_PAGING)
    ways = (
        ("RESET", _NEW_TABLES, mode, name, _NEW),
        (f"{name} paging", _OLD_TABLES, _LONG, "4-level", _OLD),
        ("64-bit mode", _NEW_TABLES, mode, name, _NEW),
    )
    for out_of, tables, to, called, page in ways:
        _use(stage, tables, to, page)
        seen = _look(stage)
        if seen[2] == _FAULT and out_of == "RESET":
            raise Untestable(f"this KVM does not let a vCPU turn {name} paging on")
        text = f"out of {out_of}: {_told(*seen, called)}"
        if seen != (f"{_REAL:x}", f"{_REAL:x}", f"{page:x}"):
            return text
        stage.expect(behaviour.PORT_READY)
    return text


def _told(real: str, written: str, paged: str, name: str) -> str:
    return f"real mode reads {real} and writes {written}, {name} paging reads {paged}"


def _to_32_bit(subject: Subject) -> str:
    return _paging(subject, _BITS_32, "32-bit")


def _to_pae(subject: Subject) -> str:
    return _paging(subject, _BITS_PAE, "PAE")


def _to_long(subject: Subject) -> str:
    return _paging(subject, _LONG, "4-level")


def _expected(name: str) -> str:
    return f"out of 64-bit mode: {_told(f'{_REAL:x}', f'{_REAL:x}', f'{_NEW:x}', name)}"


_CITE = (S_T1, A_T1)

CHECKS = (
    Check("init", "msi", "paging-to-32-bit", (), _expected("32-bit"), _to_32_bit, _CITE, view="guest", alone=True),
    Check("init", "msi", "paging-to-pae", (), _expected("PAE"), _to_pae, _CITE, view="guest", alone=True),
    Check("init", "msi", "paging-to-4-level", (), _expected("4-level"), _to_long, _CITE, view="guest", alone=True),
)
