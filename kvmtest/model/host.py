# SPDX-License-Identifier: GPL-2.0-only
"""The KVM under test, and the program that tested it."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

__all__ = ("NO_KVM", "OBSERVER", "Host", "Tool", "module_of", "version_of")

#: The backend where there is no KVM.
NO_KVM = "none"
#: `Host.lab`'s kernel source where no kernel ran, but the observer.
OBSERVER = "observer"

#: The kind of CPU under the KVM under test (`Host.accel`), as part of a title.
_ON = {
    "": "",
    "silicon": " on silicon",
    "vm": " in a VM",
    "kvm": " in a VM on KVM",
    "tcg": " in QEMU (TCG)",
    "xen": " in a VM on Xen",
    "vmware": " in a VM on VMware",
    "hyper-v": " in a VM on Hyper-V",
    "bochs": " in Bochs",
}
#: The modules of the kernel's own backends; another is called after its module.
_MODULES = {"vmx": "kvm_intel", "svm": "kvm_amd"}
_RELEASE = re.compile(r"(\d{1,9})\.(\d{1,9})")


@cache
def version_of(release: str) -> tuple[int, int]:
    """Major and minor number of a kernel release such as ``6.1.0-56-cloud-amd64``; (0, 0) where there is none."""
    numbers = _RELEASE.match(release)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def module_of(backend: str) -> str:
    """The name of a backend's module."""
    return _MODULES.get(backend, f"kvm_{backend}")


class Tool(NamedTuple):
    """The kvmtest that ran."""

    version: str
    name: str = "kvmtest"


class Host(NamedTuple):
    """The KVM under test. ``parameters`` are the vendor module's and kvm.ko's (``kvm.``), as sysfs prints them.

    ``name`` is the host's own. ``accel`` is what makes the CPU under this KVM: ``silicon``, ``kvm``, ``tcg``, ``bochs``, another
    hypervisor's name, "" where nobody knows. ``lab`` has the emulator, its CPU model and the kernel's source (``emulator``,
    ``cpu``, ``kernel_source``) where the kernel ran in the lab, and the ``options`` of its cell where it had some.
    """

    kernel: str
    backend: str
    cpu_vendor: str
    cpu_model: str
    parameters: dict[str, str]
    lab: dict[str, str | float] | None = None
    name: str = ""
    accel: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The CPU under KVM: its model, and the emulator where there is one."""
        return (self.cpu_model, str(self.lab["emulator"])) if self.lab else (self.cpu_model,)

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor number of the kernel."""
        return version_of(self.kernel)

    @property
    def title(self) -> str:
        """The KVM and what it runs on, in a line."""
        if self.backend == NO_KVM:
            return f"no KVM{_ON.get(self.accel, f' on {self.accel}')}: {self.cpu_model}"
        if self.kernel == "unknown":
            return "an unknown KVM: the saved results do not name it"
        whose = "KVM" if self.backend == "unknown" else module_of(self.backend)
        if self.lab:
            return f"{whose} of Linux {self.kernel} in {self.lab['emulator']}"
        return f"{whose} of Linux {self.kernel}{_ON.get(self.accel, f' on {self.accel}')}: {self.cpu_model}"
