# SPDX-License-Identifier: GPL-2.0-only
"""Events that come through a task gate, which KVM emulates, and INIT in the task."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.access import INT, INT3, OPEN, READY, SOFTWARE, TASK_TSS, UD, WAIT, Access, apic, makes, task
from kvmtest.scenario.catalogue.common import RESTARTS
from kvmtest.scenario.setup import VENDORS
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_T1, A_TASK, S_T1, S_TASK
from kvmtest.uapi.kvm import KVM_MP_STATE_HALTED

__all__ = ("SCENARIOS",)

_NMI, _BP, _UD, _VECTOR = 2, 3, 6, 0x60
_SELF, _NT = 1 << 18 | 1 << 14 | _VECTOR, 1 << 14
_IN_TASK = s.Expect(s.Word("VALUE", TASK_TSS), "tr.selector")
_NO_TASK = "not testable here: no task switch happens"


def _case(
    name: str, accesses: tuple[Access, ...], *sent: s.Step, delivered: str = "", vendors: tuple[str, ...] = VENDORS
) -> tuple[Scenario, Scenario]:
    """The task comes, the event is not delivered once more, and the task returns; and INIT in the task."""
    comes = (*makes(*accesses), *sent)
    once = (s.Expect(s.Is(f"events.{delivered}_injected", 0)),) if delivered else ()
    shown = (_IN_TASK, *once, s.Expect(s.Is("tr.selector", TASK_TSS)), s.Expect(s.Is("rflags", _NT, _NT)))
    returns = (*comes, s.Event("none", "task-gate"), *shown, s.Expect(READY), s.Expect(s.Is("tr.selector", TASK_TSS - 8)))
    init = (*comes, s.Require(_IN_TASK.condition, _NO_TASK, skip=True), s.Observe(), s.Send("init"), RESTARTS, s.Observe())
    return (
        Scenario("none", "task-gate", name, returns, (S_TASK, A_TASK), "bsp", "guest", vendors=vendors),
        Scenario("init", "msi", f"in-task-of-{name}", init, (S_TASK, A_TASK, S_T1, A_T1), "bsp", "guest", vendors=("intel",)),
    )  # fmt: skip


SCENARIOS = (
    *_case(
        "nmi", (task(_NMI), WAIT), s.Until(s.Is("mp_state", KVM_MP_STATE_HALTED)), s.Send("nmi", "ioctl-nmi", judged=False),
        delivered="nmi",
    ),
    *_case(
        "interrupt", (apic("xapic", "svr", 0x1FF), task(_VECTOR), apic("xapic", "icr", _SELF), OPEN), delivered="interrupt",
    ),
    *_case("exception", (task(_UD), UD), delivered="exception"),
    *_case("breakpoint", (task(_BP), INT3)),
    *_case("software-interrupt", (task(SOFTWARE), INT), vendors=("intel",)),
)  # fmt: skip
