# SPDX-License-Identifier: GPL-2.0-only
"""Jobs of a cell: what runs inside, and what the commands make of its answers."""

from __future__ import annotations

import marshal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvmtest.cli import main
from kvmtest.emit.head import About, Shown
from kvmtest.emit.plain import dump, load
from kvmtest.engine import host
from kvmtest.engine.plan import plan
from kvmtest.fuzz import save
from kvmtest.fuzz.moves import BETWEEN
from kvmtest.kvm import Kvm
from kvmtest.lab.job import Job, execute, fuzz, reproduce
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.stream import Encoder
from kvmtest.scenario import file
from kvmtest.scenario import step as s
from tests.emit.made import msr_check

_PASSES = "init.msi.host.cr3/ap,intel,xapic,plant-a"
_ABOUT = About("init.msi.host.cr3", "init.msi/ap,intel", "cr3", "init", "msi", "0x0", "0x1000", ("a manual",), True)


class _Heard(Encoder):
    """Keeps what is sent."""

    def __init__(self) -> None:
        super().__init__(lambda data: len(data))
        self.answers: list[Any] = []
        self.lines: list[tuple[str, ...]] = []

    def blob(self, kind: str, value: Any) -> None:
        """One answer, as it arrives."""
        self.answers.append(marshal.loads(marshal.dumps(value)))

    def line(self, *fields: str) -> None:
        """One line."""
        self.lines.append(fields)


def _job(programs: dict[str, bytes], *selectors: str) -> Job:
    return {"programs": programs, "selectors": selectors, "minimise": False}


def _script(text: str) -> bytes:
    return f"#!{sys.executable}\n{text}\n".encode()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder instead of the root of a cell's file system."""
    real = open
    monkeypatch.setattr("builtins.open", lambda path, *a, **k: real(_below(tmp_path, path), *a, **k))
    for name in ("os.chmod", "os.unlink"):
        module, _, function = name.partition(".")
        whole = getattr(sys.modules[module], function)
        monkeypatch.setattr(name, lambda path, *a, whole=whole: whole(_below(tmp_path, path), *a))
    run = __import__("subprocess").run
    monkeypatch.setattr("subprocess.run", lambda command, **k: run([str(_below(tmp_path, command[0]))], **k))
    return tmp_path


def _below(folder: Path, path: Any) -> Any:
    return folder / path[1:] if isinstance(path, str) and path.startswith("/program-") else path


def test_programs_are_executed_in_order(root: Path) -> None:
    heard, between = _Heard(), []
    programs = {"a": _script("print('1..1')\nprint('ok 1 x')"), "b": _script("import sys; sys.exit(4)"), "c": b"no program"}
    execute(_job(programs), heard, lambda: between.append(1))
    (a, b, c) = heard.answers
    assert a == ("a", 0, "1..1\nok 1 x\n") and b == ("b", 4, "")
    assert c[:2] == ("c", -1) and c[2].startswith("it does not start: ")
    assert [line[1] for line in heard.lines] == ["executing a", "executing b", "executing c"]
    assert between == [1, 1, 1] and not list(root.glob("program-*"))


