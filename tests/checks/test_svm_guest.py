# SPDX-License-Identifier: GPL-2.0-only
"""Checks of nested guests on SVM: an INIT that the hypervisor does not get, or that leaves something of the guest, fails."""

from __future__ import annotations

import pytest

from kvmtest.checks import CHECKS, Stopped, Untestable, svm_guest
from kvmtest.checks.pending import TAKEN
from kvmtest.checks.svm import LEFT
from kvmtest.guests import l1, smm, svm
from kvmtest.model.record import Result
from kvmtest.uapi.kvm import KVM_STATE_NESTED_GUEST_MODE
from tests.cases import judged_check
from tests.checks.scripted import GIF, SHUTDOWN, TIMEOUT, Script, Step, init, subject, word

IDS = [check.id for check in svm_guest.CHECKS]


def judged(id: str, vcpu: Script) -> Result:
    return judged_check(CHECKS[id], CHECKS[id].observe(subject(vcpu)))


def _nested(vcpu: Script) -> None:
    vcpu.flags = GIF | KVM_STATE_NESTED_GUEST_MODE


def _half_left(vcpu: Script) -> None:
    init(vcpu)
    vcpu.flags, vcpu.sregs.efer = GIF | KVM_STATE_NESTED_GUEST_MODE, svm.EFER_SVME


def _taken(vcpu: Script) -> None:
    vcpu.events.smi.latched_init = 0


READY, NESTED = word(svm.PORT_READY), word(svm.PORT_NESTED, do=_nested)
EXIT = word(svm.PORT_EXIT, 0x63)
RESET = word(svm.PORT_RESET, do=init)
HALF = word(svm.PORT_RESET, do=_half_left)
IN_GUEST = "in guest mode, GIF set, EFER 0x1000"


@pytest.mark.parametrize(
    ("id", "steps", "observed"),
    [
        ("init.l2.guest.intercepted", [EXIT], "#VMEXIT(63h)"),
        ("init.l2.guest.intercepted", [RESET], "INIT"),
        ("init.l2.guest.intercepted", [TIMEOUT], "no exit, INIT pending"),
        ("init.l2.guest.intercepted-in-hlt", [TIMEOUT, EXIT], "#VMEXIT(63h)"),
        ("init.l2.guest.intercepted-in-hlt", [TIMEOUT, TIMEOUT], "no exit, INIT pending"),
        ("init.l2.guest.intercepted-by-get-mp-state", [EXIT], "pending, then #VMEXIT(63h)"),
        ("init.l2.guest.intercepted-by-get-mp-state", [RESET], "pending, then INIT"),
        ("init.l2.guest.intercepted-stays-pending", [EXIT, RESET], "pending, behind STGI: INIT"),
        ("init.l2.guest.intercepted-stays-pending", [word(svm.PORT_EXIT, 0x63, _taken), word(svm.PORT_LEFT)],
         "not pending, behind STGI: 0 turns without INIT"),
        ("init.l2.guest.restarts", [RESET], f"INIT, {LEFT}"),
        ("init.l2.guest.restarts", [HALF], f"INIT, {IN_GUEST}"),
        ("init.l2.guest.restarts", [EXIT], "#VMEXIT(63h)"),
        ("init.r-init.guest.in-l2", [word(svm.PORT_FAULT, 30 << 24 | 1)], "exception 30, error code 1"),
        ("init.r-init.guest.in-l2", [RESET], "INIT"),
        ("shutdown.l2.guest.intercepted", [word(svm.PORT_EXIT, 0x7F)], "#VMEXIT(7Fh)"),
        ("shutdown.l2.guest.intercepted", [SHUTDOWN()], "KVM_EXIT_SHUTDOWN"),
        ("shutdown.l2.guest.intercepted-machine-check", [word(svm.PORT_EXIT, 0x7F)], "#VMEXIT(7Fh)"),
        ("shutdown.l2.guest.intercepted-machine-check", [SHUTDOWN()], "KVM_EXIT_SHUTDOWN"),
        ("shutdown.l2.guest.not-intercepted", [SHUTDOWN(init)], f"KVM_EXIT_SHUTDOWN, RUNNABLE f000:fff0, {LEFT}"),
        ("shutdown.l2.guest.not-intercepted", [SHUTDOWN(_half_left)],
         f"KVM_EXIT_SHUTDOWN, RUNNABLE f000:fff0, {IN_GUEST}"),
    ],
)  # fmt: skip
def test_by_guest_code(id: str, steps: list[Step], observed: str) -> None:
    result = judged(id, Script([READY, NESTED, *steps]))
    assert (result.observed, result.verdict) == (observed, "pass" if observed == CHECKS[id].expected else "fail")


SMI, LOOP = word(smm.PORT_SMI), word(smm.PORT_VALUE, at_38808=1000)


@pytest.mark.parametrize(
    ("id", "steps", "observed"),
    [
        ("init.smm.guest.taken-after-rsm-to-l2", [LOOP, RESET], f"INIT, {LEFT}"),
        ("init.smm.guest.taken-after-rsm-to-l2", [LOOP, HALF], f"INIT, {IN_GUEST}"),
        ("init.smm.guest.taken-after-rsm-to-l2", [RESET], "INIT in the handler"),
        ("init.smm.guest.taken-after-rsm-to-l2", [LOOP, TIMEOUT], "no exit, INIT pending"),
        ("init.smm.guest.intercepted-after-rsm-to-l2", [LOOP, EXIT], "#VMEXIT(63h)"),
        ("init.smm.guest.intercepted-after-rsm-to-l2", [LOOP, RESET], "INIT"),
    ],
)
def test_behind_an_smi_in_the_nested_guest(id: str, steps: list[Step], observed: str) -> None:
    result = judged(id, Script([READY, NESTED, SMI, *steps]))
    assert (result.observed, result.verdict) == (observed, "pass" if observed == CHECKS[id].expected else "fail")


