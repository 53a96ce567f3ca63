# SPDX-License-Identifier: GPL-2.0-only
"""Registers of a new vCPU that are otherwise than they must be fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import creation
from kvmtest.guests import behaviour
from kvmtest.kvm import Exit, Vcpu
from kvmtest.model.record import Result
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IO

Judge = Callable[..., Result]


@pytest.mark.parametrize("name", ["rdx-without-cpuid", "rdx-without-leaf-1"])
def test_rdx_is_recorded(name: str, judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msi, "init", lambda vcpu: None)
    result = judged(f"init.msi.host.{name}")
    assert (result.verdict, result.expected, result.observed) == ("info", "0x600", "0x55")


@pytest.mark.parametrize(
    ("msrs", "ds", "vendor", "verdict"),
    [
        ({0x1A0: 0x1800}, False, "intel", "pass"),
        ({0x1A0: 0x1000}, False, "intel", "fail"),
        ({0x1A0: 0}, False, "intel", "fail"),
        ({0x1A0: 0}, True, "intel", "skip"),
        ({0x1A0: 0}, False, "amd", "skip"),
        ({}, False, "intel", "skip"),
    ],
)
def test_what_the_cpuid_does_not_offer_is_unavailable(
    msrs: dict[int, int], ds: bool, vendor: str, verdict: str, judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine reads MSRs of its own first.
    real = Vcpu.get_msrs
    monkeypatch.setattr(Vcpu, "get_msrs", lambda vcpu, wanted: msrs if wanted == [0x1A0] else real(vcpu, wanted))
    monkeypatch.setattr(creation, "_offers", lambda *args: ds)
    assert judged("reset.create.host.misc-enable-unavailable", vendor).verdict == verdict


def test_a_feature_msr_that_is_filled_in_fails(
    judged: Judge, untestable_here: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    id = "reset.create.host.feature-msrs-unquirked"
    untestable_here(id)
    monkeypatch.setattr(creation, "_features", lambda subject, *caps: {0x8B: 5})
    result = judged(id)
    assert (result.verdict, result.observed) == ("fail", "ucode_rev 0x5")
    monkeypatch.setattr(creation, "_features", lambda subject, *caps: {})
    assert judged(id).verdict == "skip"


def _exit(reason: int, port: int = 0, value: int = 0) -> Exit:
    made = Exit(reason)
    made.port, made.data = port, value.to_bytes(4, "little")
    return made


@pytest.mark.parametrize("name", ["rdtscp", "rdpid"])
@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (_exit(KVM_EXIT_IO, behaviour.PORT_VALUE, 0x1234), "pass"),
        (_exit(KVM_EXIT_IO, behaviour.PORT_VALUE, 0), "fail"),
        (_exit(KVM_EXIT_IO, behaviour.PORT_FAULT, 0x1000100), "fail"),
        (_exit(KVM_EXIT_INTERNAL_ERROR), "skip"),
        (_exit(KVM_EXIT_HLT), "error"),
    ],
)
def test_another_tsc_aux_fails(
    name: str, seen: Exit, verdict: str, judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "_offers", lambda *args: True)
    monkeypatch.setattr(Vcpu, "set_msrs", lambda vcpu, values: len(values))
    monkeypatch.setattr(creation.Stage, "expect", lambda stage, port: 0)
    monkeypatch.setattr(creation.Stage, "run", lambda stage: seen)
    assert judged(f"reset.create.guest.tsc-aux-by-{name}").verdict == verdict


def test_a_tsc_aux_that_kvm_does_not_take_is_a_skip(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "_offers", lambda *args: True)
    monkeypatch.setattr(Vcpu, "set_msrs", lambda vcpu, values: 0)
    assert judged("reset.create.guest.tsc-aux-by-rdtscp").verdict == "skip"
