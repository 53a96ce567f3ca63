# SPDX-License-Identifier: GPL-2.0-only
"""States that KVM has to refuse, by ioctl, since no CPU can be in them: the error is checked, and that nothing has changed."""

from __future__ import annotations

from errno import EBUSY, EEXIST, EINVAL
from typing import NamedTuple

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import FINDS
from kvmtest.scenario.hypervisor import EFER, EFER_SVME, IN_L2
from kvmtest.scenario.hypervisor import svm as hypervisor
from kvmtest.scenario.memory import IDENTITY_MAP
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import (
    A_CONTROL,
    A_MODES,
    A_VMRUN,
    KVM_API,
    LINUX_BOOT_ID,
    LINUX_SET_CR0,
    LINUX_SET_EFER,
    LINUX_VCPU_ID,
    S_APIC_STATUS,
    S_CONTROL,
    S_IA32E,
    S_PAT_TYPES,
    S_WRMSR,
    S_X2APIC,
    S_XCR0,
    S_XRSTOR,
)
from kvmtest.uapi.kvm import KVM_CREATE_IRQCHIP, KVM_CREATE_VCPU, KVM_SET_BOOT_CPU_ID, KVM_SET_IDENTITY_MAP_ADDR

__all__ = ("ROWS", "SCENARIOS", "Row")


class Row(NamedTuple):
    """``items`` that are written, by the ioctl that ``trigger`` names, over the state of ``plant``: KVM refuses them.

    ``cite`` says that no CPU has this, or that KVM refuses it. ``leaves`` are as of a Setup.
    """

    trigger: str
    sequence: str
    items: tuple[tuple[str, int | str], ...]
    cite: tuple[str, ...]
    plant: str = "a"
    apic_mode: str = "xapic"
    vendor: str = "intel"
    needs: tuple[str, ...] = ()
    leaves: str = ""


_CR0, _IN_64 = 0x80050033, (S_IA32E, A_MODES, KVM_API)
_CONTROL = (S_CONTROL, A_CONTROL, LINUX_SET_CR0)
_EFER = (A_MODES, KVM_API, LINUX_SET_EFER)
_NESTED = (KVM_API,)
_BEYOND_32 = 1 << 32

