# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU's state against the manuals: from an object, a descriptor, or saved bytes; what is not judged is said."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.kvm import CpuidEntry, Kvm, KvmError, Vcpu, Vm
from kvmtest.kvm.cpuid import pack_cpuid
from kvmtest.testing import State, StateMismatch, assert_state, read_state, saved_state
from kvmtest.testing.judged import judge_state
from kvmtest.uapi.kvm import kvm_debugregs, kvm_regs, kvm_segment, kvm_sregs

CPUID = [CpuidEntry(0, ebx=0x756E6547, edx=0x49656E69, ecx=0x6C65746E), CpuidEntry(1, eax=0x506E3, edx=0x200)]
DATA = kvm_segment(limit=0xFFFF, type=3, present=1, s=1)
#: RESET's values of MSRs in both manuals; those after KVM_CREATE_VCPU differ.
MSRS = {0x277: 0x0007040600070406, 0x174: 0, 0xC0000102: 0}


def regs(**changed: int) -> bytes:
    return bytes(kvm_regs(**({"rdx": 0x506E3, "rip": 0xFFF0, "rflags": 2} | changed)))


def sregs(**changed: int) -> bytes:
    made = kvm_sregs(cr0=0x60000010, apic_base=0xFEE00900)
    made.cs = kvm_segment(selector=0xF000, base=0xFFFF0000, limit=0xFFFF, type=11, present=1, s=1)
    for name in ("ds", "es", "fs", "gs", "ss"):
        setattr(made, name, DATA)
    made.tr = kvm_segment(limit=0xFFFF, type=11, present=1)
    made.ldt = kvm_segment(limit=0xFFFF, type=2, present=1)
    made.gdt.limit = made.idt.limit = 0xFFFF
    for name, value in changed.items():
        setattr(made, name, value)
    return bytes(made)


def after_reset(**changed: bytes) -> State:
    return saved_state(**{"regs": regs(), "sregs": sregs(), "cpuid": CPUID, "msrs": MSRS} | changed)  # type: ignore[arg-type]


def test_saved_state_of_a_good_reset_passes_and_says_what_was_not_given() -> None:
    judged = assert_state(after_reset(), "reset", backend="vmx")
    good = {result.item for result in judged.good}
    assert good >= {"rax", "rdx", "rip", "cs.base", "ds.type", "cr0", "efer", "gdt.limit", "msr.pat"}
    assert judged.not_judged["dr6"] == "KVM_GET_DEBUGREGS was not given"
    assert judged.not_judged["msr.star"] == "KVM_GET_MSRS: not among the MSRs given"
    assert "fcw" in judged.not_judged and "fcw" not in good
    assert len(judged.good) + len(judged.not_judged) == len(judged.results)


@pytest.mark.parametrize(
    ("changed", "item"),
    [
        ({"regs": regs(rbx=5)}, "rbx"),
        ({"regs": regs(rdx=0x600, rip=0xFFF0)}, "rdx"),
        ({"regs": regs(rip=0)}, "rip"),
        ({"sregs": sregs(cr0=0x10)}, "cr0"),
        ({"sregs": sregs(apic_base=0xFEE00800)}, "apic_base"),
        ({"msrs": MSRS | {0x174: 8}}, "msr.sysenter_cs"),
        ({"debugregs": bytes(kvm_debugregs(dr6=0xFFFF0FF1, dr7=0x400))}, "dr6"),
    ],
)
def test_each_section_can_fail(changed: dict[str, bytes], item: str) -> None:
    with pytest.raises(StateMismatch) as caught:
        assert_state(after_reset(**changed), "reset", backend="vmx", strict=True)
    assert {result.item for result in caught.value.judged.failed} == {item}


def test_the_message_has_each_value_and_the_rule() -> None:
    with pytest.raises(StateMismatch) as caught:
        assert_state(after_reset(sregs=sregs(cr0=0x11), regs=regs(rbx=5)), "reset", backend="vmx")
    assert """
FAIL  reset.external.host.cr0
      planted   -
      expected  0x60000010  CD|NW|ET
      observed  0x11  ET|PE
      differs   CD|NW|PE
      cases     bsp,intel
      cite      SDM vol. 3, IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT;
                APM vol. 2, Initial Processor State
""" in str(caught.value)


