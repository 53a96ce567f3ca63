# SPDX-License-Identifier: GPL-2.0-only
"""A program shows the same whether C code or Python runs it."""

from __future__ import annotations

import ctypes
import errno
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvmtest import guests
from kvmtest.engine import native
from kvmtest.engine.bind import BoundCase
from kvmtest.engine.machine import Machine, Machines
from kvmtest.engine.plan import Case
from kvmtest.engine.runner import Player
from kvmtest.judge.evidence import Ended, Played
from kvmtest.scenario import program as p
from kvmtest.scenario.setup import Setup
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.guest_view import Report
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.state.snapshot import Reader
from kvmtest.state.values import SIPI
from kvmtest.uapi import kvm as uapi

SETUP = Setup("full", "intel", mce=True)
ITEM = Case("init", "msi", "host", SETUP, "ap", "xapic", "a")
#: In the words of errno(3) of the C library.
FAULT = "Bad address [EFAULT]"
SOURCE = Path(__file__).parents[2] / "guests" / "runner.c"
RESULT, WORD = p.Place("result", 0, 8), p.Place("word", 0, 4)
WRONG = p.Otherwise("error", "wrong")


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    if native.library() is None:
        pytest.skip("guests/runner.c is not built: there is no C compiler")


@pytest.fixture
def machine(machines: Machines) -> Machine:
    return machines.kept(SETUP)


def program(*ops: p.Op, **buffers: bytes) -> p.Program:
    """``ops``, each of which is a step."""
    made = {"result": bytes(8), "word": bytes(4)} | buffers
    return p.Program({name: p.Buffer("", contents) for name, contents in made.items()}, tuple(enumerate(ops)))


