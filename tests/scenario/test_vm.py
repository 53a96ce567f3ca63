# SPDX-License-Identifier: GPL-2.0-only
"""The program that creates a setup's VM: what each part of a setup asks for, in the order that KVM wants."""

from __future__ import annotations

from typing import Any

import pytest

from kvmtest.engine.plan import plan
from kvmtest.kvm import CpuidEntry
from kvmtest.scenario import program as p
from kvmtest.scenario.setup import SPARSE, Setup
from kvmtest.scenario.vm import lower
from kvmtest.uapi import kvm as uapi


class _Host:
    """A host with so many vCPUs, and each capability that is asked for, or none."""

    def __init__(self, vcpus: int = 4096, there: bool = True) -> None:
        self._vcpus, self._there = vcpus, there
        self.supported = [CpuidEntry(0, 0, 0, 0xD, 1, 2, 3), CpuidEntry(1, 0, 0, 0, 0, 0, 0)]
        self.mce_cap = 0x0100_0000_1020

    def check_extension(self, cap: int) -> int:
        """The number of vCPUs, or whether ``cap`` is there."""
        return self._vcpus if cap == uapi.KVM_CAP_MAX_VCPUS else int(self._there)


def _ops(setup: Setup, host: Any = None) -> list[p.Op]:
    return [op for _, op in lower(setup, host or _Host()).ops]


def _caps(setup: Setup, host: Any = None) -> dict[int, int]:
    """The capabilities that are enabled, with their first argument."""
    made = lower(setup, host or _Host())
    asked = [
        uapi.kvm_enable_cap.from_buffer_copy(made.buffers[str(op.arg)].contents)
        for _, op in made.ops
        if isinstance(op, p.Ioctl) and op.request == uapi.KVM_ENABLE_CAP
    ]
    return {one.cap: one.args[0] for one in asked}


def _at(ops: list[p.Op], request: int) -> int:
    return next(at for at, op in enumerate(ops) if isinstance(op, p.Ioctl) and op.request == request)


def test_each_setup_of_the_plan_is_a_program_of_steps_of_their_own() -> None:
    for setup in {case.setup for case in plan()}:
        made = lower(setup, _Host())
        assert [number for number, _ in made.ops] == list(range(len(made.ops)))
        assert {name for _, op in made.ops for name in p.buffers_of(op)} == made.buffers.keys()
        created = [op.vcpu for _, op in made.ops if isinstance(op, p.Create)]
        assert created and len(set(created)) == len(created)
        # No vCPU is used before it is there.
        for at, (_, op) in enumerate(made.ops):
            vcpu = op.on if isinstance(op, p.Ioctl) else getattr(op, "vcpu", p.VM)
            assert vcpu == p.VM or p.Create(vcpu) in [one for _, one in made.ops[: at + 1]]


def test_the_irqchip_comes_before_the_vcpus() -> None:
    ops = _ops(Setup("full", "intel"))
    assert _at(ops, uapi.KVM_CREATE_IRQCHIP) < ops.index(p.Create(0)) < ops.index(p.Create(1))
    assert _caps(Setup("split", "intel"))[uapi.KVM_CAP_SPLIT_IRQCHIP] == 24
    none = [op.request for op in _ops(Setup("none", "intel")) if isinstance(op, p.Ioctl)]
    assert uapi.KVM_CREATE_IRQCHIP not in none and uapi.KVM_GET_LAPIC not in none


def test_a_capability_that_is_not_there_is_not_asked_for() -> None:
    assert uapi.KVM_CAP_EXCEPTION_PAYLOAD in _caps(Setup("full", "intel"))
    assert uapi.KVM_CAP_EXCEPTION_PAYLOAD not in _caps(Setup("full", "intel"), _Host(there=False))


@pytest.mark.parametrize(("vcpus", "last"), [(4096, 254), (16, 15)])
def test_sparse_ids_end_where_kvm_or_the_xapic_does(vcpus: int, last: int) -> None:
    created = [op.vcpu for op in _ops(Setup("full", "intel", vcpus=SPARSE), _Host(vcpus)) if isinstance(op, p.Create)]
    assert created[-1] == last and created == sorted(created)


def test_mce_has_the_hosts_capabilities_and_four_banks() -> None:
    made = lower(Setup("full", "intel", mce=True), _Host())
    names = {str(op.arg) for _, op in made.ops if isinstance(op, p.Ioctl) and op.request == uapi.KVM_X86_SETUP_MCE}
    contents = {made.buffers[name].contents for name in names}
    assert contents == {(0x0100_0000_1004).to_bytes(8, "little")}


def test_cpuid_is_the_vendors() -> None:
    for vendor, ebx in (("intel", b"Genu"), ("amd", b"Auth")):
        found = [op for op in _ops(Setup("full", vendor)) if isinstance(op, p.Cpuid)]
        assert all((0, "ebx", 0xFFFFFFFF, int.from_bytes(ebx, "little")) in op.changes for op in found) and len(found) == 2