def test_without_before_what_must_be_unchanged_is_not_judged() -> None:
    state = after_reset(regs=regs(), sregs=sregs(cr2=5, cr0=0x40000010))
    with pytest.raises(StateMismatch) as caught:
        assert_state(state, "init", backend="vmx")
    assert {result.item for result in caught.value.judged.failed} == {"cr2"}
    judged = assert_state(state, "init", backend="vmx", ignore=["cr2"])
    assert "before=" in judged.not_judged["msr.sysenter_cs"]
    cr0 = next(result for result in judged.good if result.item == "cr0")
    assert cr0.reason == "bits 0x60000000 are not judged: the state before the event is not known (before=)"
    assert "cr0: bits 0x60000000 are not judged" in judged.summary()
    assert "cr2" not in judged.not_judged


def test_with_before_what_must_be_unchanged_is_judged() -> None:
    before = after_reset(msrs=MSRS | {0x174: 0x33, 0xC0000102: 0}, regs=regs(rbx=7), sregs=sregs(cr0=0x80000011))
    kept = after_reset(msrs=MSRS | {0x174: 0x33}, sregs=sregs(cr0=0x10))
    judged = assert_state(kept, "init", before=before, backend="vmx")
    assert {result.item for result in judged.good} >= {"msr.sysenter_cs", "rbx", "cr0"}
    assert "proves nothing" in judged.not_judged["msr.kernel_gs_base"]  # 0 before and after
    assert "proves nothing" in judged.not_judged["rcx"]
    lost = after_reset(sregs=sregs(cr0=0x60000010))
    failed = judge_state(lost, "init", before=before, backend="vmx").failed
    assert {result.item: (result.planted, result.observed) for result in failed} == {
        "msr.sysenter_cs": ("0x33", "0x0"),
        "cr0": ("0x80000011", "0x60000010"),
    }


def test_a_value_that_reset_leaves_proves_nothing_by_being_unchanged() -> None:
    before = after_reset()
    judged = judge_state(before, "init", before=before, backend="vmx")
    assert {"msr.pat", "apic_base"} <= judged.not_judged.keys()


def test_a_deviation_of_kvm_is_named_and_fails_with_strict() -> None:
    state = after_reset(regs=regs(rdx=0x600))
    judged = assert_state(state, "reset", backend="vmx", kernel="6.1.0")
    assert "rdx: 0x600" in judged.summary() and "1 as a listed deviation of KVM explains" in judged.counts
    with pytest.raises(StateMismatch, match="KNOWN reset.external.host.rdx"):
        assert_state(state, "reset", backend="vmx", kernel="6.1.0", strict=True)


