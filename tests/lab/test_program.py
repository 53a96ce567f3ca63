# SPDX-License-Identifier: GPL-2.0-only
"""A program that the lab needs for a moment and that does not do its part is one line, not a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmtest.lab import emulator, program
from kvmtest.lab.error import LabError


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator and a grub-mkrescue that never end, and little patience."""
    for name in ("qemu-system-x86_64", "grub-mkrescue"):
        (tmp_path / name).write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(program, "_LONGEST_S", 0.2)


@pytest.mark.usefixtures("stuck")
def test_what_does_not_end_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"^qemu-system-x86_64 --version did not end within 0\.2 s$"):
        emulator.for_backend("svm").version()
    (tmp_path / "image").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    files = [str(tmp_path / name) for name in ("folder", "image", "image", "serial", "parallel")]
    with pytest.raises(LabError, match=r"^grub-mkrescue --compress=no did not end within 0\.2 s$"):
        emulator.for_backend("vmx").prepare(*files, "")


def test_what_does_not_start_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("nothing that can be executed")
    with pytest.raises(LabError, match="file does not start: Permission denied"):
        program.run([str(tmp_path / "file")])
