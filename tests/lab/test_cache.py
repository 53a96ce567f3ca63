# SPDX-License-Identifier: GPL-2.0-only
"""Work folders and locks, in a folder that others use and write to, too."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmtest.lab import cache

_PREFIX = "kvmtest-lab-"


@pytest.fixture
def alarm() -> Iterator[None]:
    """Ends what waits for ever."""

    def over(number: int, frame: object) -> None:
        raise TimeoutError("it waits for ever")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _left(folder: Path, name: str = "left") -> Path:
    """A folder as a killed process leaves it."""
    left = folder / f"{_PREFIX}{name}"
    left.mkdir()
    (left / ".lock").touch()
    return left


def test_what_a_killed_process_left_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    left, used = _left(tmp_path), _left(tmp_path, "used")
    with open(used / ".lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with cache.workspace(str(tmp_path), _PREFIX):
            assert used.exists() and not left.exists()


def test_a_fifo_in_the_place_of_a_lock_is_not_waited_for(tmp_path: Path, alarm: None) -> None:
    other = tmp_path / f"{_PREFIX}other"
    other.mkdir()
    os.mkfifo(other / ".lock")
    with cache.workspace(str(tmp_path), _PREFIX):
        assert other.exists()


def test_a_link_in_the_place_of_a_folder_or_of_a_lock_leads_nowhere(tmp_path: Path) -> None:
    (outside := tmp_path / "outside").mkdir()
    left = _left(outside)
    (tmp_path / f"{_PREFIX}link").symlink_to(left)
    (other := tmp_path / f"{_PREFIX}other").mkdir()
    (other / ".lock").symlink_to(left / ".lock")
    with cache.workspace(str(tmp_path), _PREFIX):
        assert left.exists() and other.exists()


def test_what_another_user_made_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = _left(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with cache.workspace(str(tmp_path), _PREFIX):
        assert left.exists()


def test_a_fifo_in_the_place_of_a_named_lock_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alarm: None
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    os.makedirs(cache.home())
    os.mkfifo(os.path.join(cache.home(), "apt-x.lock"))
    with pytest.raises(cache.LabError, match="cannot write to"), cache.locked("apt-x"):
        pass


def test_nobody_removes_a_folder_between_its_making_and_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else comes right then, finds no lock held, and removes it: another one is made."""
    flock, came = fcntl.flock, []

    def late(file: object, how: int) -> None:
        if how == fcntl.LOCK_EX and not came:
            came.append(how)
            for path in tmp_path.iterdir():
                cache._remove_left(str(path))
        flock(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr(cache.fcntl, "flock", late)
    with cache.workspace(str(tmp_path), _PREFIX) as made:
        assert came and os.path.isdir(made)
        assert [path.name for path in tmp_path.iterdir()] == [os.path.basename(made)]


def _work(folder: str, times: int) -> int:
    """Return the number of folders that another process removed."""
    lost = 0
    for _ in range(times):
        with cache.workspace(folder, _PREFIX) as made:
            time.sleep(0.0005)
            lost += not os.path.isdir(made)
    return lost


def test_many_at_once_remove_none_that_is_in_use(tmp_path: Path) -> None:
    children = []
    for _ in range(4):
        if not (pid := os.fork()):
            os._exit(min(_work(str(tmp_path), 100), 100))
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    assert list(tmp_path.iterdir()) == []


def test_who_waits_for_a_lock_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reported: list[str] = []
    with cache.locked("x", reported.append):
        if not (pid := os.fork()):
            said = list[str]()
            with cache.locked("x", lambda line: os._exit(7) if "waiting" in line else said.append(line)):
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert reported == []
