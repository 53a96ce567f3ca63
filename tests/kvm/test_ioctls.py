# SPDX-License-Identifier: GPL-2.0-only
"""Each binding on a real /dev/kvm: what is set is read back, and what KVM lacks is a KvmError or a skip."""

from __future__ import annotations

import errno
import os
import pickle
from ctypes import byref, set_errno, sizeof

import pytest

from kvmtest.kvm import CpuidEntry, Kvm, KvmError, Vcpu, Vm, irqchip_route, msi_route
from kvmtest.kvm import ioctl as calls
from kvmtest.kvm.ioctl import ioctl
from kvmtest.uapi import kvm as k

MSR_IA32_CR_PAT = 0x277
MSR_STAR = 0xC0000081
NO_SUCH_MSR = 0x12345678


def need(kvm: Kvm, cap: int, name: str) -> int:
    """The capability's number; skips the test where KVM lacks it."""
    value = kvm.check_extension(cap)
    if not value:
        pytest.skip(f"{name} is missing")
    return value


@pytest.fixture
def vcpu(kvm: Kvm, vm_irqchip: Vm) -> Vcpu:
    """vCPU 0 of a VM with the in-kernel irqchip, with all the CPUID that KVM supports."""
    made = vm_irqchip.create_vcpu(0)
    made.set_cpuid2(kvm.supported_cpuid())
    return made


def test_an_ioctl_that_is_interrupted_is_called_again_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int] = []

    def interrupted(fd: int, request: int, arg: object = None) -> int:
        set_errno(errno.EINTR)
        return answers.pop() if answers else -1

    monkeypatch.setattr(calls, "raw_ioctl", interrupted)
    answers[:] = [7, -1, -1]
    assert ioctl(0, k.KVM_CREATE_VM) == 7
    answers[:] = [-1] * (2 * calls.INTERRUPTED)
    with pytest.raises(KvmError, match="KVM_CREATE_VM: .*EINTR") as found:
        ioctl(0, k.KVM_CREATE_VM)
    assert found.value.passing and len(answers) == calls.INTERRUPTED
    # An error of KVM_RUN is for the caller that runs a vCPU.
    answers[:] = [-1, -1]
    with pytest.raises(KvmError, match="KVM_RUN"):
        ioctl(0, k.KVM_RUN)
    assert len(answers) == 1


@pytest.mark.parametrize(("error", "passing"), [(errno.ENOMEM, True), (errno.EAGAIN, True), (errno.EINVAL, False)])
def test_what_is_no_answer_of_kvm_is_reported_apart(error: int, passing: bool) -> None:
    assert KvmError(error, k.KVM_SET_SREGS).passing is passing


def test_system(kvm: Kvm) -> None:
    assert kvm.api_version() == k.KVM_API_VERSION
    assert kvm.check_extension(k.KVM_CAP_USER_MEMORY) == 1
    assert kvm.vcpu_mmap_size() >= sizeof(k.kvm_run)
    indices = kvm.msr_index_list()
    assert MSR_STAR in indices and len(set(indices)) == len(indices)
    assert {leaf.function for leaf in kvm.supported_cpuid()} >= {0, 1, 0x40000000, 0x80000000}


def test_emulated_cpuid(kvm: Kvm) -> None:
    need(kvm, k.KVM_CAP_EXT_EMUL_CPUID, "KVM_CAP_EXT_EMUL_CPUID")
    assert all(isinstance(leaf, CpuidEntry) for leaf in kvm.emulated_cpuid())


def test_feature_msrs(kvm: Kvm) -> None:
    need(kvm, k.KVM_CAP_GET_MSR_FEATURES, "KVM_CAP_GET_MSR_FEATURES")
    indices = kvm.msr_feature_index_list()
    values = kvm.get_msrs([*indices, NO_SUCH_MSR])
    assert set(values) <= set(indices)


def test_mce(kvm: Kvm, vcpu: Vcpu) -> None:
    need(kvm, k.KVM_CAP_MCE, "KVM_CAP_MCE")
    banks = kvm.mce_cap_supported() & ~0xFF | 4
    vcpu.x86_setup_mce(banks)
    assert vcpu.get_msrs([0x179]) == {0x179: banks}
    # A corrected error is only logged.
    vcpu.x86_set_mce(k.kvm_x86_mce(status=1 << 63 | 1 << 58, addr=0x1234, bank=1))
    assert vcpu.get_msrs([0x406]) == {0x406: 0x1234}


