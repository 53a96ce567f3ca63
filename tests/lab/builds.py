# SPDX-License-Identifier: GPL-2.0-only
"""KVM's modules of a Debian kernel with lines of their own, where this machine can build them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kvmtest.lab import build as lab
from kvmtest.lab.build import change
from kvmtest.lab.error import LabError
from kvmtest.lab.kernels import Kernel

__all__ = ("build", "change")


def build(kernel: Kernel, edit: Callable[[Path], None]) -> Path:
    """The folder with KVM's modules for ``kernel``, built after ``edit`` of arch/x86/kvm; skips where something is missing."""
    try:
        return Path(lab.build(kernel, edit=edit, flags=("-Wno-misleading-indentation", "-Wno-dangling-else")))
    except lab.Unbuildable as error:
        pytest.fail("\n".join((str(error), *error.errors)))
    except LabError as error:
        pytest.skip(str(error))
