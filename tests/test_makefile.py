# SPDX-License-Identifier: GPL-2.0-only
"""`make run` where this user has no /dev/kvm: it says so first, and installs and emulates nothing."""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
from pathlib import Path

import pytest

_MAKEFILE = (Path(__file__).parents[1] / "Makefile").read_text()
#: nobody and nogroup on Debian; any ids that own nothing do.
_NOBODY = 65534


def _make(*arguments: str, user: int | None = None, path: str = "") -> subprocess.CompletedProcess[str]:
    if not shutil.which("make"):
        pytest.skip("make is not here")
    environment = {"PATH": path or os.environ["PATH"]}
    return subprocess.run(
        [shutil.which("make") or "make", "-f", "-", *arguments],
        input=_MAKEFILE, cwd="/", env=environment, user=user, group=user, extra_groups=None if user is None else [],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def _tools(folder: Path) -> str:
    """A $PATH with what any system has, and without what `make run` needs."""
    for name in ("sh", "stat", "id", "sed"):
        (folder / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    return str(folder)


def test_no_device_is_said_before_anything_that_is_missing(tmp_path: Path) -> None:
    done = _make("run", "DEVICE=/nonexistent/kvm", path=_tools(tmp_path))
    assert done.returncode == 2 and done.stdout == ""
    first, second, *_ = done.stderr.splitlines()
    assert first.startswith("make: /nonexistent/kvm: no such device") and "modprobe" in first
    assert second.endswith("make run-in-lab") and "apt-get" not in done.stderr


@pytest.mark.parametrize(
    ("mode", "group", "says"),
    [(0o660, 1, "sudo adduser {user} {group}, then log in again"), (0o600, 1, "only root may open it"),
     (0o660, 0, "only root may open it")],
)  # fmt: skip
def test_no_permission_says_whom_to_join(mode: int, group: int, says: str) -> None:
    if os.geteuid():
        pytest.skip("only root can ask as another user")
    device = Path(f"/tmp/kvmtest-device-{os.getpid()}")  # not below tmp_path, which root alone may enter
    device.touch()
    try:
        os.chown(device, 0, group)
        device.chmod(mode)
        done = _make("run", f"DEVICE={device}", user=_NOBODY)
        user = subprocess.run(["id", "-un", str(_NOBODY)], capture_output=True, text=True).stdout.strip()
        assert done.returncode == 2 and done.stdout == ""
        first, second, *_ = done.stderr.splitlines()
        assert first.startswith(f"make: {device}: permission denied: ")
        assert says.format(user=user, group=grp.getgrgid(group).gr_name) in first
        assert second.endswith("make run-in-lab") and "apt-get" not in done.stderr
        device.chmod(0o666)
        assert _make("device", f"DEVICE={device}", user=_NOBODY).returncode == 0
    finally:
        device.unlink()


def test_what_is_missing_is_one_whole_command(tmp_path: Path) -> None:
    done = _make("system", path=_tools(tmp_path))
    command = "sudo apt-get update && sudo apt-get install -y --no-install-recommends python3 python3-venv binutils"
    assert done.returncode == 2 and f"needed first: {command}\n" in done.stderr


def test_a_compiler_is_installed_before_what_it_compiles() -> None:
    rules = [line.partition(":")[2].split() for line in _MAKEFILE.splitlines() if line[:1].isalpha() and ": " in line]
    both = [needs for needs in rules if {"compiler", "guests"} <= {*needs}]
    assert len(both) > 3 and all(needs.index("compiler") < needs.index("guests") for needs in both)


def test_guests_that_are_there_are_no_news() -> None:
    done = subprocess.run(["make", "-C", str(Path(__file__).parents[1]), "guests"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Nothing to be done" not in done.stdout
