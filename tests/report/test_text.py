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

from kvmtest.engine.result import CaseTime, Host, Result
from kvmtest.report.saved import Saved, write
from kvmtest.report.show import columns, difference, named, printable, repeat, short, wrapped
from kvmtest.report.text import Text
from tests.report.samples import HOST, HOSTILE, LAB, made, saved, saved_runs, written

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@settings(max_examples=50)
@given(saved_runs())
def test_any_run_prints(runs: list[Saved]) -> None:
    text = written("text", *runs)
    assert all(line.isprintable() for line in text.split("\n"))
    for run in runs:
        terminal = _Terminal()
        write(run, Text(terminal, progress=io.StringIO()))
        assert all(line.isprintable() for line in _COLOUR.sub("", terminal.getvalue()).split("\n"))


@pytest.mark.parametrize("text", HOSTILE)
def test_printable_is_one_line_and_keeps_what_prints(text: str) -> None:
    assert printable(text).isprintable()
    assert printable("a\u00e9 \u4e2d|") == "a\u00e9 \u4e2d|" and printable("\x1b[31m\ttab") == r"\x1b[31m tab"


def test_values_that_are_no_numbers() -> None:
    for value in ("0xzz", "0x", "0x1|0x2", "RUNNABLE", "-0x1"):
        assert short(value) == value == named("cr0", value) and difference("cr0", value, "0x1") == ""


def test_the_command_that_repeats_it() -> None:
    assert repeat(HOST, "init.msi.host.cr0") == "kvmtest run init.msi.host.cr0"
    assert repeat(LAB, "init.x.y.z") == "kvmtest lab run --backend svm --kernel 6.1.0-1-amd64 init.x.y.z"
    own = LAB._replace(lab={"emulator": "", "cpu": "", "kernel_source": "/boot/a kernel, modules of /my kvm"})
    assert repeat(own, "a") == "kvmtest lab run --backend svm --kernel '/boot/a kernel' --kvm-modules '/my kvm' a"


def test_a_log_of_many_lines_keeps_them() -> None:
    text = written("text", saved([made("fail", reason="kernel BUG\n\x1b[0mRIP")]))
    assert "      because   kernel BUG\n                \\x1b[0mRIP\n" in text


def test_the_first_line_says_whose_kvm_it_was() -> None:
    on_silicon = saved([made("pass")])._replace(accel="silicon")
    assert written("text", on_silicon).startswith("kvm_amd of Linux 6.1.0-1-amd64 on silicon: EPYC\n")
    assert written("text", saved([made("pass")])).startswith("kvm_amd of Linux 6.1.0-1-amd64: EPYC\n")
    assert written("text", saved([made("pass")], host=LAB)).startswith("kvm_amd of Linux 6.1.0-1-amd64 in QEMU 9\n")


def _closing(*results: Result, host: Host = HOST) -> list[str]:
    """The end of the report, after the totals."""
    return written("text", saved(results, host=host)).rpartition("\n\n")[2].splitlines()


def test_the_end_names_each_failure_and_the_commands_that_follow() -> None:
    fails = [made("fail", "cr4", where=("init", trigger, "host")) for trigger in ("msi", "irqfd", "msi")]
    error = made("error", "rax", reason="KVM_RUN: no exit within 1 s\nmore", where=("init", "self", "guest"))
    assert _closing(*fails, error, made("pass"), made("fail", "runs", reason="it slept", where=("sipi", "msi", "host"))) == [
        "ERROR init.self.guest.rax      1  KVM_RUN: no exit within 1 s",
        "FAIL  init.*.host.cr4          3  0x5000, not 0x0",
        "FAIL  sipi.msi.host.runs       1  0x5000, not 0x0",
        "6 results in 0.5 s: 2 failures and 1 error (5 results)",
        "  run it again:  kvmtest run 'init.*.host.cr4'",
        "  explain it:    kvmtest explain cr4",
    ]


def test_the_end_of_a_lab_names_the_labs_command() -> None:
    *_, again, explain = _closing(made("fail", "log", reason="WARN", where=("none", "lab", "kernel")), host=LAB)
    assert again == "  run it again:  kvmtest lab run --backend svm --kernel 6.1.0-1-amd64 none.lab.kernel.log"
    assert explain == "  explain it:    kvmtest explain none.lab.kernel.log"


def test_nothing_unexpected_is_the_end_where_it_is_so() -> None:
    assert _closing(made("pass"), made("known"), made("skip")) == ["3 results in 0.5 s: nothing unexpected"]


