# SPDX-License-Identifier: GPL-2.0-only
"""File descriptors and mappings are given back, also when something goes wrong half way."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys

import pytest

from kvmtest.kvm import GuestMemory, Kvm, KvmError, Vm
from kvmtest.kvm import vcpu as vcpu_module
from kvmtest.uapi import kvm as k


def fds() -> int:
    """The number of open file descriptors."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def mappings() -> int:
    """The number of mappings of vCPUs."""
    with open("/proc/self/maps") as file:
        return sum("kvm-vcpu" in line for line in file)


def test_everything_is_given_back(kvm: Kvm) -> None:
    before = fds(), mappings()
    for _ in range(3):
        with kvm.create_vm() as vm:
            vm.create_irqchip()
            memory = vm.add_memory(0, 0, 0x1000)
            first, second = vm.create_vcpu(0), vm.create_vcpu(1)
            if vm.check_extension(k.KVM_CAP_IRQFD):
                vm.irqfd(4)
            if vm.check_extension(k.KVM_CAP_BINARY_STATS_FD):
                vm.stats()
                first.stats()
            assert (fds(), mappings()) > before
        assert (fds(), mappings()) == before
        assert vm.closed and first.closed and second.closed and memory.closed
        vm.close()
        first.close()
        memory.close()
    assert (fds(), mappings()) == before


def test_errors_half_way_leave_nothing_open(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    with kvm.create_vm() as vm:
        before = fds(), mappings()

        def no_mmap(*args: object) -> None:
            raise OSError("no mapping")

        with monkeypatch.context() as patch:
            patch.setattr(vcpu_module.mmap, "mmap", no_mmap)
            with pytest.raises(OSError, match="no mapping"):
                vm.create_vcpu(0)
        assert (fds(), mappings()) == before and vm.vcpus == []
        with pytest.raises(KvmError):
            vm.irqfd(4)  # no irqchip
        with pytest.raises(KvmError):
            vm.add_memory(0, 0x123, 0x1000)  # not page-aligned
        assert (fds(), mappings()) == before and vm.memory == []


def test_no_device() -> None:
    before = fds()
    with pytest.raises(FileNotFoundError):
        Kvm("/nonexistent/kvm")
    assert fds() == before


def test_not_a_kvm() -> None:
    with Kvm("/dev/null") as device, pytest.raises(KvmError, match=r"KVM_GET_API_VERSION: .* \(/dev/null\)"):
        device.api_version()


def test_dropped_objects_are_closed(kvm: Kvm) -> None:
    before = fds()
    kvm.create_vm().create_vcpu(0)
    Kvm()
    assert fds() == before


@pytest.mark.parametrize("kind", [Kvm, Vm])
def test_what_a_signal_kept_from_being_opened_is_dropped_silently(
    kind: type[Kvm] | type[Vm], monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    kind.__new__(kind)
    gc.collect()
    assert not ignored


def test_run_struct_that_is_kept(kvm: Kvm) -> None:
    vm = kvm.create_vm()
    vcpu = vm.create_vcpu(0)
    kept = vcpu.run_struct
    vm.close()
    assert kept.immediate_exit == 0  # still mapped
    before = mappings()
    del kept
    gc.collect()
    assert mappings() == before - 1
    with pytest.raises(ValueError, match="vcpu 0 is closed"):
        vcpu.run()


def test_closed_objects_fail_cleanly(kvm: Kvm) -> None:
    with kvm.create_vm() as vm:
        vcpu = vm.create_vcpu(0)
    for call in (vcpu.get_regs, vcpu.stats, vm.create_irqchip, vcpu.get_xsave):
        with pytest.raises(KvmError, match="EBADF"):
            call()


def test_descriptors_are_not_inherited(kvm: Kvm) -> None:
    with kvm.create_vm() as vm:
        for fd in (kvm.fd, vm.fd, vm.create_vcpu(0).fd):
            assert not os.get_inheritable(fd)


def test_guest_memory_on_its_own() -> None:
    with GuestMemory(0, 0, mmap.PAGESIZE) as memory:
        assert memory.address % mmap.PAGESIZE == 0
    assert memory.closed
    with pytest.raises(ValueError):
        memory.read(0, 1)


def test_import_is_light() -> None:
    heavy = {"dataclasses", "pathlib", "inspect", "json", "subprocess", "asyncio", "logging"}
    program = (
        f"import sys; sys.path.insert(0, sys.argv[1]); import kvmtest.kvm; print(sorted(set(sys.modules) & {heavy!r}))"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program, root], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
