# SPDX-License-Identifier: GPL-2.0-only
"""The state of a vCPU that kvmtest did not make: read from its descriptor, or saved by a VMM as the ioctls filled it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ctypes import sizeof
from typing import NamedTuple

from kvmtest.engine import host as host_facts
from kvmtest.kvm import CpuidEntry, Kvm, Vcpu
from kvmtest.kvm.check import unsigned
from kvmtest.kvm.cpuid import pack_cpuid
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.state.snapshot import Reader, missing_sections
from kvmtest.uapi import kvm as uapi
from kvmtest.x86 import cpuid as x86_cpuid
from kvmtest.x86 import msr

__all__ = ["State", "read_state", "saved_state"]

#: The sections of saved_state(): the ioctl, and the bytes that it fills or the least of them.
_SECTIONS = {
    "regs": ("KVM_GET_REGS", sizeof(uapi.kvm_regs)),
    "sregs": ("KVM_GET_SREGS", sizeof(uapi.kvm_sregs)),
    "debugregs": ("KVM_GET_DEBUGREGS", sizeof(uapi.kvm_debugregs)),
    "events": ("KVM_GET_VCPU_EVENTS", sizeof(uapi.kvm_vcpu_events)),
    "mp_state": ("KVM_GET_MP_STATE", sizeof(uapi.kvm_mp_state)),
    "xcrs": ("KVM_GET_XCRS", sizeof(uapi.kvm_xcrs)),
    "lapic": ("KVM_GET_LAPIC", sizeof(uapi.kvm_lapic_state)),
    "xsave": ("KVM_GET_XSAVE or KVM_GET_XSAVE2", 4096),
    "nested": ("KVM_GET_NESTED_STATE", 128),
}
_GROWS = ("xsave", "nested")
#: struct kvm_msrs: a header of 8 bytes, then 16 bytes for each MSR; struct kvm_cpuid2: 8, then 40 for each leaf.
_HEAD, _MSR, _LEAF = 8, 16, 40


class State(NamedTuple):
    """All that is known of a vCPU at one time.

    ``vendor`` is what its CPUID says, "intel", "amd" or "" where CPUID was not given; ``leaves`` is that CPUID. ``absent``
    says of each item that cannot be had why not. ``backend`` is the vendor module that runs it, "" where that is not known.
    """

    snapshot: Snapshot
    layout: Layout
    leaves: list[CpuidEntry]
    vendor: str
    absent: dict[str, str]
    backend: str = ""
    apic_id: int | None = None

    def value(self, item: str) -> int | None:
        """The value of an item such as ``cr0``, or None where it was not read."""
        return self.snapshot.get(self.layout, item)


def read_state(vcpu: Vcpu) -> State:
    """Read the whole state of ``vcpu``, which nobody may be running.

    KVM_GET_MP_STATE comes first and makes KVM accept a pending INIT or SIPI. Raises KvmError where KVM refuses.
    """
    leaves = vcpu.get_cpuid2()
    found = host_facts.detect()
    blind = found.parameters.get("kvm.ignore_msrs", "N") in ("Y", "1")
    wanted = set(vcpu.vm.kvm.msr_index_list()) | (set() if blind else {known.index for known in msr.MSRS})
    readable = tuple(vcpu.get_msrs(sorted(wanted)))
    placed = tuple((leaf.function, leaf.index) for leaf in leaves)
    layout = Layout(readable, x86_cpuid.xsave_components(leaves), missing_sections(vcpu), placed)
    snapshot = Reader(vcpu, layout).read()
    absent = layout.missing | snapshot.unreadable
    return State(snapshot, layout, leaves, _vendor(leaves), absent, found.backend, vcpu.id)


def saved_state(
    *,
    regs: bytes | None = None,
    sregs: bytes | None = None,
    debugregs: bytes | None = None,
    events: bytes | None = None,
    mp_state: bytes | None = None,
    xcrs: bytes | None = None,
    lapic: bytes | None = None,
    xsave: bytes | None = None,
    nested: bytes | None = None,
    msrs: Mapping[int, int] | bytes | None = None,
    cpuid: Iterable[CpuidEntry] | bytes | None = None,
) -> State:
    """The state that a VMM saved: what KVM_GET_REGS, KVM_GET_SREGS and so on filled, byte for byte.

    ``msrs`` is a struct kvm_msrs with its entries, or values by index; ``cpuid`` a struct kvm_cpuid2 with its entries, or
    leaves. What is left out is not judged. Raises ValueError where bytes do not have the structure's size.
    """
    given = {"regs": regs, "sregs": sregs, "debugregs": debugregs, "events": events, "mp_state": mp_state, "xcrs": xcrs}
    given |= {"lapic": lapic, "xsave": xsave, "nested": nested}
    sections: dict[str, bytes] = {}
    missing = {"ssp": "KVM_GET_ONE_REG was not given"}
    for name, contents in given.items():
        ioctl, size = _SECTIONS[name]
        if contents is None:
            missing[name] = f"{ioctl} was not given"
            continue
        if not isinstance(contents, bytes | bytearray | memoryview):
            raise ValueError(f"{name}: a {type(contents).__name__}, where {ioctl} fills bytes")
        if len(contents) < size or len(contents) > size and name not in _GROWS:
            least = "at least " if name in _GROWS else ""
            raise ValueError(f"{name}: {len(contents)} bytes, where {ioctl} fills {least}{size}")
        sections[name] = bytes(contents)
    values = _msrs(msrs)
    sections["msrs"] = b"".join(i.to_bytes(8, "little") + v.to_bytes(8, "little") for i, v in values.items())
    leaves = _leaves(cpuid)
    sections["cpuid"] = bytes(pack_cpuid(leaves))
    placed = tuple((leaf.function, leaf.index) for leaf in leaves)
    layout = Layout(tuple(values), x86_cpuid.xsave_components(leaves), missing, placed)
    absent = {item: _why(item, reason, missing, bool(leaves)) for item, reason in layout.missing.items()}
    return State(Snapshot(sections, {}), layout, leaves, _vendor(leaves), absent)


def _why(item: str, reason: str, missing: dict[str, str], leaves: bool) -> str:
    """Return why a saved state lacks an item; Layout's reasons are those of a KVM that was called."""
    if item.startswith("msr."):
        return "KVM_GET_MSRS: not among the MSRs given"
    if not leaves and (item.startswith("cpuid.") or reason not in missing.values()):
        return "KVM_GET_CPUID2 was not given"
    return reason.replace("this host", "this CPUID")


