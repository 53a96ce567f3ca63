# SPDX-License-Identifier: GPL-2.0-only
"""The initramfs that the lab's kernels boot."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kvmtest import guests
from kvmtest.engine import native
from kvmtest.lab import cache, initramfs
from kvmtest.lab.modules import Module


def _entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Path -> mode and contents of a `newc` archive, read as the kernel does."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while archive[at : at + 6] == b"070701":
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 109 + name_size].decode()
        start = at + (110 + name_size + 3 & ~3)
        if name == "TRAILER!!!":
            assert not archive[start:].strip(b"\0")
            return found
        found[name] = (mode, archive[start : start + size])
        at = start + (size + 3 & ~3)
    raise AssertionError("no trailer")


@pytest.fixture
def base(lab_cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, bytes]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(lab_cache))
    return _entries(Path(initramfs.base()).read_bytes())


def test_the_base_has_the_engine_compiled_and_no_more_than_is_imported(base: dict[str, tuple[int, bytes]]) -> None:
    assert {"lab/kvmtest/lab/inside.pyc", "lab/kvmtest/engine/run.pyc"} <= base.keys()
    assert {f"lab/kvmtest/guests/{name}.{kind}" for name in guests.IMAGES for kind in ("bin", "sym")} <= base.keys()
    assert ("lab/kvmtest/guests/runner.so" in base) == (native.library() is not None)
    assert not [name for name in base if name.endswith(".py")]
    assert not [name for name in base if "/argparse" in name or "/cli." in name or "/report/" in name]


def test_every_file_has_its_folders_and_links_lead_somewhere(base: dict[str, tuple[int, bytes]]) -> None:
    for name, (mode, content) in base.items():
        assert os.path.dirname(name) in ("", *base)
        if stat.S_ISLNK(mode):
            target = os.path.normpath(os.path.join("/", os.path.dirname(name), content.decode())).strip("/")
            first, _, rest = target.partition("/")
            if stat.S_ISLNK(base[first][0]):
                target = f"{base[first][1].decode()}/{rest}"
            assert target in base, name


def test_the_interpreter_runs_without_its_sections(base: dict[str, tuple[int, bytes]], tmp_path: Path) -> None:
    python = os.path.realpath(sys.executable)
    copy = tmp_path / "python"
    copy.write_bytes(base[python.strip("/")][1])
    copy.chmod(0o755)
    environment = {"PYTHONHOME": sys.base_prefix}
    done = subprocess.run([copy, "-Sc", "print(6 * 7)"], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout == "42\n", done.stderr


def test_the_base_is_built_once(base: dict[str, tuple[int, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    def again() -> bytes:
        raise AssertionError("built again")

    monkeypatch.setattr(initramfs, "_build", again)
    assert os.path.exists(initramfs.base())


def test_a_cell_adds_modules_and_its_own_init() -> None:
    config: dict[str, object] = {"cases": [3], "timeout_s": 1.0}
    entries = _entries(initramfs.cell([Module("kvm", b"code"), Module("kvm_amd", b"more")], {"kvm_amd": "npt=0"}, config))
    assert entries["modules/kvm.ko"][1] == b"code"
    mode, init = entries["init"]
    assert init.startswith(b"#!/") and mode & 0o111
    assert b"('kvm_amd', 'npt=0')" in init and b"'cases': [3]" in init
    assert initramfs.cell([], {}, config) == initramfs.cell([], {}, config)


def test_only_the_newest_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for i in range(8):
        path = cache.file("initramfs", f"{i}", lambda: b"x")
        os.utime(path, (i, i))
    assert sorted(os.listdir(os.path.dirname(path))) == ["4", "5", "6", "7"]


def test_a_file_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ZeroDivisionError):
        cache.file("initramfs", "x", lambda: bytes(1 // 0))
    assert list((tmp_path / "kvmtest" / "initramfs").iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    code = "import os, sys\nfrom kvmtest.lab import cache\nwith cache.workspace(sys.argv[1], 'x-'): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    assert len(list(tmp_path.iterdir())) == 1
    with cache.workspace(str(tmp_path), "x-") as mine, cache.workspace(str(tmp_path), "x-") as other:
        assert {Path(mine), Path(other)} == set(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_lost_what_was_in_it_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = Path(cache.file("initramfs", "x", lambda: b"whole"))
    path.write_bytes(b"")
    assert Path(cache.file("initramfs", "x", lambda: b"whole again")).read_bytes() == b"whole again"
