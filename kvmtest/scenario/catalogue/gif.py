# SPDX-License-Identifier: GPL-2.0-only
"""INIT and SIPI with SVM's GIF clear, by KVM_SET_NESTED_STATE (host view), or by CLGI until STGI or VMRUN (guest view)."""

from __future__ import annotations

from errno import EINVAL

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import DROPPED, FINDS, HELD, PLANTED, WAITS, init_received, pending, restarted
from kvmtest.scenario.catalogue.svm import INTERCEPT_INIT, exits, hypervisor
from kvmtest.scenario.hypervisor import EFER_SVME, TURNS
from kvmtest.scenario.states import STATES, gif
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_GIF, A_SVM_INIT, A_SVME, KVM_API
from kvmtest.uapi.kvm import KVM_STATE_NESTED_GIF_SET

__all__ = ("SCENARIOS",)

_GIF = (A_GIF, A_SVM_INIT)
_GIF_ALONE = "in the APM GIF does not depend on EFER.SVME; KVM before v7.0 sets it when SVME is cleared, and keeps it so"
_NEITHER = "the API does not say, and a CPU cannot reach this state: INIT is held while GIF is clear"
#: SCE LME LMA NXE.
_WITHOUT_SVME = s.Set((("efer", 0xD01),))
_IS_CLEAR = s.Is("nested.flags", 0, KVM_STATE_NESTED_GIF_SET)
_SHOWN = s.Require(_IS_CLEAR, "KVM_SET_NESTED_STATE accepted a clear GIF, and KVM_GET_NESTED_STATE shows it set")
_CLEAR = (PLANTED, *STATES["gif-clear"].prepare, _SHOWN)
#: Steps that check that KVM accepts a clear GIF.
_ASKED = (gif(False)._replace(keep=True), s.Expect(s.Answer(0)))


def _in_l1(sequence: str, ready: tuple[s.Step, ...], *then: s.Step) -> Scenario:
    """INIT to a hypervisor with GIF clear."""
    return Scenario("init", "msi", sequence, (*ready, FINDS, s.Send("init"), *then), _GIF, "bsp", "guest", ("svm",))


SCENARIOS = (
    Scenario("sipi", "msi", "gif-clear-after-init", (*_CLEAR, *DROPPED, gif(True), *WAITS), _GIF, needs=("svm",)),
    # Clearing EFER.SVME leaves GIF as it is (APM).
    Scenario(
        "init", "msi", "gif-clear-without-svme",
        (*_CLEAR, _WITHOUT_SVME, s.Expect(_IS_CLEAR, ends=False), *_ASKED, *HELD),
        (A_SVME, KVM_API), needs=("svm",), undefined=_GIF_ALONE,
    ),
    init_received("gif-clear", _CLEAR, ("svm",)),
    Scenario(
        "none", "nested-state", "gif-clear-in-wait-for-sipi",
        (
            PLANTED, s.Send("init", judged=False), s.Settle(), s.SetBits("efer", EFER_SVME), *_ASKED, s.Expect(s.Fails(EINVAL)),
        ),
        (KVM_API,), needs=("svm",), undefined=_NEITHER,
    ),
    # After STGI there is a loop that makes no exit: INIT has to come before its first turn.
    _in_l1(
        "at-stgi", hypervisor("TOPIC_GIF"), s.Expect(s.Word("VALUE", TURNS)), pending(),
        *restarted(s.Expect(s.Holds("COUNT", TURNS), "delivered")),
    ),
    # VMRUN sets GIF: the nested guest must not get to its first instruction.
    _in_l1("at-vmrun-intercepted", hypervisor("TOPIC_RUN", INTERCEPT_INIT), exits(0x63)),
    _in_l1("at-vmrun", hypervisor("TOPIC_RUN"), *restarted()),
)  # fmt: skip
