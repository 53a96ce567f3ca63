# SPDX-License-Identifier: GPL-2.0-only
"""State that a VMM reads from a vCPU and its VM to restore it elsewhere: by section, the ioctls and their structures."""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Iterable
from ctypes import sizeof
from typing import NamedTuple

from kvmtest.kvm import KvmError, Vcpu
from kvmtest.spec.migrated import added
from kvmtest.state.layout import Layout
from kvmtest.state.snapshot import Reader, msr_buffers
from kvmtest.uapi import kvm as uapi
from kvmtest.x86 import msr

__all__ = ("Part", "of_vcpu", "of_vm")


class Part(NamedTuple):
    """One structure of a section: the ioctls that read and write it, its ``kind`` and its initial contents.

    Without a ``kind`` the value is the ioctl's argument, ``number``, and nothing has to be read.
    """

    get: int
    put: int
    kind: str = ""
    contents: bytes = b""
    number: int = 0


#: The ioctl that writes each section that the Reader reads, and the structure's name.
_PUT = {
    "mp_state": (uapi.KVM_SET_MP_STATE, "kvm_mp_state"),
    "regs": (uapi.KVM_SET_REGS, "kvm_regs"),
    "sregs": (uapi.KVM_SET_SREGS, "kvm_sregs"),
    "debugregs": (uapi.KVM_SET_DEBUGREGS, "kvm_debugregs"),
    "events": (uapi.KVM_SET_VCPU_EVENTS, "kvm_vcpu_events"),
    "xcrs": (uapi.KVM_SET_XCRS, "kvm_xcrs"),
    "lapic": (uapi.KVM_SET_LAPIC, "kvm_lapic_state"),
    "xsave": (uapi.KVM_SET_XSAVE, "kvm_xsave"),
    "cpuid": (uapi.KVM_SET_CPUID2, "kvm_cpuid2"),
    "nested": (uapi.KVM_SET_NESTED_STATE, "kvm_nested_state"),
    "ssp": (uapi.KVM_SET_ONE_REG, "ssp"),
}
#: MSRs that define a vCPU's features; they cannot be written once some are in use.
_FEATURES = re.compile(r"msr\.(vmx_|arch_capabilities|perf_capabilities|ucode_rev)")


def _msrs(items: Iterable[str]) -> tuple[Part, ...]:
    buffers = msr_buffers(uapi.KVM_GET_MSRS, [(msr.index_of(item.removeprefix("msr.")), 0) for item in items])
    return tuple(Part(uapi.KVM_GET_MSRS, uapi.KVM_SET_MSRS, "kvm_msrs", buf.data.raw) for buf in buffers)


def of_vcpu(vcpu: Vcpu, reader: Reader, read_only: Collection[str], apart: Collection[str]) -> dict[str, tuple[Part, ...]]:
    """The sections of ``vcpu``.

    The items ``read_only``, of which KVM refuses their own value, are not written. Of MSRs those that come ``apart`` are each a
    section of its own, ``features`` all that say which features there are, and ``msrs`` the rest.
    """
    layout: Layout = reader.layout
    found: dict[str, tuple[Part, ...]] = {}
    for buf in reader.buffers:
        if buf.section in _PUT:
            put, kind = _PUT[buf.section]
            contents = buf.data.raw
            if buf.section == "cpuid":
                # The number of leaves is given, and the rest what KVM writes.
                contents = contents[:8] + bytes(len(contents) - 8)
            elif buf.section == "ssp":
                contents = contents[: sizeof(uapi.kvm_one_reg)].ljust(len(contents), b"\0")
            else:
                contents = bytes(len(contents))
            found[buf.section] = (Part(buf.request, put, kind, contents),)
    if vcpu.vm.check_extension(uapi.KVM_CAP_SREGS2):
        size = sizeof(uapi.kvm_sregs2)
        found["sregs2"] = (Part(uapi.KVM_GET_SREGS2, uapi.KVM_SET_SREGS2, "kvm_sregs2", bytes(size)),)
    else:
        found["sregs2"] = found["sregs"]
    found["fpu"] = (Part(uapi.KVM_GET_FPU, uapi.KVM_SET_FPU, "kvm_fpu", bytes(sizeof(uapi.kvm_fpu))),)
    items = [item for item in layout.by_section.get("msrs", ()) if item not in read_only]
    known = [item for item in items if item not in layout.unlisted or added(item)]
    features = [item for item in known if "features" in apart and _FEATURES.match(item)]
    found["msrs"] = _msrs([item for item in known if item not in apart and item not in features])
    found["features"] = _msrs(features)
    found |= {item: _msrs([item]) for item in apart if item in items}
    try:
        found["tsc_khz"] = (Part(0, uapi.KVM_SET_TSC_KHZ, number=vcpu.get_tsc_khz()),)
    except KvmError as error:
        if error.errno != errno.EIO:  # so where the host's TSC is not stable (KVM API, KVM_GET_TSC_KHZ)
            raise
    return found


def of_vm(irqchip: str) -> dict[str, tuple[Part, ...]]:
    """The sections of a VM with this ``irqchip``."""
    chip = sizeof(uapi.kvm_irqchip)
    chips = (uapi.KVM_IRQCHIP_PIC_MASTER, uapi.KVM_IRQCHIP_PIC_SLAVE, uapi.KVM_IRQCHIP_IOAPIC) if irqchip == "full" else ()
    clock = Part(uapi.KVM_GET_CLOCK, uapi.KVM_SET_CLOCK, "kvm_clock_data", bytes(sizeof(uapi.kvm_clock_data)))
    return {
        "irqchip": tuple(
            Part(uapi.KVM_GET_IRQCHIP, uapi.KVM_SET_IRQCHIP, "kvm_irqchip", number.to_bytes(chip, "little")) for number in chips
        ),
        "clock": (clock,),
    }
