# SPDX-License-Identifier: GPL-2.0-only
"""Identification of the KVM under test: kernel, vendor module and its parameters, the CPU, and what emulates the CPU."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable

from kvmtest.model.host import Host

__all__ = ("accel", "detect", "flags", "under")

#: Vendor modules by the name of their folder in sysfs.
_MODULES = {"kvm_intel": "vmx", "kvm_amd": "svm"}

#: A hypervisor's signature in EBX, ECX and EDX of its CPUID leaf; Hyper-V's comes last, as KVM and Xen can show it too.
_SIGNATURES = {
    b"KVMKVMKVM": "kvm",
    b"TCGTCGTCGTCG": "tcg",
    b"XenVMMXenVMM": "xen",
    b"VMwareVMware": "vmware",
    b"Microsoft Hv": "hyper-v",
}
#: A hypervisor's first leaf, and the one where KVM and Xen have theirs while the first is Hyper-V's (kvm_cpuid_base() in Linux).
_LEAVES = (0x40000000, 0x40000100)
_CPUID = bytes.fromhex(
    "53"  # push %rbx
    "89f8"  # mov %edi, %eax
    "31c9"  # xor %ecx, %ecx
    "0fa2"  # cpuid
    "891e"  # mov %ebx, (%rsi)
    "894e04"  # mov %ecx, 4(%rsi)
    "895608"  # mov %edx, 8(%rsi)
    "5b"  # pop %rbx
    "c3"  # ret
)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _backend(sysfs: str) -> tuple[str, str]:
    """Backend and module. A module that is only built in or loaded counts if it has parameters or a reference."""
    try:
        modules = sorted(name for name in os.listdir(sysfs) if name.startswith("kvm_"))
    except OSError:
        modules = []
    # With several loaded the one that KVM uses holds a reference on kvm.ko; the usual two never load together.
    for module in sorted(modules, key=lambda m: m not in _MODULES):
        return _MODULES.get(module, module.removeprefix("kvm_")), module
    return "unknown", ""


def _parameters(sysfs: str, module: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("kvm", module):
        folder = f"{sysfs}/{name}/parameters"
        if not name or not os.path.isdir(folder):
            continue
        for parameter in sorted(os.listdir(folder)):
            prefix = "kvm." if name == "kvm" else ""
            found[prefix + parameter] = _read(f"{folder}/{parameter}")
    return found


def _fields(cpuinfo: str) -> dict[str, str]:
    """Return the fields of the first CPU."""
    fields: dict[str, str] = {}
    for line in _read(cpuinfo).splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def _cpu(cpuinfo: str) -> tuple[str, str]:
    fields = _fields(cpuinfo)
    return fields.get("vendor_id", "unknown"), fields.get("model name", "unknown")


def _signatures() -> list[bytes]:
    """Read the signatures in this CPU's hypervisor CPUID leaves; none if the system forbids executable memory."""
    if sys.maxsize < 1 << 32:
        return []
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return []
    page.write(_CPUID)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    ask = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_char_p)(address)
    found = []
    for leaf in _LEAVES:
        leaf_data = ctypes.create_string_buffer(12)
        ask(leaf, leaf_data)
        found.append(leaf_data.raw)
    return found


def accel(has: Iterable[str], signatures: Iterable[bytes], firmware: str = "") -> str:
    """Return what implements the CPU: ``silicon``, the name of a hypervisor or an emulator, ``vm`` for an unknown one.

    ``has`` are the flags of /proc/cpuinfo, of which ``hypervisor`` is CPUID.1:ECX[31] (reserved for hypervisors by both vendors);
    ``firmware`` is the vendor of the BIOS by DMI, which identifies Bochs. Returns "" if nothing is known of the CPU.
    """
    has, signatures = set(has), [signature.rstrip(b"\0") for signature in signatures]
    if not has:
        return ""
    if "hypervisor" in has:
        return next((name for signature, name in _SIGNATURES.items() if signature in signatures), "vm")
    return "bochs" if "bochs" in firmware.lower() else "silicon"


def flags(cpuinfo: str = "/proc/cpuinfo") -> frozenset[str]:
    """Return the flags of this machine's CPU, with the kernel's names."""
    return frozenset(_fields(cpuinfo).get("flags", "").split())


def under(cpuinfo: str = "/proc/cpuinfo", dmi: str = "/sys/class/dmi/id") -> str:
    """Return what implements this machine's CPU (`accel`)."""
    has = flags(cpuinfo)
    return accel(has, _signatures() if "hypervisor" in has else (), _read(f"{dmi}/bios_vendor"))


def detect(sysfs: str = "/sys/module", cpuinfo: str = "/proc/cpuinfo") -> Host:
    """The host as results describe it. A vendor module that this tool does not know gives its own short name."""
    backend, module = _backend(sysfs)
    vendor, model = _cpu(cpuinfo)
    system = os.uname()
    return Host(
        system.release, backend, vendor, model, _parameters(sysfs, module), name=system.nodename, accel=under(cpuinfo)
    )
