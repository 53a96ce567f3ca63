# SPDX-License-Identifier: GPL-2.0-only
"""The facts of what KVM makes of what is written: each is about items that there are, and explains one exact value."""

from __future__ import annotations

import pytest

from kvmtest.scenario.looks import HOST
from kvmtest.spec.kept import FACTS, Fact, explained

_PPR = {"lapic.tpr": 0x25, "lapic.isr7": 1 << 31, "lapic.isr0": 1 << 20}


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: f"{fact.items[0]} {fact.source}")
def test_a_fact_names_items_and_its_source(fact: Fact) -> None:
    assert set(fact.items) <= set(HOST) and fact.source.endswith("()") and fact.why and fact.since < fact.until


@pytest.mark.parametrize(
    ("item", "written", "observed", "backend", "kernel", "vendor", "source"),
    [
        ("msr.sysenter_eip", 0xFFFF0000_12345678, 0x12345678, "svm", (6, 1), "amd", "svm_set_msr()"),
        ("msr.sysenter_eip", 0xFFFF0000_12345678, 0x12345678, "svm", (6, 1), "intel", None),
        ("msr.sysenter_eip", 0xFFFF0000_12345678, 0x12345678, "svm", (5, 10), "amd", None),
        ("msr.sysenter_eip", 0xFFFF0000_12345678, 0x12345678, "vmx", (6, 1), "amd", None),
        ("msr.sysenter_eip", 0xFFFF0000_12345678, 0, "svm", (6, 1), "amd", None),
        ("events.interrupt_shadow", 1, 3, "svm", (6, 1), "amd", "svm_get_interrupt_shadow()"),
        ("events.interrupt_shadow", 1, 0, "svm", (6, 1), "amd", None),
        ("events.interrupt_shadow", 0, 3, "svm", (6, 1), "amd", None),
        ("events.nmi_masked", 1, 0, "svm", (6, 1), "amd", None),
        ("events.interrupt_injected", 1, 0, "vmx", (6, 1), "amd", None),
        ("es.type", 0, 1, "vmx", (6, 1), "amd", "vmx_set_segment()"),
        ("es.type", 2, 1, "vmx", (6, 1), "amd", None),
        ("msr.vm_hsave_pa", 0x1000, 0, "svm", (6, 1), "amd", None),
        ("msr.vm_hsave_pa", 0x1000, 0, "vmx", (6, 1), "amd", "kvm_set_msr_common()"),
    ],
)  # fmt: skip
def test_an_exact_value_on_one_backend_and_range(
    item: str, written: int, observed: int, backend: str, kernel: tuple[int, int], vendor: str, source: str | None
) -> None:
    fact = explained(item, observed, backend, kernel, vendor, {item: written}.get)
    assert (fact.source if fact else None) == source


@pytest.mark.parametrize(("observed", "known"), [(0x25, True), (0xF0, True), (0x20, False), (0, False)])
def test_ppr_is_of_tpr_and_of_the_highest_vector_in_service(observed: int, known: bool) -> None:
    assert bool(explained("lapic.ppr", observed, "vmx", (7, 2), "intel", _PPR.get)) is known


def test_a_soft_interrupt_hides_what_is_injected() -> None:
    written = {"events.interrupt_injected": 1, "events.interrupt_soft": 1}
    assert explained("events.interrupt_injected", 0, "vmx", (7, 2), "intel", written.get)
