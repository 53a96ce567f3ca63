# SPDX-License-Identifier: GPL-2.0-only
"""INIT and SHUTDOWN while a nested guest of an SVM hypervisor runs, and INIT that VM_CR.R_INIT turns into #SX."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import FINDS, PLANTED, pending, restarted
from kvmtest.scenario.catalogue.smm import GOES_ON, LEFT, handler
from kvmtest.scenario.hypervisor import EFER, IN_L2, in_l2
from kvmtest.scenario.hypervisor import svm as hypervisor
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import (
    A_GIF,
    A_MACHINE_CHECK,
    A_R_INIT,
    A_SHUTDOWN_INTERCEPT,
    A_SMM_INHIBIT,
    A_SVM_INIT,
    A_SVME,
    KVM_API,
    LINUX_NESTED_SMM,
    LINUX_SHUTDOWN,
)
from kvmtest.uapi.kvm import (
    KVM_EXIT_INTERNAL_ERROR,
    KVM_EXIT_SHUTDOWN,
    KVM_MP_STATE_HALTED,
    KVM_STATE_NESTED_GIF_SET,
    KVM_X86_SET_MCE,
    kvm_x86_mce,
)

__all__ = ("INTERCEPT_INIT", "SCENARIOS", "exits", "hypervisor")

#: Bits of the VMCB's intercepts at 00CH, and the #VMEXIT that each makes.
INTERCEPT_INIT, _MSR_PROT, _SHUTDOWN = 3, 28, 31
_EXIT_INIT, _EXIT_SHUTDOWN = 0x63, 0x7F
_R_INIT, _SVMDIS = 1 << 1, 1 << 4
#: An uncorrected machine check (VAL UC EN PCC, and MCIP), which without CR4.MCE shuts the CPU down.
_MCE = bytes(kvm_x86_mce(status=0xB2 << 56, mcg_status=1 << 2))

_UNDEFINED_SVME = "the APM leaves undefined what a guest's clearing of EFER.SVME does"
#: Beyond all memory of the VM.
_NOWHERE = 1 << 30
_WHERE_LEFT = "the CPU is shut down, and no manual says where userspace finds the state then"
_NO_MAP = "no manual says what becomes of a nested guest whose permissions map a VMM has not restored"
_NO_MANUAL = "no manual describes it: userspace asks for a state that a CPU cannot be in"


def _in_l2(*intercepts: int, nested: str = "NESTED_SPIN") -> tuple[s.Step, ...]:
    """To the nested guest's first word, and after that OUT."""
    return (*hypervisor("TOPIC_RUN", *intercepts, nested=nested), s.Until(s.Word("NESTED")), s.Complete(), IN_L2, FINDS)


def exits(code: int) -> s.Step:
    """L1 gets the #VMEXIT with this code."""
    return s.Expect(s.Word("EXIT", code), "exits")


def _case(
    event: str, trigger: str, sequence: str, steps: tuple[s.Step, ...], *cite: str,
    target: str = "bsp", smm: bool = False, mce: bool = False, undefined: str = "",
) -> Scenario:  # fmt: skip
    view, needs = "guest" if target == "bsp" else "host", ("smm", "svm") if smm else ("svm",)
    return Scenario(event, trigger, sequence, steps, cite, target, view, needs, Setup(mce=mce), undefined)


def _init(sequence: str, steps: tuple[s.Step, ...], *cite: str, target: str = "bsp", smm: bool = False) -> Scenario:
    return _case("init", "msi", sequence, steps, A_SVM_INIT, *cite, target=target, smm=smm)


def _machine_check(sequence: str, then: tuple[s.Step, ...], *intercepts: int, undefined: str = "") -> Scenario:
    """A shutdown that KVM itself finds due, where the CPU reports none."""
    check = s.Call(KVM_X86_SET_MCE, _MCE, kind="kvm_x86_mce")
    steps = (*_in_l2(*intercepts), s.Event("shutdown", "set-mce"), check, *then)
    cite = (A_SHUTDOWN_INTERCEPT, A_MACHINE_CHECK)
    return _case("shutdown", "set-mce", sequence, steps, *cite, mce=True, undefined=undefined)


def _smi(*intercepts: int) -> tuple[s.Step, ...]:
    """An SMI interrupts the nested guest, and an INIT waits for RSM, which leads back to it."""
    return (handler(), *_in_l2(*intercepts), s.Send("smi", "ioctl-smi", judged=False), s.Until(s.Word("smram.SMI")), *GOES_ON)