def test_regs(vcpu: Vcpu) -> None:
    regs = vcpu.get_regs()
    for number, (name, _) in enumerate(k.kvm_regs._fields_):
        setattr(regs, name, 0x1111_2222_3333_0000 + number)
    regs.rflags = 2
    vcpu.set_regs(regs)
    assert bytes(vcpu.get_regs()) == bytes(regs)


def test_sregs(vcpu: Vcpu) -> None:
    sregs = vcpu.get_sregs()
    sregs.fs.base = 0x12345678
    sregs.gdt.base, sregs.gdt.limit = 0xABCDE000, 0x77
    sregs.cr2 = 0xDEAD_0000
    vcpu.set_sregs(sregs)
    again = vcpu.get_sregs()
    assert (again.fs.base, again.gdt.base, again.gdt.limit, again.cr2) == (0x12345678, 0xABCDE000, 0x77, 0xDEAD_0000)


def test_sregs2(kvm: Kvm, vcpu: Vcpu) -> None:
    need(kvm, k.KVM_CAP_SREGS2, "KVM_CAP_SREGS2")
    sregs = vcpu.get_sregs2()
    sregs.cr2 = 0xBEEF_0000
    vcpu.set_sregs2(sregs)
    assert vcpu.get_sregs2().cr2 == vcpu.get_sregs().cr2 == 0xBEEF_0000


