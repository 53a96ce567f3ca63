# SPDX-License-Identifier: GPL-2.0-only
"""State that RSM restores, by either layout of the state-save map, and SMI, NMI and INIT inside each other."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.access import SAY, WAIT, makes, says
from kvmtest.scenario.catalogue.common import DROPPED, HELD, PLANTED, WAITS, pending, restarted
from kvmtest.scenario.catalogue.smm import GOES_ON, LEFT, handler
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.states import STATES, debug
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_RSM, A_SMM_INHIBIT, KVM_API, LINUX_SMM_SHADOW, S_RSM, S_RSM_CHECKS, S_SMM_INHIBIT, S_SMM_NMI
from kvmtest.uapi.kvm import (
    KVM_EXIT_DEBUG,
    KVM_EXIT_SHUTDOWN,
    KVM_GUESTDBG_ENABLE,
    KVM_GUESTDBG_SINGLESTEP,
    KVM_MP_STATE_HALTED,
)

__all__ = ("PDPT", "PDPTES", "SCENARIOS")

_LATCH = (S_SMM_INHIBIT, A_SMM_INHIBIT)
_BACK = (S_RSM, A_RSM)
_SMI = (s.Send("smi", "ioctl-smi", judged=False), s.Until(s.Word("smram.SMI")))
_NMI = s.Word("NMI")
#: KVM has the 32-bit state-save map for a CPU without long mode.
_32_BIT, _64_BIT = Setup(leaves="no-long-mode"), Setup()
_LAYOUTS = (("", _64_BIT), ("-without-long-mode", _32_BIT))
_COUNTS = s.Until(s.Moves("planter.count"), note="the loop that the SMI interrupted does not go on")

_NOT_NAMED = "the manuals name CR0 and CR4, and leave open what else RSM checks"
_NOT_KEPT = "the SDM does not keep over an SMI that NMIs are blocked, and lets one nest then"


#: The address of the planting code's PDPTEs for PAE paging, and their values: QEMU's TCG sets a reserved bit in them, on which
#: RSM fails.
PDPT = 0xFFFCA000
PDPTES = b"".join((0xFFFC6000 + 0x1000 * number | 1).to_bytes(8, "little") for number in range(4))


def _restored(plant: str, name: str, setup: Setup) -> Scenario:
    """RSM brings back all that ioctls read, of a guest whose loop changes no register but RIP."""
    steps = (
        s.Plant(plant), s.Resume("loop"), handler(), _COUNTS, s.Poke(PDPT, PDPTES), s.Observe(), *_SMI,
        s.Event("none", "rsm"), s.Until(s.Word("smram.VALUE")), s.Until(s.Moves("planter.count")),
        s.Expect(s.Same(("rip", "rflags", "msr.smi_count"))), pending(0),
    )  # fmt: skip
    return Scenario("none", "rsm", f"{plant}{name}", steps, _BACK, "ap", "host", ("smm",), setup)


def _held(name: str, setup: Setup) -> Scenario:
    """INIT in the handler, and after RSM."""
    steps = (*makes(SAY), s.Until(s.Word("READY")), s.Observe(), handler(), *_SMI, *GOES_ON, *restarted(LEFT))
    return Scenario("init", "msi", f"after-rsm-in-protected-mode{name}", steps, _LATCH, "bsp", "guest", ("smm",), setup)


_INSIDE = s.Is("events.smi_inside_nmi", 1)
#: By KVM_SET_VCPU_EVENTS and out of HLT: under Bochs one that KVM_NMI brings comes some instructions later.
_IN_NMI_HANDLER = (
    *makes(WAIT), s.Until(s.Is("mp_state", KVM_MP_STATE_HALTED)), handler(), s.Set((("events.nmi_pending", 1),)), s.Until(_NMI),
    s.Observe(), *_SMI,
)  # fmt: skip
#: State-save maps that RSM must refuse: a word, and its illegal value. The SDM names CR0 and CR4.
_ILLEGAL = (
    ("cr4-reserved", "SMM_SAVED_CR4", 1 << 31, ""),
    ("cr0-pg-without-pe", "SMM_SAVED_CR0", 0xE0000010, ""),
    ("cr0-nw-without-cd", "SMM_SAVED_CR0", 0x20000011, ""),
    ("efer-reserved", "SMM_SAVED_EFER", 1 << 1, _NOT_NAMED),
)


def _shuts_down(name: str, word: str, value: int, undefined: str) -> Scenario:
    """RSM to a state that is illegal shuts the CPU down."""
    steps = (
        *makes(SAY), s.Until(s.Word("READY")), handler(), *_SMI, s.Poke(word, value), s.Until(s.Word("smram.VALUE")),
        s.Event("shutdown", "rsm"), s.Expect(s.Exit(KVM_EXIT_SHUTDOWN)),
    )  # fmt: skip
    return Scenario("shutdown", "rsm", name, steps, (S_RSM_CHECKS, A_RSM), "bsp", "guest", ("smm",), undefined=undefined)


_RFLAGS_IF, _STEPS = 0x202, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP
#: Of KVM_SET_VCPU_EVENTS. kvm_amd has one bit for both, and shows both.
_MOV_SS, _STI = 1, 2


def _in_shadow(name: str, shadow: int, setup: Setup, vendor: str) -> Scenario:
    """An SMI in an interrupt shadow, in which its handler does not begin: RSM, which the host steps over, brings it back."""
    steps = (
        *makes(SAY, SAY), s.Until(s.Word("READY")), s.Complete(), handler(),
        s.Set((("rip", "CODE+say"), ("rflags", _RFLAGS_IF))), s.Set((("events.interrupt_shadow", shadow),), check=False),
        s.Require(s.Is("events.interrupt_shadow", shadow, shadow), "KVM keeps no interrupt shadow"),
        s.Send("smi", "ioctl-smi", judged=False), s.Expect(s.Word("smram.SMI"), "runs"),
        s.Expect(s.Is("events.interrupt_shadow", 0)), s.Event("none", "rsm"),
        s.Until(s.Word("smram.VALUE")), s.Complete(), debug(_STEPS), s.Until(s.Exit(KVM_EXIT_DEBUG)),
        s.Require(s.Is("events.smi_smm", 0), "the vCPU is in SMM after RSM"),
        s.Expect(s.Is("events.interrupt_shadow", shadow, shadow)), debug(0), *says(s.Word("READY")),
    )  # fmt: skip
    cite = (*_BACK, LINUX_SMM_SHADOW)
    return Scenario("none", "rsm", name, steps, cite, "bsp", "host", ("smm",), setup, vendors=(vendor,))


_IN_SMM_INSIDE_NMI = (PLANTED, s.Set((("events.smi_smm", 1), ("events.smi_inside_nmi", 1))))

SCENARIOS = (
    *(_shuts_down(*one) for one in _ILLEGAL),
    _restored("guest-long", "", _64_BIT),
    *(_restored("guest-protected", *layout) for layout in _LAYOUTS),
    *(_held(*layout) for layout in _LAYOUTS),
    _in_shadow("in-shadow-of-sti", _STI, _64_BIT, "intel"),
    _in_shadow("in-shadow-of-mov-ss-without-long-mode", _MOV_SS, _32_BIT, "amd"),
    # The SMI interrupts the handler of an NMI, between its two words.
    Scenario(
        "none", "rsm", "inside-nmi-handler",
        (
            *_IN_NMI_HANDLER, s.Event("none", "rsm"), s.Expect(_INSIDE), s.Expect(s.Is("events.nmi_masked", 1)),
            s.Until(s.Word("smram.VALUE")), s.Expect(_NMI, "runs"), s.Expect(s.Is("events.smi_inside_nmi", 0)), LEFT,
            s.Expect(s.Is("events.nmi_masked", 1), undefined=_NOT_KEPT, vendor="intel"), *says(s.Word("AWAKE")),
            s.Expect(s.Is("events.nmi_masked", 0)),
        ),
        (*_BACK, S_SMM_NMI, KVM_API), "bsp", "guest", ("smm",),
    ),
    Scenario(
        "init", "msi", "in-smm-inside-nmi-handler", (*_IN_NMI_HANDLER, *GOES_ON, *restarted(LEFT)),
        _LATCH, "bsp", "guest", ("smm",),
    ),
    Scenario(
        "none", "rsm", "outside-nmi-handler",
        (
            *makes(SAY, SAY), s.Until(s.Word("READY")), handler(), *_SMI, s.Event("none", "rsm"),
            s.Expect(s.Is("events.smi_inside_nmi", 0)), s.Expect(s.Is("events.nmi_masked", 1)), s.Until(s.Word("smram.VALUE")),
            *says(s.Word("READY")), s.Expect(s.Is("events.nmi_masked", 0)),
        ),
        (*_BACK, S_SMM_NMI), "bsp", "guest", ("smm",),
    ),
    # An NMI that comes in SMM waits for RSM.
    Scenario(
        "nmi", "ioctl-nmi", "in-smm",
        (
            *makes(SAY, SAY), s.Until(s.Word("READY")), handler(), *_SMI, s.Send("nmi", "ioctl-nmi"),
            s.Expect(s.Is("events.nmi_pending", 1)), s.Expect(s.Word("smram.VALUE")), s.Expect(_NMI, "runs"),
            s.Expect(s.Is("events.smi_smm", 0)),
        ),
        (*_BACK, S_SMM_NMI), "bsp", "guest", ("smm",),
    ),
    Scenario(
        "init", "msi", "in-smm-inside-nmi",
        (
            *_IN_SMM_INSIDE_NMI, *HELD, s.Require(_INSIDE, "the vCPU is not in an SMI inside an NMI handler any more"),
            *STATES["in-smm"].leave, s.Observe(),
        ),
        (*_LATCH, KVM_API), needs=("smm",),
    ),
    Scenario(
        "sipi", "msi", "in-smm-inside-nmi", (*_IN_SMM_INSIDE_NMI, *DROPPED, *STATES["in-smm"].leave, *WAITS),
        _LATCH, needs=("smm",),
    ),
)  # fmt: skip
