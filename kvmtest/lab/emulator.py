# SPDX-License-Identifier: GPL-2.0-only
"""Which emulator a cell runs in."""

from __future__ import annotations

from kvmtest.lab.bochs import Bochs
from kvmtest.lab.qemu import Qemu
from kvmtest.lab.start import Emulator

__all__ = ("BACKENDS", "for_backend")

_EMULATORS: dict[str, Emulator] = {"svm": Qemu(), "vmx": Bochs()}
BACKENDS = tuple(_EMULATORS)


def for_backend(backend: str) -> Emulator:
    """The emulator for ``backend`` (one of BACKENDS)."""
    return _EMULATORS[backend]
