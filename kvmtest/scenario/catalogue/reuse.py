# SPDX-License-Identifier: GPL-2.0-only
"""vCPUs that a VMM reuses: the same CPUID after KVM_RUN, a parked vCPU that is started again, and the reset of a whole VM."""

from __future__ import annotations

from errno import EINVAL

from kvmtest.scenario import step as s
from kvmtest.scenario.access import SAY, makes
from kvmtest.scenario.catalogue.common import LISTENS, SIPI_VECTOR, boot
from kvmtest.scenario.catalogue.destinations import IDS, SHOWS, locals_of, written
from kvmtest.scenario.destination import ALL, DELIVERIES, Address, Local, receivers
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.step import Scenario
from kvmtest.scenario.triggers import signal
from kvmtest.spec.cite import A_APIC, A_INIT_IPI, A_RECEIVING, KVM_API, LINUX_SAME_CPUID, S_APIC_RESET, S_IPI_DESTINATION, S_MP
from kvmtest.uapi.kvm import KVM_MP_STATE_UNINITIALIZED

__all__ = ("SCENARIOS",)

_CPUID_CITE = (KVM_API, LINUX_SAME_CPUID)
_AGAIN = (s.Cpuid(), s.Expect(s.Answer(0), "refused"))
#: CPUID.1:EAX of no vCPU here.
_OTHER = 0x600
_TAKEN = "this KVM accepts another CPUID after KVM_RUN; the API warns against it and does not forbid it"
_RAN = (*makes(SAY), s.Until(s.Word("READY")), s.Complete())
_INIT = (s.Send("init"), s.Observe())
#: The activity state of an AP that has had no INIT yet, by which VMMs park a vCPU.
_PARKED = ("mp_state", KVM_MP_STATE_UNINITIALIZED)
#: RESET's values for each local APIC: no logical id, and software-disabled.
_RESET_BASE = ("apic_base", 0xFEE00800)
_RESET_LAPIC = (("lapic.ldr", 0), ("lapic.dfr", 0xFFFFFFFF), ("lapic.svr", 0xFF), ("lapic.irr2", 0))
_RESET_CITE = (S_APIC_RESET, A_APIC, S_IPI_DESTINATION, A_RECEIVING, KVM_API)


def _written_back(id: int, *, lapic_first: bool) -> tuple[s.Step, ...]:
    """A vCPU's local APIC as RESET leaves it, by two ioctls in one order or the other."""
    bsp = 1 << 8 if id == IDS[0] else 0
    base = s.Set(((_RESET_BASE[0], _RESET_BASE[1] | bsp),), id)
    lapic = s.Set((("lapic.id", id << 24), *_RESET_LAPIC), id, check=False)
    return (lapic, base, lapic) if lapic_first else (base, lapic)


def _map_after_reset(model: str, *, lapic_first: bool) -> Scenario:
    """Return the scenario of INIT messages after a VMM has reset all vCPUs: ids are matched, the earlier logical ids are not."""
    used = locals_of(model, "")
    reset = {id: Local(id, 0, "flat", software=False) for id in IDS}
    item, value, mask = SHOWS["init"]
    data = DELIVERIES["init"] << 8
    steps = [step for id, local in used.items() for step in written(id, local, waits=False)]
    steps += [step for id in IDS for step in _written_back(id, lapic_first=lapic_first)]
    steps.append(s.Event("init", "msi"))
    last = used[IDS[-1]]
    for address in (Address(last.logical & ALL[False], logical=True), Address(last.id), Address(ALL[False])):
        ids, alone = receivers(reset, address, "init", None)
        sent = signal(address.destination, data, logical=address.logical)
        steps += [sent, s.Expect(s.Reached(item, value, ids, IDS, mask, alone))]
    order = "lapic-first" if lapic_first else "sregs-first"
    return Scenario(
        "init", "msi", f"after-reset-of-each-from-{model}-{order}", tuple(steps), _RESET_CITE, setup=Setup(ids=IDS),
        vendors=("intel",), fresh=False,
    )  # fmt: skip


SCENARIOS = (
    # A VMM sets the same CPUID again on a vCPU that it reuses: nothing changes.
    Scenario(
        "init", "msi", "given-its-cpuid-again",
        (*_RAN, s.Plant(), s.Observe(), s.Event("none", "set-cpuid2"), *_AGAIN, s.Expect(s.Same()), *_INIT),
        (*_CPUID_CITE, S_MP, A_INIT_IPI), "bsp",
    ),
    # If KVM refuses another one, nothing has changed.
    Scenario(
        "none", "set-cpuid2", "other-after-run",
        (
            *_RAN, s.Plant(), s.Observe(), s.Cpuid(_OTHER), s.Require(s.Answer(-EINVAL), _TAKEN, skip=True), s.Expect(s.Same()),
            *_AGAIN, s.Expect(s.Same()),
        ),
        _CPUID_CITE, "bsp", vendors=("intel",),
    ),
    # A parked vCPU executes nothing and accepts no SIPI, until INIT and SIPI start it again.
    Scenario(
        "sipi", "msi", "parked-and-taken-again",
        (
            LISTENS, *boot("ap"), s.Complete(), s.Set((_PARKED,)), s.Event("none", "mp-state"), s.Expect(s.Quiet(), "runs"),
            s.Event("none", "set-cpuid2"), *_AGAIN, s.Expect(s.Is(*_PARKED)), s.Send("init", judged=False), s.Settle(),
            s.Send("sipi", vector=SIPI_VECTOR), s.Expect(s.Word("SIPI"), "runs"), s.Expect(s.Word("READY"), "runs"),
        ),
        (*_CPUID_CITE, S_MP, A_INIT_IPI), view="guest",
    ),
    _map_after_reset("x2apic", lapic_first=False),
    _map_after_reset("x2apic", lapic_first=True),
    _map_after_reset("cluster", lapic_first=False),
)  # fmt: skip
