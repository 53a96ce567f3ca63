# SPDX-License-Identifier: GPL-2.0-only
"""Registers of the local APIC that do not follow the VM's settings, or outlive INIT, fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kvmtest.checks import Subject, lapic, own
from kvmtest.kvm import Kvm, Vcpu, Vm
from kvmtest.model.record import Result

Judge = Callable[..., Result]


@contextmanager
def _without_caps(subject: Subject, irqchip: str = "full", caps: tuple[tuple[int, int], ...] = ()) -> Iterator[Vm]:
    with own.own_vm(subject, irqchip) as vm:
        yield vm


@pytest.mark.parametrize(
    ("id", "function", "other", "observed"),
    [
        ("reset.create.host.lint0-unquirked", "own_vm", _without_caps, "0x700"),
        ("init.msi.host.lint0-unquirked", "own_vm", _without_caps, "0x700"),
        ("init.msi.host.lint0-unquirked", "_init", lambda vcpu: None, "0x55"),
    ],
)
def test_an_unmasked_lint0_fails(
    id: str, function: str, other: object, observed: str, judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lapic, function, other)
    result = judged(id)
    assert (result.verdict, result.observed) == ("fail", observed)


@pytest.mark.parametrize(
    ("id", "observed"), [("reset.create.host.lvt-cmci", "0x0, 6 LVT entries"), ("init.msi.host.lvt-cmci", "0x55, 6 LVT entries")]
)
def test_an_unmasked_cmci_entry_fails(id: str, observed: str, judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a KVM that says it has the entry and has none."""
    monkeypatch.setattr(Kvm, "mce_cap_supported", lambda kvm: 1 << 10)
    monkeypatch.setattr(Vcpu, "x86_setup_mce", lambda vcpu, cap: None)
    monkeypatch.setattr(lapic, "_init", lambda vcpu: None)
    result = judged(id)
    assert (result.verdict, result.observed) == ("fail", observed)


@pytest.mark.parametrize("prefix", ["reset.create", "init.msi"])
def test_a_version_register_that_does_not_follow_the_flags_fails(
    prefix: str, judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kvm, "check_extension", lambda kvm, cap: 0xF)
    monkeypatch.setattr(lapic, "own_vm", _without_caps)
    # A split irqchip makes KVM offer it where nothing else is said.
    monkeypatch.setattr(Vm, "enable_cap", _only_split(Vm.enable_cap))
    result = judged(f"{prefix}.host.eoi-broadcast")
    assert (result.verdict, result.observed) == ("fail", "enabled: 1, disabled: 1")


def _only_split(real: Callable[..., int]) -> Callable[..., int]:
    def enable(vm: Vm, cap: int, *args: int, flags: int = 0) -> int:
        return real(vm, cap, *args, flags=flags) if cap == 121 else 0

    return enable


def test_what_kvm_does_not_keep_is_an_error(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lapic, "_PLANT", 0xFF00_0055)
    monkeypatch.setattr(Vcpu, "set_lapic", lambda vcpu, state: None)
    result = judged("init.msi.host.lint0-unquirked")
    assert result.verdict == "error" and "was planted at offset 0x350" in result.reason
