# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import pytest

from kvmtest.spec.emulators import cannot_tell, lost, misleads, past_event


@pytest.mark.parametrize(
    ("name", "item", "source"),
    [
        ("QEMU TCG CPU version 2.5+", "mxcsr", "helper_xrstor()"),
        ("Bochs 2.7", "mxcsr", "f3537f282a1e"),
        ("Bochs 2.7", "msr.spec_ctrl", "IA32_SPEC_CTRL"),
        ("Bochs 3.0", "mxcsr", "17462bb09"),
        ("Bochs 3.0", "msr.pl0_ssp", "f59ff867d"),
        ("Bochs 3.0", "msr.s_cet", ""),
        ("Bochs 3.1", "mxcsr", ""),
        ("Bochs 3.1", "msr.pl0_ssp", ""),
        ("Bochs 3.0", "msr.spec_ctrl", "IA32_SPEC_CTRL"),
        ("Intel(R) Xeon(R)", "mxcsr", ""),
        ("Bochs 2.7", "rax", ""),
    ],
)
def test_an_emulator_by_its_name(name: str, item: str, source: str) -> None:
    reason = cannot_tell(("a CPU", name), item)
    assert source in reason and bool(reason) == bool(source)


def test_what_a_guest_on_it_loses_for_kvm() -> None:
    assert lost(("QEMU TCG CPU version 2.5+",), "msr.spec_ctrl")
    assert not lost(("QEMU TCG CPU version 2.5+",), "mxcsr")
    assert not lost(("AMD EPYC",), "msr.spec_ctrl")


def test_a_guest_that_stops_for_a_past_event_is_distinguished() -> None:
    tcg, end = (
        ("QEMU TCG CPU version 2.5+",),
        "the planting guest stopped: KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_DELIVERY_EV",
    )
    assert "svm_check_emulate_instruction()" in past_event(tcg, "svm", (6, 14), end)
    for names, backend, kernel, said in (
        (("AMD EPYC",), "svm", (7, 2), end),
        (tcg, "vmx", (7, 2), end),
        (tcg, "svm", (6, 13), end),
        (tcg, "svm", (7, 2), "KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_EMULATION"),
    ):
        assert past_event(names, backend, kernel, said) == ""


def test_what_comes_by_a_trigger_that_it_gets_wrong() -> None:
    tcg, trigger = ("QEMU TCG CPU version 2.5+", "QEMU 7.2.22 (TCG)"), "task-gate"
    assert "switch_tss_ra()" in misleads(tcg, {"npt": "N"}, trigger)
    assert not misleads(tcg, {"npt": "Y"}, trigger) and not misleads(tcg, {}, trigger)
    assert not misleads(tcg, {"npt": "N"}, "msi") and not misleads(("AMD EPYC",), {"npt": "N"}, trigger)
