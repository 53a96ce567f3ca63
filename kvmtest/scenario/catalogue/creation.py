# SPDX-License-Identifier: GPL-2.0-only
"""Registers that depend on the VM: its quirks and capabilities, its machine-check banks, its CPUID, or having none of them."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import (
    A_APIC_ENABLE,
    A_MP,
    A_SYSTEM,
    A_T1,
    KVM_API,
    S_APIC_ENABLE,
    S_APIC_INIT,
    S_APIC_RESET,
    S_APIC_VERSION,
    S_LVT,
    S_MISC_ENABLE,
    S_MP,
    S_T1,
)
from kvmtest.uapi.kvm import (
    KVM_CAP_DISABLE_QUIRKS,
    KVM_CAP_DISABLE_QUIRKS2,
    KVM_CAP_X2APIC_API,
    KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST,
    KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST,
    KVM_X86_QUIRK_LINT0_REENABLED,
    KVM_X86_QUIRK_STUFF_FEATURE_MSRS,
)
from kvmtest.x86.msr import name_of

__all__ = ("SCENARIOS",)

_PLANT, _AUX, _MASKED = 0x55, 0x1234, 0x10000
#: Enabled, at FEE00000, and not the BSP.
_AP = 0xFEE00800
_NO_BTS_NO_PEBS = 3 << 11
#: MSRs that the quirk fills in (KVM API), without IA32_VMX_CR0_FIXED1 and CR4_FIXED1, which do not depend on it.
_FEATURE_MSRS = tuple(f"msr.{name_of(i)}" for i in (0x8B, 0xCE, 0x10A, 0x345, *range(0x480, 0x493)) if i not in (0x487, 0x489))
#: In bits 23:16 of the version register the number of LVT entries, less one, and whether EOI broadcasts can be suppressed.
_SEVEN_ENTRIES, _EOI_BROADCAST = (6 << 16, 0xFF << 16), 1 << 24

_SIGNATURE, _TSC_AUX = (S_T1, A_T1), (S_T1, A_SYSTEM)
_NO_SIGNATURE = "EDX holds the signature of CPUID.1, and the vCPU has no CPUID.1; KVM promises 600H since v5.15"
_LINT0 = (S_APIC_RESET, S_APIC_INIT, S_LVT, KVM_API)
_CMCI, _EOI = (S_APIC_RESET, S_APIC_INIT, S_LVT, S_APIC_VERSION), (KVM_API, S_APIC_VERSION)
_BSP = (S_APIC_ENABLE, S_MP, A_APIC_ENABLE, A_MP)


def _both(one: Scenario, *planted: str) -> tuple[Scenario, Scenario]:
    """Return the scenario of RESET, and that of an INIT after something else was ``planted``."""
    init = (s.Set(tuple((item, _PLANT) for item in planted)), s.Send("init"), s.Settle(), *one.steps)
    return one, one._replace(event="init", trigger="msi", steps=init)


def _rdx(name: str, leaves: str) -> Scenario:
    steps = (s.Set((("rdx", _PLANT),)), s.Send("init"), s.Settle(), s.Expect(s.Is("rdx", 0x600)))
    return Scenario("init", "msi", name, steps, _SIGNATURE, setup=Setup(leaves=leaves), undefined=_NO_SIGNATURE)


def _aux(name: str) -> Scenario:
    """Nothing but KVM_SET_CPUID2 and KVM_SET_MSRS comes before the guest's first instruction: no EFER is written."""
    steps = (
        s.Load("behaviour", (("TOPIC", f"TOPIC_{name.upper()}"),)), s.Set((("msr.tsc_aux", _AUX),)), s.Until(s.Word("RESET")),
        s.Until(s.Word("READY")), s.Expect(s.Word("VALUE", _AUX), "msr.tsc_aux"),
    )  # fmt: skip
    return Scenario("reset", "create", f"by-{name}", steps, _TSC_AUX, "bsp", "guest", (name,))


def _by_ioctl(trigger: str, item: str) -> Scenario:
    steps = (s.Observe(), s.Set(((item, _AP),), check=False), s.Expect(s.Is(item, _AP)), s.Expect(s.Same()))
    return Scenario("none", trigger, "bsp-flag", steps, (KVM_API, *_BSP), setup=Setup("none"))


SCENARIOS = (
    _rdx("without-cpuid", "none"),
    _rdx("without-leaf-1", "0"),
    Scenario(
        "reset", "create", "no-debug-store", (s.Expect(s.Is("msr.misc_enable", _NO_BTS_NO_PEBS, _NO_BTS_NO_PEBS)),),
        (S_MISC_ENABLE,), needs=("no-debug-store",), vendors=("intel",),
    ),
    Scenario(
        "reset", "create", "feature-msrs-unquirked", (s.Expect(s.Zero(_FEATURE_MSRS)),), (KVM_API,), "bsp",
        setup=Setup(caps=((KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_STUFF_FEATURE_MSRS),)),
    ),
    _aux("rdtscp"),
    _aux("rdpid"),
    *_both(
        Scenario(
            "reset", "create", "lint0-unquirked", (s.Expect(s.Is("lapic.lvt_lint0", _MASKED)),), _LINT0, "bsp",
            setup=Setup(caps=((KVM_CAP_DISABLE_QUIRKS, KVM_X86_QUIRK_LINT0_REENABLED),)),
        ),
        "lapic.lvt_lint0",
    ),
    *_both(
        Scenario(
            "reset", "create", "cmci",
            (s.Expect(s.Is("lapic.lvt_cmci", _MASKED)), s.Expect(s.Is("lapic.version", *_SEVEN_ENTRIES))), _CMCI,
            needs=("cmci",), setup=Setup(mce=True), vendors=("intel",),
        ),
        "lapic.lvt_cmci",
    ),
    *(
        scenario
        for name, flag, means in (
            ("eoi-broadcast", KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST, _EOI_BROADCAST),
            ("no-eoi-broadcast", KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST, 0),
        )
        for scenario in _both(
            Scenario(
                "reset", "create", name, (s.Expect(s.Is("lapic.version", means, _EOI_BROADCAST)),), _EOI, "bsp",
                setup=Setup("split", caps=((KVM_CAP_X2APIC_API, flag),)),
            )
        )
    ),
    Scenario(
        "reset", "create", "bsp-flag",
        (
            s.Load("behaviour", (("TOPIC", "TOPIC_X2APIC"),)), s.Until(s.Word("RESET")), s.Until(s.Word("READY")),
            s.Expect(s.Word("VALUE", _AP), "apic_base"),
        ),
        _BSP, view="guest", setup=Setup("none"),
    ),
    _by_ioctl("set-sregs", "apic_base"),
    _by_ioctl("set-msrs", "msr.apic_base"),
)  # fmt: skip
