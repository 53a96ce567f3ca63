# SPDX-License-Identifier: GPL-2.0-only
"""Item cases: any state x any trigger x the whole item table, as steps."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from kvmtest.scenario import step as s
from kvmtest.scenario.states import STATES
from kvmtest.scenario.triggers import TRIGGERS, Steps, arrival, broadcast_icr
from kvmtest.spec.cite import A_ICR, KVM_API, S_ICR
from kvmtest.state.values import SIPI

__all__ = ("CONTINUE", "LEAVE", "Item", "broadcast", "scenario", "vector_of")

#: The SIPI that starts the guest on an AP after INIT.
CONTINUE = 0x10
#: The trigger of what is not an event: a state that is entered and left.
LEAVE = "leave"
_LATCHED_INIT = "events.smi_latched_init"
#: Items that the ioctls that enter a state set, and leaving does not clear.
_REMAINING = ("efer", "events.smi_smm", "nested.flags", "nested.vmxon_pa", "nested.vmcs12_pa")


class Item(NamedTuple):
    """The parameters of an item case. With ``guest`` the guest also reports what its instructions read."""

    event: str
    trigger: str
    target: str
    mode: str = ""
    plant: str = ""
    state: str = ""
    vector: int | None = None
    guest: bool = False

    @property
    def bsp(self) -> bool:
        """The target is the boot processor."""
        return self.target == "bsp"


def vector_of(item: Item) -> int | None:
    """The SIPI by which the reporting guest begins; None for the reset vector."""
    return CONTINUE if item.event == "init" and not item.bsp else item.vector


@cache
def scenario(item: Item) -> s.Scenario:
    """The steps of an item case."""
    state, name = STATES[item.state], item.trigger.partition("/")[0]
    trigger = TRIGGERS.get(item.trigger)
    needs = (*state.needs, *(trigger.needs if trigger else ()))
    fresh = state.fresh or item.event == "reset"
    steps = _reset(item) if item.event == "reset" else _planted(item)
    cite = (KVM_API,)
    return s.Scenario(item.event, name, "", steps, cite, item.target, "host", needs, fresh=fresh, silent=state.silent)


#: Items that sending changes in the sender; and the x87 pointers, which AMD CPUs save and restore only with an exception pending
#: (APM
#: vol. 5, FXSAVE), QEMU's TCG never.
_BY_SENDING = ("rip", "lapic.icr", "lapic.icr2", "msr.hv_icr", "fop", "fip", "fdp")
_DELIVERY_STATUS = 1 << 12


@cache
def broadcast(item: Item) -> s.Scenario:
    """INIT from one vCPU's code to all others, each of which is planted and read; the sender does not change."""
    icr = broadcast_icr()
    arrives = s.Is("events.smi_latched_init", 1)
    written = s.Is("lapic.icr", icr, ~_DELIVERY_STATUS)
    reporter = (s.Reporter(vector_of(item), apic_mode=item.mode),) if item.guest else ()
    steps = (
        *reporter,
        s.Plant(item.plant, item.mode, "each"),
        s.Observe("each"),
        s.Plant("a", item.mode, "other"),
        s.Sender(icr, 0, item.mode),
        s.Observe("other"),
        s.Event(item.event, item.trigger),
        s.Until(s.Word("sender.SENT"), "other", "the sending guest did not write its ICR"),
        s.Complete("other"),
        s.Until(arrives, "each", "the guest's broadcast did not reach all vCPUs: no INIT is pending", run=False),
        s.Observe("each"),
        s.Require(written, "the sender's ICR does not read as it was written", "other"),
        s.Expect(s.Same(_BY_SENDING), who="other"),
        *_read_by_guest(item, False),
    )
    return s.Scenario(item.event, item.trigger, "", steps, (S_ICR, A_ICR), item.target, fresh=False)


def _reset(item: Item) -> Steps:
    reporter = (s.Reporter(),) if item.guest else ()
    return (*reporter, s.Event("reset", item.trigger), s.Observe(), *((s.Guest(),) if item.guest else ()))


def _planted(item: Item) -> Steps:
    state = STATES[item.state]
    plant = s.Plant(item.plant, item.mode, keep=state.keep)
    ran = state.on_thread or state.runs or item.trigger != LEAVE and TRIGGERS[item.trigger].runs
    reporter: list[s.Step] = [s.Reporter(vector_of(item), apic_mode=item.mode)] if item.guest else []
    # A BSP that runs goes on at the reset vector by itself.
    lies = reporter or ([s.Load("spine")] if ran and item.bsp else [])
    steps: list[s.Step] = [*(() if state.memory else lies), *state.before, plant]
    if item.event == "sipi" or item.plant == SIPI:
        # Into wait-for-SIPI first, by a real INIT, and planted there.
        steps += [s.Send("init", judged=False), s.Settle(), plant]
    steps += [*state.prepare, s.Observe(), *state.enter]
    if item.trigger == LEAVE:
        return (*steps, *state.leave, s.Event(item.event, LEAVE), s.Expect(s.Same(_REMAINING)), *state.release)
    steps.append(s.Send(item.event, item.trigger, vector=item.vector or 0))
    if item.event in state.drops:
        return (*steps, s.Expect(s.Same()), *state.leave, *state.release)
    if item.event in state.holds:
        steps += [s.Expect(s.Is(_LATCHED_INIT, 1), "pending"), s.Expect(s.Same((_LATCHED_INIT,)))]
    steps += state.leave
    if state.on_thread:
        steps += _joined(item.bsp)
    elif state.runs:
        steps += arrival(item.bsp)
    return (*steps, s.Observe(), *(reporter if state.memory else ()), *_read_by_guest(item, ran), *state.release)


def _joined(bsp: bool) -> Steps:
    """The end of a vCPU that ran on a thread: a BSP makes the first exit after its reset vector, an AP none."""
    if bsp:
        return arrival(bsp)
    waits = s.Require(s.Is("mp_state", 2), "the event left no trace: the vCPU that was running does not wait for a SIPI")
    return (s.Until(s.Quiet(), note="the AP does not wait for a SIPI"), waits)


def _read_by_guest(item: Item, ran: bool) -> Steps:
    """Return the steps in which the guest's instructions read the items."""
    if not item.guest:
        return ()
    start = (s.Send("sipi", vector=CONTINUE, judged=False),) if item.event == "init" and not item.bsp else ()
    return (*start, s.Guest(running=ran and item.bsp))