def _msrs(given: Mapping[int, int] | bytes | None) -> dict[int, int]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        for index, value in given.items():
            unsigned(32, msrs=index)
            unsigned(64, **{f"msrs[{index:#x}]": value})
        return dict(given)
    count = _count("msrs", "struct kvm_msrs", given, _MSR)
    words = [int.from_bytes(given[at : at + 8], "little") for at in range(_HEAD, _HEAD + _MSR * count, 8)]
    return dict(zip((index & 0xFFFFFFFF for index in words[::2]), words[1::2], strict=True))


def _leaves(given: Iterable[CpuidEntry] | bytes | None) -> list[CpuidEntry]:
    if given is None:
        return []
    if not isinstance(given, bytes):
        leaves = list(given)
        for leaf in leaves:
            if not isinstance(leaf, CpuidEntry):
                raise ValueError(f"cpuid: a {type(leaf).__name__}, not a CpuidEntry")
        return leaves
    count = _count("cpuid", "struct kvm_cpuid2", given, _LEAF)
    words = [int.from_bytes(given[at : at + 4], "little") for at in range(_HEAD, _HEAD + _LEAF * count, 4)]
    return [CpuidEntry(*words[at : at + 7]) for at in range(0, len(words), 10)]


def _count(name: str, struct: str, given: bytes, size: int) -> int:
    """The number that the first word of ``given`` counts, where so many entries are there."""
    count = int.from_bytes(given[:4], "little")
    if len(given) < _HEAD + size * count or len(given) < _HEAD:
        raise ValueError(f"{name}: {len(given)} bytes, where a {struct} with {count} entries has {_HEAD + size * count}")
    return count


def _vendor(leaves: list[CpuidEntry]) -> str:
    """The vendor whose manual goes with CPUID.0: those that build another's architecture say which in its own name."""
    for leaf in leaves:
        if leaf.function == 0:
            name = b"".join(register.to_bytes(4, "little") for register in (leaf.ebx, leaf.edx, leaf.ecx))
            return next((vendor for vendor, known in x86_cpuid.VENDORS.items() if known == name), "")
    return ""


def open_vcpu(fd: int) -> tuple[Kvm, Vcpu]:
    """The vCPU of a descriptor of this process, with the /dev/kvm to ask what KVM can do; the caller closes both."""
    kvm = Kvm()
    try:
        return kvm, Vcpu.from_fd(kvm, fd)
    except BaseException:
        kvm.close()
        raise
