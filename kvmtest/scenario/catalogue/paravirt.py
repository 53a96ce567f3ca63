# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory that KVM writes by its own MSRs: planted, shown to be written, and left alone after INIT and a VMM's reset."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.access import OPEN, READY, SAY, Access, apic, makes
from kvmtest.scenario.catalogue.common import FINDS, RESTARTS, SIPI_VECTOR, start, wait_for_sipi
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import KVM_MSR, KVM_RESET, LINUX_SHUTDOWN, SDM_SIPI
from kvmtest.uapi.kvm import KVM_SET_CLOCK, kvm_clock_data

__all__ = ("SCENARIOS",)

_STEAL, _CLOCK, _FAULTS, _EOI = 0x8000, 0x8040, 0x8080, 0x80C0
_SIZE, _PATTERN = 0x100, b"\x5a" * 0x100
#: Where each has what KVM writes: struct kvm_steal_time.version, pvclock_vcpu_time_info.version, kvm_vcpu_pv_apf_data.token.
_STEAL_VERSION, _TOKEN = _STEAL + 8, _FAULTS + 4
_ENABLE, _BY_INTERRUPT = 1, 1 << 3
#: Of the first interrupt, and of a second one, which is more urgent: nobody ends the first.
_FIRST, _SECOND = 0x50, 0x60
_ON = apic("xapic", "svr", 0x1FF)
#: A new time: KVM writes it to every vCPU's clock page before it runs (KVM API, KVM_SET_CLOCK).
_NEW_TIME = s.Call(KVM_SET_CLOCK, bytes(kvm_clock_data(clock=1 << 40)), "vm", kind="kvm_clock_data")
_SYSTEM_TIME = ("system_time_new", "system_time")
#: Enabling async page faults ends those that wait, which are none: the token of all, and the interrupt.
_ALL = 0xFFFFFFFF


class _Writing:
    """MSRs that are written, zeroed memory but for ``at_first``, and where it is written; ``needs`` are those of the case."""

    def __init__(
        self, msrs: dict[str, int], needs: tuple[str, ...], at_first: dict[int, int], written: tuple[tuple[str, int], ...]
    ) -> None:
        self.msrs, self.needs, self.at_first = tuple(msrs.items()), needs, at_first
        self.enable: tuple[s.Step, ...] = (
            s.Poke(_STEAL, bytes(_SIZE)),
            *(s.Poke(gpa, value) for gpa, value in at_first.items()),
            s.Set(tuple((f"msr.kvm_{name}", value) for name, value in msrs.items())),
        )
        self.proof = tuple(
            s.Require(s.Changed(gpa, at_first.get(gpa, 0)), f"nothing to tell: this KVM writes no {what}", skip=True)
            for what, gpa in written
        )
        self.off = s.Set(tuple((f"msr.kvm_{name}", 0) for name in msrs))


def _pages(clock: str) -> _Writing:
    """Steal time, the clock by the MSR ``clock``, and asynchronous page faults, whose interrupt comes when they are enabled."""
    msrs = {
        "steal_time": _STEAL | _ENABLE,
        clock: _CLOCK | _ENABLE,
        "async_pf_int": _FIRST,
        "async_pf_en": _FAULTS | _ENABLE | _BY_INTERRUPT,
    }
    written = (("steal time", _STEAL_VERSION), ("clock", _CLOCK), ("token of asynchronous page faults", _TOKEN))
    return _Writing(msrs, ("kvm-clock", "kvm-async-pf", "kvm-steal-time"), {}, written)


#: KVM sets bit 0 while the guest runs, and clears it after each exit. A CPU that virtualizes the local APIC needs none of that.
_BY_MEMORY = _Writing({"pv_eoi_en": _EOI | _ENABLE}, ("kvm-pv-eoi",), {_EOI: 1}, (("EOI by way of memory", _EOI),))

#: An interrupt that the guest does not end, in which the event comes; and another one after that.
_LIST: tuple[Access, ...] = (_ON, SAY, OPEN) * 2


