# SPDX-License-Identifier: GPL-2.0-only
"""Restart of a vCPU after INIT, from different states."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import LISTENS, RESTARTS, SIPI_VECTOR, boot, restarted, start
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_INIT_IPI, A_SHUTDOWN, A_T1, KVM_API, S_DF, S_IDTR, S_MP, S_T1, S_V8086
from kvmtest.uapi.kvm import KVM_EXIT_SHUTDOWN, KVM_MP_STATE_RUNNABLE

__all__ = ("SCENARIOS",)

_SPINS = s.Load("behaviour", (("TOPIC", "TOPIC_SPIN"),))
#: A guest that counted in memory until INIT came counts no more.
_STOPS = (
    s.Observe(), s.Send("init"), s.Poke("COUNT", 0), s.Expect(s.Quiet()),
    s.Expect(s.Holds("COUNT", 0), "runs", says=((0, s.Quiet().says),)), s.Observe(),
)  # fmt: skip
_COUNTS = s.Until(s.Moves("COUNT"), note="the guest does not count, so that nothing shows when it stops")

_CR0_PE, _CR0_OF_INIT = 1, 0x60000010
_RFLAGS_VM, _RFLAGS_IOPL, _RFLAGS_OF_RESET = 1 << 17, 3 << 12, 2
#: Real-mode segments as virtual-8086 mode has them: writable data of DPL 3.
_SEGMENTS = tuple(
    (f"{segment}.{name}", value)
    for segment in ("cs", "ds", "es", "fs", "gs", "ss")
    for name, value in (("base", SIPI_VECTOR << 12 if segment == "cs" else 0), ("limit", 0xFFFF), ("type", 3), ("dpl", 3))
)
_VIRTUAL_8086 = (
    s.Set(
        (("cr0", _CR0_OF_INIT | _CR0_PE), *_SEGMENTS, ("rflags", _RFLAGS_VM | _RFLAGS_IOPL | _RFLAGS_OF_RESET)),
        why="this KVM does not keep the state that virtual-8086 mode needs",
    ),
    _COUNTS,
    s.Require(s.Is("rflags", _RFLAGS_VM, _RFLAGS_VM), "the guest does not run in virtual-8086 mode"),
)

#: A table other than the one at 0, which holds a whole table, and the limits of the former: with and without entry FFH.
_OTHER_TABLE, _WHOLE, _SHORT = 0x8000, 0x3FF, 0x1F
#: The words of the two tables' handlers of vector FFH.
_TABLE_0, _TABLE_OTHER = 0x100, 0x101
_FF = s.Send("interrupt", vector=0xFF, judged=False)


def _idt(limit: int) -> s.Step:
    return s.Set((("idt.base", _OTHER_TABLE), ("idt.limit", limit)), why=f"KVM keeps no IDTR with limit {limit:#x}")


#: KVM sees no SHUTDOWN intercept here, and so makes no INIT of it with SVM.
_NOT_RULED = "no manual says what else a triple fault that a VMM makes pending changes"

SCENARIOS = (
    Scenario("init", "msi", "in-loop", (_SPINS, *boot("ap"), _COUNTS, *_STOPS), (S_MP, A_INIT_IPI), view="guest"),
    Scenario(
        "init", "msi", "in-virtual-8086", (_SPINS, *boot("ap"), *_VIRTUAL_8086, *_STOPS, *start()), (S_V8086, S_T1, A_T1),
        view="guest",
    ),
    Scenario(
        "init", "msi", "in-shutdown",
        (
            s.Load("behaviour", (("TOPIC", "TOPIC_SHUTDOWN"),)), *boot("bsp"), s.Until(s.Exit(KVM_EXIT_SHUTDOWN)),
            s.Poke("TOPIC", "TOPIC_HALT"), s.Observe(), s.Send("init"), *restarted(),
        ),
        # KVM on SVM makes an INIT of the shutdown already, of which another one leaves no trace: the word is the proof.
        (S_DF, A_SHUTDOWN), "bsp", "guest", silent=True,
    ),
    Scenario(
        "init", "msi", "idt-moved",
        (
            LISTENS, s.Poke(_OTHER_TABLE, s.Image("vectors-ff")), *boot("bsp"), _idt(_WHOLE), _FF,
            s.Until(s.Word("VALUE", _TABLE_OTHER), note="an interrupt does not go through the planted table"),
            _idt(_SHORT), s.Observe(), s.Send("init"), RESTARTS, s.Observe(), s.Until(s.Word("READY")), _FF,
            s.Expect(
                s.Word("VALUE", _TABLE_0), "delivered",
                says=((_TABLE_0, "through 0:03FC"), (_TABLE_OTHER, "through the old table")),
            ),
        ),
        (S_T1, S_IDTR, A_T1), "bsp", "guest",
    ),
    Scenario(
        "shutdown", "vcpu-events", "pending",
        (
            s.Plant(), s.Set((("mp_state", KVM_MP_STATE_RUNNABLE), ("events.triple_fault_pending", 1))), s.Observe(),
            s.Event("shutdown", "vcpu-events"), s.Expect(s.Exit(KVM_EXIT_SHUTDOWN, "KVM_EXIT_SHUTDOWN")),
            s.Expect(s.Is("events.triple_fault_pending", 0), "pending"),
            s.Expect(s.Same(("events.triple_fault_pending",)), undefined=_NOT_RULED),
        ),
        (KVM_API, S_DF), "bsp", needs=("triple-fault-event",),
    ),
)  # fmt: skip