def players(made: p.Program, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[Player]:
    """The player with the C code, and the one without."""
    with monkeypatch.context() as patch:
        found = [Player(made, machine, 1.0)]
        patch.setattr(native, "library", lambda: None)
        return [*found, Player(made, machine, 1.0)]


def plain(seen: Played, layout: Layout) -> list[Any]:
    """Evidence without what counts by itself."""
    return [[(step, _plain(value, layout)) for step, value in seen.evidence], seen.end]


def _plain(value: Any, layout: Layout) -> Any:
    if isinstance(value, Snapshot):
        items = [item for item in layout.fields if item not in COUNTERS]
        return value.sections.keys(), value.unreadable, [(item, value.get(layout, item)) for item in items]
    if isinstance(value, Report):
        return value._replace(values={item: found for item, found in value.values.items() if item not in COUNTERS})
    return value


@pytest.fixture
def both(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Played]:
    """Runs a program both ways, and again both ways; what the C code showed, when Python showed the same."""

    def run(made: p.Program) -> Played:
        # The planted PPR of a new local APIC depends on its old content.
        Player(made, machine, 1.0).run()
        first, *others = [player.run() for player in players(made, machine, monkeypatch) * 2]
        layout = machine.targets[0].layout
        for other in others:
            assert plain(other, layout) == plain(first, layout)
        return first

    return run


@pytest.mark.parametrize("event, trigger", [("init", "msi"), ("init", "latched"), ("sipi", "msi")])
@pytest.mark.parametrize("view", ["host", "guest"])
def test_a_case_shows_the_same(
    view: str, event: str, trigger: str, machines: Machines, machine: Machine, both: Callable[..., Played]
) -> None:
    of_sipi = {"vector": 1, "plant": SIPI} if event == "sipi" else {}
    case = ITEM._replace(view=view, event=event, trigger=trigger, **of_sipi)
    bound = BoundCase(case, machine, machines.host)
    seen = both(bound.program)
    before, after = (value for _, value in seen.evidence if isinstance(value, Snapshot))
    assert seen.end is None
    assert before.get(machine.targets[0].layout, "rip") != after.get(machine.targets[0].layout, "rip")


def test_the_c_code_does_nearly_all_of_a_case(machines: Machines, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = BoundCase(ITEM, machine, machines.host)
    player = players(bound.program, machine, monkeypatch)[0]
    monkeypatch.setattr(Player, "_do", lambda player, op: pytest.fail(f"{op} is done in Python"))
    assert player.run().end is None


def test_a_refused_ioctl_ends_the_program_or_is_kept(both: Callable[..., Played]) -> None:
    refused = p.Ioctl(1, uapi.KVM_SET_SREGS, 0)
    kept = p.Compare(RESULT, (-errno.EFAULT,), WRONG)
    seen = both(program(refused._replace(result="result"), kept, p.Compare(RESULT, (0,), WRONG), refused))
    why = "wrong: KVM_SET_SREGS: Bad address [EFAULT]"
    assert seen == Played(((1, -errno.EFAULT), (2, -errno.EFAULT)), Ended(2, "error", why, False))
    seen = both(program(p.Put(WORD, 7), p.Compare(WORD, (7,), WRONG), refused, p.Compare(WORD, (7,), WRONG)))
    assert seen == Played(((1, 7),), Ended(2, "error", f"KVM_SET_SREGS: {FAULT} (vcpu 1)", False))
    seen = both(program(refused._replace(on=p.VM)))
    assert seen.end and seen.end.why.endswith("(vm)")


@pytest.mark.parametrize("verdict, why", [("error", "wrong: 0x55"), ("skip", "wrong"), ("fail", "wrong")])
def test_a_comparison_that_does_not_hold_ends_the_program(verdict: str, why: str, both: Callable[..., Played]) -> None:
    place = p.Place("bytes", 1, 2)
    test = p.Compare(place, (0x54, -1, 1 << 70), p.Otherwise(verdict, "wrong"), 0xFF)
    seen = both(program(p.Put(place, 0xAAAA, 0x0FF0), p.Put(place, 0x55, 0xFF), test, bytes=bytes.fromhex("12345678")))
    assert seen == Played(((2, 0x55),), Ended(2, verdict, why, False))


def test_a_comparison_asks_for_none_of_its_values_or_ends_nothing(both: Callable[..., Played]) -> None:
    unlike, reported = p.Compare(WORD, (1, 2), WRONG, unlike=True), p.Compare(WORD, (1, 2), p.Otherwise("", ""))
    seen = both(program(unlike, reported, unlike, p.Put(WORD, 2), unlike, reported))
    assert seen == Played(((0, 0), (1, 0), (2, 0), (4, 2)), Ended(4, "error", "wrong: 0x2", False))


def test_fields_of_every_size(both: Callable[..., Played]) -> None:
    ops: list[p.Op] = []
    for size in range(1, 9):
        place = p.Place("bytes", size, size)
        value = int.from_bytes(bytes(range(size + 1, 2 * size + 1)), "little")
        ops += [p.Compare(place, (value,), WRONG), p.Put(place, -1, 0x0F), p.Compare(place, (value | 0x0F,), WRONG)]
        ops += [p.Put(place, value)]
    assert both(program(*ops, bytes=bytes(range(1, 20)))).end is None


def test_guest_memory(machine: Machine, both: Callable[..., Played]) -> None:
    gpa = 0x5000_0000
    ops = (
        p.Region(31, gpa, 0x1000),
        p.Write(gpa + 0xFFC, b"\x11\x22\x33\x44"),
        p.Peek(p.Place("word", 1, 2), gpa + 0xFFD),
        p.Compare(WORD, (0x332200,), WRONG),
    )
    assert both(program(*ops)) == Played(((3, 0x332200),), None)
    machine.vm.remove_memory(next(memory for memory in machine.vm.memory if memory.gpa == gpa))


@pytest.mark.parametrize("op", [p.Write(0x6000_0000, b"1"), p.Peek(WORD, 0x6000_0000)])
def test_guest_memory_that_is_not_there(op: p.Op, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for player in players(program(op), machine, monkeypatch):
        with pytest.raises(ValueError, match="no guest memory"):
            player.run()


def _failing(machine: Machine) -> str:
    buffer = next(buf for buf in machine.targets[1].reader.buffers if buf.section == "sregs")
    buffer.request = uapi.KVM_GET_SREGS ^ 0x1234
    return "sregs"


def _short(machine: Machine) -> str:
    target = machine.targets[1]
    layout = Layout((0x10, 0x4FFFFFFF, 0x277), {}, target.layout.missing_sections)
    for one in machine.targets:
        one.layout = layout
        one.reader = Reader(one.vcpu, layout)
    return "msr.0x4fffffff"


@pytest.mark.parametrize("spoil", [_failing, _short])
def test_what_cannot_be_read_is_reported_as_by_python(
    spoil: Callable[[Machine], str], machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = machines.fresh(SETUP)
    name, layout = spoil(machine), machine.targets[1].layout
    made = program(p.Look(1), p.Put(WORD, 3), p.Compare(WORD, (3,), WRONG))
    by_c, by_python = (plain(player.run(), layout) for player in players(made, machine, monkeypatch))
    assert by_c == by_python
    (_, (sections, unreadable, _)), (_, word) = by_c[0]
    assert word == 3
    assert (name in unreadable) if name.startswith("msr.") else (name not in sections and "cr0" in unreadable)
    machines.release(machine)


def test_what_has_not_changed_is_the_same_object(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    regs, place = p.Ioctl(1, uapi.KVM_SET_REGS, "regs"), p.Place("regs", 0, 8)
    program_ = program(p.Ioctl(1, uapi.KVM_GET_REGS, "regs"), p.Put(place, 5), regs, p.Look(1), p.Put(place, 6), regs, p.Look(1))
    program_.buffers["regs"] = p.Buffer("kvm_regs", bytes(144))
    player = players(program_, machine, monkeypatch)[0]
    (one, two), (again, _) = ([value for _, value in player.run().evidence] for _ in range(2))
    layout = machine.targets[1].layout
    assert (one.get(layout, "rax"), two.get(layout, "rax"), again.get(layout, "rax")) == (5, 6, 5)
    assert again.sections["regs"] is one.sections["regs"]
    assert again.sections["sregs"] is one.sections["sregs"]
    still = program(p.Look(1))
    reader = Reader(machine.targets[1].vcpu, layout)
    reader.buffers = reader.buffers[:3]
    monkeypatch.setattr(machine.targets[1], "reader", reader)
    player = players(still, machine, monkeypatch)[0]
    assert player.run().evidence[0][1] is player.run().evidence[0][1]


def test_a_signal_in_between_changes_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    library, calls = native.library(), 0
    assert library

    def interrupted(ops: int, at: int, end: int) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            return library(ops, at, end)
        assert library(ops, at, 1) == 1
        ctypes.c_int64.from_address(ops + native._OP.size + native._DONE).value = -errno.EINTR
        return 1

    monkeypatch.setattr(native, "library", lambda: interrupted)
    get = p.Ioctl(1, uapi.KVM_GET_MP_STATE, "word", "result")
    seen = Player(program(p.Put(WORD, 99), get, p.Compare(RESULT, (0,), WRONG)), machine, 1.0).run()
    assert (seen.end, calls) == (None, 2)


def test_the_c_code_knows_every_field_of_what_it_runs() -> None:
    """A field that is added here has to be added there, or the op left to Python."""
    assert (p.Ioctl._fields, p.Put._fields) == (("on", "request", "arg", "result"), ("place", "value", "mask"))
    assert (p.Compare._fields, p.Look._fields) == (("place", "values", "otherwise", "mask", "unlike"), ("vcpu", "back"))
    assert (p.Write._fields, p.Peek._fields) == (("gpa", "data", "space"), ("to", "gpa", "space"))


@pytest.mark.parametrize("content", [None, b"no shared object"])
def test_without_the_c_code_python_runs(content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if content:
        (tmp_path / "runner.so").write_bytes(content)
    monkeypatch.setattr(guests, "__file__", str(tmp_path / "__init__.py"))
    assert native.library.__wrapped__() is None


def test_c_code_of_another_source_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runner.c").write_text(SOURCE.read_text().replace("long done;\n};", "long done, more;\n};"))
    _make(tmp_path)
    monkeypatch.setattr(guests, "__file__", str(tmp_path / "__init__.py"))
    assert native.library.__wrapped__() is None


def _make(folder: Path, *more: str) -> str:
    shutil.copy(SOURCE.with_name("Makefile"), folder)
    if not (folder / "runner.c").exists():
        shutil.copy(SOURCE, folder)
    made = ["make", "-s", "-C", folder, "OUT=.", "./runner.so", *more]
    return subprocess.run(made, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def test_the_source_has_no_warnings(tmp_path: Path) -> None:
    assert _make(tmp_path, "CC=gcc -Werror -Wpedantic -Wshadow") == "  runner  runner.so\n"
    assert (tmp_path / "runner.so").exists()


def test_without_a_compiler_make_says_so(tmp_path: Path) -> None:
    assert "not built without a C compiler" in _make(tmp_path, "CC=no-such-compiler")
    assert not (tmp_path / "runner.so").exists()
