# SPDX-License-Identifier: GPL-2.0-only
"""All ways in which a guest can end, with a fake emulator."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from kvmtest.lab.cell import Cell, inner
from kvmtest.lab.error import LabError
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.qemu import Qemu
from kvmtest.lab.steps import Alive, Begin, Booting, Running, Spec, Step, Times
from kvmtest.model.record import Observation, Result
from kvmtest.spec import deviations
from kvmtest.spec.deviations import Deviation

_RAM, _HALTED = "init.msi.host.ram", "init.msi.host.halted"
_SECOND = f'case("{_HALTED}")\n'
_SECOND_NAME = "init.msi/ap,intel,halted"
_CASE = f'begin()\nran("{_RAM}", "pass")\n'


def _play(kernel: Kernel, *selectors: str) -> list[Step]:
    steps = Cell(Spec("svm", kernel, selectors, fresh_boot=True)).steps()
    return [step for step in steps if not isinstance(step, Booting)]


def _seen(steps: list[Step]) -> list[list[Observation]]:
    return [step for step in steps if isinstance(step, list)]


def _results(steps: list[Step]) -> list[Result]:
    return [result for step in _seen(steps) for one in step for result in one.results]


def _nothing_left(folder: Path) -> bool:
    running = [pid for pid in os.listdir("/proc") if pid.isdecimal() and _environment(pid, f"TMPDIR={folder / 'tmp'}")]
    return not running and not list((folder / "tmp").iterdir())


def _environment(pid: str, wanted: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return wanted.encode() in file.read().split(b"\0")
    except OSError:
        return False


def test_a_good_cell(fake: Path, kernel: Kernel) -> None:
    steps = _play(kernel)
    assert isinstance(steps[0], Begin) and isinstance(steps[-1], Times)
    host = steps[0].host
    assert (host.kernel, host.backend, host.parameters) == ("9.9.9-fake", "svm", {"npt": "Y", "kvm.x": ""})
    assert host.lab and host.lab["emulator"] == "QEMU 9.9.9 (TCG)" and host.lab["kernel_source"] == "made up"
    assert (host.name, host.accel) == (os.uname().nodename, "tcg")
    assert Counter(r.verdict for r in _results(steps)) == {"pass": 2, "fail": 1}
    assert _results(steps)[-1].id == "none.lab.kernel.log" and _results(steps)[-1].verdict == "pass"
    assert [step.case.name for step in steps if isinstance(step, Running)] == ["init.msi/ap,intel,ram", _SECOND_NAME]
    assert [[one.seconds for one in seen] for seen in _seen(steps)] == [[0.5], [0.5], [None]]
    (first,), (second,), _ = _seen(steps)
    assert first.case and dict(first.case.params) == {"target": "ap", "vendor": "intel", "sequence": "ram"}
    (record,) = second.records
    assert (record.observed, record.expected and record.expected.values) == ("that", ("this",)) and record.cite
    assert _nothing_left(fake)


def test_a_boot_is_reported_from_its_first_moment_on(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = "".join(f"time.sleep(0.2)\nsay({line})\n" for line in ('"B", "9.9"', '"M", "kvm"', '"H", "9", "svm", "x", "y"'))
    monkeypatch.setenv("FAKE", pauses + 'time.sleep(0.2)\nsay("N", "0")\nsay("E")')
    steps = list(Cell(Spec("svm", kernel)).steps())
    boot = [step for step in steps if isinstance(step, Booting)]
    assert str(boot[0]) == "booting 9.9.9-fake in QEMU" and steps[: len(boot)] == boot
    places = list(dict.fromkeys(step.where for step in boot[1:]))
    assert places == ["its firmware and kernel", "the start of its init", "loading kvm.ko", "the start of the run"]
    assert str(boot[-1]) == f"booting 9.9.9-fake in QEMU, {boot[-1].seconds} s: the start of the run"


def test_two_runs_give_the_same(fake: Path, kernel: Kernel) -> None:
    one, two = ([(r.id, r.case, r.record) for r in _results(_play(kernel))] for _ in range(2))
    assert one == two and len(one) == 3


def test_selectors_choose_results(fake: Path, kernel: Kernel) -> None:
    log = "none.lab.kernel.log"
    for selector, found in ((_RAM, _RAM), ("halted", _HALTED), ("init.msi/ap,intel,halted", _HALTED), (log, log), ("log", log)):
        steps = _play(kernel, selector)
        assert {r.id for r in _results(steps)} == {found}
        # The time of a case that has nothing to show counts as well.
        assert len(_seen(steps)) == (3 if found == log else 2)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('console("[    1.0] no root"); console("[    1.1] Kernel panic - not syncing: Unable to mount")', "Unable to mount"),
        ('say("B", "9.9"); console("end of it"); os._exit(3)', "exited with status 3"),
        ("sys.exit('qemu: no such machine')", "no such machine"),
        ('say("B", "9.9"); say("M", "kvm"); say("L", "kvm: no hardware support"); say("X", "kvm.ko does not load: EIO")', "EIO"),
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL; its console is empty"),
    ],
)
def test_a_guest_that_does_not_boot_is_an_error(
    script: str, says: str, fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", script)
    errors = [r for r in _results(_play(kernel)) if r.verdict == "error"]
    assert [r.id for r in errors] == ["none.lab.kernel.boot"]
    assert says in errors[0].reason
    assert not [r for r in _results(_play(kernel)) if r.verdict == "pass"]
    assert _nothing_left(fake)


def test_a_module_that_does_not_load_shows_its_log_line(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'say("B", "9.9"); say("M", "kvm_amd"); say("L", "kvm: version magic wrong"); say("X", "kvm_amd.ko does not load")'
    monkeypatch.setenv("FAKE", script)
    (error,) = _results(_play(kernel))
    assert "loading kvm_amd.ko" in error.reason and "version magic wrong" in error.reason


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("while True: pass", "no sign of life for"),
        ("time.sleep(60)", "s asleep and"),
        ('console("[ 9.0] Kernel panic - not syncing: Fatal exception"); time.sleep(60)', "panicked"),
        ("say('C', 'nonsense'); time.sleep(60)", "malformed data"),
    ],
)
def test_a_guest_that_dies_keeps_its_results_and_names_the_case(
    end: str, says: str, fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", _CASE + f"{_SECOND}{end}")
    monkeypatch.setattr(Qemu, "silence_s", 0.5)
    monkeypatch.setattr("kvmtest.lab.limits._ASLEEP_S", 0.7)
    monkeypatch.setattr("kvmtest.lab.limits._DYING_S", 0.1)
    results = _results(_play(kernel))
    assert results[0].id == _RAM and results[0].verdict == "pass"
    error = results[-1]
    assert (error.id, error.verdict, error.case) == ("none.lab.kernel.run", "error", _SECOND_NAME)
    assert says in error.reason and "1 of 2 cases" in error.reason
    assert _nothing_left(fake)


#: Signs of life: of a guest that sleeps in between, and of one that is busy, each for so many seconds.
_BEATS = "for _ in range(10 * {}):\n    time.sleep(0.1)\n    out.beat()\n"
_BUSY = "while time.process_time() < {}:\n    out.beat()\n    for _ in range(10**5): pass\n"


def test_a_guest_that_is_slow_and_alive_is_not_called_hung(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", _CASE + _SECOND + _BEATS.format(2) + 'done("2.0")\nsay("E")')
    monkeypatch.setattr(Qemu, "silence_s", 1.0)
    monkeypatch.setattr("kvmtest.lab.limits._ASLEEP_S", 1.0)
    monkeypatch.setattr("kvmtest.lab.cell._REPORT_S", 0.5)
    steps = _play(kernel)
    assert {r.verdict for r in _results(steps)} == {"pass"}
    alive = [step for step in steps if isinstance(step, Alive)]
    assert 1 <= len(alive) <= 4 and str(alive[0]).startswith(f"alive, in {_SECOND_NAME} for ")


def test_a_guest_that_only_says_that_it_lives_does_not_boot(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", _BUSY.format(60))
    monkeypatch.setattr(Qemu, "boot_s", 0.5)
    (error,) = _results(_play(kernel))
    assert error.id == "none.lab.kernel.boot" and "no sign of life for" in error.reason
    assert _nothing_left(fake)


def test_a_terminal_of_the_emulators_own_does_not_fill(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a Bochs with a debugger, which shows its display on one that nobody looks at."""
    prepare = Qemu.prepare
    monkeypatch.setattr(Qemu, "prepare", lambda *args: prepare(*args)._replace(terminal=True))
    monkeypatch.setattr(Qemu, "silence_s", 5.0)
    show = "import pty\nours, theirs = pty.openpty()\nprint(f'Bochs connected to screen \"{os.ttyname(theirs)}\"', flush=True)\n"
    show += "import tty\ntty.setraw(theirs)\nfor _ in range(50):\n    os.write(ours, bytes(4096))\n"
    monkeypatch.setenv("FAKE", _CASE + show + "say('E')")
    assert {r.verdict for r in _results(_play(kernel))} == {"pass"}
    assert _nothing_left(fake)