def test_what_the_end_leaves_out_is_counted_for_each_verdict() -> None:
    fails = [made("fail", f"r{i}") for i in range(40)]
    errors = [made("error", f"r{i}", reason=f"because {i}") for i in range(13)]
    lines = _closing(*fails, *errors)
    assert sum(line.startswith("FAIL  ") for line in lines) == sum(line.startswith("ERROR ") for line in lines) == 12
    assert "      and 28 failures more; all are above" in lines and "      and 1 error more; all are above" in lines
    assert len(lines) < 40 and "40 failures and 13 errors (53 results)" in lines[-3]


def test_totals_are_in_the_order_of_events_triggers_and_views() -> None:
    keys = [("sipi", "msi", "host"), ("init", "msi", "views"), ("init", "msi", "host"), ("reset", "create", "host"),
            ("none", "mp-state", "host"), ("init", "irqfd", "guest")]  # fmt: skip
    text = written("text", saved([made("pass", where=key) for key in keys]))
    rows = [line.split()[0] for line in text.split("event.trigger.view")[1].splitlines()[1:7]]
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
_SLOW = "the guest told nothing: after 0 of 18 port writes: KVM_RUN: no exit within 1 s (vcpu 1, INIT_RECEIVED); "
_CASE = "ap,intel,full-irqchip,xapic,plant-guest-long,in-loop"
_LONG = [
    *(made("fail", "msr.fs_base", _CASE, where=("init", trigger, "host")) for trigger in _TRIGGERS),
    made("skip", reason="KVM_SET_SREGS kept CR0 0x33 when 0x80000033 was asked for, in 32-bit protected mode; " * 3),
    made("error", "rax", reason=_SLOW * 2),
]


@pytest.mark.parametrize("wide", [80, 100, 132])
def test_a_report_is_as_wide_as_the_terminal(wide: int, colourful: pytest.MonkeyPatch) -> None:
    pty = _Pty(wide)
    host = LAB._replace(lab={"emulator": "QEMU 9", "cpu": "max", "kernel_source": "/a/kernel with spaces, modules of /b " * 4})
    write(saved(_LONG, host=host), Text(pty.out, progress=io.StringIO()))
    shown = _COLOUR.sub("", pty.text())
    commands = [line for line in shown.split("\n") if line.startswith(("  run it again:", "  explain it:"))]
    others = [line for line in shown.split("\n") if line not in commands]
    assert max(map(len, others)) <= wide and len(commands) == 2
    # Titles break after a comma, and nothing breaks within a word.
    assert "FAIL  init.{latched," in shown and f"init.{{{','.join(_TRIGGERS)}}}.host.msr.fs_base" in re.sub(r"\s+", "", shown)
    words = {word for line in others for word in re.split(r"[\s,]+", line)}
    assert {"icr-x2apic", "gsi-msi", "plant-guest-long", "protected"} <= words


def test_no_terminal_is_100_columns_wide(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w") as out:
        assert columns(out) == columns(_Terminal()) == 100
    assert max(len(line) for line in written("text", saved(_LONG)).splitlines()) <= 100
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
    write(saved([made("fail")]), Text(out, progress=io.StringIO(), colour=colour))
    assert ("\x1b[" in out.getvalue()) == painted
    plain = io.StringIO()
    write(saved([made("fail")]), Text(plain, progress=io.StringIO(), colour=colour))
    assert ("\x1b[" in plain.getvalue()) == (colour == "always")


@pytest.mark.parametrize("rich", [True, False])
def test_the_progress_stays_in_its_line(rich: bool, colourful: pytest.MonkeyPatch) -> None:
    if not rich:
        colourful.setitem(sys.modules, "rich.console", None)
    pty = _Pty(60)
    text = Text(io.StringIO(), progress=pty.out)
    text.begin(HOST, "", 10)
    for i in range(10):
        text.running(f"init.msi.host/case-{i}," + "x" * 200)
        text.case(CaseTime("", 0.1))
    text.end(1.0, Counter())
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", pty.text())
    lines = re.split("[\r\n]", shown)
    assert any("10" in line and "case-9" in line for line in lines) and max(map(len, lines)) <= 60


def test_a_dumb_terminal_has_no_progress(colourful: pytest.MonkeyPatch) -> None:
    colourful.setenv("TERM", "dumb")
    terminal = _Terminal()
    text = Text(io.StringIO(), progress=terminal)
    text.begin(HOST, "", 1)
    text.running("a case")
    text.end(1.0, Counter())
    assert terminal.getvalue() == ""
