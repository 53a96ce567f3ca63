# SPDX-License-Identifier: GPL-2.0-only
"""Lines of a kernel's log that are a fault of the kernel, and lines that are not."""

from __future__ import annotations

import pytest

from kvmtest.lab.klog import death, incidents, is_stall, place, stripped

_WARN = """\
------------[ cut here ]------------
WARNING: CPU: 0 PID: 1 at arch/x86/kvm/x86.c:12173 kvm_vcpu_reset+0x3b/0x500 [kvm]
Modules linked in: kvm_amd kvm
Call Trace:
 <TASK>
---[ end trace 0000000000000000 ]---
kvm: something else""".splitlines()


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: arch/x86/kvm/x86.c:12173 at kvm_vcpu_reset+0x3b/0x500 [kvm], CPU#0: python3/1",
        "kernel BUG at arch/x86/kvm/x86.c:1!",
        "BUG: kernel NULL pointer dereference, address: 0000000000000010",
        "BUG: KASAN: use-after-free in kvm_vcpu_reset+0x3b/0x500 [kvm]",
        "Oops: 0000 [#1] PREEMPT SMP PTI",
        "general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
        "UBSAN: shift-out-of-bounds in arch/x86/kvm/lapic.c:1",
        "Kernel panic - not syncing: Fatal exception",
    ],
)
def test_faults(line: str) -> None:
    assert incidents([line]) == [[line]]


@pytest.mark.parametrize(
    "line",
    [
        "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [python3:1]",
        "watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 1",
        "NMI watchdog: Watchdog detected hard LOCKUP on cpu 0",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "rcu: INFO: rcu_sched self-detected stall on CPU",
        "rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: { 0-... } 21 jiffies s: 57 root: 0x1/.",
        "rcu: rcu_preempt kthread starved for 5252 jiffies! g-1151 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x0 ->cpu=0",
        "INFO: task kvm-nx-lpage-re:34 blocked for more than 120 seconds.",
    ],
)
def test_stalls_are_reported_apart(line: str) -> None:
    assert incidents(["one", line, "Call Trace:"]) == [[line, "Call Trace:"]] and is_stall(line)


def test_no_fault_is_a_stall() -> None:
    assert not any(map(is_stall, [*_WARN, "BUG: kernel NULL pointer dereference", "rcu: Hierarchical RCU implementation."]))


@pytest.mark.parametrize(
    "line",
    [
        "SVM: kvm [1]: vcpu0, guest rIP: 0x1234 Unhandled WRMSR(0x1d9) = 0x1",
        "kvm [1]: ignored rdmsr: 0x1d9 data 0x0",
        "[Firmware Bug]: TSC_DEADLINE disabled due to Errata",
        "kvm_intel: loading out-of-tree module taints kernel.",
        "SVM: TSC scaling supported",
    ],
)
def test_remarks(line: str) -> None:
    assert incidents([line]) == []


@pytest.mark.parametrize(
    "line",
    [
        "kernel BUG at arch/x86/kvm/x86.c:1!",
        "BUG: kernel NULL pointer dereference, address: 0000000000000010",
        "BUG: unable to handle page fault for address: ffffc90000000000",
        "Oops: 0000 [#1] PREEMPT SMP PTI",
        "Oops: invalid opcode: 0000 [#1] SMP",
        "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI",
        "stack segment: 0000 [#2] SMP",
        "general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
    ],
)
def test_what_ends_a_thread(line: str) -> None:
    assert death(line) == f"its kernel oopsed: {line}"


def test_what_ends_the_kernel() -> None:
    assert (
        death("Kernel panic - not syncing: Fatal exception") == "its kernel panicked: Kernel panic - not syncing: Fatal exception"
    )


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: arch/x86/kvm/x86.c:12173 at kvm_vcpu_reset+0x3b/0x500 [kvm], CPU#0: python3/1",
        "BUG: KASAN: use-after-free in kvm_vcpu_reset+0x3b/0x500 [kvm]",
        "BUG: sleeping function called from invalid context at mm/slab.h:1",
        "UBSAN: shift-out-of-bounds in arch/x86/kvm/lapic.c:1",
        "traps: python3[1] general protection fault ip:0 sp:0 error:0",
        "kvm [1]: ignored rdmsr: 0x1d9 data 0x0",
    ],
)
def test_what_a_kernel_survives(line: str) -> None:
    assert not death(line)


def test_an_incident_is_its_lines_and_no_more() -> None:
    assert incidents([*_WARN, *_WARN]) == [_WARN[1:6], _WARN[1:6]]


def test_console_lines_lose_their_stamp() -> None:
    assert stripped("[   12.345678] Kernel panic - not syncing\r") == "Kernel panic - not syncing"
    assert stripped("[   12.345678][    T1] BUG: x") == "BUG: x"


_OOPS = ["BUG: kernel NULL pointer dereference, address: 0", "Oops: 0000 [#1] SMP", "RIP: 0010:f.part.0+0x7/0xe0 [kvm_amd]"]
_PANIC = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (_WARN[1:], "WARNING in kvm_vcpu_reset()"),
        (["WARNING: arch/x86/kvm/x86.c:12173 at kvm_x+0x3b/0x500 [kvm], CPU#0: python3/1"], "WARNING in kvm_x()"),
        (["WARNING: possible recursive locking detected"], ""),
        (_OOPS, "Oops in f()"),
        (["kernel BUG at x86.c:1!", "RIP: 0033:0x7f32bb7b0d6b"], ""),
        # What a WARN interrupted is no place of its own.
        (["UBSAN: shift-out-of-bounds in lapic.c:1", "RIP: 0010:f+0x7/0xe0"], ""),
        ([], ""),
    ],
)
def test_where_it_was(lines: list[str], said: str) -> None:
    assert place(lines) == said


def test_a_panic_because_of_an_oops_is_part_of_it() -> None:
    ended = [*_OOPS, "---[ end trace 0000000000000000 ]---"]
    assert incidents([*ended, _PANIC, "Kernel Offset: disabled"]) == [[*ended, _PANIC, "Kernel Offset: disabled"]]
    assert len(incidents([*ended, _PANIC, *["x"] * 1000])[0]) <= 60
    for before in ([], _WARN[1:6]):
        assert incidents([*before, _PANIC])[-1] == [_PANIC]
    assert incidents([*ended, "Kernel panic - not syncing: Out of memory"])[-1] == ["Kernel panic - not syncing: Out of memory"]