def _comes(vector: int) -> tuple[s.Step, ...]:
    """An interrupt that the guest takes."""
    return (s.Send("interrupt", vector=vector, judged=False), s.Until(s.Word("TAKEN", vector)))


def _written(writing: _Writing, target: str) -> tuple[s.Step, ...]:
    """A guest whose memory KVM writes."""
    first = makes(*_LIST) if target == "bsp" else (*makes(*_LIST)[:-1], *wait_for_sipi(), *start())
    asked = () if writing is _BY_MEMORY else (_NEW_TIME,)
    comes = _comes(_FIRST) if writing is _BY_MEMORY else (s.Until(s.Word("TAKEN", _FIRST)),)
    return (*first, s.Until(READY), *writing.enable, *asked, *comes, *writing.proof)


def _alone() -> tuple[s.Step, ...]:
    """The guest runs on, with an interrupt and a new time, and its memory is left alone."""
    filled = s.Expect(s.Filled(_STEAL, _PATTERN), "memory")
    return (s.Until(READY), _NEW_TIME, *_comes(_SECOND), filled)


def _case(
    id: str, sequence: str, steps: tuple[s.Step, ...], writing: _Writing, target: str, vendor: str, *cite: str
) -> Scenario:
    event, trigger = id.split(".")
    return Scenario(event, trigger, sequence, steps, (*cite, KVM_MSR), target, needs=writing.needs, vendors=(vendor,))


def _init(trigger: str, sequence: str, writing: _Writing, target: str, vendor: str) -> Scenario:
    """INIT of a vCPU; what its new life does writes nothing to where the old one had its pages."""
    again = (RESTARTS,) if target == "bsp" else start()
    steps = (
        *_written(writing, target), FINDS, s.Send("init", trigger), s.Settle(), s.Poke(_STEAL, _PATTERN),
        s.Observe(), *again, *_alone(),
    )  # fmt: skip
    return _case(f"init.{trigger}", sequence, steps, writing, target, vendor, KVM_RESET)


def _vmm_reset(sequence: str, writing: _Writing, vendor: str) -> Scenario:
    """A VMM writes 0, where bit 0 is clear, and the vCPU goes on, maybe as another guest."""
    steps = (
        *_written(writing, "bsp"), s.Complete(), s.Event("reset", "vmm-reset"), writing.off, s.Poke(_STEAL, _PATTERN),
        s.Set((("rip", "CODE+next"), ("rflags", 2))), *_alone(),
    )  # fmt: skip
    return _case("reset.vmm-reset", sequence, steps, writing, "bsp", vendor)


def _shutdown() -> Scenario:
    """A shutdown, of which KVM on SVM makes an INIT; on VT-x it leaves everything."""
    steps = (
        *_written(_NEW, "bsp"), s.Complete(), s.Set((("idt.limit", 0), ("rip", "CODE+undefined"))), FINDS,
        s.Send("shutdown", "triple-fault"), s.Observe(),
    )  # fmt: skip
    return _case("shutdown.triple-fault", "written-pages", steps, _NEW, "bsp", "amd", LINUX_SHUTDOWN)


def _sipi() -> Scenario:
    """What is written while an AP waits for a SIPI is there after it."""
    steps = (*makes(SAY)[:-1], *wait_for_sipi(), *_NEW.enable, FINDS, s.Send("sipi", vector=SIPI_VECTOR), s.Observe())
    return _case("sipi.msi", "written-pages", (*steps, s.Until(s.Word("SIPI")), s.Until(READY)), _NEW, "ap", "intel", SDM_SIPI)


_NEW, _OLD = map(_pages, _SYSTEM_TIME)

SCENARIOS = (
    _init("msi", "written-pages", _NEW, "bsp", "intel"),
    _init("latched", "written-pages", _OLD, "ap", "amd"),
    _init("msi", "eoi-by-memory", _BY_MEMORY, "bsp", "amd"),
    _init("latched", "eoi-by-memory", _BY_MEMORY, "ap", "intel"),
    _vmm_reset("written-pages", _NEW, "amd"),
    _vmm_reset("eoi-by-memory", _BY_MEMORY, "intel"),
    _shutdown(),
    _sipi(),
)
