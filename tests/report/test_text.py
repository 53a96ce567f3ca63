# SPDX-License-Identifier: GPL-2.0-only
"""The text report: what a file holds reaches no terminal as a command."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import sys
import termios
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given, settings

from kvmtest.model.case import Case
from kvmtest.model.host import Host, Tool
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.run import Head, Run
from kvmtest.model.value import Expected
from kvmtest.model.verdict import Verdict
from kvmtest.report import End
from kvmtest.report.play import Gatherer, play
from kvmtest.report.show import columns, difference, named, printable, repeat, short, wrapped
from kvmtest.report.text import Text
from tests.report.samples import HOST, HOSTILE, LAB, made, observation, record, saved, saved_runs, written
from tests.sample import at_most

_HEAD, _END = Head(Tool("0.1.0"), HOST, ""), End(1.0, False, Counter(), ())
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@settings(max_examples=at_most(50))
@given(saved_runs())
def test_any_run_prints(runs: list[Run]) -> None:
    text = written("text", *runs)
    assert all(line.isprintable() for line in text.split("\n"))
    for run in runs:
        terminal = _Terminal()
        play(run, Gatherer(Text(terminal, progress=io.StringIO(), verbose=True)))
        assert all(line.isprintable() for line in _COLOUR.sub("", terminal.getvalue()).split("\n"))


@pytest.mark.parametrize("text", HOSTILE)
def test_printable_is_one_line_and_keeps_what_prints(text: str) -> None:
    assert printable(text).isprintable()
    assert printable("a\u00e9 \u4e2d|") == "a\u00e9 \u4e2d|" and printable("\x1b[31m\ttab") == r"\x1b[31m tab"


def test_values_that_are_no_numbers() -> None:
    for value in ("0xzz", "0x", "0x1|0x2", "RUNNABLE", "-0x1"):
        assert short(value) == value == named("cr0", value)
        assert difference(Record("cr0", Verdict.FAIL, None, Expected((value,)), 1)) == ""


def test_only_judged_bits_differ() -> None:
    seen = Record("cpuid.1.ecx", Verdict.FAIL, None, Expected((0,), 1 << 27), 0xF8000000)
    assert difference(seen) == "OSXSAVE" and difference(seen._replace(expected=Expected((0,)))) == "OSXSAVE|0xf0000000"


def test_long_values_keep_their_ends() -> None:
    value = f"{(1 << 8191) | 0x1234:#x}"
    assert short(value).startswith(value[:14]) and "1234 (1024 bytes)" in short(value)


def test_the_command_that_repeats_it() -> None:
    assert repeat(HOST, "init.msi.host.cr0") == "kvmtest run init.msi.host.cr0"
    assert repeat(LAB, "init.x.y.z") == "kvmtest lab run --backend svm --kernel 6.1.0-1-amd64 init.x.y.z"
    own = LAB._replace(lab={"emulator": "", "cpu": "", "kernel_source": "/boot/a kernel, modules of /my kvm"})
    assert repeat(own, "a") == "kvmtest lab run --backend svm --kernel '/boot/a kernel' --kvm-modules '/my kvm' a"


def test_a_log_of_many_lines_is_a_line_that_no_terminal_obeys() -> None:
    log = Record("log", Verdict.FAIL, reason="kernel BUG\n\x1b[0mRIP")
    text = written("text", saved([Observation(None, "none", "lab", "kernel", (Block((log,)),))]))
    assert "FAIL  none.lab.kernel: kernel BUG\n" in text and "\x1b" not in text


def test_the_first_line_says_whose_kvm_it_was() -> None:
    assert written("text", saved([made("pass")])).startswith("kvm_amd of Linux 6.1.0-1-amd64 on silicon: EPYC\n")
    nobody = HOST._replace(accel="")
    assert written("text", saved([made("pass")], host=nobody)).startswith("kvm_amd of Linux 6.1.0-1-amd64: EPYC\n")
    assert written("text", saved([made("pass")], host=LAB)).startswith("kvm_amd of Linux 6.1.0-1-amd64 in QEMU 9\n")


def test_a_finding_says_what_it_is_where_and_by_which_rule() -> None:
    text = written("text", saved([made("fail", "cr0"), made("pass")]))
    assert "FAIL  cr0 keeps the planted value after INIT\n" in text
    for part in ("planted 0x5000", "expected 0x0", "observed 0x5000", "SDM vol. 3"):
        assert part in text
    assert "cr3" not in text


def test_a_behaviour_is_titled_by_its_id_its_sequence_and_what_was_seen() -> None:
    exit_ = "KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_EMULATION ndata=1 insn=f4"
    case = Case("none.set-lapic/ap,timer", (("target", "ap"), ("sequence", "timer")))
    for verdict, deviation in (("fail", None), ("known", "set_target_expiration()")):
        one = record(verdict, "delivered")._replace(observed=exit_, deviation=deviation)
        text = written("text", saved([Observation(case, "none", "set-lapic", "guest", (Block((one,)),), 0.1)]))
        assert "none.set-lapic.guest.delivered, timer: KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_EMULATION\n" in text
        # The values have all of it.
        assert "insn=f4" in text


def test_values_that_do_not_fit_in_a_line_have_one_each_with_the_names_of_their_bits() -> None:
    one = record("fail", "lapic.tpr")._replace(planted=0xDA, expected=Expected((0xDA,)), observed=0xD0)
    text = written("text", saved([observation([one])]))
    assert "FAIL  lapic.tpr has bits 0xa wrong after INIT\n" in text
    assert "      values   planted 0xda (class=0xd|subclass=0xa)\n               expected 0xda (class=0xd|subclass=0xa)\n" in text
    assert "               observed 0xd0 (class=0xd)\n               differs subclass\n" in text
    assert "      values   planted 0x5000, expected 0x0, observed 0x5000\n" in written("text", saved([made("fail", "cr2")]))


def test_what_was_observed_is_whole_on_a_narrow_terminal() -> None:
    long = "what the guest did next " * 8 + "the end"
    text = written("text", saved([observation([record("fail", "runs", long)._replace(observed=long)])]))
    assert text.count("the end") == 3 and max(map(len, text.splitlines())) <= 100


def test_the_same_failure_of_many_cases_and_triggers_is_one() -> None:
    seen = [made("fail", words=f"ap,case-{i}", where=("init", trigger, "host")) for i in range(9) for trigger in ("msi", "irqfd")]
    text = written("text", saved(seen))
    assert text.count("FAIL") == 2 and "18 results in 0.5 s: 1 finding (18 results)" in text and "both triggers" in text


def test_what_is_listed_is_said_where_nobody_has_admitted_it() -> None:
    """A known deviation that is open stands among the findings; others are counted, and shown by --verbose."""
    open_ = record("known", "fcw")._replace(deviation="fpstate_init_user()")
    run = saved([observation([open_, record("known", "rdx")._replace(deviation="665f4d9238ad")])])
    text = written("text", run)
    assert "OPEN  fcw" in text and "rdx" not in text and "1 more departure, " in text and "nothing unexpected" in text
    out = io.StringIO()
    play(run, Gatherer(Text(out, progress=io.StringIO(), verbose=True)))
    assert "KNOWN rdx" in out.getvalue()


def _closing(*seen: Observation, host: Host = HOST) -> list[str]:
    """The end of the report, after the findings."""
    return written("text", saved(seen, host=host)).rpartition("\n\n")[2].splitlines()


def test_the_end_names_each_failure_and_the_commands_that_follow() -> None:
    fails = [made("fail", "cr4", where=("init", trigger, "host")) for trigger in ("msi", "irqfd", "msi")]
    error = made("error", "rax", reason="KVM_RUN: no exit within 1 s\nmore", where=("init", "self", "guest"))
    slept = observation([Record("refused", Verdict.FAIL, None, Expected(("EINVAL",)), "accepted")], where=("sipi", "msi", "host"))
    assert _closing(*fails, error, made("pass"), slept) == [
        "ERROR init.self.guest: KVM_RUN: no exit within 1 s",
        "        kvmtest run init.self.guest.rax/ap,xapic,plant-a",
        "FAIL  cr4 keeps the planted value after INIT",
        "        kvmtest run init.msi.host.cr4/ap,xapic,plant-a",
        "FAIL  sipi.msi.host.refused: accepted",
        "        kvmtest run sipi.msi.host.refused/ap,intel,xapic,plant-a",
        "6 results in 0.5 s: 3 findings (5 results)",
        "The rule of the first one: kvmtest explain rax",
    ]


def test_the_end_of_a_lab_names_the_labs_command() -> None:
    log = Observation(None, "none", "lab", "kernel", (Block((Record("log", Verdict.FAIL, reason="WARN"),)),))
    lines = _closing(log, host=LAB)
    assert "        kvmtest lab run --backend svm --kernel 6.1.0-1-amd64 none.lab.kernel.log" in lines


def test_nothing_unexpected_is_the_end_where_it_is_so() -> None:
    assert _closing(made("pass"), made("info"), made("skip")) == ["3 results in 0.5 s: nothing unexpected"]


def test_a_reason_keeps_its_numbers_and_those_that_differ_in_them_share_a_line() -> None:
    def skipped(*reasons: str) -> str:
        out = io.StringIO()
        seen = [made("skip", f"cr{number}", reason=reason) for number, reason in enumerate(reasons)]
        play(saved(seen), Gatherer(Text(out, progress=io.StringIO(), verbose=True)))
        return out.getvalue()

    assert "  KVM_SET_MSRS refused 0x1 for MSR 0x10 (init.msi.host.cr0)\n" in skipped("KVM_SET_MSRS refused 0x1 for MSR 0x10")
    both = skipped("KVM_SET_MSRS refused 0x1 for MSR 0x10", "KVM_SET_MSRS refused 0x2 for MSR 0x11")
    assert "  KVM_SET_MSRS refused 0x1 for MSR 0x10, or with other numbers (2 ids, e.g. init.msi.host.cr0)\n" in both


def test_an_interrupted_run_says_so() -> None:
    run = saved([made("pass")])
    assert "1 result in 0.5 s, interrupted: nothing unexpected" in written("text", run._replace(interrupted=True))
    assert "1 result in 0.5 s, cut short: nothing unexpected" in written("text", run._replace(interrupted=None))


def test_a_cap_hides_no_kind() -> None:
    slow = [made("error", f"r{i}", f"ap,case-{i}", reason=f"because {'x' * i}") for i in range(40)]
    kept = [made("fail", f"f{i}", f"ap,fail-{i}", where=("init", f"t{i}", "host")) for i in range(5)]
    text = written("text", saved([*slow, *kept]))
    assert 30 <= text.count("\nERROR init") <= 80 and "FAIL" in text
    assert "more findings; --format html or json has them all" in text


def test_totals_are_in_the_order_of_events_triggers_and_views() -> None:
    keys = [("sipi", "msi", "host"), ("init", "msi", "views"), ("init", "msi", "host"), ("reset", "create", "host"),
            ("none", "mp-state", "host"), ("init", "irqfd", "guest")]  # fmt: skip
    out = io.StringIO()
    play(saved([made("pass", where=key) for key in keys]), Gatherer(Text(out, progress=io.StringIO(), verbose=True)))
    rows = [line.split()[0] for line in out.getvalue().split("event.trigger.view")[1].splitlines()[1:7]]
    order = [("reset", "create", "host"), ("init", "irqfd", "guest"), ("init", "msi", "host"), ("init", "msi", "views")]
    assert rows == [".".join(key) for key in (*order, ("sipi", "msi", "host"), ("none", "mp-state", "host"))]


class _Pty:
    """A terminal of so many columns, and what was written to it."""

    def __init__(self, wide: int) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, wide, 0, 0))
        self.out: TextIO = os.fdopen(theirs, "w")
        self._read = b""
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        try:
            while data := os.read(self._ours, 65536):
                self._read += data
        except OSError:  # nobody has the other end open any more
            pass

    def text(self) -> str:
        """All of it; closes the terminal."""
        self.out.close()
        self._reader.join(30)
        os.close(self._ours)
        return self._read.decode().replace("\r\n", "\n")


@pytest.fixture
def colourful(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment that has nothing against colour."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    yield monkeypatch


_TRIGGERS = ("latched", "msi", "gsi-msi", "irqfd", "ioapic", "split", "icr-xapic", "icr-x2apic", "self", "triple-fault")
_SLOW = "the guest reported nothing: after 0 of 18 port writes: KVM_RUN: no exit within 1 s (vcpu 1, INIT_RECEIVED); "
_CASE = "ap,intel,full-irqchip,xapic,plant-guest-long,in-loop"
_WRONG = [record("fail", f"msr.item_{i}") for i in range(40)]
_LONG = [
    *(observation(_WRONG, _CASE, ("init", trigger, "host")) for trigger in _TRIGGERS),
    made("skip", reason="KVM_SET_SREGS kept CR0 0x33 when 0x80000033 was asked for, in 32-bit protected mode; " * 3),
    made("error", "rax", reason=_SLOW * 2),
]


def _commands(text: str) -> list[str]:
    """The lines that are there to be copied, whatever their length."""
    return [line for line in text.split("\n") if "kvmtest run " in line or "kvmtest lab run " in line]


@pytest.mark.parametrize("wide", [80, 100, 132])
def test_a_report_is_as_wide_as_the_terminal(wide: int, colourful: pytest.MonkeyPatch) -> None:
    pty = _Pty(wide)
    host = LAB._replace(lab={"emulator": "QEMU 9", "cpu": "max", "kernel_source": "/a/kernel with spaces, modules of /b " * 4})
    play(saved(_LONG, host=host), Gatherer(Text(pty.out, progress=io.StringIO(), verbose=True)))
    shown = _COLOUR.sub("", pty.text())
    commands = _commands(shown)
    others = [line for line in shown.split("\n") if line not in commands]
    assert max(map(len, others)) <= wide and commands
    # Nothing breaks within a word.
    words = {word for line in others for word in re.split(r"[\s,]+", line)}
    assert {"msr.item_0", "protected"} <= words and "KVM_SET_SREGS kept CR0" in shown


def test_no_terminal_is_100_columns_wide(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w") as out:
        assert columns(out) == columns(_Terminal()) == 100
    text = written("text", saved(_LONG))
    assert max(len(line) for line in text.splitlines() if line not in _commands(text)) <= 100
    narrow, none = _Pty(7), _Pty(0)
    assert (columns(narrow.out), columns(none.out)) == (40, 100)
    narrow.text(), none.text()


def test_a_word_that_is_too_long_stays_whole() -> None:
    assert wrapped("a,b cc,dd " + "x" * 30, 9, "- ", "  ") == "- a,b\n  cc,dd\n  " + "x" * 30
    assert wrapped("aaa,bbb,c|dd e", 11, "- ", "  ") == "- aaa,bbb,\n  c|dd e"


@pytest.mark.parametrize(
    ("set", "colour", "painted"),
    [({}, "auto", True), ({"NO_COLOR": "1"}, "auto", False), ({"NO_COLOR": ""}, "auto", True), ({"TERM": "dumb"}, "auto", False),
     ({}, "never", False), ({"NO_COLOR": "1", "TERM": "dumb"}, "always", True)],
)  # fmt: skip
def test_colour_is_what_the_terminal_and_its_user_take(
    set: dict[str, str], colour: str, painted: bool, colourful: pytest.MonkeyPatch
) -> None:
    for name, value in set.items():
        colourful.setenv(name, value)
    out = _Terminal()
    play(saved([made("fail")]), Gatherer(Text(out, progress=io.StringIO(), colour=colour)))
    assert ("\x1b[" in out.getvalue()) == painted
    plain = io.StringIO()
    play(saved([made("fail")]), Gatherer(Text(plain, progress=io.StringIO(), colour=colour)))
    assert ("\x1b[" in plain.getvalue()) == (colour == "always")


@pytest.mark.parametrize("rich", [True, False])
def test_the_progress_stays_in_its_line(rich: bool, colourful: pytest.MonkeyPatch) -> None:
    if not rich:
        colourful.setitem(sys.modules, "rich.console", None)
    pty = _Pty(60)
    text = Text(io.StringIO(), progress=pty.out)
    text.begin(_HEAD, 10)
    for i in range(10):
        text.case(Case(f"init.msi/case-{i}," + "x" * 200))
        text.observed([made("pass")])
    text.end(_END)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", pty.text())
    lines = re.split("[\r\n]", shown)
    assert any("10" in line and "case-9" in line for line in lines) and max(map(len, lines)) <= 60


def test_progress_goes_to_a_terminal_and_is_wiped(colourful: pytest.MonkeyPatch) -> None:
    terminal, out = _Terminal(), io.StringIO()
    text = Text(out, progress=terminal)
    text.begin(_HEAD, 2)
    text.case(Case("init.msi/some-case"))
    text.observed([made("pass")])
    text.end(_END)
    assert "/2" in terminal.getvalue() and "some-case" not in out.getvalue()


def test_a_dumb_terminal_has_no_progress(colourful: pytest.MonkeyPatch) -> None:
    colourful.setenv("TERM", "dumb")
    terminal = _Terminal()
    text = Text(io.StringIO(), progress=terminal)
    text.begin(_HEAD, 1)
    text.case(Case("a case"))
    text.end(_END)
    assert terminal.getvalue() == ""
