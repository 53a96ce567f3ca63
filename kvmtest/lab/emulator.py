# SPDX-License-Identifier: GPL-2.0-only
"""Which emulator a cell runs in."""

from __future__ import annotations

import functools

from kvmtest.lab.bochs import MODELS, Bochs
from kvmtest.lab.error import NotFound
from kvmtest.lab.qemu import Kvm, Qemu
from kvmtest.lab.start import Cpu, Emulator

__all__ = ("ACCELS", "BACKENDS", "for_backend")

_EMULATORS: dict[str, type[Bochs | Qemu]] = {"tcg": Qemu, "bochs": Bochs, "kvm": Kvm}
#: The programs that emulate a CPU, or run it on KVM; and the usual one of each backend.
ACCELS = tuple(_EMULATORS)
_USUAL = {"svm": "tcg", "vmx": "bochs"}
BACKENDS = tuple(_USUAL)


_ANY = Cpu()


@functools.cache
def for_backend(backend: str, cpu: Cpu = _ANY) -> Emulator:
    """The emulator for ``backend`` (one of BACKENDS), with such CPUs. Raises NotFound for what no emulator has."""
    accel = cpu.accel or ("bochs" if cpu.model in MODELS else _USUAL[backend])
    if (backend, accel) == ("vmx", "tcg"):
        raise NotFound("--accel tcg has no --backend vmx: QEMU's TCG emulates SVM alone; --accel bochs, or kvm on Intel's CPUs")
    return _EMULATORS[accel](backend, cpu)
