# SPDX-License-Identifier: GPL-2.0-only
"""Instructions that KVM's emulator lacks."""

import pytest

from kvmtest.spec.real_mode import unemulated

_END = "not seen: exits with KVM_EXIT_SHUTDOWN: KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_EMULATION ndata=8 insn=0f 0b f4 f4"
_OLD = "not seen: exits with KVM_EXIT_SHUTDOWN: KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_EMULATION ndata=0 words=[] flags=0x1"


@pytest.mark.parametrize(
    ("backend", "parameters", "end", "said"),
    [
        ("vmx", {"unrestricted_guest": "N"}, _END, "no UD2"),
        ("vmx", {"unrestricted_guest": "Y"}, _END, ""),
        ("vmx", {}, _END, ""),
        ("svm", {"unrestricted_guest": "N"}, _END, ""),
        ("vmx", {"unrestricted_guest": "N"}, _END.replace("0f 0b", "0f 0a"), ""),
        ("vmx", {"unrestricted_guest": "N"}, _OLD, "no UD2"),
        ("vmx", {"unrestricted_guest": "Y"}, _OLD, ""),
        ("vmx", {"unrestricted_guest": "N"}, _OLD.replace("KVM_EXIT_SHUTDOWN", "KVM_EXIT_HLT"), ""),
        ("vmx", {"unrestricted_guest": "N"}, "KVM_EXIT_SHUTDOWN", ""),
    ],
)
def test_ud2_in_an_emulated_real_mode_alone(backend: str, parameters: dict[str, str], end: str, said: str) -> None:
    reason = unemulated(backend, parameters, end)
    assert said in reason and bool(reason) == bool(said)
