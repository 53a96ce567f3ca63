# SPDX-License-Identifier: GPL-2.0-only
"""INIT, SIPI and SHUTDOWN in system management mode, entered by an SMI with a handler."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import RESTARTS, boot, pending
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_SMM_INHIBIT, S_SMM_INHIBIT

__all__ = ("SCENARIOS",)

_TURNS = 1000
_LATCH = (S_SMM_INHIBIT, A_SMM_INHIBIT)


def handler(then: str = "SMM_RSM") -> s.Step:
    """The SMI handler in SMRAM, which does ``then`` at its end."""
    return s.Load("smram", (("SMM_TOPIC", f"smm.{then}"), ("SMM_TURNS", _TURNS)))


#: From RESET to the handler's first word.
_IN_HANDLER = (
    s.Load("smm", (("TOPIC", "TOPIC_WAIT"),)),
    handler(),
    *boot("bsp"),
    s.Send("smi", "ioctl-smi", judged=False),
    s.Until(s.Word("SMI")),
    s.Require(s.Is("events.smi_smm", 1), "the SMI handler runs, and KVM_GET_VCPU_EVENTS shows no SMM"),
)

SCENARIOS = (
    Scenario(
        "init", "msi", "after-rsm",
        (
            *_IN_HANDLER, s.Observe(), s.Send("init"), s.Expect(s.Word("VALUE")), pending(), RESTARTS,
            s.Expect(s.Is("events.smi_smm", 0)), s.Observe(), s.Reporter(stands=True), s.Guest(),
        ),
        _LATCH, "bsp", "guest", ("smm",),
    ),
)  # fmt: skip
