# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory that KVM writes by MSRs of Hyper-V's: left alone once a VMM has disabled it."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import FINDS
from kvmtest.scenario.catalogue.writing import ENABLE, FIRST, Writing, case, vmm_reset, written
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import (
    HYPERV_ASSIST,
    HYPERV_SCONTROL,
    HYPERV_SYNIC_PAGES,
    HYPERV_TIMERS,
    HYPERV_TSC,
    KVM_RESET,
)
from kvmtest.uapi.kvm import KVM_CAP_HYPERV_SYNIC2, KVM_ENABLE_CAP, kvm_enable_cap

__all__ = ("SCENARIOS",)

_PAGE, _EVENTS, _SIZE = 0x9000, 0xA000, 0x1000
#: The interrupt source of a timer that expires at once, and that of a periodic one, which stays masked; each has a message of so
#: many bytes. Times are in 100 ns.
_ONCE, _AGAIN, _MESSAGE, _MASKED = 2, 3, 0x100, 1 << 16
_PERIODIC, _PAST, _PERIOD = 1 << 1, 1, 2000
_SYNIC = s.Call(KVM_ENABLE_CAP, bytes(kvm_enable_cap(KVM_CAP_HYPERV_SYNIC2)), kind="kvm_enable_cap")

#: A message of a timer's, which KVM writes where there is none.
_MESSAGES = Writing(
    (
        ("msr.hv_scontrol", ENABLE), ("msr.hv_simp", _PAGE | ENABLE), ("msr.hv_siefp", _EVENTS | ENABLE),
        (f"msr.hv_sint{_ONCE}", FIRST), ("msr.hv_stimer0_count", _PAST), ("msr.hv_stimer0_config", ENABLE | _ONCE << 16),
        ("msr.hv_stimer1_count", _PERIOD), ("msr.hv_stimer1_config", ENABLE | _PERIODIC | _AGAIN << 16),
    ),
    ("hyperv-synic",), (_PAGE, 2 * _SIZE), (("message of a timer", _PAGE + _ONCE * _MESSAGE),),
    brings=True, enables=(_SYNIC,), off=((f"msr.hv_sint{_ONCE}", _MASKED),), left=bytes(1),
)  # fmt: skip
#: A page that KVM begins to write by clearing the sequence.
_REFERENCE = Writing(
    (("msr.hv_guest_os_id", 1), ("msr.hv_reference_tsc", _PAGE | ENABLE)), ("hyperv-time",), (_PAGE, _SIZE),
    (("reference TSC page", _PAGE),), ((_PAGE, 5),),
)  # fmt: skip
#: EOI by way of memory, as KVM's own MSR has it.
_ASSIST = Writing(
    (("msr.hv_vp_assist_page", _PAGE | ENABLE),), ("hyperv-vapic",), (_PAGE, _SIZE), (("EOI by way of memory", _PAGE),),
    ((_PAGE, 1),),
)  # fmt: skip


def _init(trigger: str, sequence: str, writing: Writing, *cite: str) -> Scenario:
    """The whole table after INIT; EOI by way of memory ends by KVM's own MSR, whether a page is still enabled is not said."""
    steps = (*written(writing, "bsp"), FINDS, s.Send("init", trigger), s.Settle(), s.Observe())
    return case(f"init.{trigger}", sequence, steps, writing, "bsp", "intel", *cite)


SCENARIOS = (
    vmm_reset("hyperv-synic", _MESSAGES, "intel", HYPERV_SCONTROL, HYPERV_SYNIC_PAGES, HYPERV_TIMERS),
    vmm_reset("hyperv-reference-tsc", _REFERENCE, "amd", HYPERV_TSC),
    vmm_reset("hyperv-vp-assist", _ASSIST, "amd", HYPERV_ASSIST),
    _init("msi", "hyperv-vp-assist", _ASSIST, KVM_RESET, HYPERV_ASSIST),
    _init("latched", "hyperv-synic", _MESSAGES, HYPERV_SYNIC_PAGES),
)
