# SPDX-License-Identifier: GPL-2.0-only
"""The text report: what a file holds reaches no terminal as a command."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings

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
