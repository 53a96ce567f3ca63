# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory that KVM writes by its own MSRs: left alone after INIT, a shutdown on SVM and a VMM's reset."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.access import READY, SAY, makes
from kvmtest.scenario.catalogue.common import FINDS, RESTARTS, SIPI_VECTOR, start, wait_for_sipi
from kvmtest.scenario.catalogue.writing import ENABLE, FIRST, Writing, alone, case, fill, vmm_reset, written
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import KVM_MSR, KVM_RESET, LINUX_SHUTDOWN, SDM_SIPI

__all__ = ("SCENARIOS",)

_AT, _ELSEWHERE, _SIZE = 0x8000, 0xA000, 0x100
_BY_INTERRUPT = 1 << 3


def _pages(clock: str, at: int = _AT) -> Writing:
    """Steal time, the clock by the MSR ``clock``, and asynchronous page faults, from ``at`` on.

    Enabling the last ends those that wait, which are none: KVM writes the token of all, and the interrupt comes.
    """
    steal, time, faults = (at + 0x40 * i for i in range(3))
    msrs = (
        ("msr.kvm_steal_time", steal | ENABLE),
        (f"msr.kvm_{clock}", time | ENABLE),
        ("msr.kvm_async_pf_int", FIRST),
        ("msr.kvm_async_pf_en", faults | ENABLE | _BY_INTERRUPT),
    )
    # struct kvm_steal_time.version, pvclock_vcpu_time_info.version, kvm_vcpu_pv_apf_data.token.
    what = (("steal time", steal + 8), ("clock", time), ("token of asynchronous page faults", faults + 4))
    return Writing(msrs, ("kvm-clock", "kvm-async-pf", "kvm-steal-time"), (at, _SIZE), what, brings=True)


_NEW, _OLD, _MOVED = _pages("system_time_new"), _pages("system_time"), _pages("system_time_new", _ELSEWHERE)
#: KVM sets bit 0 while the guest runs, and clears it after each exit. A CPU that virtualizes the local APIC needs none of that.
_BY_MEMORY = Writing(
    (("msr.kvm_pv_eoi_en", _AT | ENABLE),), ("kvm-pv-eoi",), (_AT, _SIZE), (("EOI by way of memory", _AT),), ((_AT, 1),)
)


def _init(trigger: str, sequence: str, writing: Writing, target: str, vendor: str) -> Scenario:
    """INIT of a vCPU; what its new life does writes nothing to where the old one had its pages."""
    again = (RESTARTS,) if target == "bsp" else start()
    steps = (
        *written(writing, target), FINDS, s.Send("init", trigger), s.Settle(), fill(writing), s.Observe(), *again,
        *alone(writing),
    )  # fmt: skip
    return case(f"init.{trigger}", sequence, steps, writing, target, vendor, KVM_RESET, KVM_MSR)


def _moved() -> Scenario:
    """After INIT the MSRs name other memory, which KVM writes, and not that of before."""
    steps = (
        *written(_NEW, "bsp"), s.Send("init"), s.Settle(), fill(_NEW), RESTARTS, *_MOVED.enable, *alone(_NEW),
        *(s.Require(s.Changed(gpa), f"KVM writes no {what} after INIT") for what, gpa in _MOVED.what),
    )  # fmt: skip
    return case("init.msi", "written-pages-moved", steps, _NEW, "bsp", "amd", KVM_RESET, KVM_MSR)


def _shutdown() -> Scenario:
    """A shutdown, which KVM on SVM turns into an INIT; on VT-x it changes nothing."""
    steps = (
        *written(_NEW, "bsp"), s.Complete(), s.Set((("idt.limit", 0), ("rip", "CODE+undefined"))), FINDS,
        s.Send("shutdown", "triple-fault"), s.Observe(),
    )  # fmt: skip
    return case("shutdown.triple-fault", "written-pages", steps, _NEW, "bsp", "amd", LINUX_SHUTDOWN, KVM_MSR)


def _sipi() -> Scenario:
    """Return the scenario in which memory is written while an AP waits for a SIPI, and checked after the SIPI."""
    steps = (*makes(SAY)[:-1], *wait_for_sipi(), *_NEW.enable, FINDS, s.Send("sipi", vector=SIPI_VECTOR), s.Observe())
    runs = (s.Until(s.Word("SIPI")), s.Until(READY))
    return case("sipi.msi", "written-pages", (*steps, *runs), _NEW, "ap", "intel", SDM_SIPI, KVM_MSR)


SCENARIOS = (
    _init("msi", "written-pages", _NEW, "bsp", "intel"),
    _init("latched", "written-pages", _OLD, "ap", "amd"),
    _init("msi", "eoi-by-memory", _BY_MEMORY, "bsp", "amd"),
    _init("latched", "eoi-by-memory", _BY_MEMORY, "ap", "intel"),
    vmm_reset("written-pages", _NEW, "amd", KVM_MSR),
    vmm_reset("eoi-by-memory", _BY_MEMORY, "intel", KVM_MSR),
    _moved(),
    _shutdown(),
    _sipi(),
)
