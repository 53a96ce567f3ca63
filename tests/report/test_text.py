# SPDX-License-Identifier: GPL-2.0-only
"""The text report: what a file holds reaches no terminal as a command."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings

from kvmtest.engine.result import Host, Result
from kvmtest.report.saved import Saved, write
from kvmtest.report.show import difference, named, printable, repeat, short
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
