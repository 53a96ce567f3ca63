# SPDX-License-Identifier: GPL-2.0-only
"""INIT and a VMM's reset in VMs with a capability enabled or a quirk disabled: they leave what they leave without it."""

from __future__ import annotations

from kvmtest.scenario import items
from kvmtest.scenario import step as s
from kvmtest.scenario.access import GP, READY, SAY, WAIT, makes, rdmsr
from kvmtest.scenario.capabilities import CAPABILITIES
from kvmtest.scenario.catalogue.common import RESTARTS
from kvmtest.scenario.items import Item
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_HLT, KVM_API, S_HLT
from kvmtest.uapi.kvm import KVM_EXIT_X86_RDMSR, KVM_MP_STATE_RUNNABLE

__all__ = ("SCENARIOS",)

#: Those in which a guest also reports what its instructions read.
_BY_GUEST = ("no-cstate-exits", "no-quirk-mmio-hole", "no-quirk-feature-msrs", "x2apic-no-broadcast", "emulation-failure-exits")
#: Each capability with a way of INIT; each trigger, target, vendor, mode, plant and state comes with some.
_TRIED: dict[str, tuple[str, Item]] = {
    name: (vendor, Item("init", trigger, target, mode, plant, state, guest=name in _BY_GUEST))
    for name, vendor, trigger, target, mode, plant, state in (
        ("no-mwait-exits", "intel", "msi", "ap", "xapic", "a", "halted"),
        ("no-hlt-exits", "amd", "icr-xapic", "ap", "xapic", "guest-long", "in-loop"),
        ("no-pause-exits", "amd", "latched", "bsp", "x2apic", "c", ""),
        ("no-cstate-exits", "intel", "irqfd", "bsp", "xapic", "guest-protected", ""),
        ("no-aperfmperf-exits", "amd", "ioapic", "ap", "x2apic", "a", "wait-for-sipi"),
        ("no-quirk-lint0", "intel", "latched", "ap", "xapic", "c", "in-smm"),
        ("no-quirk-cd-nw", "amd", "msi", "bsp", "xapic", "a", ""),
        ("no-quirk-mmio-hole", "intel", "icr-x2apic", "ap", "x2apic", "guest-long", "nmi-injected"),
        ("no-quirk-out-7e", "amd", "msi", "ap", "xapic", "guest-v86", "in-port-read"),
        ("no-quirk-misc-enable-mwait", "intel", "latched", "bsp", "xapic", "c", "halted"),
        ("no-quirk-hypercall", "amd", "gsi-msi", "ap", "xapic", "guest-long", "interrupt-injected"),
        ("no-quirk-mwait-ud", "intel", "irqfd", "ap", "x2apic", "guest-protected", "in-hlt"),
        ("no-quirk-slot-zap", "amd", "ioapic", "bsp", "xapic", "b", ""),
        ("no-quirk-feature-msrs", "intel", "msi", "bsp", "xapic", "a", ""),
        ("no-quirk-guest-pat", "intel", "latched", "bsp", "xapic", "guest-long", "irq-requested"),
        ("no-quirk-freeze-in-smm", "intel", "msi", "ap", "xapic", "a", "in-smm"),
        ("no-quirk-shared-pat", "amd", "latched", "bsp", "xapic", "a", "in-svm-l2"),
        ("x2apic-32-bit-ids", "intel", "icr-x2apic", "ap", "x2apic", "a", ""),
        ("x2apic-no-broadcast", "amd", "icr-x2apic/logical", "bsp", "x2apic", "a", ""),
        ("bus-lock-exits", "intel", "latched", "ap", "disabled", "b", "halted"),
        ("no-pmu", "amd", "gsi-msi", "bsp", "xapic", "a", ""),
        ("emulation-failure-exits", "intel", "msi", "ap", "xapic", "guest-long", "in-mmio-read"),
        ("hypercall-exits", "amd", "icr-xapic/logical", "ap", "xapic-flat", "a", "gif-clear"),
        ("no-payloads", "intel", "msi", "bsp", "xapic", "guest-long", "in-shutdown"),
        ("no-triple-fault-event", "amd", "latched", "ap", "relocated", "b", ""),
    )
}


