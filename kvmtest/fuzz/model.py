# SPDX-License-Identifier: GPL-2.0-only
"""The automaton of wait-for-SIPI and of what blocks INIT, as the manuals have it. Nothing here knows KVM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from kvmtest.scenario.states import STATES, VMXON, State
from kvmtest.spec import cite
from kvmtest.uapi.kvm import KVM_STATE_NESTED_GIF_SET

__all__ = ("BLOCKS", "CITE", "HALTS", "RUNS", "WAITS", "Block", "Rule", "Vcpu", "rule")

#: Activity states, as KVM_GET_MP_STATE has them.
RUNS, WAITS, HALTS = 0, 2, 3
CITE = (cite.S_MP, cite.SDM_SIPI, cite.S_APIC_INIT, cite.A_MP, cite.A_INIT_IPI, cite.KVM_API)


class Block(NamedTuple):
    """A condition that blocks INIT and drops a SIPI: a ``state`` of the table of states, and the manuals' sections.

    ``item`` has the ``value`` in the bits of ``mask`` while it holds.
    """

    state: str
    cite: tuple[str, ...]
    item: str
    value: int
    mask: int = -1

    @property
    def facts(self) -> State:
        """The steps that enter and leave it."""
        return STATES[self.state]


BLOCKS = {
    "smm": Block("in-smm", (cite.S_SMM_INHIBIT, cite.A_SMM_INHIBIT), "events.smi_smm", 1),
    "gif": Block("gif-clear", (cite.A_GIF,), "nested.flags", 0, KVM_STATE_NESTED_GIF_SET),
    "vmx": Block("in-vmx-root", (cite.S_VMX_LIMITS,), "nested.vmxon_pa", VMXON),
}


class Rule(NamedTuple):
    """The effect of an event (``taken``, ``held`` or ``dropped``), and the activity state after it."""

    becomes: str
    activity: int


@dataclass
class Vcpu:
    """The state of one vCPU that the rules of the manuals depend on.

    ``block`` names what blocks INIT, or is ""; ``latched`` is set while an INIT is held. ``nmis`` is the number of pending
    NMIs, None if unknown. ``fresh`` is set if the vCPU is as INIT or SIPI left it.
    """

    bsp: bool
    activity: int = RUNS
    block: str = ""
    latched: bool = False
    nmis: int | None = None
    fresh: bool = False


def rule(event: str, vcpu: Vcpu) -> Rule:
    """Return the effect of ``event``, INIT or SIPI, on ``vcpu``.

    An INIT is held while something blocks it; else the BSP begins at the reset vector, and an AP waits for a SIPI. A SIPI is
    accepted only in wait-for-SIPI, and if nothing blocks it.
    """
    if event == "init":
        if vcpu.block:
            return Rule("held", vcpu.activity)
        return Rule("taken", RUNS if vcpu.bsp else WAITS)
    if vcpu.activity == WAITS and not vcpu.block:
        return Rule("taken", RUNS)
    return Rule("dropped", vcpu.activity)
