# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers as programs: by the host's C compiler, with all warnings being errors."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ("built", "ended", "parsed")

_FLAGS = ("-Wall", "-Wextra", "-Werror", "-O2", "-pthread")


def _gcc(text: str, where: Path, *more: str) -> Path:
    gcc = shutil.which("gcc")
    if not gcc or not os.path.exists("/usr/include/linux/kvm.h"):
        pytest.skip("gcc and <linux/kvm.h> are needed: apt-get install gcc libc6-dev linux-libc-dev")
    source, program = where / "repro.c", where / "repro"
    source.write_text(text)
    done = subprocess.run([gcc, *_FLAGS, *more, "-o", str(program), str(source)], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr + text
    return program


def built(text: str, where: Path) -> Path:
    """The program that the C file ``text`` becomes, in folder ``where``; skips the test where there is no compiler."""
    return _gcc(text, where)


def parsed(text: str, where: Path) -> None:
    """Have the compiler find no fault with ``text``; skips the test where there is none."""
    _gcc(text, where, "-fsyntax-only")


def ended(program: Path) -> tuple[int, str]:
    """The exit status of ``program``, and what it said."""
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout
