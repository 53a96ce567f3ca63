# SPDX-License-Identifier: GPL-2.0-only
"""VMRUN of VMCBs that it refuses, that inject events, and that have nested paging; and INIT afterwards."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import FINDS, RESTARTS, pending, restarted
from kvmtest.scenario.catalogue.svm import INTERCEPT_INIT, exits, hypervisor
from kvmtest.scenario.catalogue.svm_events import EXCEPTIONS
from kvmtest.scenario.catalogue.svm_exits import EXIT_INFO, NPF, PF, VMCB, field, tried
from kvmtest.scenario.hypervisor import CR0, CR4, EFER, EFER_SVME, IN_L2, in_l2
from kvmtest.scenario.states import debug
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import (
    A_CONSISTENCY,
    A_DURING_DELIVERY,
    A_EVENT_INJECTION,
    A_GIF,
    A_NESTED_FAULTS,
    A_NESTED_PAGING,
    A_SVM_INIT,
    A_SVME,
    KVM_API,
)
from kvmtest.uapi.kvm import (
    KVM_EXIT_DEBUG,
    KVM_GUESTDBG_ENABLE,
    KVM_GUESTDBG_SINGLESTEP,
    KVM_STATE_NESTED_GIF_SET,
    KVM_STATE_NESTED_GUEST_MODE,
    KVM_STATE_NESTED_RUN_PENDING,
)

__all__ = ("SCENARIOS",)

#: VMEXIT_INVALID is -1.
_INVALID = exits(0xFFFFFFFF)
_CITE = (A_CONSISTENCY,)
_HIGH = 1 << 32
_CR0_PG, _CR0_PE, _CR0_CD, _CR0_NW, _CR4_PAE = 1 << 31, 1 << 0, 1 << 30, 1 << 29, 1 << 5
#: Beyond the 52 bits that a physical address has at most.
_NO_ADDRESS = 1 << 60
#: Fields of the VMCB.
_ASID, _IOPM, _MSRPM, _EFER, _CR4, _CR3, _CR0, _DR7, _DR6 = 0x58, 0x40, 0x48, 0x4D0, 0x548, 0x550, 0x558, 0x560, 0x568
_EVENTINJ, _NESTED_CTL, _NCR3, _IDT_BASE, _EXITINTINFO = 0xA8, 0x90, 0xB0, 0x488, 0x88
#: VMCBs that VMRUN must refuse: one field with illegal bits, all others legal.
_ILLEGAL = (
    ("vmrun-not-intercepted", 0x10, field(0, 4)),
    ("asid-0", _ASID, field(0, 4)),
    ("iopm-beyond-memory", _IOPM, field(_NO_ADDRESS)),
    ("msrpm-beyond-memory", _MSRPM, field(_NO_ADDRESS)),
    ("efer-without-svme", _EFER, field(EFER)),
    ("efer-reserved", _EFER, field(EFER | EFER_SVME | 1 << 60)),
    ("cr0-nw-without-cd", _CR0, field(CR0 & ~_CR0_CD | _CR0_NW)),
    ("cr0-high", _CR0, field(CR0 | _HIGH)),
    ("cr0-without-pe", _CR0, field(CR0 & ~_CR0_PE)),
    ("cr3-reserved", _CR3, field(0x8000 | _NO_ADDRESS)),
    ("cr4-without-pae", _CR4, field(CR4 & ~_CR4_PAE)),
    ("cr4-reserved", _CR4, field(CR4 | _HIGH)),
    ("dr6-high", _DR6, field(0xFFFF0FF0 | _HIGH)),
    ("dr7-high", _DR7, field(0x400 | _HIGH)),
    ("cs-l-and-d", 0x412, field(0xA9B | 1 << 10, 2)),
)  # fmt: skip


def _case(
    event: str, trigger: str, sequence: str, cite: tuple[str, ...], *steps: s.Step, needs: tuple[str, ...] = ()
) -> Scenario:
    return Scenario(event, trigger, sequence, steps, cite, "bsp", "guest", ("svm", *needs), vendors=("amd",))


def _poked(*fields: tuple[int, bytes]) -> tuple[s.Step, ...]:
    return tuple(s.Poke(VMCB + at, value) for at, value in fields)


def _runs(*fields: tuple[int, bytes], nested: str = "NESTED_SPIN", intercepts: tuple[int, ...] = ()) -> tuple[s.Step, ...]:
    """L1 before VMRUN, with GIF clear."""
    return (*hypervisor("TOPIC_RUN", *intercepts, nested=nested), *_poked(*fields))


_REFUSED = _ILLEGAL[1]

# Events that VMRUN injects: EVENTINJ has the vector, the type, whether there is an error code, whether it is valid, and the code.
_VALID, _WITH_CODE, _CODE = 1 << 31, 1 << 11, 0x18
_INTERRUPT, _NMI, _EXCEPTION, _SOFTWARE = 0 << 8, 2 << 8, 3 << 8, 4 << 8
_BP, _LAST = 3, 0x1F
_FIRST_OF_L2 = 0x1600
#: Name, what is injected, and whether RIP is that of L2's beginning in the handler: the RIP after a software interrupt is not.
_INJECTED = (
    ("interrupt", _INTERRUPT | _LAST, True),
    ("nmi", _NMI | 2, True),
    ("exception", _EXCEPTION | 6, True),
    ("exception-with-error-code", _EXCEPTION | _WITH_CODE | 13 | _CODE << 32, False),
    ("software-interrupt", _SOFTWARE | _LAST, False),
    ("breakpoint", _EXCEPTION | _BP, False),
)

#: KVM decodes an instruction at RIP if the CPU does not use the next RIP, and drops the event if that is another one.
_SOFT = ("software-interrupt", "breakpoint")


def _delivered(what: int, at_first: bool) -> s.Step:
    """The handler of L2 has it: the low bits of its word are the error code or RIP."""
    vector, code = what & 0xFF, what >> 32
    if not (code or at_first):
        return s.Expect(s.Words((s.Word("FAULT", vector << 24, "exception {:#x}", mask=0xFF000000),)), "delivered")
    return s.Expect(s.Word("FAULT", vector << 24 | (code or _FIRST_OF_L2)), "delivered")


def _injection(name: str, what: int, at_first: bool) -> tuple[Scenario, ...]:
    """An event comes before L2's first instruction, and a #VMEXIT reports it if it cannot be delivered."""
    injects = (_EVENTINJ, field(what | _VALID))
    needs = ("svm-next-rip",) if name in _SOFT else ()
    # The vector of an NMI need not be given.
    kept = s.Filled(VMCB + _EXITINTINFO + 1, field((what | _VALID) >> 8, 7))
    # L2's IDT is where its page tables map nothing, so that the #VMEXIT comes while the event is being delivered.
    stopped = _runs(injects, (_IDT_BASE, field(0x40000000)))
    return (
        _case(
            "none", "vmrun", f"{name}-injected", (A_EVENT_INJECTION,), *_runs(injects), _delivered(what, at_first), needs=needs,
        ),
        _case(
            "none", "vm-exit", f"{name}-kept-in-svm-l2", (A_DURING_DELIVERY,), *stopped, s.Poke(EXCEPTIONS, 1 << PF),
            exits(0x40 + PF), s.Expect(kept, "exits"), needs=needs,
        ),
    )  # fmt: skip


# Nested paging. Tables of 4 KiB pages, all accesses of which are a user's.
_TABLES, _PAGE = 0x18000, 0x20000
_READ_ONLY, _NONE, _USER = 5, 0, 1 << 2
_FINAL, _PRESENT, _WRITES = 1 << 32, 1, 1 << 1
_NPT = ("svm-nested-paging",)
_ON = (VMCB + _NESTED_CTL, 1)


def _paged(page: int = 0, flags: int = 7) -> tuple[tuple[int, int | bytes], ...]:
    """Nested paging by tables in which the entry of ``page`` has these ``flags``."""
    entries = [7 | number << 12 for number in range(512)]
    if page:
        entries[page >> 12] = page | flags
    upper = ((_TABLES + number * 0x1000, field(_TABLES + (number + 1) * 0x1000 | 7)) for number in range(3))
    table = b"".join(map(field, entries))
    return (_ON, (VMCB + _NCR3, field(_TABLES)), *upper, (_TABLES + 0x3000, table))


def _laid(places: tuple[tuple[int, int | bytes], ...]) -> tuple[s.Step, ...]:
    return tuple(s.Poke(at, value) for at, value in places)


def _faults(name: str, code: str, page: int, flags: int, error: int) -> Scenario:
    """L2's ``code`` makes a fault of nested paging at ``page``: EXITINFO1 is its error code, EXITINFO2 the address."""
    info = s.Filled(EXIT_INFO, field(error) + field(page))
    steps = (*tried(bytes.fromhex(code), *_paged(page, flags)), exits(NPF), s.Expect(info, "exits"))
    return _case("none", "vm-exit", f"{name}-in-svm-l2", (A_NESTED_FAULTS,), *steps, needs=_NPT)


def _in_paged(*bits: int) -> tuple[s.Step, ...]:
    ready = (*hypervisor("TOPIC_RUN", *bits), *_laid(_paged()))
    return (*ready, s.Until(s.Word("NESTED")), s.Complete(), IN_L2, FINDS)


_SENT, _EXIT_INIT = s.Send("init"), exits(0x63)
_PAGED_CITE = (A_NESTED_PAGING, A_SVM_INIT)
#: L1 steps over what comes after its READY, up to VMRUN, of which KVM has emulated what comes before L2's first instruction.
_STEPS = debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP)
_STEPPED = s.Until(s.Exit(KVM_EXIT_DEBUG))
_RUN_PENDING = KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_GIF_SET | KVM_STATE_NESTED_RUN_PENDING
_PENDING = (
    _STEPS, _STEPPED, _STEPPED, debug(0),
    s.Require(s.Is("nested.flags", _RUN_PENDING), "not testable here: no VM entry is pending after VMRUN", skip=True),
)  # fmt: skip
_ENTERS = s.Expect(s.Word("NESTED"), "runs")

SCENARIOS = (
    *(_case("none", "vmrun", name, _CITE, *_runs((at, value)), _INVALID) for name, at, value in _ILLEGAL),
    # As after any #VMEXIT GIF is clear.
    _case(
        "init", "msi", "after-refused-vmrun", (*_CITE, A_GIF, A_SVM_INIT), *_runs(_REFUSED[1:]), _INVALID, FINDS, _SENT,
        pending(), *restarted(),
    ),
    # Without EFER.SVME there is no VMRUN; INIT clears it, too.
    _case(
        "none", "vmrun", "without-svme", (A_SVME,), *_runs(), s.Complete(), s.Set((("efer", EFER),)),
        s.Expect(s.Words((s.Word("FAULT", 6 << 24, "exception {:#x}", mask=0xFF000000),)), "delivered"),
    ),
    *(case for one in _INJECTED for case in _injection(*one)),
    _case("none", "vmrun", "with-nested-paging", (A_NESTED_PAGING,), *_runs(), *_laid(_paged()), _ENTERS, needs=_NPT),
    _case(
        "init", "msi", "in-svm-l2-with-nested-paging-intercepted", _PAGED_CITE, *_in_paged(INTERCEPT_INIT), _SENT, _EXIT_INIT,
        needs=_NPT,
    ),
    _case("init", "msi", "in-svm-l2-with-nested-paging", _PAGED_CITE, *_in_paged(), _SENT, *restarted(), needs=_NPT),
    # MOV EAX, moffs32 and back.
    _faults("nested-page-not-present", "67a100000200", _PAGE, _NONE, _FINAL | _USER),
    _faults("nested-page-read-only", "67a300000200", _PAGE, _READ_ONLY, _FINAL | _USER | _WRITES | _PRESENT),
    # OUTSB, which KVM emulates.
    _faults("nested-page-of-string", "be000002006e", _PAGE, _NONE, _FINAL | _USER),
    _case(
        "init", "msi", "after-nested-page-fault", (A_NESTED_FAULTS, A_GIF, A_SVM_INIT),
        *tried(bytes.fromhex("67a100000200"), *_paged(_PAGE, _NONE)), exits(NPF), FINDS, _SENT, pending(), *restarted(),
        needs=_NPT,
    ),
    _case(
        "init", "msi", "vmrun-pending-intercepted", (A_SVM_INIT, A_GIF, KVM_API), *_runs(intercepts=(INTERCEPT_INIT,)), *_PENDING,
        _SENT, _EXIT_INIT,
    ),
    _case("init", "msi", "vmrun-pending", (A_SVM_INIT, A_GIF, KVM_API), *_runs(), *_PENDING, _SENT, RESTARTS, s.Observe()),
    _case(
        "none", "nested-state", "vmrun-pending-restored", (KVM_API,), *_runs(), *_PENDING,
        s.Set((("nested.flags", _RUN_PENDING),)), s.Expect(in_l2(), "nested.flags"), _ENTERS,
    ),
)  # fmt: skip