@pytest.mark.parametrize(("step", "verdict"), [(word(svm.PORT_FAULT, 30 << 24 | 1), "pass"), (RESET, "fail")])
def test_r_init_without_a_nested_guest(step: Step, verdict: str) -> None:
    assert judged("init.r-init.guest.in-host", Script([READY, step])).verdict == verdict


def test_r_init_that_kvm_does_not_keep_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Script, "set_msrs", lambda vcpu, values: 0)
    with pytest.raises(Untestable, match="R_INIT"):
        judged("init.r-init.guest.in-host", Script([READY, RESET]))


def _accept(vcpu: Script) -> None:
    if vcpu.events.smi.latched_init:
        init(vcpu)


def _half(vcpu: Script) -> None:
    if vcpu.events.smi.latched_init:
        _half_left(vcpu)
        vcpu.mp_state = 2


def test_by_ioctl() -> None:
    id = "init.l2.host.leaves-guest-mode"
    assert judged(id, Script([READY, NESTED], _accept, bsp=False)).verdict == "pass"
    result = judged(id, Script([READY, NESTED], _half, bsp=False))
    assert (result.observed, result.verdict) == (f"{TAKEN}, {IN_GUEST}", "fail")


@pytest.mark.parametrize("left", ["", "dr6", "cr2", "msr 0x277", "xsave", "nested state"])
def test_each_part_of_the_state_counts(left: str) -> None:
    def accept(vcpu: Script) -> None:
        nested = vcpu.flags & KVM_STATE_NESTED_GUEST_MODE
        if not vcpu.events.smi.latched_init:
            return
        _accept(vcpu)
        vcpu.debugregs.dr6 = vcpu.msrs[0x277] = 0
        vcpu.xsave = bytes(4096)
        if nested and left == "dr6":
            vcpu.debugregs.dr6 = 1
        elif nested and left == "cr2":
            vcpu.sregs.cr2 = 1
        elif nested and left == "xsave":
            vcpu.xsave = b"\1" * 4096
        elif nested and left == "nested state":
            vcpu.flags = 0
        elif nested and left:
            vcpu.msrs[0x277] = 1

    vcpu = Script([READY, NESTED, READY], accept, bsp=False)
    result = judged("init.l2.host.whole-state", vcpu)
    assert (result.observed, result.verdict) == (("1 differ", "fail") if left else ("0 differ", "pass"))
    assert result.reason == left


@pytest.mark.parametrize(
    ("step", "observed"),
    [
        (SHUTDOWN(init), f"KVM_EXIT_SHUTDOWN, {LEFT}"),
        (word(svm.PORT_NESTED), "the nested guest goes on, not in guest mode, GIF set, EFER 0x1500"),
    ],
)
def test_what_becomes_of_svme_is_recorded(step: Step, observed: str) -> None:
    result = judged("shutdown.l2.guest.svme-cleared", Script([READY, step]))
    assert (result.verdict, result.observed) == ("info", observed)


@pytest.mark.parametrize(
    ("step", "observed"),
    [(SHUTDOWN(), "KVM_EXIT_SHUTDOWN, in guest mode"), (word(svm.PORT_EXIT, 0x7F, init), "#VMEXIT(7Fh), not in guest mode")],
)
def test_a_machine_check_that_is_not_intercepted_is_recorded(step: Step, observed: str) -> None:
    result = judged("shutdown.l2.guest.not-intercepted-machine-check", Script([READY, NESTED, step]))
    assert (result.verdict, result.observed) == ("info", observed)


def test_smm_over_a_nested_guest_is_recorded() -> None:
    id = "none.l2.host.smm-leaves-guest-mode"
    assert judged(id, Script([READY, NESTED])).observed == "in SMM, in guest mode"
    assert judged(id, Script([READY, NESTED], refuses=["set_vcpu_events"])).observed == "EINVAL"
    assert judged(id, Script([READY, NESTED])).verdict == "info"


@pytest.mark.parametrize("id", IDS)
def test_a_kvm_without_svm_is_no_pass(id: str) -> None:
    with pytest.raises(Untestable, match="no S[VM]M"):
        CHECKS[id].observe(subject(Script(has=False)))


def test_a_nested_guest_that_does_not_run_is_no_pass() -> None:
    id = "init.l2.guest.intercepted"
    with pytest.raises(Stopped, match="no guest mode"):
        judged(id, Script([READY, word(svm.PORT_NESTED), EXIT]))
    with pytest.raises(Stopped, match="0xfa comes next"):
        judged(id, Script([READY, word(svm.PORT_EXIT, 0xFFFFFFFF)]))
    with pytest.raises(Stopped, match="was to halt"):
        judged("init.l2.guest.intercepted-in-hlt", Script([READY, NESTED, EXIT]))


def test_the_vmcb_is_one_that_vmrun_takes() -> None:
    page = svm.vmcb(3, 31, efer=0x1500, cr0=0x80010033, cr4=0x620)
    assert len(page) == 0x1000
    words = {at: int.from_bytes(page[at : at + 4], "little") for at in (0x00C, 0x010, 0x058, 0x4D0, 0x548, 0x558)}
    assert words == {0x00C: 1 << 3 | 1 << 31, 0x010: 1, 0x058: 1, 0x4D0: 0x1500, 0x548: 0x620, 0x558: 0x80010033}
    assert int.from_bytes(page[0x578:0x580], "little") == l1.CODE + svm.AT_NESTED
    assert page[0x410:0x420] == bytes.fromhex("08009b0affffffff") + bytes(8)
