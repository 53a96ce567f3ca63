# SPDX-License-Identifier: GPL-2.0-only
"""pytest: fixtures for tests that use KVM, and word of what assert_state() could not judge.

Loaded into every pytest run where kvmtest is installed (`-p no:kvmtest` keeps it out): until a fixture is used nothing of
kvmtest is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kvmtest.kvm import Kvm, Vcpu, Vm
    from kvmtest.testing import Guest

__all__ = ["guest", "kvm", "vcpu", "vm"]

_PROPERTY = "kvmtest"


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    """An open /dev/kvm (kvmtest.kvm.Kvm). Skips the test where there is none to use, and says why and what to do."""
    from kvmtest.engine.doctor import Unusable, open_kvm

    try:
        device = open_kvm("/dev/kvm")
    except Unusable as error:
        pytest.skip(str(error))
    with device:
        yield device


@pytest.fixture
def vm(kvm: Kvm) -> Iterator[Vm]:
    """A VM (kvmtest.kvm.Vm) with KVM's irqchip, without memory and without vCPUs."""
    from kvmtest.scenario.memory import IDENTITY_MAP, TSS

    with kvm.create_vm() as machine:
        machine.set_identity_map_addr(IDENTITY_MAP)
        machine.set_tss_addr(TSS)
        machine.create_irqchip()
        yield machine


@pytest.fixture
def vcpu(vm: Vm) -> Vcpu:
    """The boot CPU of `vm` (kvmtest.kvm.Vcpu), with the CPUID that KVM supports here."""
    made = vm.create_vcpu(0)
    made.set_cpuid2(vm.kvm.supported_cpuid())
    return made


@pytest.fixture
def guest(vm: Vm, vcpu: Vcpu) -> Callable[..., Guest]:
    """Loads a guest into `vm` and lets `vcpu` begin there: guest(image, gpa=None, entry=None), as kvmtest.testing.load_guest().

    It begins in real mode where that can reach the entry; otherwise the registers are the test's to set.
    """
    from kvmtest.testing import load_guest

    def load(image: bytes | str, gpa: int | None = None, entry: int | None = None) -> Guest:
        loaded = load_guest(vm, image, gpa, entry)
        if loaded.entry < 1 << 20:
            loaded.start(vcpu)
        return loaded

    return load


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what the test judged into its report: a section for -rP, a property for JUnit."""
    judging = sys.modules.get("kvmtest.testing.judged")
    judged = list(judging.log) if judging else []
    if judging:
        judging.log.clear()
    item.user_properties.extend((_PROPERTY, one.head) for one in judged)
    report = yield
    report.sections.extend(("vCPU state", one.summary()) for one in judged if not one.failed)  # else the message has it
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each test that judged a state, with what was left out, even if it passed."""
    lines = [
        f"{report.nodeid}: {text}"
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, text in getattr(report, "user_properties", ())
        if name == _PROPERTY
    ]
    if lines:
        terminalreporter.section("vCPU states compared with the manuals (-rP shows more)")
        for line in dict.fromkeys(lines):
            terminalreporter.write_line(line)
