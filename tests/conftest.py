# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures that every test can use."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from kvmtest.engine import host
from kvmtest.engine.doctor import Unusable, open_kvm
from kvmtest.engine.machine import Machines, Target
from kvmtest.engine.plan import Setup
from kvmtest.kvm import Kvm, Vm
from kvmtest.scenario import items
from kvmtest.uapi.kvm import KVM_CAP_IRQCHIP

# A deadline is a timing assertion, which a loaded machine fails.
settings.register_profile("kvmtest", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=10)
settings.load_profile("kvmtest")


#: The marks of tests that use one of these fixtures.
_MARKS = {"kvm": "kvm", **dict.fromkeys(("fake", "lab_cache", "chromium", "kunit", "pytester"), "program")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses /dev/kvm, and what starts programs again and again: make test-fast leaves both out."""
    for item in items:
        for fixture in _MARKS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(_MARKS[fixture])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show why a fixture skips, as where there is no /dev/kvm, once with its count, not for each test's line."""
    report = yield
    if call.when == "setup" and isinstance(report.longrepr, tuple) and "skip" not in item.keywords:
        report.longrepr = (__file__, 0, report.longrepr[2])
    return report


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Signals as they were: a command that was interrupted ignores them to the end of its process, which here is pytest's."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def steps_anew() -> Iterator[None]:
    """Steps of item cases that are made in this test, for one that changes a state or a trigger: else they are made once."""
    made = (items.scenario, items.broadcast)
    for one in made:
        one.cache_clear()
    yield
    for one in made:
        one.cache_clear()


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    """An open /dev/kvm; skips the test, with the reason, where none is usable."""
    try:
        device = open_kvm("/dev/kvm")
    except Unusable as error:
        pytest.skip(str(error))
    with device:
        yield device


@pytest.fixture
def machines(kvm: Kvm) -> Iterator[Machines]:
    """The engine's VMs, all freed at the end."""
    made = Machines(kvm, host.detect())
    yield made
    made.close()


@pytest.fixture
def targets(machines: Machines) -> dict[str, Target]:
    """The ``bsp`` and the ``ap`` of a VM as INIT cases have it."""
    machine = machines.kept(Setup("full", "intel", mce=True))
    return {name: machine.target(name) for name in ("bsp", "ap")}


@pytest.fixture
def vm(kvm: Kvm) -> Iterator[Vm]:
    """A VM without anything in it."""
    with kvm.create_vm() as machine:
        yield machine


@pytest.fixture
def vm_irqchip(kvm: Kvm, vm: Vm) -> Vm:
    """A VM with the in-kernel irqchip; skips the test where KVM has none."""
    if not kvm.check_extension(KVM_CAP_IRQCHIP):
        pytest.skip("KVM_CAP_IRQCHIP is missing")
    vm.create_irqchip()
    return vm