def test_nothing_judged_is_no_pass() -> None:
    with pytest.raises(StateMismatch, match="nothing was judged"):
        assert_state(saved_state(), "reset")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"event": "RESET"}, "event 'RESET'"),
        ({"event": "reset", "vendor": "via"}, "vendor 'via'"),
        ({"event": "sipi"}, "give vector="),
        ({"event": "reset", "ignore": ["cr9"]}, "no item matches 'cr9'"),
    ],
)
def test_wrong_words_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assert_state(after_reset(), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("section", ["regs", "sregs", "xsave", "lapic", "msrs", "cpuid"])
def test_bytes_that_are_cut_short_are_refused(section: str) -> None:
    with pytest.raises(ValueError, match=section):
        saved_state(**{section: b"\x01\x00\x00\x00\x00"})  # type: ignore[arg-type]


@given(st.dictionaries(st.integers(0, 0xFFFFFFFF), st.integers(0, (1 << 64) - 1), max_size=20))
def test_msrs_as_bytes_and_by_index_are_the_same(values: dict[int, int]) -> None:
    entries = b"".join(i.to_bytes(8, "little") + v.to_bytes(8, "little") for i, v in values.items())
    packed = len(values).to_bytes(8, "little") + entries
    assert saved_state(msrs=packed).snapshot == saved_state(msrs=values).snapshot


def test_cpuid_as_bytes_and_leaves_are_the_same() -> None:
    assert saved_state(cpuid=bytes(pack_cpuid(CPUID))).leaves == CPUID
    assert saved_state(cpuid=CPUID).vendor == "intel"


def test_the_ids_of_items_are_the_specs() -> None:
    judged = judge_state(after_reset(), "none", before=after_reset())
    assert {"cr0", "lapic.svr", "msr.pat", "xmm0", "mp_state"} <= {result.item for result in judged.results}


def test_the_boot_cpu_is_the_one_with_id_0_unless_said() -> None:
    boot, other = after_reset(), after_reset(sregs=sregs(apic_base=0xFEE00800))
    assert not judge_state(boot, "reset", backend="vmx").failed
    assert not judge_state(other, "reset", backend="vmx", apic_id=1).failed
    assert not judge_state(boot, "reset", backend="vmx", apic_id=1, bsp=True).failed
    for state, arguments in ((boot, {"apic_id": 1}), (other, {"apic_id": 0}), (boot, {"bsp": False})):
        assert {r.item for r in judge_state(state, "reset", backend="vmx", **arguments).failed} == {"apic_base"}


# With KVM


@pytest.fixture
def vcpu(kvm: Kvm, vm_irqchip: Vm) -> Vcpu:
    made = vm_irqchip.create_vcpu(0)
    made.set_cpuid2(kvm.supported_cpuid())
    return made


def test_vcpu_descriptor_and_saved_bytes_say_the_same(vcpu: Vcpu) -> None:
    lively = {"msr.tsc", "lapic.timer_current", "msr.kvm_wall_clock", "msr.kvm_system_time"}
    own = judge_state(vcpu, "reset")
    lent = judge_state(vcpu.fd, "reset")
    read = read_state(vcpu)
    names = ("regs", "sregs", "debugregs", "events", "mp_state", "xcrs", "lapic", "xsave")
    saved = saved_state(
        **{name: read.snapshot.sections[name] for name in names},  # type: ignore[arg-type]
        msrs=vcpu.get_msrs(list(read.layout.msrs)),
        cpuid=vcpu.get_cpuid2(),
    )
    kept = judge_state(saved, "reset", backend=read.backend, kernel=os.uname().release)

    def reported(results: tuple[object, ...]) -> dict[str, str]:
        return {r.item: r.verdict for r in results if r.observed is not None and r.item not in lively}  # type: ignore[attr-defined]

    assert reported(own.results) == reported(lent.results)
    unsaved = {"nested.flags", "nested.vmxon_pa", "nested.vmcs12_pa", "ssp"}
    assert {i: v for i, v in reported(own.results).items() if i not in unsaved} == reported(kept.results)
    assert len(reported(kept.results)) > 300


def test_a_register_that_reset_forgot_is_found_on_a_descriptor(vcpu: Vcpu) -> None:
    clean = {result.item for result in judge_state(vcpu.fd, "reset").failed}
    used = vcpu.get_regs()
    used.rbx = 0x1234
    vcpu.set_regs(used)
    with pytest.raises(StateMismatch) as caught:
        assert_state(vcpu.fd, "reset")
    assert {result.item for result in caught.value.judged.failed} - clean == {"rbx"}


def test_the_descriptor_stays_open_and_its_owners(vcpu: Vcpu) -> None:
    judge_state(vcpu.fd, "reset")
    assert vcpu.get_regs().rip == 0xFFF0


def test_what_is_no_vcpu_is_refused(kvm: Kvm, vm: Vm) -> None:
    for descriptor in (kvm.fd, vm.fd):
        with pytest.raises(KvmError, match="KVM_GET_REGS"):
            Vcpu.from_fd(kvm, descriptor)
    with pytest.raises(KvmError, match="EBADF"):
        Vcpu.from_fd(kvm, -1)


def test_another_process_cannot_lend_its_vcpu(kvm: Kvm, vcpu: Vcpu) -> None:
    here, there = socket.socketpair()
    child = os.fork()
    if not child:
        try:
            Vcpu.from_fd(kvm, vcpu.fd)
            there.send(b"no error")
        except KvmError as error:
            there.send(str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    with here, there:
        assert b"[EIO]" in here.recv(200)