#: Of KVM_SET_SREGS a CPU's checks of MOV to control registers, and of WRMSR of IA32_APIC_BASE; plant a is in 64-bit mode.
ROWS = (
    Row("set-sregs", "cr0-pg-without-pe", (("cr0", _CR0 & ~1),), _CONTROL),
    Row("set-sregs", "cr0-pg-without-pe-in-real-mode", (("cr0", 0x80000010),), _CONTROL, "b"),
    Row("set-sregs", "cr0-nw-without-cd", (("cr0", _CR0 | 1 << 29),), _CONTROL),
    Row("set-sregs", "cr0-nw-without-cd-in-real-mode", (("cr0", 0x20000010),), _CONTROL, "b", vendor="amd"),
    Row("set-sregs", "cr0-beyond-32-bits", (("cr0", _CR0 | _BEYOND_32),), _CONTROL),
    Row("set-sregs", "cr0-bit-63", (("cr0", 1 << 63 | 0x60000010),), _CONTROL, "b"),
    Row("set-sregs", "cr4-bit-63", (("cr4", 1 << 63 | 0x20),), (S_CONTROL, A_CONTROL)),
    Row("set-sregs", "cr4-bit-15", (("cr4", 1 << 15 | 0x20),), (S_CONTROL, A_CONTROL), vendor="amd"),
    Row("set-sregs", "lme-and-pg-without-pae", (("cr4", 0),), _IN_64),
    Row("set-sregs", "lme-and-pg-without-lma", (("efer", 0x100),), _IN_64),
    Row("set-sregs", "lma-without-lme", (("efer", 0x400),), _IN_64),
    Row("set-sregs", "lma-without-paging", (("efer", 0x500),), _IN_64, "b", vendor="amd"),
    Row("set-sregs", "cs-l-outside-of-64-bit-mode", (("efer", 0), ("cr4", 0x20)), _IN_64),
    Row("set-sregs", "efer-bit-63", (("efer", 1 << 63),), _EFER, "b"),
    Row("set-sregs", "efer-svme-without-svm", (("efer", 1 << 12),), _EFER, "b", vendor="amd", leaves="no-svm"),
    Row("set-sregs", "efer-lme-without-long-mode", (("efer", 1 << 8),), _EFER, "b", leaves="no-long-mode"),
    Row("set-sregs", "cr3-bit-52", (("cr3", 1 << 52),), (S_CONTROL, A_CONTROL)),
    Row("set-sregs", "apic-base-extd-without-en", (("apic_base", 0xFEE00400),), (S_X2APIC,)),
    Row("set-sregs", "apic-base-bit-0", (("apic_base", 0xFEE00801),), (S_APIC_STATUS,)),
    Row("set-sregs", "apic-base-bit-63", (("apic_base", 1 << 63 | 0xFEE00800),), (S_APIC_STATUS,), apic_mode="x2apic"),
    Row("set-sregs", "apic-base-extd-without-x2apic", (("apic_base", 0xFEE00C00),), (S_X2APIC,), leaves="no-x2apic"),
    Row("set-debugregs", "flags-1", (("debugregs.flags", 1),), (KVM_API,)),
    Row("set-debugregs", "flags-largest", (("debugregs.flags", (1 << 64) - 1),), (KVM_API,)),
    Row("set-debugregs", "dr6-beyond-32-bits", (("dr6", _BEYOND_32 | 0xFFFF0FF0),), (S_CONTROL, A_CONTROL)),
    Row("set-debugregs", "dr7-beyond-32-bits", (("dr7", _BEYOND_32 | 0x400),), (S_CONTROL, A_CONTROL)),
    Row("set-debugregs", "dr7-bit-63", (("dr7", 1 << 63 | 0x400),), (S_CONTROL, A_CONTROL), "b", vendor="amd"),
    Row("set-xcrs", "flags-1", (("xcrs.flags", 1),), (KVM_API,)),
    Row("set-xcrs", "one-beyond-the-last", (("xcrs.count", 17),), (KVM_API,)),
    Row("set-xcrs", "xcr0-0", (("xcr0", 0),), (S_XCR0,)),
    Row("set-xcrs", "xcr0-avx-without-sse", (("xcr0", 5),), (S_XCR0,)),
    Row("set-xcrs", "xcr0-bit-63", (("xcr0", 1 << 63 | 1),), (S_XCR0,), vendor="amd"),
    Row("set-xsave", "mxcsr-bit-31", (("mxcsr", 1 << 31 | 0x1F80),), (S_XRSTOR,)),
    Row("set-xsave", "xstate-bv-bit-62", (("xsave.xstate_bv", 1 << 62 | 3),), (S_XRSTOR,), vendor="amd"),
    Row("vcpu-events", "flags-bit-31", (("events.flags", 1 << 31),), (KVM_API,)),
    Row("vcpu-events", "exception-32", (("events.exception_nr", 32),), (KVM_API,)),
    Row("vcpu-events", "exception-255", (("events.exception_nr", 255),), (KVM_API,), "c"),
    Row("vcpu-events", "exception-that-is-nmi", (("events.exception_nr", 2),), (KVM_API,)),
    Row("nested-state", "svm-in-other-format", (("nested.format", 2),), _NESTED, vendor="amd", needs=("svm",)),
    Row("nested-state", "svm-flags-bit-15", (("nested.flags", 0x8100),), _NESTED, vendor="amd", needs=("svm",)),
    Row("nested-state", "svm-guest-mode-without-svme", (("nested.flags", 0x101),), _NESTED, vendor="amd", needs=("svm",)),
    Row("nested-state", "vmx-in-other-format", (("nested.format", 2),), _NESTED, needs=("vmx",)),
    Row("nested-state", "vmx-flags-bit-15", (("nested.flags", 0x8000),), _NESTED, needs=("vmx",)),
    Row("nested-state", "vmx-guest-mode-without-vmxon", (("nested.flags", 1),), _NESTED, needs=("vmx",)),
    Row("nested-state", "vmxon-region-unaligned", (("nested.vmxon_pa", 1),), _NESTED, needs=("vmx",)),
    Row("nested-state", "vmcs12-without-vmxon", (("nested.vmcs12_pa", 0x1000),), _NESTED, needs=("vmx",)),
)  # fmt: skip

_REFUSED = (s.Expect(s.Answer(-EINVAL)), s.Expect(s.Same()))


def _row(row: Row) -> Scenario:
    steps = (s.Plant(row.plant, row.apic_mode), FINDS, s.Set(row.items, keep=True), *_REFUSED)
    where = ("none", row.trigger, row.sequence)
    setup = Setup(leaves=row.leaves)
    return Scenario(*where, steps, row.cite, needs=row.needs, setup=setup, vendors=(row.vendor,), fresh=False)


_NOT_CANONICAL, _BASES = 1 << 63, ("lstar", "cstar", "fs_base", "gs_base", "kernel_gs_base")
_FIXED = ("fix64k_00000", "fix16k_80000", "fix4k_f8000")
#: Values at which KVM_SET_MSRS stops (KVM API: "due to setting reserved bits"), each written by itself.
_MSRS = {
    "addresses-not-canonical": tuple((name, _NOT_CANONICAL) for name in _BASES),
    "pat-reserved": tuple(("pat", value) for value in (2, 3 << 8, 8 << 56, 0xFF << 56)),
    "mtrr-types-reserved": (
        ("mtrr_def_type", 0xC02), ("mtrr_def_type", 1 << 8 | 6), ("mtrr_physbase0", 2),
        *((f"mtrr_{name}", 3 << 56) for name in _FIXED),
    ),
    "bits-reserved": (
        *(("efer", 0xD01 | bit) for bit in (1 << 1, 1 << 9, 1 << 63)),
        *(("apic_base", value) for value in (0xFEE00400, 0xFEE00801, 1 << 63 | 0xFEE00800)),
    ),
}  # fmt: skip


