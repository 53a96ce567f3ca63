# SPDX-License-Identifier: GPL-2.0-only
"""The program inside, as far as it can be tried outside."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from kvmtest.lab import inside
from kvmtest.lab.stream import Decoder, Encoder

#: The main thread ends alone, as where the kernel kills it in a system call: nothing of Python gets to know.
_MAIN_DIES = """
import ctypes, os, sys, threading, time
from kvmtest.lab import inside
from kvmtest.lab.stream import Encoder
inside._BEAT_S = 0.02
beats = 0
def write(data):
    global beats
    beats += 1
    os.write(1, data)
threading.Thread(target=inside._beat, args=(Encoder(write),), daemon=True).start()
while beats < 3:
    time.sleep(0.01)
os.write(1, b"")
ctypes.CDLL(None).syscall(60, 0)  # exit(2), of this thread
"""


def test_signs_of_life_end_with_the_thread_that_works() -> None:
    """And the process with them, at which the kernel panics if it is process 1."""
    done = subprocess.run([sys.executable, "-c", _MAIN_DIES], capture_output=True, timeout=60)
    assert done.returncode == 0 and not done.stderr
    beats = zlib.decompressobj().decompress(done.stdout).splitlines()
    assert len(beats) >= 3 and set(beats) == {b"h"}


class _Kernel:
    """Loads modules: each has sections, and the recorder a file, which has a word more after each."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loaded = folder / "module"
        self.recorder = folder / "kvmcov"
        monkeypatch.setattr(inside, "_LOADED", str(self.loaded))
        monkeypatch.setattr(inside, "KVMCOV", str(self.recorder))
        monkeypatch.setattr(inside, "_load", self.load)

    def load(self, name: str, parameters: str, out: Encoder, log: Any) -> None:
        out.line("M", name)
        sections = self.loaded / name / "sections"
        sections.mkdir(parents=True)
        for section in (".text", ".init.text", ".text.unlikely", ".data", ".noinstr.text"):
            (sections / section).write_text(f"{len(section):#018x}\n")
        if name == "kvmcov":
            self.recorder.touch()
        elif self.recorder.exists():
            with self.recorder.open("ab") as file:
                file.write(struct.pack("<QQ", 64 * len(name), 1))


def _config(*modules: str, coverage: bool = True) -> inside.Config:
    loaded = [(name, "") for name in modules]
    return {"modules": loaded, "cases": [], "timeout_s": 1.0, "stress_rounds": (1, 1), "coverage": coverage}


def _said(config: inside.Config) -> tuple[Any, list[tuple[str, list[Any]]]]:
    sent = bytearray()
    out = Encoder(sent.extend)
    hits = inside._load_all(config, out, None)  # type: ignore[arg-type]
    out.flush()
    return hits, list(Decoder().feed(bytes(sent)))


def test_what_loading_executes_is_reported_module_by_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module may get the place of code that another one ran once."""
    _Kernel(tmp_path, monkeypatch)
    hits, said = _said(_config("irqbypass", "kvmcov", "kvm", "kvm_amd"))
    assert hits and [letter for letter, _ in said] == [*"MMM", *"SSSK", "M", *"SSSK"]
    assert [fields for letter, fields in said if letter == "S"][:3] == [
        ["kvm", ".noinstr.text", f"{13:#018x}"],
        ["kvm", ".text", f"{5:#018x}"],
        ["kvm", ".text.unlikely", f"{14:#018x}"],
    ]
    assert [fields for letter, fields in said if letter == "K"] == [[struct.pack("<QQ", 64 * n, 1)] for n in (3, 7)]


def test_modules_that_record_nothing_end_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = _Kernel(tmp_path, monkeypatch)
    with pytest.raises(inside._Failed, match="these modules of KVM do not record what they execute"):
        _said(_config("kvm", "kvm_amd"))
    monkeypatch.setattr(inside, "KVMCOV", str(kernel.recorder / "not"))
    with pytest.raises(inside._Failed, match="kvmcov/not: .*these modules of KVM do not record"):
        _said(_config("kvmcov"))


def test_code_is_new_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, sent = _Kernel(tmp_path, monkeypatch), bytearray()
    kernel.recorder.touch()
    hits = inside._Hits(Encoder(sent.extend))
    ran = ((64, 1), (64, 1), (64, 3), (128, 1), (64, 0))
    found = []
    for word in ran:
        with kernel.recorder.open("ab") as file:
            file.write(struct.pack("<QQ", *word))
        found.append(hits.new())
    assert found == [True, False, True, True, False] and not hits.new()
    hits._out.flush()
    said = [fields for letter, fields in Decoder().feed(bytes(sent)) if letter == "K"]
    assert said == [[struct.pack("<QQ", *word)] for word in ran] + [[b""]]


def test_without_coverage_nothing_of_it_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Kernel(tmp_path, monkeypatch)
    hits, said = _said(_config("kvmcov", "kvm", coverage=False))
    assert hits is None and {letter for letter, _ in said} == {"M"}
