# SPDX-License-Identifier: GPL-2.0-only
"""Single ops on a real VM, and how each of them can end a program."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kvmtest.engine.machine import Machine, Machines
from kvmtest.engine.runner import matches
from kvmtest.engine.running import Running
from kvmtest.judge.evidence import Ended, Exited
from kvmtest.kvm import Exit, RunStopped
from kvmtest.scenario import program as p
from kvmtest.scenario.setup import Setup
from kvmtest.uapi import kvm as uapi
from tests.playing import ops

#: Code at 1000H in real mode, and what it does.
CODE = 0x1000
OUT, HLT, SPIN, COUNT = b"\xe6\x10\xf4", b"\xf4", b"\xeb\xfe", b"\xff\x06\x00\x05\xeb\xfa"
WORD = p.Place("word", 0, 4, "word")
ELSE = p.Otherwise("error", "it is otherwise")
RIP = p.Place("regs", uapi.kvm_regs.rip.offset, 8, "rip")


@pytest.fixture
def machine(machines: Machines) -> Machine:
    return machines.kept(Setup("full", "intel"))


@pytest.fixture
def program(machine: Machine) -> p.Program:
    """Buffers, the registers of vCPU 0 being those of real mode with the code ahead."""
    vcpu = machine.target("bsp").vcpu
    vcpu.set_mp_state(0)
    sregs, regs = vcpu.get_sregs(), vcpu.get_regs()
    sregs.cs.base, sregs.cs.selector, regs.rip, regs.rflags = 0, 0, CODE, 2
    buffers = {
        "result": p.Buffer("s64", bytes(8)),
        "word": p.Buffer("u32", b"\x34\x12\0\0"),
        "regs": p.Buffer("kvm_regs", bytes(regs)),
        "sregs": p.Buffer("kvm_sregs", bytes(sregs)),
        "now": p.Buffer("kvm_regs", bytes(len(bytes(regs)))),
        "mp_state": p.Buffer("kvm_mp_state", (0).to_bytes(4, "little")),
    }
    return p.Program(buffers, ())


def _at(code: bytes) -> list[p.Op]:
    """The ops that make vCPU 0 ready to execute ``code``."""
    return [
        p.Region(0, 0, 0xA0000),
        p.Write(CODE, code),
        p.Write(0x500, bytes(4)),
        p.Ioctl(0, uapi.KVM_SET_SREGS, "sregs"),
        p.Ioctl(0, uapi.KVM_SET_REGS, "regs"),
        p.Ioctl(0, uapi.KVM_SET_MP_STATE, "mp_state"),
    ]


def test_put_writes_the_bits_of_its_mask(machine: Machine, program: p.Program) -> None:
    seen = ops(machine, program, p.Put(WORD, 0xFFFF, 0xF0), p.Compare(WORD, (0x12F4,), ELSE))
    assert seen.end is None and seen.evidence == ((1, 0x12F4),)


@pytest.mark.parametrize("verdict", ["error", "skip", "fail"])
def test_compare_reports_what_is_there_and_ends_the_program(verdict: str, machine: Machine, program: p.Program) -> None:
    otherwise = p.Otherwise(verdict, "it is otherwise")
    tests = (p.Compare(WORD, (1, 0x1234), otherwise), p.Compare(WORD, (0x4,), otherwise, 0xF), p.Compare(WORD, (0,), otherwise))
    seen = ops(machine, program, *tests, p.Compare(WORD, (0x1234,), ELSE))
    assert seen.evidence == ((0, 0x1234), (1, 0x4), (2, 0x1234))
    assert seen.end == Ended(2, verdict, "it is otherwise: 0x1234" if verdict == "error" else "it is otherwise")


def test_a_refused_ioctl_is_an_error_or_a_result(machine: Machine, program: p.Program) -> None:
    """KVM_SET_BOOT_CPU_ID comes too late."""
    late = p.Ioctl(p.VM, uapi.KVM_SET_BOOT_CPU_ID, 0)
    end = ops(machine, program, late).end
    assert end and end.verdict == "error" and "KVM_SET_BOOT_CPU_ID: Device or resource busy [EBUSY]" in end.why
    result = p.Place("result", 0, 8, "result")
    seen = ops(machine, program, late._replace(result="result"), p.Compare(result, (-16,), ELSE))
    assert seen.end is None and seen.evidence == ((1, -16),)


def test_guest_memory_is_written_and_read(machine: Machine, program: p.Program) -> None:
    region, write, peek = p.Region(0, 0, 0xA0000), p.Write(0x2000, b"\x78\x56\x34\x12"), p.Peek(WORD, 0x2000)
    seen = ops(machine, program, region, region, write, peek, p.Compare(WORD, (0x12345678,), ELSE))
    assert seen.end is None


def test_what_is_written_to_memory_is_logged_where_that_is_asked_for(machine: Machine, program: p.Program) -> None:
    for logged in (False, True):
        gpa = 0x100000 << logged
        assert ops(machine, program, p.Region(30 + logged, gpa, 0x1000, logged)).end is None
        memory = machine.vm.memory_at(gpa)
        assert memory and memory.flags == uapi.KVM_MEM_LOG_DIRTY_PAGES * logged
        machine.vm.remove_memory(memory)


def test_enter_reports_the_exit_that_comes(machine: Machine, program: p.Program) -> None:
    seen = ops(machine, program, *_at(OUT), p.Enter(0, p.Came("out", 0x10), ELSE))
    ((_, exited),) = seen.evidence
    assert seen.end is None and (exited.kind, exited.number) == ("out", 0x10)


@pytest.mark.parametrize("verdict", ["error", "fail"])
def test_another_exit_ends_the_program(verdict: str, machine: Machine, program: p.Program) -> None:
    seen = ops(machine, program, *_at(OUT), p.Enter(0, p.Came("out", 0x11), p.Otherwise(verdict, "another")))
    assert seen.end and (seen.end.verdict, seen.end.late) == (verdict, False)
    assert ("KVM_EXIT_IO" in seen.end.why) == (verdict == "error") and seen.evidence[-1][1].number == 0x10


@pytest.mark.parametrize("code", [SPIN, HLT], ids=["spins", "halts"])
def test_no_exit_is_late_or_what_was_waited_for(code: bytes, machine: Machine, program: p.Program) -> None:
    seen = ops(machine, program, *_at(code), p.Enter(0, p.Came("quiet"), ELSE), timeout_s=0.1)
    assert seen.end is None and seen.evidence[0][1].kind == "quiet"
    end = ops(machine, program, *_at(code), p.Enter(0, p.Came("out", 0x10), ELSE), timeout_s=0.1).end
    assert end and (end.verdict, end.late) == ("error", True)


def test_a_vcpu_that_should_be_quiet_and_is_not(machine: Machine, program: p.Program) -> None:
    end = ops(machine, program, *_at(OUT), p.Enter(0, p.Came("quiet"), p.Otherwise("fail", ""))).end
    assert end and (end.verdict, end.late) == ("fail", False)


def test_poll_ends_when_its_test_holds(machine: Machine, program: p.Program) -> None:
    read = (p.Peek(WORD, 0x500),)
    changed = p.Poll(read, p.Compare(WORD, (), ELSE), 0, changed=True)
    seen = ops(machine, program, *_at(COUNT), changed)
    assert seen.end is None and seen.evidence[-1][1] > 0


def test_poll_that_runs_out_of_time_is_late(machine: Machine, program: p.Program) -> None:
    poll = p.Poll((p.Peek(WORD, 0x500),), p.Compare(WORD, (1,), ELSE))
    end = ops(machine, program, *_at(SPIN), poll, timeout_s=0.05).end
    assert end and (end.verdict, end.late) == ("error", True) and "0x0 at the end" in end.why


def test_an_exit_during_poll_ends_the_program(machine: Machine, program: p.Program) -> None:
    poll = p.Poll((p.Peek(WORD, 0x500),), p.Compare(WORD, (1,), ELSE), 0)
    seen = ops(machine, program, *_at(OUT), poll)
    assert seen.end and (seen.end.verdict, seen.end.late) == ("error", False) and "KVM_EXIT_IO" in seen.end.why


def test_a_started_vcpu_is_joined_at_its_exit(machine: Machine, program: p.Program) -> None:
    seen = ops(machine, program, *_at(OUT), p.Start(0), p.Join(0, p.Came("out", 0x10), ELSE))
    assert seen.end is None and seen.evidence[-1][1].number == 0x10


def test_a_vcpu_that_was_kicked_runs_again(machine: Machine, program: p.Program) -> None:
    quiet, again = p.Join(0, p.Came("quiet"), ELSE), p.Enter(0, p.Came("out", 0x10), ELSE)
    seen = ops(machine, program, *_at(SPIN), p.Start(0), quiet, *_at(OUT), again)
    assert seen.end is None and [one.kind for _, one in seen.evidence] == ["quiet", "out"]


def test_a_started_vcpu_sleeps_in_kvm_run_when_the_next_op_comes(
    machine: Machine, program: p.Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that KVM has to wake it: one that had not come there yet would find the INIT by itself."""
    asleep = []

    def join(self: Running, timeout_s: float | None) -> Exit | None:
        path = f"/proc/self/task/{self._thread.native_id}/syscall"
        asleep.append(Path(path).read_text().split()[2:3] == [f"{uapi.KVM_RUN:#x}"])
        return joined(self, timeout_s)

    joined = Running.join
    monkeypatch.setattr(Running, "join", join)
    halted = p.Join(0, p.Came("quiet"), ELSE)
    assert ops(machine, program, *_at(HLT), p.Start(0), halted).end is None
    assert asleep == [True]