def test_one_that_does_not_end_is_ended(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvmtest.lab.job._LONGEST_S", 1)
    heard = _Heard()
    execute(_job({"late": _script("import time\nprint('begun', flush=True)\ntime.sleep(60)")}), heard, lambda: None)
    assert heard.answers == [("late", -1, "begun\nnot over within 1 s\n")]


def test_a_reproducer_is_sent(kvm: Kvm) -> None:
    heard = _Heard()
    job = _job({}, _PASSES, "sipi.icr-x2apic/ap,intel,stress")
    reproduce(job, kvm, host.detect(), list(plan()), 1.0, heard)
    made, none = (one for one in heard.answers if one[0] == "shown")
    assert made[1] == _PASSES and load(made[2]).about.item == "cr3"
    assert none[1].startswith("sipi.") and isinstance(none[2], str)


def test_what_is_known_of_tries_is_not_tried_again(kvm: Kvm) -> None:
    first, again = _Heard(), _Heard()
    job = _job({}, _PASSES)
    reproduce(job, kvm, host.detect(), list(plan()), 1.0, first)
    tried = [one[1] for one in first.answers if one[0] == "tried"]
    assert {one[0] for one in tried} == {"pass"} and len(first.answers) == 2 * len(tried) + 1
    job["known"] = tuple(tried)
    reproduce(job, kvm, host.detect(), list(plan()), 1.0, again)
    assert [one[0] for one in again.answers] == ["shown"] and again.answers == first.answers[-1:]


def test_of_scenarios_that_are_given_it_is_reported_what_departs(kvm: Kvm) -> None:
    heard, job = _Heard(), _job({}, "*.dr7")
    right, wrong = (s.Expect(s.Is("dr7", value)) for value in (0x400, 0x401))
    sent = (s.Plant(), s.Observe(), s.Send("init"), s.Observe())
    tried = [s.Scenario("none", "fuzz", "one", (*sent, one), ("a manual",), vendors=("intel",)) for one in (right, wrong)]
    job["fuzz"], job["tried"] = (0.0, 1, ("init",), (), 0, ""), tuple(file.dump(one) for one in tried)
    fuzz(job, kvm, host.detect(), heard, lambda: False)
    assert [(kind, [tuple(key) for key in keys]) for kind, keys in heard.answers] == [
        ("shows", []),
        ("shows", [("init", "dr7", "bits", "")]),
    ]


def test_one_that_cannot_be_made_does_not_keep_the_others_back(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter((KeyError("x"), None))

    def first(*_: object, **__: object) -> Shown:
        if error := next(calls):
            raise error
        return Shown(msr_check(1), _ABOUT)

    monkeypatch.setattr("kvmtest.engine.reproduce.first", first)
    heard = _Heard()
    reproduce(_job({}, _PASSES, _PASSES), kvm, host.detect(), list(plan()), 1.0, heard)
    assert heard.answers[0][2] == "it cannot be made: KeyError: 'x'" and load(heard.answers[1][2]).about == _ABOUT


def _lab(kernel: Kernel) -> list[str]:
    return ["--backend", "svm", "--kernel", kernel.image, "--modules", kernel.modules]


def _answers(*values: object) -> str:
    sends = "".join(f"out.blob('R', {value!r}); out.flush()\n" for value in values)
    return f"begin()\n{sends}say('E')\n"


def test_the_answer_of_a_cell_is_a_file(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = dump(Shown(msr_check(1), _ABOUT, 30, 12))
    monkeypatch.setenv("FAKE", _answers(("progress", "leaving out"), ("shown", _PASSES, plain)))
    to = tmp_path / "cr3.c"
    assert main(["repro", *_lab(kernel), _PASSES, "-o", str(to)]) == 0
    text, said = to.read_text(), capsys.readouterr().err
    assert "observed 0x1000 on Linux 9.9.9-fake, kvm_amd" in " ".join(text.replace("\n *", "").split())
    assert "kvmtest: leaving out\n" in said and "found by 12 tries" in said


def test_a_cell_that_has_none_says_why(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE", _answers(("shown", _PASSES, "it passes, but not alone")))
    assert main(["repro", *_lab(kernel), _PASSES]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and f"kvmtest: {_PASSES}: it passes, but not alone\n" in shown.err


_DEPARTED = ("fail", "", (1,))
_HUNG = ("error", "the kernel hangs", ())


def _cells(monkeypatch: pytest.MonkeyPatch, *cells: tuple[object, ...]) -> list[tuple[object, ...]]:
    """Cells that give these answers one after the other; the outcomes that each was given as known."""
    known, left = [], iter(cells)

    def answers(args: object, job: dict[str, Any], *_: object) -> Iterator[tuple[object, object]]:
        known.append(job["known"])
        yield from ((host.detect(), answer) for answer in next(left))

    monkeypatch.setattr("kvmtest.commands.jobs.results", answers)
    return known


def test_a_try_that_hangs_the_kernel_shows_nothing_and_the_search_goes_on(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, tried = ("shown", _PASSES, dump(Shown(msr_check(1), _ABOUT, 30, 12))), (("trying",), ("tried", _DEPARTED))
    known = _cells(monkeypatch, (*tried, ("trying",)), (("trying",),), (*tried, shown))
    assert main(["repro", *_lab(kernel), _PASSES, "-o", str(tmp_path / "cr3.c")]) == 0
    assert known == [(), (_DEPARTED, _HUNG), (_DEPARTED, _HUNG, _HUNG)]
    assert f"{_PASSES}: try 2 hangs the kernel" in capsys.readouterr().err and (tmp_path / "cr3.c").exists()


@pytest.mark.parametrize("cells", [[()], [(("trying",),)] * 13], ids=["ends-before-a-try", "hangs-again-and-again"])
def test_a_cell_that_ends_too_soon_is_no_answer_and_the_next_result_comes(
    cells: list[tuple[object, ...]],
    kernel: Kernel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = "init.msi.host.rip/ap,intel,xapic,plant-a"
    known = _cells(monkeypatch, *cells, (("shown", other, "it has none"),))
    assert main(["repro", *_lab(kernel), _PASSES, other, "-o", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert known[-1] == () and f"kvmtest: {other}: it has none\n" in said
    assert f"{_PASSES}: " + ("13 tries hang the kernel" if len(cells) > 1 else "its cell ended without a result") in said


@pytest.mark.parametrize(("status", "ends"), [(0, 0), (4, 0), (1, 1), (-1, 1)])
def test_exec_prints_what_a_program_said(
    status: int, ends: int, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "repro"
    program.write_bytes(b"\x7fELF static")
    monkeypatch.setenv("FAKE", _answers((str(program), status, "1..1\nok 1 cr3\n")))
    assert main(["lab", "exec", str(program), *_lab(kernel)]) == ends
    assert capsys.readouterr().out == f"# {program}\n1..1\nok 1 cr3\n# {program}: exit status {status}\n"


@pytest.mark.parametrize("image", [b"\x7fELF /lib64/ld-linux-x86-64.so.2", b"#!/bin/sh", b""])
def test_exec_refuses_what_cannot_run_in_a_cell(
    image: bytes, kernel: Kernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "repro"
    program.write_bytes(image)
    assert main(["lab", "exec", str(program), *_lab(kernel)]) == 2
    error = capsys.readouterr().err
    assert "is not a static binary" in error and error.count("\n") == 1


def test_exec_of_what_is_not_there_is_2(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "exec", "/nonexistent", *_lab(kernel)]) == 2
    assert capsys.readouterr().err == "kvmtest: cannot read /nonexistent: No such file or directory\n"


def test_fuzzing_that_is_interrupted_says_how_far_it_came(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = "import signal\nos.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)\n"
    monkeypatch.setenv("FAKE", _answers(("counts", (50, 2.0, 0, 0, 0, 0))).replace("say('E')\n", ends))
    assert main(["lab", "fuzz", *_lab(kernel), "-o", str(tmp_path / "found")]) == 130
    said = capsys.readouterr().err
    assert " scenarios in " in said and "Traceback" not in said


def test_what_a_cell_finds_is_written_with_the_commands_to_go_on(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = s.Scenario("none", "fuzz", "fuzz-1-2", (s.Plant(), s.Observe(), s.Send("init"), s.Observe()), ("a manual",))
    found = ("found", file.dump(scenario), [("init", "cr2", "kept", "")], ["fail init.msi.host.cr2"], True)
    monkeypatch.setenv("FAKE", _answers(found, ("counts", (2, 1.0, 1, 0, 0, 1))))
    assert main(["lab", "fuzz", *_lab(kernel), "--module-param", "kvm_amd.npt=0", "-o", str(tmp_path)]) == 1
    said, path = capsys.readouterr().err, tmp_path / "init-cr2-fuzz-1-2.json"
    assert file.load(str(path)) == scenario
    where = f"--backend svm --kernel {kernel.image} --modules {kernel.modules} --module-param kvm_amd.npt=0"
    for command in ("lab run {} --scenario", "lab fuzz {} --shrink", "repro {} --scenario"):
        assert f"kvmtest {command.format(where)} {path}\n" in said


def test_what_a_cell_finds_is_made_small_in_cells(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = (BETWEEN, s.Plant(), BETWEEN, s.Observe(), s.Send("init"), s.Observe())
    path = tmp_path / "init-cr2-fuzz-1-2.json"
    save.write(str(path), s.Scenario("none", "fuzz", "fuzz-1-2", steps, ("a manual",)))
    # Each cell says of all that it is asked for that it shows two.
    shows = ("shows", [("init", "cr2", "kept", ""), ("init", "cr0", "bits", "")])
    monkeypatch.setenv("FAKE", _answers(*[shows] * 70))
    assert main(["lab", "fuzz", *_lab(kernel), "--shrink", str(path)]) == 0
    assert "init-cr2-fuzz-1-2-small.json: 2 of 6 steps, which show init cr2 kept" in capsys.readouterr().err
