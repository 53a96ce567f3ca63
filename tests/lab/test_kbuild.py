# SPDX-License-Identifier: GPL-2.0-only
"""Headers and source of a kernel from packages that are made up; what is missing is said in one line."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kvmtest.lab import apt, kbuild
from kvmtest.lab.error import LabError, NotFound
from kvmtest.lab.kernels import Kernel
from tests.lab.debs import deb

_RELEASE = "9.9.9-cloud-amd64"
_KERNEL = Kernel("9.9", _RELEASE, "/image", "/modules", f"Debian trixie, linux-image-{_RELEASE} 9.9.9-1")
_HEADERS, _SOURCE = f"linux-headers-{_RELEASE}", "linux-source-9.9"
_COMMON, _KBUILD = "linux-headers-9.9.9-common", "linux-kbuild-9.9.9"
_OBJTOOL = "usr/lib/linux-kbuild-9.9.9/tools/objtool"


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"linux-source-9.9/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


class _Apt:
    """apt with the packages of `have`."""

    have: dict[str, dict[str, bytes]] = {}
    refused: set[str] = set()
    downloads: list[str] = []

    def __init__(self, suite: str) -> None:
        self.home = "/"

    def update(self) -> None:
        """Nothing."""

    def closure(self, *names: str, of: str) -> list[tuple[str, str]]:
        """As of the real one."""
        more = {_HEADERS: (_COMMON, _KBUILD), "libelf1t64": ("libc6",)}
        return [(name, "9.9.9-1") for one in names for name in (one, *more.get(one, ())) if name in self.have]

    def download(self, packages: list[tuple[str, str]], folder: str) -> list[str]:
        """As of the real one."""
        for name, version in packages:
            if f"{name}={version}" in self.refused:
                raise LabError(f"no {name} {version}")
            self.downloads.append(name)
            deb(Path(folder, f"{name}.deb"), self.have[name])
        return [os.path.join(folder, f"{name}.deb") for name, _ in packages]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, bytes]]:
    """The packages that there are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(apt, "Apt", _Apt)
    source = {
        "Makefile": b"VERSION = 9\n",
        "arch/x86/kvm/svm/svm.c": b"svm",
        "virt/kvm/kvm_main.c": b"main",
        "arch/x86/include/asm/kvm_host.h": b"host",
        "arch/x86/include/asm/svm.h": b"",
        "include/linux/kvm_host.h": b"",
        "arch/x86/include/asm/msr.h": b"",
        "arch/arm64/kvm/arm.c": b"",
        "include/linux/fs.h": b"",
    }
    have = {
        _HEADERS: {f"usr/src/{_HEADERS}/Makefile": f"include /usr/src/{_COMMON}/Makefile\n".encode()},
        _COMMON: {f"usr/src/{_COMMON}/Makefile": b"# " + b"long " * 300},
        _KBUILD: {f"{_OBJTOOL}/objtool": b"\x7fELF", f"{_OBJTOOL}/help": b"text"},
        _SOURCE: {f"usr/src/{_SOURCE}.tar.xz": _tar(source)},
        "libelf1t64": {"usr/lib/libelf.so.1": b""},
        "libc6": {"usr/lib/ld-linux-x86-64.so.2": b'#!/bin/sh\necho "$@"\n'},
    }
    monkeypatch.setattr(_Apt, "have", have)
    monkeypatch.setattr(_Apt, "refused", set())
    monkeypatch.setattr(_Apt, "downloads", [])
    # A program of another machine, as far as its mode goes.
    unpack = kbuild.deb.unpack

    def unpacked(path: str, folder: str) -> None:
        unpack(path, folder)
        for found in (*Path(folder).rglob("objtool/*"), *Path(folder).rglob("ld-linux*")):
            found.chmod(0o755)

    monkeypatch.setattr(kbuild.deb, "unpack", unpacked)
    return have


def _run(stderr: bytes) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    return lambda command, **options: subprocess.CompletedProcess(command, 1, b"", stderr)


def test_headers_are_unpacked_once_and_find_each_other(packages: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kbuild.program, "run", _run(b"usage"))
    folder = Path(kbuild.headers(_KERNEL))
    (common,) = folder.parent.glob("*-common")
    assert (folder / "Makefile").read_text() == f"include {common}/Makefile\n"
    assert _Apt.downloads == [_HEADERS, _COMMON, _KBUILD]
    assert kbuild.headers(_KERNEL) == str(folder) and len(_Apt.downloads) == 3


@pytest.mark.parametrize(
    "said",
    [
        b"objtool: /lib/libc.so.6: version `GLIBC_2.38' not found (required by objtool)",
        b"objtool: error while loading shared libraries: libelf.so.1: cannot open shared object file",
    ],
)
def test_a_program_for_a_newer_libc_runs_with_that(said: bytes, packages: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(kbuild.program, "run", _run(said))
        folder = Path(kbuild.headers(_KERNEL))
    root = folder.parents[2]
    reported = subprocess.run([root / _OBJTOOL / "objtool", "--one", "two words"], capture_output=True, text=True, check=True)
    assert reported.stdout == f"--library-path {root}/libraries/usr/lib {root}/{_OBJTOOL}/objtool.elf --one two words\n"
    assert (root / _OBJTOOL / "help").read_text() == "text"


def test_a_program_that_lacks_what_no_module_needs_stays(packages: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kbuild.program, "run", _run(b"error while loading shared libraries: libcrypto.so.1.1: cannot open"))
    folder = Path(kbuild.headers(_KERNEL))
    assert not (folder.parents[2] / "libraries").exists()


def test_of_the_source_kvms_part_is_kept(packages: object) -> None:
    folder = Path(kbuild.source(_KERNEL))
    kept = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert kept == {
        "Makefile",
        "arch/x86/kvm/svm/svm.c",
        "virt/kvm/kvm_main.c",
        "arch/x86/include/asm/kvm_host.h",
        "arch/x86/include/asm/svm.h",
        "include/linux/kvm_host.h",
    }


def test_a_source_that_is_gone_is_the_next_one_and_that_is_said(packages: object) -> None:
    _Apt.refused = {f"{_SOURCE}=9.9.9-0"}
    said: list[str] = []
    kbuild.source(_KERNEL._replace(source=_KERNEL.source.replace("9.9.9-1", "9.9.9-0")), said.append)
    assert said[-1] == f"{_SOURCE} 9.9.9-0 is not there any more; 9.9.9-1 in its place"


def test_what_is_not_there_is_one_line(packages: dict[str, dict[str, bytes]]) -> None:
    packages.clear()
    with pytest.raises(NotFound, match=f"no {_HEADERS} any more: kvmtest lab kernels --fetch trixie"):
        kbuild.headers(_KERNEL)
    with pytest.raises(NotFound, match=f"no {_SOURCE}"):
        kbuild.source(_KERNEL)
    own = _KERNEL._replace(source="/home/me/bzImage")
    with pytest.raises(LabError, match="no headers of 9.9.9-cloud-amd64 are here .there is no /modules/build and no /lib/mod"):
        kbuild.headers(own)
    with pytest.raises(LabError, match="not of Debian: name the tree"):
        kbuild.source(own)


def test_headers_beside_the_modules_are_taken_as_they_are(packages: object, tmp_path: Path) -> None:
    (tmp_path / "tree/include/config").mkdir(parents=True)
    (tmp_path / "tree/include/config/auto.conf").touch()
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/build").symlink_to(tmp_path / "tree")
    assert kbuild.headers(_KERNEL._replace(modules=str(tmp_path / "modules"))) == str(tmp_path / "tree")
    assert not _Apt.downloads