@pytest.mark.parametrize(
    ("before", "where"),
    [
        ('say("B", "9.9")\n', "the start of its init"),
        ('say("B", "9.9")\nsay("M", "kvm")\n', "loading kvm.ko"),
        ('say("B", "9.9")\nsay("H", "9.9", "svm", "AuthenticAMD", "A CPU")\n', "the start of the run"),
        (_CASE, "the time after a case"),
        (_CASE + _SECOND, _SECOND_NAME),
        (_CASE + _SECOND + "done()\n", "the end of the run"),
    ],
)
def test_whatever_a_guest_that_is_alive_does_has_a_limit(
    before: str, where: str, fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", before + _BUSY.format(60))
    monkeypatch.setattr(Qemu, "case_s", 0.5)
    error = _results(_play(kernel))[-1]
    case = where if where == _SECOND_NAME else ""
    assert (error.id.rpartition(".")[0], error.verdict, error.case) == ("none.lab.kernel", "error", case)
    assert f"{where} takes longer than" in error.reason and "though the guest is alive" in error.reason
    assert _nothing_left(fake)


_JUDGED = 'out.blob("O", {})\nout.flush()\n'
_DEEP = "deep = ()\nfor _ in range(900):\n    deep = ('tuple', [deep])\n"
_PACKED = "import zlib\nbomb = zlib.compressobj(9)\nfor _ in range(64):\n    parallel.write(bomb.compress({} * 2**19))\n"
#: A layout, and evidence of a vCPU that has it.
_OF_LAYOUT = ("{'fields': {'A B': ('sregs', 0, 8)}}", "([([''] * 2 + [None] + [''] * 11, 0, None, None)], None)")


@pytest.mark.parametrize(
    ("says", "script"),
    [
        ("O before there are cases", _JUDGED.format("(1, 2)")),
        ("C before there are cases", _SECOND),
        ("evidence of no case", _CASE + _JUDGED.format("([], None)")),
        ("a case within another one", _CASE + _SECOND + _SECOND),
        ("not enough values", 'say("H", "9.9", "svm")'),
        ("length 1; 2 is required", 'say("H", "9.9", "svm", "x", "y", "npt")'),
        ("a number of cases", 'say("N", "3")'),
        ("a number of cases", 'begin()\nsay("N", "3")'),
        ("invalid literal", 'say("H", "9", "svm", "x", "y")\nsay("N", "many")'),
        ("'zzz' is not a valid Verdict", _CASE + _SECOND + "seen(Untried('zzz', ''))\nout.flush()\n"),
        ("KeyError: 'Nothing'", _CASE + _SECOND + _JUDGED.format("([], ('Nothing', []))")),
        ("no item: 'A B'", _CASE + _SECOND + _JUDGED.replace("out", "out.blob('V', {})\nout", 1).format(*_OF_LAYOUT)),
        *(("a time of", _CASE + f'{_SECOND}say("c", "{t}")') for t in ("nan", "1e999", "-1")),
        ("a time of no case", 'begin()\nsay("c", "1")'),
        ("RecursionError", _CASE + _SECOND + _DEEP + _JUDGED.format("([], deep)")),
        ("no case 'init.msi/nothing' with the view 'host'", 'begin()\nout.case("init.msi/nothing", "host")'),
        ("no case 'init.msi/ap,intel,halted' with the view 'guest'", f'begin()\nout.case("{_SECOND_NAME}", "guest")'),
        ("a line 'Z'", 'say("Z")'),
        ("IndexError", 'say("B")'),
        ("incorrect header", 'parallel.write(b"no zlib")'),
        ("what is packed", _PACKED.format('b"h\\n"')),
        ("MB of a line", _PACKED.format('b"xy"')),
    ],
)  # fmt: skip
def test_a_stream_that_makes_no_sense_ends_the_cell(
    says: str, script: str, fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", f"{script}\ntime.sleep(60)")
    steps = _play(kernel)
    error = _results(steps)[-1]
    assert (error.id.rpartition(".")[0], error.verdict) == ("none.lab.kernel", "error")
    assert "it sent malformed data: " in error.reason and says in error.reason
    assert len([step for step in steps if isinstance(step, Begin)]) == 1
    assert _nothing_left(fake)


def test_a_console_that_ends_no_line_takes_no_memory(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", 'for _ in range(64):\n    serial.write(b"x" * 2**20)\nsys.exit(1)')
    (error,) = _results(_play(kernel))
    assert "exited with status 1; its console ends with: xxx" in error.reason and len(error.reason) < 10_000


#: The thread that works is gone, and the one that says so is not; on the console is why.
_OOPS = """
for line in ("kernel BUG at x86.c:1!", "invalid opcode: 0000 [#1]", "RIP: 0010:f+0x5/0xff0 [kvm]", "Call Trace:"):
    console("[    9.0] " + line)
while True:
    time.sleep(0.1)
    out.beat()
"""


@pytest.mark.parametrize(
    ("before", "item", "where"),
    [
        ('say("B", "9.9")\nsay("M", "kvm")\n', "boot", "loading kvm.ko"),
        (_CASE, "run", "the time after a case"),
        # Sent before it, and heard together with it.
        (_CASE + _SECOND, "run", _SECOND_NAME),
        (_CASE + _SECOND + "done()\n", "run", "the end of the run"),
    ],
)
def test_an_oops_ends_the_cell_and_is_shown(
    before: str, item: str, where: str, fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", before + _OOPS)
    monkeypatch.setattr("kvmtest.lab.limits._DYING_S", 0.3)
    log, error = _results(_play(kernel))[-2:]
    case, place = (where, "") if where == _SECOND_NAME else ("", f"{where}: ")
    assert (log.id, log.verdict, log.case) == ("none.lab.kernel.log", "fail", case)
    assert log.reason.startswith(f"{place}kernel BUG at x86.c:1!\ninvalid opcode") and "RIP: 0010:f" in log.reason
    assert (error.id, error.verdict, error.case) == (f"none.lab.kernel.{item}", "error", case)
    assert where in error.reason
    assert "its kernel oopsed: kernel BUG at x86.c:1!" in error.reason
    assert _nothing_left(fake)


@pytest.mark.parametrize(
    ("case", "function", "left", "log", "run"),
    [
        ("halted", "f()", 1, "known", "known"),
        # Another one was never tried.
        ("halted", "f()", 2, "known", "error"),
        ("halted", "g()", 1, "fail", "error"),
        ("ram", "f()", 1, "fail", "error"),
    ],
)
def test_a_listed_oops_is_known_and_what_it_left_untried_an_error(
    case: str, function: str, left: int, log: str, run: str, fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for item in ("log", "run"):
        id = f"none.lab.kernel.{item}"
        one = Deviation(id, "none", f"Oops in {function}", "0123456789ab", "it is so", "fixed", "svm", until=(10, 0), case=case)
        monkeypatch.setitem(deviations._BY_ITEM, (id, "none"), (one,))
    monkeypatch.setenv("FAKE", ("begin()\n" if left == 2 else _CASE) + _SECOND + _OOPS)
    monkeypatch.setattr("kvmtest.lab.limits._DYING_S", 0.3)
    found = [(r.id.rpartition(".")[2], r.verdict, r.record.deviation) for r in _results(_play(kernel))]
    commit = {"known": "0123456789ab"}
    assert found[-2:] == [("log", log, commit.get(log)), ("run", run, commit.get(run))]


def test_an_oops_of_another_thread_than_the_one_that_works_ends_nothing(
    fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = _SECOND + 'time.sleep(0.5)\nshow("pass")\n'
    end = "done()\n" + _BEATS.format(1) + 'say("E")'
    monkeypatch.setenv("FAKE", _CASE + 'console("kernel BUG at x86.c:1!")\ntime.sleep(0.1)\n' + second + end)
    monkeypatch.setattr("kvmtest.lab.limits._DYING_S", 0.9)
    assert [(r.item, r.verdict) for r in _results(_play(kernel))] == [("ram", "pass"), ("halted", "pass"), ("log", "pass")]


def test_a_case_that_died_keeps_what_came(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", _CASE + _SECOND + "show('fail')\nout.flush()\nos._exit(1)")
    steps = _play(kernel)
    assert [(r.item, r.verdict, r.case) for r in _results(steps)][1:] == [
        ("halted", "fail", _SECOND_NAME),
        ("run", "error", _SECOND_NAME),
    ]
    assert [[one.seconds for one in seen] for seen in _seen(steps)] == [[0.1], [None, None]]


def test_what_the_kernel_says_before_it_is_up_comes_after_the_begin(
    fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    warn = 'say("B", "9")\nsay("M", "kvm")\nsay("L", "WARNING: CPU: 0 PID: 1 at x86.c:1 f+0x0")\n'
    up = 'say("H", "9", "svm", "AuthenticAMD", "A CPU")\nsay("N", "0")\nsay("E")'
    monkeypatch.setenv("FAKE", warn + up)
    begin, kernels, *_ = _play(kernel)
    assert isinstance(begin, Begin) and isinstance(kernels, list)
    (log,) = _results([kernels])
    assert (log.verdict, log.case) == ("fail", "") and log.reason == "loading kvm.ko: WARNING: CPU: 0 PID: 1 at x86.c:1 f+0x0"


def test_what_the_kernel_says_is_tied_to_the_case(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("------------[ cut here ]------------", "WARNING: CPU: 0 PID: 1 at x86.c:1 f+0x0", "RIP: f")
    warn = "".join(f'say("L", "{line}")\n' for line in lines)
    harmless = 'say("L", "SVM: kvm [1]: vcpu0, guest rIP: 0x1234 Unhandled WRMSR(0x1d9) = 0x1")\n'
    monkeypatch.setenv("FAKE", _CASE + _SECOND + "show('pass')\n" + harmless + warn + 'done("0.25")\nsay("E")')
    steps = _play(kernel)
    (log,) = [r for r in _results(steps) if r.id == "none.lab.kernel.log"]
    assert (log.verdict, log.case) == ("fail", _SECOND_NAME)
    assert [[(one.view, one.seconds) for one in seen] for seen in _seen(steps)][-1] == [("host", None), ("kernel", 0.25)]
    assert "x86.c:1" in log.reason and "RIP: f" in log.reason and "WRMSR" not in log.reason


def test_a_missing_emulator_names_the_package(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LabError, match="apt-get install qemu-system-x86"):
        _play(kernel)


def test_a_kernel_without_kvm(fake: Path, kernel: Kernel) -> None:
    os.unlink(os.path.join(kernel.modules, "kvm-amd.ko"))
    with pytest.raises(LabError, match=r"no kvm_amd\.ko"):
        _play(kernel)


def test_no_space_for_the_initramfs(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kvmtest.lab.initramfs.write", full)
    with pytest.raises(LabError, match="No space left"):
        _play(kernel)
    assert _nothing_left(fake)


def test_a_cell_that_is_dropped_in_the_middle_leaves_nothing(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", _CASE + "time.sleep(60)")
    steps = Cell(Spec("svm", kernel, fresh_boot=True)).steps()
    assert any(isinstance(step, Begin) for step in steps)
    steps.close()
    assert _nothing_left(fake)


def test_the_lab_s_own_results_are_no_selectors_inside() -> None:
    assert inner(("init.msi", "none.lab.kernel.log")) == ("init.msi",)
    assert inner(("none", "none.lab")) == ("none",)
    assert inner(("none.lab.kernel.log",)) == inner(("log",)) == inner(()) == ()
    assert inner(("init.msi/ap,intel,halted", "*")) == ("init.msi/ap,intel,halted", "*")
    assert inner(("none.lab.kernel.log/ap,intel,halted",)) == ("*/ap,intel,halted",)
