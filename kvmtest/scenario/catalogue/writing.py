# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory that KVM writes when an MSR says so: how it is enabled, seen to be written, and seen to be left alone."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.scenario import step as s
from kvmtest.scenario.access import OPEN, READY, SAY, Access, apic, makes
from kvmtest.scenario.catalogue.common import start, wait_for_sipi
from kvmtest.scenario.step import Scenario
from kvmtest.uapi.kvm import KVM_SET_CLOCK, kvm_clock_data

__all__ = ("ENABLE", "FIRST", "PATTERN", "Writing", "alone", "case", "fill", "off", "vmm_reset", "written")

#: Bit 0 of each of these MSRs.
ENABLE = 1
#: Of the first interrupt, and of a second one, which is more urgent: nobody ends the first.
FIRST, _SECOND = 0x50, 0x60
PATTERN = b"\x5a"
_ON = apic("xapic", "svr", 0x1FF)
#: An interrupt that the guest does not end, in which the event comes; and another one after that.
_LIST: tuple[Access, ...] = (_ON, SAY, OPEN) * 2
#: A new time: KVM writes it to every clock page before the vCPU runs (KVM API, KVM_SET_CLOCK).
_NEW_TIME = s.Call(KVM_SET_CLOCK, bytes(kvm_clock_data(clock=1 << 40)), "vm", kind="kvm_clock_data")


class Writing(NamedTuple):
    """Memory that KVM writes, and the ``msrs`` that enable it, pairs of item and value, in their order.

    ``memory`` is zeroed except for ``at_first``, pairs of address and 32-bit value; ``what`` names what KVM writes at an address,
    which shows that it wrote. ``brings`` is set if it causes an interrupt of vector FIRST by itself. ``enables`` are steps before
    the MSRs, ``off`` the values that disable it, if not 0. ``left`` is what the memory is filled with afterwards.
    """

    msrs: tuple[tuple[str, int], ...]
    needs: tuple[str, ...]
    memory: tuple[int, int]
    what: tuple[tuple[str, int], ...]
    at_first: tuple[tuple[int, int], ...] = ()
    brings: bool = False
    enables: tuple[s.Step, ...] = ()
    off: tuple[tuple[str, int], ...] = ()
    left: bytes = PATTERN

    @property
    def enable(self) -> tuple[s.Step, ...]:
        """Make the memory ready, and write the MSRs."""
        gpa, size = self.memory
        first = (s.Poke(at, value) for at, value in self.at_first)
        return (s.Poke(gpa, bytes(size)), *self.enables, s.Set(self.msrs), *first)


def off(writing: Writing) -> s.Step:
    """Write the MSRs so that they enable nothing, the last one first."""
    values = dict.fromkeys((item for item, _ in writing.msrs[::-1]), 0) | dict(writing.off)
    return s.Set(tuple(values.items()))


def _comes(vector: int) -> tuple[s.Step, ...]:
    """An interrupt that is delivered to the guest."""
    return (s.Send("interrupt", vector=vector, judged=False), s.Until(s.Word("TAKEN", vector)))


def written(writing: Writing, target: str) -> tuple[s.Step, ...]:
    """A guest whose memory KVM writes."""
    first = makes(*_LIST) if target == "bsp" else (*makes(*_LIST)[:-1], *wait_for_sipi(), *start())
    comes = (s.Until(s.Word("TAKEN", FIRST)),) if writing.brings else _comes(FIRST)
    values = dict(writing.at_first)
    proof = (
        s.Require(s.Changed(gpa, values.get(gpa, 0)), f"not testable here: this KVM writes no {what}", skip=True)
        for what, gpa in writing.what
    )
    return (*first, s.Until(READY), *writing.enable, _NEW_TIME, *comes, *proof)


def fill(writing: Writing) -> s.Step:
    """Fill the memory with the pattern that must stay."""
    gpa, size = writing.memory
    return s.Poke(gpa, writing.left * size)


def alone(writing: Writing) -> tuple[s.Step, ...]:
    """The guest runs on, with an interrupt and a new time, and its memory is left alone."""
    gpa, size = writing.memory
    return (s.Until(READY), _NEW_TIME, *_comes(_SECOND), s.Expect(s.Filled(gpa, writing.left * size), "memory"))


def case(
    id: str, sequence: str, steps: tuple[s.Step, ...], writing: Writing, target: str, vendor: str, *cite: str
) -> Scenario:
    """A scenario of one vendor."""
    event, trigger = id.split(".")
    return Scenario(event, trigger, sequence, steps, cite, target, needs=writing.needs, vendors=(vendor,))


def vmm_reset(sequence: str, writing: Writing, vendor: str, *cite: str) -> Scenario:
    """A VMM disables it, and the vCPU continues, maybe as another guest."""
    steps = (
        *written(writing, "bsp"), s.Complete(), s.Event("reset", "vmm-reset"), off(writing), fill(writing),
        s.Set((("rip", "CODE+next"), ("rflags", 2))), *alone(writing),
    )  # fmt: skip
    return case("reset.vmm-reset", sequence, steps, writing, "bsp", vendor, *cite)
