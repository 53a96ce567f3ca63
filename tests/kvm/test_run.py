# SPDX-License-Identifier: GPL-2.0-only
"""Vcpu.run() with small real-mode guests: exits, time-outs, kicks and Ctrl-C."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from kvmtest.kvm import Exit, Kvm, RunTimeout, Vcpu, Vm
from kvmtest.kvm.alarm import SIGNAL, TICK_S
from kvmtest.kvm.ioctl import raw_ioctl
from kvmtest.uapi import kvm as k

CODE = 0x1000
SPIN = b"\xeb\xfe"  # jmp .
HLT = b"\xf4"
OUT_HLT = b"\xb0\x42\xe6\x10\xf4"  # mov al, 0x42; out 0x10, al; hlt


def boot(vm: Vm, code: bytes) -> Vcpu:
    """vCPU 0 in real mode at CODE, where `code` is."""
    vm.add_memory(0, 0, 0x10000).write(CODE, code)
    vcpu = vm.create_vcpu(0)
    vcpu.set_cpuid2(vm.kvm.supported_cpuid())
    sregs = vcpu.get_sregs()
    sregs.cs.base = sregs.cs.selector = 0
    vcpu.set_sregs(sregs)
    regs = vcpu.get_regs()
    regs.rip, regs.rsp, regs.rflags = CODE, 0x8000, 2
    vcpu.set_regs(regs)
    return vcpu


def in_thread(call: Callable[[], object]) -> list[object]:
    """Run `call` in another thread, and return what it returned or raised."""
    results: list[object] = []

    def body() -> None:
        try:
            results.append(call())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return results


def test_out_and_hlt(vm: Vm) -> None:
    vcpu = boot(vm, OUT_HLT)
    got = vcpu.run()
    assert (got.reason, got.name) == (k.KVM_EXIT_IO, "KVM_EXIT_IO")
    assert (got.direction, got.port, got.size, got.count, got.data) == (k.KVM_EXIT_IO_OUT, 0x10, 1, 1, b"\x42")
    assert str(got) == "KVM_EXIT_IO out port=0x10 size=1 count=1 data=42"
    assert str(vcpu.run()) == "KVM_EXIT_HLT"


def test_in_is_answered(vm: Vm) -> None:
    vcpu = boot(vm, b"\xe5\x20\xf4")  # in ax, 0x20; hlt
    got = vcpu.run()
    assert (got.direction, got.port, got.size) == (k.KVM_EXIT_IO_IN, 0x20, 2)
    with pytest.raises(ValueError):
        vcpu.reply(b"x")
    vcpu.reply(b"\x34\x12")
    assert vcpu.run().reason == k.KVM_EXIT_HLT
    assert vcpu.get_regs().rax & 0xFFFF == 0x1234
    with pytest.raises(ValueError):
        vcpu.reply(b"")


def test_mmio(vm: Vm) -> None:
    # mov ax, 0x2000; mov ds, ax; mov byte [0x10], 0x5a; mov bl, [0x11]; hlt
    vcpu = boot(vm, bytes.fromhex("b80020 8ed8 c60610005a 8a1e1100 f4"))
    got = vcpu.run()
    assert (got.reason, got.phys_addr, got.len, got.is_write, got.data) == (k.KVM_EXIT_MMIO, 0x20010, 1, 1, b"\x5a")
    got = vcpu.run()
    assert (got.phys_addr, got.is_write) == (0x20011, 0)
    vcpu.reply(b"\x77")
    assert vcpu.run().reason == k.KVM_EXIT_HLT
    assert vcpu.get_regs().rbx & 0xFF == 0x77


def test_immediate_exit_finishes_io_and_runs_nothing(vm: Vm) -> None:
    if not vm.check_extension(k.KVM_CAP_IMMEDIATE_EXIT):
        pytest.skip("KVM_CAP_IMMEDIATE_EXIT is missing")
    vcpu = boot(vm, OUT_HLT)
    vcpu.run()
    vcpu.immediate_exit = True
    assert vcpu.run_once().reason == k.KVM_EXIT_INTR
    assert vcpu.run().reason == k.KVM_EXIT_INTR
    assert vcpu.immediate_exit and vcpu.get_regs().rip == CODE + 4
    vcpu.immediate_exit = False
    assert vcpu.run().reason == k.KVM_EXIT_HLT


@pytest.mark.parametrize("where", ["main", "thread"])
def test_time_out_of_a_guest_that_spins(vm: Vm, where: str) -> None:
    vcpu = boot(vm, SPIN)
    for _ in range(2):
        if where == "main":
            with pytest.raises(RunTimeout) as caught:
                vcpu.run(0.05)
            error: object = caught.value
        else:
            [error] = in_thread(lambda: vcpu.run(0.05))
        assert isinstance(error, RunTimeout) and isinstance(error, TimeoutError)
        assert error.vcpu is vcpu and error.timeout_s == 0.05
        assert str(error).startswith("KVM_RUN: no exit within 0.05 s (vcpu 0, cs:rip 0000:1000 ")
        assert str(error).endswith(" KVM_MP_STATE_RUNNABLE)")
    assert vcpu.get_regs().rip == CODE


@pytest.mark.parametrize("where", ["main", "thread"])
def test_time_out_of_a_guest_halted_in_kvm(vm_irqchip: Vm, where: str) -> None:
    vcpu = boot(vm_irqchip, HLT)
    if where == "main":
        with pytest.raises(RunTimeout):
            vcpu.run(0.05)
    else:
        assert isinstance(in_thread(lambda: vcpu.run(0.05))[0], RunTimeout)
    assert vcpu.get_mp_state() == k.KVM_MP_STATE_HALTED


@pytest.mark.parametrize("undisturbed", [False, True])
def test_an_undisturbed_run_calls_kvm_run_once(vm_irqchip: Vm, undisturbed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    vcpu, called = boot(vm_irqchip, HLT), []
    monkeypatch.setattr("kvmtest.kvm.vcpu.raw_ioctl", lambda *given: called.append(given) or raw_ioctl(*given))
    with pytest.raises(RunTimeout):
        vcpu.run(1.5 * TICK_S, undisturbed)
    # On a busy host a tick may come late, so that another one is needed.
    assert len(called) == 1 if undisturbed else len(called) > 1


def test_time_out_of_a_vcpu_that_waits_for_init(vm_irqchip: Vm) -> None:
    boot(vm_irqchip, HLT)
    with pytest.raises(RunTimeout):
        vm_irqchip.create_vcpu(1).run(0.05)


@pytest.mark.parametrize("timeout_s", [1e-9, 1e-6, 1e-5, 1e-4, 1e-3])
def test_very_short_time_outs_are_not_missed(vm: Vm, timeout_s: float) -> None:
    # The signal may come before KVM_RUN is entered.
    vcpu = boot(vm, SPIN)
    for _ in range(20):
        with pytest.raises(RunTimeout):
            vcpu.run(timeout_s)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_time_out_is_positive(vm: Vm, timeout_s: float) -> None:
    with pytest.raises(ValueError):
        boot(vm, SPIN).run(timeout_s)


def test_time_out_with_every_signal_masked(vm: Vm) -> None:
    vcpu = boot(vm, SPIN)
    vcpu.set_signal_mask(range(1, 65))
    with pytest.raises(RunTimeout):
        vcpu.run(0.05)


def test_time_out_in_a_thread_that_blocks_signals(vm: Vm) -> None:
    vcpu = boot(vm, SPIN)

    def body() -> Exit:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        return vcpu.run(0.05)

    assert isinstance(in_thread(body)[0], RunTimeout)


def test_kick(vm: Vm) -> None:
    vcpu = boot(vm, SPIN)
    timer = threading.Timer(0.05, vcpu.kick)
    timer.start()
    assert vcpu.run(60).reason == k.KVM_EXIT_INTR
    timer.join()
    assert not vcpu.immediate_exit
    vcpu.kick()  # before the run: the next one ends
    assert vcpu.run(60).reason == k.KVM_EXIT_INTR
    vcpu.kick()
    vcpu.unkick()
    with pytest.raises(RunTimeout):
        vcpu.run(0.05)


def test_kick_of_a_run_in_another_thread(vm_irqchip: Vm) -> None:
    vcpu = boot(vm_irqchip, HLT)
    results: list[Exit] = []
    thread = threading.Thread(target=lambda: results.append(vcpu.run(60)))
    thread.start()
    vcpu.kick()
    thread.join()
    assert [got.reason for got in results] == [k.KVM_EXIT_INTR]


def test_ctrl_c_in_a_run(vm: Vm) -> None:
    vcpu = boot(vm, SPIN)
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            vcpu.run(60)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, old)
    with pytest.raises(RunTimeout):
        vcpu.run(0.05)


def test_python_signal_handlers_are_left_alone(vm: Vm) -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with pytest.raises(RunTimeout):
        boot(vm, SPIN).run(0.01)
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    os.kill(os.getpid(), SIGNAL)  # one that comes late does nothing


def test_signals_of_the_program_do_not_end_a_run(vm: Vm) -> None:
    vcpu = boot(vm, SPIN)
    seen: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(RunTimeout):
            vcpu.run(0.3)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, old)
    assert seen == [signal.SIGUSR1]


def test_run_in_a_forked_child(kvm: Kvm, vm: Vm) -> None:
    with pytest.raises(RunTimeout):
        boot(vm, SPIN).run(0.01)
    program = (
        "import os, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from kvmtest.kvm import Kvm, RunTimeout\n"
        "from test_run import SPIN, boot\n"
        "def spin():\n"
        "    with Kvm() as kvm, kvm.create_vm() as vm:\n"
        "        try:\n"
        "            boot(vm, SPIN).run(0.05)\n"
        "        except RunTimeout:\n"
        "            return 0\n"
        "    return 1\n"
        "assert spin() == 0\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    os._exit(spin())\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    here = os.path.dirname(__file__)
    root = os.path.dirname(os.path.dirname(here))
    done = subprocess.run([sys.executable, "-c", program, root, here], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_shutdown(vm: Vm) -> None:
    vcpu = boot(vm, b"\x0f\x0b")  # ud2 in protected mode, with an IDT that is too short for any vector
    sregs = vcpu.get_sregs()
    sregs.idt.limit = 0
    sregs.cr0 |= 1
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        segment = getattr(sregs, name)
        segment.base, segment.limit, segment.selector = 0, 0xFFFFFFFF, 8 if name == "cs" else 16
        segment.type, segment.present, segment.s = 11 if name == "cs" else 3, 1, 1
        segment.db = segment.g = 1
    vcpu.set_sregs(sregs)
    assert str(vcpu.run()) == "KVM_EXIT_SHUTDOWN"


def test_shutdown_asked_for(vm_irqchip: Vm) -> None:
    if not vm_irqchip.check_extension(k.KVM_CAP_X86_TRIPLE_FAULT_EVENT):
        pytest.skip("KVM_CAP_X86_TRIPLE_FAULT_EVENT is missing")
    vm_irqchip.enable_cap(k.KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1)
    vcpu = boot(vm_irqchip, SPIN)
    events = vcpu.get_vcpu_events()
    events.triple_fault.pending = 1
    events.flags |= k.KVM_VCPUEVENT_VALID_TRIPLE_FAULT
    vcpu.set_vcpu_events(events)
    assert vcpu.run().name == "KVM_EXIT_SHUTDOWN"


def test_single_step(vm: Vm) -> None:
    vcpu = boot(vm, b"\x90\x90\xf4")
    if not vm.check_extension(k.KVM_CAP_SET_GUEST_DEBUG):
        pytest.skip("KVM_CAP_SET_GUEST_DEBUG is missing")
    vcpu.set_guest_debug(k.KVM_GUESTDBG_ENABLE | k.KVM_GUESTDBG_SINGLESTEP)
    got = vcpu.run()
    assert (got.name, got.exception, got.pc) == ("KVM_EXIT_DEBUG", k.DB_VECTOR, CODE + 1)


def test_decoding_of_exits_that_are_hard_to_provoke() -> None:
    run = k.kvm_run()
    run.internal.suberror = k.KVM_INTERNAL_ERROR_EMULATION
    run.internal.ndata = 4
    run.emulation_failure.flags = k.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
    run.emulation_failure.insn_size = 3
    run.emulation_failure.insn_bytes[:3] = [0x0F, 0x01, 0xC1]
    got = Exit(k.KVM_EXIT_INTERNAL_ERROR, run)
    assert (got.suberror_name, got.insn) == ("KVM_INTERNAL_ERROR_EMULATION", b"\x0f\x01\xc1")
    assert str(got) == "KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_EMULATION ndata=4 insn=0f 01 c1"
    run.internal.ndata = 1
    assert Exit(k.KVM_EXIT_INTERNAL_ERROR, run).insn == b""
    run.internal.suberror, run.internal.ndata = 99, 1000
    got = Exit(k.KVM_EXIT_INTERNAL_ERROR, run)
    assert got.suberror_name == "KVM_INTERNAL_ERROR_99" and len(got.words) == 16

    run = k.kvm_run()
    run.fail_entry.hardware_entry_failure_reason, run.fail_entry.cpu = 0x80000021, 2
    assert str(Exit(k.KVM_EXIT_FAIL_ENTRY, run)) == (
        "KVM_EXIT_FAIL_ENTRY hardware_entry_failure_reason=0x80000021"
    )
    run = k.kvm_run()
    run.system_event.type, run.system_event.ndata = k.KVM_SYSTEM_EVENT_RESET, 1
    run.system_event.data[0] = 7
    assert str(Exit(k.KVM_EXIT_SYSTEM_EVENT, run)) == "KVM_EXIT_SYSTEM_EVENT KVM_SYSTEM_EVENT_RESET words=[0x7]"
    run = k.kvm_run()
    run.msr.index, run.msr.data, run.msr.reason = 0x10, 0x20, k.KVM_MSR_EXIT_REASON_FILTER
    run.flags = k.KVM_RUN_X86_SMM
    assert str(Exit(k.KVM_EXIT_X86_WRMSR, run)) == "KVM_EXIT_X86_WRMSR index=0x10 value=0x20 msr_reason=0x4 flags=0x1"
    for reason in range(64):
        assert str(Exit(reason, run)).startswith("KVM_EXIT_")
    assert Exit(63).name == "KVM_EXIT_63"


def test_threads_leave_no_timer(vm: Vm) -> None:
    vcpu = boot(vm, SPIN)

    def timers() -> int:
        with open("/proc/self/timers") as file:
            return sum(line.startswith("ID:") for line in file)

    try:
        before = timers()
    except OSError:
        pytest.skip("no /proc/self/timers")
    for _ in range(3):
        assert isinstance(in_thread(lambda: vcpu.run(0.001))[0], RunTimeout)
    # An exception that in_thread() caught holds the frame it was raised in, in a cycle, and that frame the timer.
    gc.collect()
    # A thread can be joined a little before Python frees what was its own.
    for _ in range(1000):
        if timers() <= before:
            break
        time.sleep(0.01)
    assert timers() <= before
