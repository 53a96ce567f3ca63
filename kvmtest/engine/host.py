# SPDX-License-Identifier: GPL-2.0-only
"""What KVM this is: kernel, vendor module, its parameters, the CPU."""

from __future__ import annotations

import os
import re

from kvmtest.engine.result import Host

__all__ = ("detect", "kernel_version")

#: Vendor modules by the name of their folder in sysfs.
_MODULES = {"kvm_intel": "vmx", "kvm_amd": "svm"}

_RELEASE = re.compile(r"(\d+)\.(\d+)")


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


def _cpu(cpuinfo: str) -> tuple[str, str]:
    fields: dict[str, str] = {}
    for line in _read(cpuinfo).splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields.get("vendor_id", "unknown"), fields.get("model name", "unknown")


def detect(sysfs: str = "/sys/module", cpuinfo: str = "/proc/cpuinfo") -> Host:
    """The host as results describe it. A vendor module that this tool does not know gives its own short name."""
    backend, module = _backend(sysfs)
    vendor, model = _cpu(cpuinfo)
    return Host(os.uname().release, backend, vendor, model, _parameters(sysfs, module))


def kernel_version(release: str) -> tuple[int, int]:
    """Major and minor number of a kernel release such as ``6.1.0-56-cloud-amd64``; (0, 0) where there is none."""
    numbers = _RELEASE.match(release)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