def _with(name: str) -> Setup:
    one = CAPABILITIES[name]
    return Setup(mce=True, caps=((one.cap, one.argument),))


def _tried(name: str, vendor: str, item: Item) -> Scenario:
    made = items.scenario(item)
    # As a guest sees it, KVM has all of its machine-check banks without KVM_X86_SETUP_MCE.
    return made._replace(sequence=name, setup=_with(name)._replace(mce=not item.guest), vendors=(vendor,))


#: STI; HLT; and again.
_HLT_LOOP, _LOOP_AT = b"\xfb\xf4\xeb\xfc", 0x8000
_RUNS_ON = s.Require(s.Is("mp_state", KVM_MP_STATE_RUNNABLE), "not testable here: KVM halts the vCPU, not the CPU", skip=True)
#: A guest that halts, in KVM_RUN, once: KVM sees it only with exits for HLT. IF is set, without which Bochs sleeps for ever:
#: its HLT in VMX non-root operation does not end with a host's interrupt.
_HALTS = (
    *makes(SAY, WAIT), s.Until(READY),
    s.Require(s.Quiet(), "not testable here: this CPU goes on after HLT when the host has an interrupt", skip=True), _RUNS_ON,
)  # fmt: skip
#: One that halts again whatever wakes it.
_HALTS_AGAIN = (
    *makes(SAY), s.Until(READY), s.Complete(), s.Poke(_LOOP_AT, _HLT_LOOP), s.Set((("rip", _LOOP_AT),)),
    s.Until(s.Quiet(), note="the guest was to halt without an exit"), _RUNS_ON,
)  # fmt: skip
#: The values that a VMM writes for a reset: KVM_SET_SREGS, KVM_SET_REGS, KVM_SET_MP_STATE.
_WRITTEN = s.Set(
    (
        *(("cr0", 0x60000010), ("cs.selector", 0xF000), ("cs.base", 0xFFFF0000), ("cs.limit", 0xFFFF), ("cs.g", 0), ("cs.db", 0)),
        *(("rip", 0xFFF0), ("rflags", 2), ("mp_state", KVM_MP_STATE_RUNNABLE)),
    )
)


def _halted(id: str, vendor: str, *steps: s.Step) -> Scenario:
    event, trigger = id.split(".")
    cite = (KVM_API, S_HLT, A_HLT)
    return Scenario(event, trigger, "halted-without-exit", steps, cite, "bsp", setup=_HLT, vendors=(vendor,))


_HLT = _with("no-hlt-exits")._replace(mce=False)
#: An MSR of nobody's, and one that a guest may write without an exit.
_UNKNOWN, _LSTAR = 0x1234, 0xC0000082

SCENARIOS = (
    *(_tried(name, *tried) for name, tried in _TRIED.items()),
    _halted("reset.vmm-reset", "intel", *_HALTS, s.Event("reset", "vmm-reset"), _WRITTEN, RESTARTS),
    # The VMM's data for the RDMSR is completed, as that of an IN is, and the INIT comes before the next instruction.
    Scenario(
        "init", "latched", "user-space-msrs",
        (
            *makes(rdmsr(_UNKNOWN), SAY), s.Until(s.Exit(KVM_EXIT_X86_RDMSR)), s.Observe(), s.Send("init", "latched"),
            s.Complete(), RESTARTS, s.Observe(),
        ),
        (KVM_API,), "bsp", setup=_with("user-space-msrs"), vendors=("amd",),
    ),
    # A filter still denies the guest its MSRs after INIT.
    Scenario(
        "init", "msi", "msr-filter",
        (
            *makes(rdmsr(_LSTAR), SAY, rdmsr(_LSTAR)), s.Until(GP), s.Until(READY), s.Observe(), s.Send("init"), RESTARTS,
            s.Observe(), s.Expect(GP),
        ),
        (KVM_API,), "bsp", setup=Setup(mce=True, denied=(_LSTAR,)), vendors=("intel",),
    ),
    _halted("init.msi", "amd", *_HALTS_AGAIN, s.Observe(), s.Start(), s.Send("init"), RESTARTS, s.Observe()),
)
