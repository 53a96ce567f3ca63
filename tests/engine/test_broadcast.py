# SPDX-License-Identifier: GPL-2.0-only
"""Every target of a broadcast is judged by itself, and the sender too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from kvmtest import guests
from kvmtest.engine import plan
from kvmtest.engine.broadcast import Broadcast
from kvmtest.engine.machine import Machines
from kvmtest.judge.cases import differences
from kvmtest.state.snapshot import Reader, Snapshot
from kvmtest.triggers import broadcast, latched
from kvmtest.uapi.kvm import KVM_CAP_MAX_VCPUS
from tests.cases import CASES, by_item, judged, ran

EIGHT = CASES["init.broadcast.host/ap,intel,8-vcpus,xapic,plant-a"]
WITH_BSP = CASES["init.broadcast.host/bsp,intel,8-vcpus,xapic,plant-b"]
SPARSE = [case for case in CASES.values() if case.prefix == "init.broadcast.host" and case.setup.vcpus == plan.SPARSE]


@pytest.mark.parametrize("case", SPARSE, ids=lambda case: case.apic_mode)
def test_ids_as_far_as_kvm_takes_them(case: plan.Case, machines: Machines) -> None:
    last = min(machines.kvm.check_extension(KVM_CAP_MAX_VCPUS), 288 if case.setup.x2apic_ids else 255) - 1
    ids = [target.vcpu.id for target in machines.kept(case.setup).targets]
    assert ids == sorted(set(ids)) and ids[-1] == last and len(ids) < 32
    powers = {power - side for power in (1, 2, 4, 8, 16, 32, 64, 128, 256) for side in (0, 1)}
    assert powers - {255, 256} <= set(ids) or last < 254
    if case.setup.x2apic_ids and last == 287:
        assert {254, 255, 256, 271, 272, 287} <= set(ids)
    results = by_item(case, machines)
    assert results["reached"].observed == f"{len(ids) - 1} of {len(ids) - 1}"
    assert results["sender-untouched"].verdict == results["rip"].verdict == results["mp_state"].verdict == "pass"
    # Nobody can plant an ID: vCPUs that each have their own are no proof. With 32-bit ids it is not that of creation.
    assert results["lapic.id"].verdict == ("pass" if case.setup.x2apic_ids else "skip")


def test_the_boot_cpu_among_the_targets_is_judged_by_its_own_rules(machines: Machines) -> None:
    results = by_item(WITH_BSP, machines)
    assert (results["mp_state"].verdict, results["mp_state"].reason.split(":")[0]) == ("skip", "vcpus 0 of 7")
    assert results["apic_base"].verdict != "fail" and results["rdx"].verdict == "pass"


def test_one_target_that_differs_is_named(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """RBX of vCPU 5 keeps its value."""
    real: Callable[[Reader], Snapshot] = Reader.read
    seen: dict[int, Snapshot] = {}

    def kept(reader: Reader) -> Snapshot:
        snapshot = real(reader)
        if reader.vcpu.id != 5:
            return snapshot
        before = seen.setdefault(5, snapshot)
        field = reader.layout.fields["rbx"]
        regs = bytearray(snapshot.sections["regs"])
        field.put(regs, field.get(before.sections["regs"]))
        return Snapshot(snapshot.sections | {"regs": bytes(regs)}, {})

    machines.kept(EIGHT.setup)
    monkeypatch.setattr(Reader, "read", kept)
    results = by_item(EIGHT, machines)
    assert (results["rbx"].verdict, results["rbx"].reason) == ("fail", "vcpus 5 of 7")
    assert results["rsi"].verdict == "pass"


def test_a_case_run_again_says_the_same(machines: Machines) -> None:
    case = Broadcast(EIGHT, machines.kept(EIGHT.setup), machines.host)
    first, again = (judged(EIGHT, machines.host, case.observe(), *case.bases) for _ in range(2))
    assert [(r.item, r.verdict, r.reason) for r in first] == [(r.item, r.verdict, r.reason) for r in again]


def test_a_sender_that_changes_itself_fails(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that adds to EBX before it sends."""
    image = bytearray(guests.load("sender"))
    image[: len(image) - 3] = b"\x83\xc3\x01" + image[:-3]
    monkeypatch.setattr(guests, "load", lambda name: bytes(image))
    result = by_item(EIGHT, machines)["sender-untouched"]
    assert (result.verdict, result.observed) == ("fail", "rbx")


def test_an_icr_that_reads_otherwise_fails(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    real = broadcast.send

    def lose(vcpu: object) -> None:
        real(vcpu)  # type: ignore[arg-type]
        monkeypatch.setattr(broadcast, "ICR", 0)

    monkeypatch.setattr(broadcast, "send", lose)
    result = by_item(EIGHT, machines)["sender-untouched"]
    assert (result.verdict, result.observed) == ("fail", "lapic.icr")


def test_an_init_that_reaches_one_vcpu_only_is_an_error(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ICR without the shorthand, whose destination is vCPU 0 alone."""
    monkeypatch.setattr(broadcast, "ICR", 0x4500)
    monkeypatch.setattr(broadcast.latched, "wait_for", partial(latched.wait_for, timeout_s=0.01))
    results = ran(WITH_BSP, machines)
    assert {r.verdict for r in results} == {"error"} and "pending on vcpu 1" in results[0].reason
    assert {r.item for r in results} >= {"reached", "sender-untouched", "rbx"}


def test_a_broadcast_that_is_not_sent_is_an_error(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "send", lambda vcpu: None)
    results = ran(EIGHT, machines)
    assert {r.verdict for r in results} == {"error"} and "no trace on vcpu 1" in results[0].reason


def test_what_counts_by_itself_is_no_difference(machines: Machines) -> None:
    target = machines.kept(EIGHT.setup).target("ap")
    target.plant("c", "xapic").write(target.vcpu)
    first = target.reader.read()
    assert differences(target.layout, first, target.reader.read()) == []
    regs = target.vcpu.get_regs()
    regs.r9 ^= 1
    target.vcpu.set_regs(regs)
    assert differences(target.layout, first, target.reader.read()) == ["r9"]


def test_of_the_vms_with_many_vcpus_one_is_kept(machines: Machines) -> None:
    """A vCPU takes a file descriptor."""
    first = machines.kept(EIGHT.setup._replace(vcpus=64))
    assert machines.kept(EIGHT.setup._replace(vcpus=64)) is first
    small = machines.kept(EIGHT.setup)
    machines.kept(EIGHT.setup._replace(vcpus=64, vendor="amd"))
    assert first.vm.closed and not small.vm.closed