def test_an_interrupted_run_ends_a_started_vcpu(machine: Machine, program: p.Program) -> None:
    stop = machine.vm.kvm.stop
    threading.Timer(0, setattr, (stop, "seen", True)).start()
    with pytest.raises(RunStopped):
        ops(machine, program, *_at(HLT), p.Start(0), p.Join(0, p.Came("out", 0x10), ELSE))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vcpu")]


def test_no_vcpu_is_left_running(machine: Machine, program: p.Program) -> None:
    end = ops(machine, program, *_at(SPIN), p.Start(0), p.Compare(WORD, (0,), ELSE)).end
    assert end and end.verdict == "error"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vcpu")]
    assert ops(machine, program, *_at(OUT), p.Enter(0, p.Came("out", 0x10), ELSE)).end is None


def test_finish_completes_an_instruction_and_runs_nothing(machine: Machine, program: p.Program) -> None:
    now = RIP._replace(buffer="now")
    after: list[p.Op] = [p.Finish(0), p.Ioctl(0, uapi.KVM_GET_REGS, "now"), p.Compare(now, (CODE + 2,), ELSE)]
    seen = ops(machine, program, *_at(OUT), p.Enter(0, p.Came("out", 0x10), ELSE), *after)
    assert seen.end is None


def test_reply_answers_a_read(machine: Machine, program: p.Program) -> None:
    """IN AL, 10H, then OUT of AL."""
    read, said = p.Enter(0, p.Came("in", 0x10), ELSE), p.Enter(0, p.Came("out", 0x11, 0x5A, 0xFF), ELSE)
    seen = ops(machine, program, *_at(b"\xe4\x10\xe6\x11\xf4"), read, p.Reply(0, b"\x5a"), said)
    assert seen.end is None, seen.end