def _msrs(sequence: str, written: tuple[tuple[str, int], ...]) -> Scenario:
    def refused(name: str, value: int) -> s.Step:
        return s.Expect(s.Answer(0), says=((0, "refused"), (1, f"{value:#x} in {name} accepted")))

    tried = (step for one in written for step in (s.Set(((f"msr.{one[0]}", one[1]),), keep=True), refused(*one)))
    steps = (s.Plant("a"), FINDS, *tried, s.Expect(s.Same()))
    cite = (KVM_API, S_WRMSR, S_PAT_TYPES, S_X2APIC)
    return Scenario("none", "set-msrs", sequence, steps, cite, vendors=("intel",), fresh=False)


#: L1's registers while L2 runs, in the VMCB that KVM_GET_NESTED_STATE gives: what VMRUN would not have begun with.
_L1 = {
    "lma-without-lme": ("efer", EFER & ~0x100 | EFER_SVME),
    "without-svme": ("efer", EFER),
    "cr0-without-pg": ("cr0", 0x11),
    "cr0-nw-without-cd": ("cr0", 0xA0010033),
    "cr0-beyond-32-bits": ("cr0", 1 << 32 | 0x80010033),
    "without-pae": ("cr4", 0x600),
    "virtual-8086-mode": ("rflags", 0x20002),
}


def _l1(name: str, item: str, value: int) -> Scenario:
    """L2 runs, and is restored with an L1 that is none."""
    steps = (
        *hypervisor("TOPIC_RUN"), s.Until(s.Word("NESTED")), s.Complete(), IN_L2, FINDS,
        s.Set(((f"nested.vmcb.{item}", value),), keep=True), *_REFUSED,
    )  # fmt: skip
    where = ("none", "nested-state", f"l1-of-svm-l2-{name}")
    return Scenario(*where, steps, (A_VMRUN, A_MODES, KVM_API), "bsp", needs=("svm",), vendors=("amd",))


def _boot_id(sequence: str, value: int, result: int = -EINVAL) -> Scenario:
    """KVM_SET_BOOT_CPU_ID, which is for a VM that has no vCPU yet."""
    steps = (s.Call(KVM_SET_BOOT_CPU_ID, value, "new-vm", keep=True), s.Expect(s.Answer(result)))
    where = ("none", "set-boot-cpu-id", sequence)
    return Scenario(*where, steps, (KVM_API, LINUX_BOOT_ID), vendors=("intel",), fresh=False)


def _vcpu_id(sequence: str, value: int, error: int = EINVAL) -> Scenario:
    """KVM_CREATE_VCPU beside the vCPUs 0 and 1."""
    steps = (s.Call(KVM_CREATE_VCPU, value, "vm", keep=True), s.Expect(s.Answer(-error)))
    where = ("none", "create-vcpu", sequence)
    return Scenario(*where, steps, (KVM_API, LINUX_VCPU_ID), vendors=("intel",), fresh=False)


def _late(trigger: str, sequence: str, call: s.Call, error: int, irqchip: str = "full") -> Scenario:
    """Return the scenario of a call on a VM with two vCPUs that is only allowed before the first vCPU."""
    steps = (FINDS, call._replace(who="vm", keep=True), s.Expect(s.Answer(-error)), s.Expect(s.Same()))
    return Scenario("none", trigger, sequence, steps, (KVM_API,), setup=Setup(irqchip), vendors=("intel",), fresh=False)


SCENARIOS = (
    *map(_row, ROWS),
    *(_msrs(sequence, written) for sequence, written in _MSRS.items()),
    _late("set-boot-cpu-id", "after-vcpus", s.Call(KVM_SET_BOOT_CPU_ID, 1), EBUSY),
    _late("set-identity-map-addr", "after-vcpus", s.Call(KVM_SET_IDENTITY_MAP_ADDR, IDENTITY_MAP.to_bytes(8, "little")), EINVAL),
    _late("create-irqchip", "after-vcpus", s.Call(KVM_CREATE_IRQCHIP), EINVAL, "none"),
    *(_l1(name, *values) for name, values in _L1.items()),
    _boot_id("id-0", 0, 0),
    _boot_id("id-1", 1, 0),
    _boot_id("id-beyond-the-last", 1 << 20),
    _boot_id("id-beyond-32-bits", 1 << 32),
    _boot_id("id-1-beyond-32-bits", 1 << 32 | 1),
    _boot_id("id-largest", (1 << 64) - 1),
    _vcpu_id("id-taken", 1, EEXIST),
    _vcpu_id("id-beyond-the-last", 1 << 20),
    _vcpu_id("id-taken-beyond-32-bits", 1 << 32 | 1),
    _vcpu_id("id-largest", (1 << 64) - 1),
)  # fmt: skip