def test_debugregs(kvm: Kvm, vcpu: Vcpu) -> None:
    need(kvm, k.KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS")
    regs = vcpu.get_debugregs()
    regs.db[:] = [0x1000, 0x2000, 0x3000, 0x4000]
    vcpu.set_debugregs(regs)
    assert list(vcpu.get_debugregs().db) == [0x1000, 0x2000, 0x3000, 0x4000]


def test_fpu(vcpu: Vcpu) -> None:
    fpu = vcpu.get_fpu()
    fpu.fcw = 0x27F
    fpu.xmm[3][:] = list(range(16))
    vcpu.set_fpu(fpu)
    again = vcpu.get_fpu()
    assert (again.fcw, list(again.xmm[3])) == (0x27F, list(range(16)))


def test_xsave(kvm: Kvm, vcpu: Vcpu) -> None:
    need(kvm, k.KVM_CAP_XSAVE, "KVM_CAP_XSAVE")
    area = bytearray(vcpu.get_xsave())
    assert len(area) == vcpu.xsave_size() >= 4096
    area[24:28] = (0x1FA0).to_bytes(4, "little")
    area[512:520] = (3).to_bytes(8, "little")
    vcpu.set_xsave(bytes(area))
    assert vcpu.get_xsave()[24:28] == area[24:28]
    with pytest.raises(ValueError):
        vcpu.set_xsave(bytes(area[:-1]))


def test_xcrs(kvm: Kvm, vcpu: Vcpu) -> None:
    need(kvm, k.KVM_CAP_XCRS, "KVM_CAP_XCRS")
    xcrs = vcpu.get_xcrs()
    if not xcrs.nr_xcrs:
        pytest.skip("no XSAVE on this host")
    xcrs.xcrs[0].value = 3
    vcpu.set_xcrs(xcrs)
    assert vcpu.get_xcrs().xcrs[0].value == 3


def test_lapic(vcpu: Vcpu) -> None:
    lapic = vcpu.get_lapic()
    lapic.regs[0x3E0] = 0xB  # divide configuration
    vcpu.set_lapic(lapic)
    assert vcpu.get_lapic().regs[0x3E0] == 0xB


def test_lapic_in_userspace_is_an_error(vm: Vm) -> None:
    with pytest.raises(KvmError) as caught:
        vm.create_vcpu(0).get_lapic()
    assert caught.value.errno == errno.EINVAL and caught.value.ioctl == "KVM_GET_LAPIC"


def test_mp_state(vcpu: Vcpu) -> None:
    assert vcpu.get_mp_state() == k.KVM_MP_STATE_RUNNABLE
    vcpu.set_mp_state(k.KVM_MP_STATE_HALTED)
    assert vcpu.get_mp_state() == k.KVM_MP_STATE_HALTED
    assert vcpu.vm.create_vcpu(1).get_mp_state() == k.KVM_MP_STATE_UNINITIALIZED


def test_vcpu_events_and_nmi(kvm: Kvm, vcpu: Vcpu) -> None:
    events = vcpu.get_vcpu_events()
    events.nmi.masked = 1
    events.flags = k.KVM_VCPUEVENT_VALID_NMI_PENDING
    vcpu.set_vcpu_events(events)
    assert vcpu.get_vcpu_events().nmi.masked == 1
    need(kvm, k.KVM_CAP_USER_NMI, "KVM_CAP_USER_NMI")
    vcpu.nmi()
    assert vcpu.get_vcpu_events().nmi.pending == 1


def test_smi(kvm: Kvm, vcpu: Vcpu) -> None:
    if kvm.check_extension(k.KVM_CAP_X86_SMM):
        vcpu.smi()
        assert vcpu.get_vcpu_events().smi.pending == 1
    else:
        with pytest.raises(KvmError) as caught:
            vcpu.smi()
        assert caught.value.errno in (errno.EINVAL, errno.ENOTTY)


def test_nested_state(kvm: Kvm, vcpu: Vcpu) -> None:
    if need_nested := kvm.check_extension(k.KVM_CAP_NESTED_STATE):
        state = vcpu.get_nested_state()
        assert sizeof(k.kvm_nested_state) <= len(state) <= need_nested
        vcpu.set_nested_state(state)
        assert vcpu.get_nested_state() == state
    else:
        with pytest.raises(KvmError) as caught:
            vcpu.get_nested_state()
        assert caught.value.errno in (errno.EINVAL, errno.ENOTTY)
    with pytest.raises(ValueError):
        vcpu.set_nested_state(b"short")


def test_msrs_leave_out_what_kvm_refuses(vcpu: Vcpu) -> None:
    assert vcpu.set_msrs({MSR_IA32_CR_PAT: 0x0007040600070406, MSR_STAR: 5}) == 2
    wanted = [NO_SUCH_MSR, MSR_IA32_CR_PAT, NO_SUCH_MSR + 1, NO_SUCH_MSR + 2, MSR_STAR, NO_SUCH_MSR + 3]
    refused_none = vcpu.get_msrs([NO_SUCH_MSR])
    if refused_none:
        pytest.skip("this KVM gives unknown MSRs (ignore_msrs)")
    assert vcpu.get_msrs(wanted) == {MSR_IA32_CR_PAT: 0x0007040600070406, MSR_STAR: 5}
    among = [MSR_STAR, *(NO_SUCH_MSR + i for i in range(300)), MSR_IA32_CR_PAT, *(NO_SUCH_MSR + i for i in range(300)), MSR_STAR]
    refused_all = vcpu.get_msrs(among[1:-1]).keys() == {MSR_IA32_CR_PAT}
    assert refused_all and vcpu.get_msrs(among) == {MSR_IA32_CR_PAT: 0x0007040600070406, MSR_STAR: 5}
    many = [MSR_IA32_CR_PAT, MSR_STAR] * 300
    assert vcpu.get_msrs(many) == {MSR_IA32_CR_PAT: 0x0007040600070406, MSR_STAR: 5}
    assert vcpu.set_msrs({MSR_STAR: 6, NO_SUCH_MSR: 1, MSR_IA32_CR_PAT: 6}) == 1
    assert vcpu.get_msrs([MSR_STAR]) == {MSR_STAR: 6}
    assert vcpu.get_msrs([]) == {} and vcpu.set_msrs({}) == 0


def test_more_msrs_than_kvm_takes_at_once(vcpu: Vcpu) -> None:
    # A list may name an MSR more than once; a refused one is in the middle and at a boundary.
    wanted = [MSR_STAR] * 254 + [NO_SUCH_MSR] + [MSR_STAR] * 100 + [NO_SUCH_MSR] + [MSR_STAR] * 400 + [MSR_IA32_CR_PAT]
    assert set(vcpu.get_msrs(wanted)) >= {MSR_STAR, MSR_IA32_CR_PAT}


def test_every_listed_msr_reads(kvm: Kvm, vcpu: Vcpu) -> None:
    indices = kvm.msr_index_list()
    values = vcpu.get_msrs(indices)
    assert set(values) <= set(indices) and MSR_STAR in values


def test_one_reg(kvm: Kvm, vcpu: Vcpu) -> None:
    id = k.KVM_X86_REG_MSR(MSR_IA32_CR_PAT)
    if not kvm.check_extension(k.KVM_CAP_ONE_REG):
        with pytest.raises(KvmError) as caught:
            vcpu.get_one_reg(id)
        assert caught.value.errno in (errno.EINVAL, errno.ENOTTY)
        pytest.skip("KVM_CAP_ONE_REG is missing")
    vcpu.set_one_reg(id, 0x0606060606060606)
    assert vcpu.get_one_reg(id) == 0x0606060606060606 == vcpu.get_msrs([MSR_IA32_CR_PAT])[MSR_IA32_CR_PAT]
    with pytest.raises(ValueError, match="value"):
        vcpu.set_one_reg(id, 1 << 64)
    with pytest.raises(KvmError, match="KVM_GET_ONE_REG"):
        vcpu.get_one_reg(k.KVM_X86_REG_MSR(NO_SUCH_MSR))


def test_cpuid2(vm_irqchip: Vm) -> None:
    vcpu = vm_irqchip.create_vcpu(0)
    assert vcpu.get_cpuid2() == []
    leaves = [CpuidEntry(0, eax=1, ebx=0x756E6547, ecx=0x6C65746E, edx=0x49656E69), CpuidEntry(1, eax=0x306F2)]
    vcpu.set_cpuid2(leaves)
    got = {leaf.function: leaf for leaf in vcpu.get_cpuid2()}
    assert got[0] == leaves[0] and got[1].eax == 0x306F2


def test_translate(vcpu: Vcpu) -> None:
    vcpu.vm.add_memory(0, 0, 0x1000)
    assert vcpu.translate(0x123).physical_address == 0x123


def test_tsc(kvm: Kvm, vcpu: Vcpu) -> None:
    need(kvm, k.KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ")
    khz = vcpu.get_tsc_khz()
    assert khz > 0
    vcpu.set_tsc_khz(khz)
    assert vcpu.get_tsc_khz() == khz
    if kvm.check_extension(k.KVM_CAP_VM_TSC_CONTROL):
        assert vcpu.vm.get_tsc_khz() > 0


def test_kvmclock_ctrl_needs_a_kvmclock(kvm: Kvm, vcpu: Vcpu) -> None:
    need(kvm, k.KVM_CAP_KVMCLOCK_CTRL, "KVM_CAP_KVMCLOCK_CTRL")
    with pytest.raises(KvmError, match=r"KVM_KVMCLOCK_CTRL: Invalid argument \[EINVAL\] \(vcpu 0\)"):
        vcpu.kvmclock_ctrl()


def test_clock(kvm: Kvm, vcpu: Vcpu) -> None:
    need(kvm, k.KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK")
    vcpu.vm.set_clock(k.kvm_clock_data(clock=1 << 50))
    assert vcpu.vm.get_clock().clock >= 1 << 50


def test_interrupt_is_for_an_apic_in_userspace(vm: Vm, kvm: Kvm) -> None:
    vm.create_vcpu(0).interrupt(0x20)
    with kvm.create_vm() as other:
        other.create_irqchip()
        with pytest.raises(KvmError) as caught:
            other.create_vcpu(0).interrupt(0x20)
    assert caught.value.errno == errno.ENXIO


def test_guest_debug_and_signal_mask(kvm: Kvm, vcpu: Vcpu) -> None:
    need(kvm, k.KVM_CAP_SET_GUEST_DEBUG, "KVM_CAP_SET_GUEST_DEBUG")
    vcpu.set_guest_debug(k.KVM_GUESTDBG_ENABLE | k.KVM_GUESTDBG_USE_HW_BP, [0x1000, 0, 0, 0, 0, 0, 0, 0x402])
    vcpu.set_guest_debug(0)
    vcpu.set_signal_mask(range(1, 65))
    vcpu.set_signal_mask(None)
    with pytest.raises(ValueError):
        vcpu.set_signal_mask([65])


def test_stats(kvm: Kvm, vcpu: Vcpu) -> None:
    need(kvm, k.KVM_CAP_BINARY_STATS_FD, "KVM_CAP_BINARY_STATS_FD")
    assert vcpu.stats()["exits"] == [0]
    assert "remote_tlb_flush" in vcpu.vm.stats()


def test_msi(kvm: Kvm, vcpu: Vcpu) -> None:
    need(kvm, k.KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI")
    lapic = vcpu.get_lapic()
    lapic.regs[0xF1] |= 1  # spurious-interrupt vector register: APIC software enable
    vcpu.set_lapic(lapic)
    assert vcpu.vm.signal_msi(0xFEE00000, 0x0040) == 1
    assert vcpu.get_lapic().regs[0x220] == 1  # IRR bit of vector 0x40
    assert vcpu.vm.signal_msi(0xFEE00000 | 0x55 << 12, 0x0040) == 0


@pytest.mark.parametrize("how", ["line", "status", "irqfd"])
def test_gsi_routing(kvm: Kvm, vcpu: Vcpu, how: str) -> None:
    need(kvm, k.KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING")
    vm = vcpu.vm
    lapic = vcpu.get_lapic()
    lapic.regs[0xF1] |= 1
    vcpu.set_lapic(lapic)
    vm.set_gsi_routing([irqchip_route(4, k.KVM_IRQCHIP_IOAPIC, 4), msi_route(30, 0xFEE00000, 0x0041)])
    if how == "line":
        vm.irq_line(30, 1)
    elif how == "status":
        assert vm.irq_line_status(30, 1) == 1
    else:
        need(kvm, k.KVM_CAP_IRQFD, "KVM_CAP_IRQFD")
        fd = vm.irqfd(30)
        os.eventfd_write(fd, 1)
        # KVM may inject from a worker; taking the eventfd away waits for that.
        vm.irqfd_deassign(30, fd)
        with pytest.raises(OSError):
            os.fstat(fd)
    assert vcpu.get_lapic().regs[0x220] == 2


def test_bad_gsi_routing(vm_irqchip: Vm) -> None:
    with pytest.raises(KvmError, match="KVM_SET_GSI_ROUTING.*1 entries"):
        vm_irqchip.set_gsi_routing([irqchip_route(0, 99, 0)])


def test_irqchip(vm_irqchip: Vm) -> None:
    state = vm_irqchip.get_irqchip(k.KVM_IRQCHIP_IOAPIC)
    assert state.chip.ioapic.redirtbl[3].fields.mask == 1
    state.chip.ioapic.redirtbl[3].fields.vector = 0x77
    vm_irqchip.set_irqchip(state)
    assert vm_irqchip.get_irqchip(k.KVM_IRQCHIP_IOAPIC).chip.ioapic.redirtbl[3].fields.vector == 0x77
    assert vm_irqchip.get_irqchip(k.KVM_IRQCHIP_PIC_MASTER).chip_id == 0
    with pytest.raises(KvmError, match="KVM_GET_IRQCHIP.*chip 9"):
        vm_irqchip.get_irqchip(9)


def test_pit2(kvm: Kvm, vm_irqchip: Vm) -> None:
    need(kvm, k.KVM_CAP_PIT2, "KVM_CAP_PIT2")
    vm_irqchip.create_pit2()
    state = vm_irqchip.get_pit2()
    state.channels[2].count = 0x1234
    vm_irqchip.set_pit2(state)
    assert vm_irqchip.get_pit2().channels[2].count == 0x1234


def test_split_irqchip(kvm: Kvm, vm: Vm) -> None:
    need(kvm, k.KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP")
    vm.split_irqchip(24)
    vcpu = vm.create_vcpu(0)
    assert vcpu.get_lapic().regs[0x30] & 0xF0 == 0x10
    with pytest.raises(KvmError):
        vm.get_irqchip(k.KVM_IRQCHIP_IOAPIC)


def test_set_up_ioctls(kvm: Kvm, vm: Vm) -> None:
    need(kvm, k.KVM_CAP_SET_BOOT_CPU_ID, "KVM_CAP_SET_BOOT_CPU_ID")
    vm.set_tss_addr(0xFFFBD000)
    vm.set_identity_map_addr(0xFFFBC000)
    vm.create_irqchip()
    vm.set_boot_cpu_id(1)
    first, second = vm.create_vcpu(0), vm.create_vcpu(1)
    assert vm.vcpus == [first, second]
    assert (first.get_mp_state(), second.get_mp_state()) == (k.KVM_MP_STATE_UNINITIALIZED, k.KVM_MP_STATE_RUNNABLE)
    with pytest.raises(KvmError, match=r"KVM_SET_BOOT_CPU_ID: .* \[EBUSY\] \(vm, vcpu 0\)"):
        vm.set_boot_cpu_id(0)


def test_enable_cap(kvm: Kvm, vm: Vm) -> None:
    assert vm.check_extension(k.KVM_CAP_ENABLE_CAP_VM)
    with pytest.raises(KvmError, match=r"KVM_ENABLE_CAP: .* \(vm, cap 9999, args \[1, 2\]\)"):
        vm.enable_cap(9999, 1, 2)
    with pytest.raises(KvmError, match=r"KVM_ENABLE_CAP: .* \(vcpu 3, cap 9999, args \[\]\)"):
        vm.create_vcpu(3).enable_cap(9999)
    need(kvm, k.KVM_CAP_X2APIC_API, "KVM_CAP_X2APIC_API")
    vm.enable_cap(k.KVM_CAP_X2APIC_API, k.KVM_X2APIC_API_USE_32BIT_IDS)


def test_memory(vm: Vm) -> None:
    memory = vm.add_memory(0, 0x10000, 0x2000)
    memory.write(0x10FFE, b"abcd")
    assert memory.read(0x10FFD, 6) == b"\0abcd\0"
    memory.write_int(0x11FF8, 0x1122334455667788)
    assert memory.read_int(0x11FF8, 2) == 0x7788
    for gpa, length in ((0xFFFF, 1), (0x11FFF, 2), (0x12000, 1), (0x11000, -1)):
        with pytest.raises(ValueError):
            memory.read(gpa, length)
    memory.fill(0xCC)
    assert memory.read(0x10000, 0x2000) == b"\xcc" * 0x2000
    with pytest.raises(ValueError):
        vm.add_memory(1, 0x20000, 0x1001)
    with pytest.raises(KvmError, match="KVM_SET_USER_MEMORY_REGION.*EEXIST.*slot 1, gpa 0x11000, size 0x1000"):
        vm.add_memory(1, 0x11000, 0x1000)
    vm.remove_memory(memory)
    assert memory.closed and vm.memory == []
    vm.add_memory(1, 0x11000, 0x1000)


def test_errors_name_the_ioctl(kvm: Kvm, vm_irqchip: Vm) -> None:
    vcpu = vm_irqchip.create_vcpu(1)
    with pytest.raises(KvmError) as caught:
        vcpu.set_mp_state(77)
    error = caught.value
    assert str(error) == "KVM_SET_MP_STATE: Invalid argument [EINVAL] (vcpu 1, state 77)"
    assert isinstance(error, OSError) and error.errno == errno.EINVAL and error.request == k.KVM_SET_MP_STATE
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    sregs = vcpu.get_sregs()
    sregs.cr4 = 1 << 63
    with pytest.raises(KvmError) as caught:
        vcpu.set_sregs(sregs)
    assert str(caught.value) == "KVM_SET_SREGS: Invalid argument [EINVAL] (vcpu 1)"
    with pytest.raises(KvmError) as caught:
        ioctl(kvm.fd, 0xAEFF)
    assert str(caught.value).startswith("ioctl 0xaeff: ") and caught.value.errno in (errno.EINVAL, errno.ENOTTY)
    with pytest.raises(KvmError, match="KVM_GET_REGS: Bad file descriptor"):
        ioctl(-1, k.KVM_GET_REGS, byref(k.kvm_regs()))
    with pytest.raises(KvmError, match=r"KVM_CREATE_VCPU: .*EEXIST.*vm, vcpu 1"):
        vm_irqchip.create_vcpu(1)


def test_guest_permission_for_a_component(kvm: Kvm) -> None:
    offered = next((e.eax for e in kvm.supported_cpuid() if e.function == 0xD and e.index == 0), 0)
    granted = kvm.request_guest_permission(18)
    assert granted or not offered >> 18 & 1
    assert not kvm.request_guest_permission(63)