_SENT = s.Send("init")
#: By its vector: its error code shows nothing in QEMU's TCG, which pushes none for it (exception_has_error_code()).
_SX = s.Expect(s.Word("FAULT", 30 << 24, "#SX", mask=0xFF << 24), "delivered")
#: KVM keeps R_INIT, and looks at it nowhere (svm_set_vm_cr()).
_REDIRECTED = (s.Set((("msr.vm_cr", _R_INIT),), why="KVM keeps no VM_CR.R_INIT"), _SENT, _SX)
_DISABLED = s.Set((("msr.vm_cr", _SVMDIS),), why="KVM keeps no VM_CR.SVMDIS")
_DOWN = s.Expect(s.Exit(KVM_EXIT_SHUTDOWN))
_FAULTS = s.Event("shutdown", "triple-fault")
_L2_IS_LEFT = s.Expect(in_l2(0))

SCENARIOS = (
    # An intercepted INIT stays pending (APM), and is accepted after STGI.
    _init("in-svm-l2-intercepted", (*_in_l2(INTERCEPT_INIT), _SENT, exits(_EXIT_INIT), pending(), *restarted()), A_GIF),
    _init(
        "in-svm-l2-intercepted-in-hlt",
        (*_in_l2(INTERCEPT_INIT, nested="NESTED_HALT"), s.Until(s.Is("mp_state", KVM_MP_STATE_HALTED)), _SENT, exits(_EXIT_INIT)),
    ),
    # KVM_GET_MP_STATE lets KVM look at what is pending, too.
    _init("in-svm-l2-intercepted-settled", (*_in_l2(INTERCEPT_INIT), _SENT, s.Settle(), pending(), exits(_EXIT_INIT)), KVM_API),
    # L2 is restored with a permissions map that is not there, which KVM finds when it runs L2.
    _init(
        "in-svm-l2-without-msr-bitmap-intercepted",
        (
            *_in_l2(INTERCEPT_INIT, _MSR_PROT), s.Set((("nested.vmcb.msrpm", _NOWHERE),)),
            s.Require(s.Exit(KVM_EXIT_INTERNAL_ERROR), "not testable here: L2 runs without its MSR permissions map", skip=True),
            _SENT, exits(_EXIT_INIT), pending(), *restarted(),
        ),
        A_GIF,
    )._replace(vendors=("amd",), undefined=_NO_MAP),
    _init("in-svm-l2", (*_in_l2(), _SENT, *restarted())),
    _init("in-svm-l2-settled", (*_in_l2(), _SENT, s.Observe()), target="ap"),
    _init("r-init", (*hypervisor("TOPIC_SPIN"), FINDS, *_REDIRECTED), A_R_INIT),
    _init("r-init-in-svm-l2", (*_in_l2(), *_REDIRECTED), A_R_INIT),
    # INIT clears SVMDIS without LOCK (APM), and so can a VMM, as no CPU has set it for good.
    _init("svm-disabled", (PLANTED, _DISABLED, FINDS, _SENT, s.Settle(), s.Observe()), target="ap")._replace(vendors=("amd",)),
    _case(
        "none", "set-msrs", "svm-disabled-and-enabled",
        (PLANTED, _DISABLED, s.Set((("msr.vm_cr", 0),), check=False), s.Expect(s.Is("msr.vm_cr", 0))), KVM_API, target="ap",
    )._replace(vendors=("amd",)),
    _case(
        "shutdown", "triple-fault", "in-svm-l2-intercepted",
        (*_in_l2(_SHUTDOWN, nested="NESTED_SHUTDOWN"), _FAULTS, exits(_EXIT_SHUTDOWN)), A_SHUTDOWN_INTERCEPT,
    ),
    _case(
        "shutdown", "triple-fault", "in-svm-l2", (*_in_l2(nested="NESTED_SHUTDOWN"), _FAULTS, _DOWN, s.Observe()),
        A_SHUTDOWN_INTERCEPT, LINUX_SHUTDOWN,
    ),
    _machine_check("in-svm-l2-intercepted", (exits(_EXIT_SHUTDOWN),), _SHUTDOWN),
    _machine_check("in-svm-l2", (_DOWN, s.Expect(in_l2())), undefined=_WHERE_LEFT),
    _case(
        "shutdown", "wrmsr", "in-svm-l2-without-svme",
        (
            *hypervisor("TOPIC_RUN", nested="NESTED_SVME"), s.Event("shutdown", "wrmsr"), _DOWN._replace(ends=False),
            s.Expect(s.Is("nested.flags", KVM_STATE_NESTED_GIF_SET), ends=False), s.Expect(s.Is("efer", EFER)),
        ),
        A_SVME, undefined=_UNDEFINED_SVME,
    ),
    _init("in-smm-over-svm-l2", (*_smi(), *restarted(LEFT)), A_SMM_INHIBIT, smm=True),
    _init("in-smm-over-svm-l2-intercepted", (*_smi(INTERCEPT_INIT), exits(_EXIT_INIT)), A_SMM_INHIBIT, smm=True),
    _case(
        "none", "vcpu-events", "smm-in-svm-l2", (*_in_l2(), s.Set((("events.smi_smm", 1),)), _L2_IS_LEFT), LINUX_NESTED_SMM,
        target="ap", smm=True, undefined=_NO_MANUAL,
    ),
)  # fmt: skip
