# SPDX-License-Identifier: GPL-2.0-only
"""The header's names of its numbers."""

from __future__ import annotations

from . import caps, consts, ioctls


def _names(module: object, prefix: str, *without: str) -> dict[int, str]:
    return {value: name for name, value in vars(module).items() if name.startswith(prefix) and name not in without}


CAPS = _names(caps, "KVM_CAP_")
EXITS = _names(consts, "KVM_EXIT_", "KVM_EXIT_IO_IN", "KVM_EXIT_IO_OUT", "KVM_EXIT_HYPERCALL_LONG_MODE")
IOCTLS = _names(ioctls, "KVM_")
MP_STATES = _names(consts, "KVM_MP_STATE_")
