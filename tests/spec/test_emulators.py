# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import pytest

from kvmtest.spec.emulators import cannot_tell


@pytest.mark.parametrize(
    ("name", "item", "source"),
    [
        ("QEMU TCG CPU version 2.5+", "mxcsr", "helper_xrstor()"),
        ("Bochs 2.7", "mxcsr", "f3537f282a1e"),
        ("Bochs 2.7", "msr.spec_ctrl", "IA32_SPEC_CTRL"),
        ("Bochs 3.0", "mxcsr", ""),
        ("Bochs 3.0", "msr.spec_ctrl", "IA32_SPEC_CTRL"),
        ("Intel(R) Xeon(R)", "mxcsr", ""),
        ("Bochs 2.7", "rax", ""),
    ],
)
def test_an_emulator_by_its_name(name: str, item: str, source: str) -> None:
    reason = cannot_tell(("a CPU", name), item)
    assert source in reason and bool(reason) == bool(source)