def test_a_look_reads_all_sections_and_goes_back_to_the_event(machine: Machine, program: p.Program) -> None:
    layout = machine.target("bsp").layout
    seen = ops(machine, program, *_at(OUT), p.Look(0), p.Look(0, 3))
    (_, one), (_, back) = seen.evidence
    assert one.sections.keys() == layout.by_section.keys()
    assert (one.get(layout, "rip"), back.get(layout, "rip")) == (CODE, CODE - 3)


@pytest.mark.parametrize(
    ("exited", "came", "fits"),
    [
        (Exited("out", 0x10, 5, ""), p.Came("out", 0x10), True),
        (Exited("out", 0x10, 5, ""), p.Came("out", 0x10, 5), True),
        (Exited("out", 0x10, 0x105, ""), p.Came("out", 0x10, 5, 0xFF), True),
        (Exited("out", 0x10, 6, ""), p.Came("out", 0x10, 5), False),
        (Exited("out", 0x11, 5, ""), p.Came("out", 0x10), False),
        (Exited("in", 0x10, None, ""), p.Came("out", 0x10), False),
        (Exited("quiet", 0, None, ""), p.Came("quiet"), True),
        (Exited("exit", 8, None, ""), p.Came("quiet"), False),
    ],
)
def test_an_exit_is_the_one_that_was_waited_for(exited: Exited, came: p.Came, fits: bool) -> None:
    assert matches(exited, came) == fits
