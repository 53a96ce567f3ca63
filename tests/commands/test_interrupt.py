# SPDX-License-Identifier: GPL-2.0-only
"""Signals end a run in order: whatever comes, and how often, each report is whole."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmtest.commands import common
from kvmtest.commands.common import Interrupt
from kvmtest.kvm import Kvm
from kvmtest.results import saved

#: A run of seconds in many short cases.
MANY = ("init", "reset")
ENDS = ("SIGINT", "SIGTERM", "SIGHUP")


def _start(out: Path, format: str, *arguments: str, **options: bool) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kvmtest", "run", "--format", format, "-o", str(out / "main"), *arguments]
    besides = [f"--report={name}={out / name}" for name in ("json", "jsonl") if name != format]
    return subprocess.Popen([*command, *besides], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, **options)  # type: ignore[call-overload, no-any-return]


def _wait_for_results(out: Path, process: subprocess.Popen[str], at_least: int = 1) -> None:
    """Wait until something is measured: JSON lines are flushed as they come."""
    path = out / "jsonl"
    while process.poll() is None and not (
        path.exists() and path.stat().st_size >= at_least and b'\n{"of":' in path.read_bytes()
    ):
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


def _whole(out: Path, format: str) -> int:
    """Count the results in the reports, each of which must be complete."""
    text = (out / "main").read_text()
    if format == "junit":
        assert ElementTree.fromstring(text).findall(".//testcase")
    elif format == "ktap":
        assert text.rstrip().split("\n")[-1].startswith(("ok ", "not ok ", "# Totals"))
    elif format == "text":
        assert " results in " in text
    path = out / "json" if format != "json" else out / "main"
    loader = saved.Loader()  # which keeps what is the same once
    (run,), (same,) = loader.load(str(path)), loader.load(str(out / "jsonl"))
    totals = json.loads(path.read_text())["runs"][0]["totals"]
    assert run.interrupted and run.observations == same.observations
    assert sum(totals.values()) == sum(1 for _ in run.results)
    return sum(totals.values())


@pytest.mark.parametrize("format", ["json", "text", "ktap", "junit"])
@pytest.mark.parametrize("name", ENDS)
def test_what_was_measured_is_in_every_report(name: str, format: str, kvm: Kvm, tmp_path: Path) -> None:
    process = _start(tmp_path, format, *MANY)
    _wait_for_results(tmp_path, process)
    process.send_signal(signal.Signals[name])
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "interrupted" in error and "Traceback" not in error
    assert _whole(tmp_path, format)


def test_a_signal_to_all_processes_of_a_run_ends_it_in_order(kvm: Kvm, tmp_path: Path) -> None:
    """As a terminal's Ctrl-C does."""
    process = _start(tmp_path, "json", "--jobs=3", *MANY, start_new_session=True)
    _wait_for_results(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and error.count("interrupted") == 2 and "Traceback" not in error
    assert _whole(tmp_path, "json")


def _two_signals(out: Path, format: str, rng: random.Random) -> None:
    process = _start(out, format, *MANY)
    _wait_for_results(out, process, rng.randrange(1, 1_500_000))
    for _ in range(rng.choice((2, 3))):
        if process.poll() is None:
            process.send_signal(signal.Signals[rng.choice(ENDS)])
        time.sleep(rng.choice((0, 0.0005, 0.002, 0.004, 0.008, 0.015, 0.03)))
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in error, error
    assert _whole(out, format)


@pytest.mark.parametrize("format", ["json", "text", "ktap", "junit"])
def test_several_signals_cut_nothing(format: str, kvm: Kvm, tmp_path: Path) -> None:
    for number in range(2):
        (folder := tmp_path / str(number)).mkdir()
        _two_signals(folder, format, random.Random(f"{format}/{number}"))


@pytest.mark.nightly
@pytest.mark.parametrize("format", ["json", "text", "ktap", "junit"])
def test_many_times_several_signals_cut_nothing(format: str, kvm: Kvm, tmp_path: Path) -> None:
    for number in range(30):
        (folder := tmp_path / str(number)).mkdir()
        _two_signals(folder, format, random.Random(f"{format}/many/{number}"))


def test_one_signal_ends_a_case_of_any_length(kvm: Kvm, tmp_path: Path) -> None:
    """With a limit of an hour for each KVM_RUN, and rounds for days."""
    process = _start(tmp_path, "json", "--timeout=3000", "--rounds=9999999", "reset.create.host.cr0", "sipi.icr-x2apic.host")
    _wait_for_results(tmp_path, process)
    time.sleep(0.3)  # into the rounds, most of the time; before them it is as good
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130 and _whole(tmp_path, "json")
    assert time.monotonic() - begin < 30


def test_what_was_ignored_stays_ignored(kvm: Kvm, tmp_path: Path) -> None:
    """As under nohup, or in the background of a script that ignores Ctrl-C."""
    out = tmp_path / "r.jsonl"
    command = f"trap '' INT HUP; exec {sys.executable} -m kvmtest run --format jsonl -o {out} init.msi.host"
    process = subprocess.Popen(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    while not (out.exists() and out.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    for number in (signal.SIGHUP, signal.SIGINT):
        process.send_signal(number)
    error = process.communicate(timeout=120)[1]
    assert process.returncode in (0, 1) and "interrupted" not in error


def test_a_signal_with_nothing_to_lose_ends_things_at_once() -> None:
    with Interrupt(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # nor does one more come in the way of how that ends


@pytest.fixture
def handlers() -> Iterator[None]:
    """As they were before, also after an interrupt."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_later_signal_raises_and_only_between_steps(
    handlers: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(common.time, "monotonic", lambda: now[0])

    def step() -> None:
        signal.raise_signal(signal.SIGINT)

    with Interrupt(running=True) as interrupt:
        for moment in (100.0, 100.03, 101.0):
            now[0] = moment
            assert list(interrupt.each(iter([1, 2]))) == [1, 2]
            step()
            assert interrupt.seen
        now[0] = 102.0
        step()  # while a record is being written
        now[0] = 104.0
        with pytest.raises(KeyboardInterrupt):
            for _ in interrupt.each(step() for _ in range(3)):
                raise AssertionError("the step came to its end")
    assert capfd.readouterr().err.count("interrupted") == 1
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # nor does one more change the status


class _Finalized:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def _finalize() -> None:
    _Finalized()
    time.sleep(60)


def test_an_interrupt_in_a_finalizer_comes_after_it(handlers: None, capfd: pytest.CaptureFixture[str]) -> None:
    """Python prints an exception in there, and goes on."""
    with Interrupt(), pytest.raises(KeyboardInterrupt):
        _finalize()
    assert not capfd.readouterr().err


def test_so_does_the_second_one_of_a_run(handlers: None, capfd: pytest.CaptureFixture[str]) -> None:
    with Interrupt(running=True) as interrupt:
        signal.raise_signal(signal.SIGINT)
        interrupt._last = None
        with pytest.raises(KeyboardInterrupt):
            list(interrupt.each(_finalize() for _ in range(1)))
    assert "Traceback" not in capfd.readouterr().err


def test_what_else_a_finalizer_raises_is_printed_as_ever(handlers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: seen.append(lost.exc_type))

    class Bad:
        def __del__(self) -> None:
            raise ValueError

    with Interrupt():
        Bad()
    Bad()
    assert seen == [ValueError, ValueError]


def test_once_all_is_written_a_signal_changes_nothing(handlers: None, capfd: pytest.CaptureFixture[str]) -> None:
    with Interrupt() as process:
        with Interrupt(running=True) as interrupt:
            interrupt.finish()
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert not interrupt.seen and not process.seen
    assert not capfd.readouterr().err


def test_a_signal_that_the_process_ignores_is_left_alone() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt(running=True) as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupt.seen
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
