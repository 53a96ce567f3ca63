# SPDX-License-Identifier: GPL-2.0-only
"""Owners of /dev/kvm's file descriptors and mappings: Kvm, Vm, Vcpu and GuestMemory.

One method an ioctl, one exception type that names it. Nothing is printed; everything is given back by close(), which
`with` calls.
"""

from __future__ import annotations

from .cpuid import CpuidEntry
from .error import KvmError, RunTimeout
from .exit import Exit
from .memory import GuestMemory
from .stop import RunStopped, Stop
from .system import Kvm
from .vcpu import Vcpu
from .vm import Vm, irqchip_route, msi_route

__all__ = [
    "CpuidEntry",
    "Exit",
    "GuestMemory",
    "Kvm",
    "KvmError",
    "RunStopped",
    "RunTimeout",
    "Stop",
    "Vcpu",
    "Vm",
    "irqchip_route",
    "msi_route",
]
