# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU against a new one, and against itself earlier: bugs of a VMM's reset and restore are found, each by its item."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from kvmtest.kvm import Kvm, Vcpu
from kvmtest.testing import StateMismatch, assert_state, assert_unchanged, read_state
from tests.testing.vmm import Vmm

#: Items of a used vCPU that depend on the host's time, which this VMM does not write.
_TIME = ("msr.tsc", "msr.kvm_*")
_Make = Callable[..., Vmm]


@pytest.fixture
def vmm(kvm: Kvm) -> Iterator[_Make]:
    made: list[Vmm] = []

    def make(*bugs: str) -> Vmm:
        made.append(Vmm(kvm, bugs))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def fresh(vmm: _Make) -> Vcpu:
    return vmm().vcpu


def _failed(caught: pytest.ExceptionInfo[StateMismatch]) -> set[str]:
    return {result.item for result in caught.value.judged.failed}


def test_a_good_reset_is_as_a_new_vcpu(vmm: _Make, fresh: Vcpu) -> None:
    one = vmm()
    one.use()
    one.reset()
    judged = assert_state(one.vcpu, like=fresh, ignore=_TIME)
    assert {result.item for result in judged.good} >= {"rbx", "dr0", "cr2", "msr.kernel_gs_base", "msr.cstar", "msr.sfmask"}
    assert "as the other one" in judged.head


@pytest.mark.parametrize(("bug", "item"), [("forgotten", "dr0"), ("msr", "msr.kernel_gs_base")])
def test_what_a_reset_leaves_is_found(vmm: _Make, fresh: Vcpu, bug: str, item: str) -> None:
    one = vmm(bug)
    one.use()
    one.reset()
    with pytest.raises(StateMismatch) as caught:
        assert_state(one.vcpu, like=fresh, ignore=_TIME)
    assert _failed(caught) == {item}
    assert f"FAIL  none.external.host.{item}" in str(caught.value)


def test_a_good_restore_changes_nothing(vmm: _Make) -> None:
    one = vmm()
    one.use()
    before = read_state(one.vcpu)
    one.move()
    judged = assert_unchanged(before, one.vcpu, ignore=_TIME)
    assert {result.item for result in judged.good} >= {"rbx", "dr0", "cr2", "lapic.tpr", "msr.kernel_gs_base"}


@pytest.mark.parametrize(("bug", "items"), [("forgotten", {"dr0"}), ("order", {"lapic.tpr"}), ("msr", {"msr.kernel_gs_base"})])
def test_what_a_restore_loses_is_found(vmm: _Make, bug: str, items: set[str]) -> None:
    one = vmm(bug)
    one.use()
    before = read_state(one.vcpu)
    one.move()
    with pytest.raises(StateMismatch) as caught:
        assert_unchanged(before, one.vcpu, ignore=_TIME)
    assert _failed(caught) == items


def test_a_tsc_that_goes_back_is_found(vmm: _Make) -> None:
    one = vmm()
    before = read_state(one.vcpu)
    later = before._replace(snapshot=before.snapshot.put(before.layout, "msr.tsc", (1 << 63) - 1))
    assert_unchanged(before, read_state(one.vcpu), ignore=("msr.kvm_*",))
    with pytest.raises(StateMismatch) as caught:
        assert_unchanged(later, one.vcpu, ignore=("msr.kvm_*",))
    assert _failed(caught) == {"msr.tsc"}


def test_an_event_and_another_vcpu_exclude_each_other(fresh: Vcpu) -> None:
    with pytest.raises(ValueError, match="or with like="):
        assert_state(fresh, "reset", like=fresh)
    with pytest.raises(ValueError, match="no item matches 'nonsense'"):
        assert_state(fresh, like=fresh, ignore=["nonsense"])
