# SPDX-License-Identifier: GPL-2.0-only
"""RPM packages as kernels: how RHEL, SLES and Fedora lay them out, and archives that mean harm."""

from __future__ import annotations

import lzma
import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.lab import kernels, rpm
from kvmtest.lab.error import LabError, NotFound
from tests.lab import rpms

_RELEASE = "9.9.9-1.el9.x86_64"
_VRA = "9.9.9-1.el9.x86_64.rpm"


def _ko(depends: str) -> bytes:
    return b"\0depends=" + depends.encode() + b"\0"


def _modules(root: str) -> dict[str, bytes]:
    kernel = f"{root}lib/modules/{_RELEASE}/kernel"
    return {
        f"{kernel}/arch/x86/kvm/kvm.ko.xz": lzma.compress(_ko("irqbypass")),
        f"{kernel}/arch/x86/kvm/kvm-amd.ko.xz": lzma.compress(_ko("kvm")),
        f"{kernel}/virt/lib/irqbypass.ko": _ko(""),
        f"{kernel}/drivers/other.ko": _ko(""),
    }


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for packages; the cache is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "rpms").mkdir()
    return tmp_path / "rpms"


def _checked(path: Path) -> None:
    kernel = kernels.find(str(path))
    assert (kernel.release, kernel.source) == (_RELEASE, str(path))
    assert Path(kernel.image).read_bytes() == b"the image"
    assert sorted(os.listdir(kernel.modules)) == ["irqbypass.ko", "kvm.ko", "kvm_amd.ko"]


@pytest.mark.parametrize("compressor", rpms.COMPRESSORS)
def test_each_compression(compressor: str, folder: Path) -> None:
    if compressor == "zstd" and not shutil.which("zstd"):
        pytest.skip("zstd is not here")
    files = {f"./boot/vmlinuz-{_RELEASE}": b"the image", **_modules("./")}
    _checked(rpms.rpm(folder / f"kernel-{_VRA}", files, compressor))


@pytest.mark.parametrize(
    ("name", "image", "root"),
    [
        ("kernel", f"./boot/vmlinuz-{_RELEASE}", "./"),  # RHEL 7
        ("kernel-core", f"./lib/modules/{_RELEASE}/vmlinuz", "./"),  # RHEL 8
        ("kernel-default", f"./boot/vmlinuz-{_RELEASE}", "./"),  # SLES 15
        ("kernel-default", f"./usr/lib/modules/{_RELEASE}/vmlinuz", "./usr/"),  # SLES with a merged /usr
    ],
)
def test_an_image_with_its_modules(name: str, image: str, root: str, folder: Path) -> None:
    more = {f"{root}lib/modules/{_RELEASE}/.vmlinuz.hmac": b"sum", f"{root}lib/modules/{_RELEASE}/config": b"CONFIG"}
    _checked(rpms.rpm(folder / f"{name}-{_VRA}", {image: b"the image", **more, **_modules(root)}, "xz"))


@pytest.mark.parametrize("apart", ["kernel-modules-core", "kernel-modules"])
def test_modules_in_a_package_beside_it(apart: str, folder: Path) -> None:
    """As Fedora and RHEL 9 have them; those of another build, and those without KVM, are not its own."""
    core = rpms.rpm(folder / f"kernel-core-{_VRA}", {f"./lib/modules/{_RELEASE}/vmlinuz": b"the image"}, "xz")
    with pytest.raises(NotFound, match=rf"no KVM in .*: put the package of its modules beside it, as \*-modules-core-{_VRA}"):
        kernels.find(str(core))
    rpms.rpm(folder / "kernel-modules-core-9.9.8-1.el9.x86_64.rpm", _modules("./other/"))
    (folder / f"kernel-devel-{_VRA}").write_bytes(b"not looked at")
    rpms.rpm(folder / f"{apart}-{_VRA}", _modules("./"), "xz")
    _checked(core)
    with pytest.raises(LabError, match="no kernel image in"):
        kernels.find(str(folder / f"{apart}-{_VRA}"))


def test_a_file_of_two_names_has_its_content_with_the_last(folder: Path) -> None:
    image = f"./lib/modules/{_RELEASE}/vmlinuz"
    linked = rpms.entry(image, b"", inode=7, links=2) + rpms.entry("./other", b"the image", inode=7, links=2)
    _checked(rpms.rpm(folder / f"kernel-{_VRA}", linked + rpms.archive(_modules("./"))))


@pytest.mark.parametrize("root", ["/", "//", "../", "./../", "./lib/modules/../../../../../"])
def test_it_writes_nowhere_but_in_the_cache(root: str, folder: Path) -> None:
    files = {f"./boot/vmlinuz-{_RELEASE}": b"the image", **_modules("./")}
    files |= {f"{root}lib/modules/escaped.ko": b"x", f"{root}boot/vmlinuz-x": b"y"}
    payload = rpms.entry(f"./lib/modules/{_RELEASE}", str(folder).encode(), 0o120777) + rpms.archive(files)
    before = set(folder.parent.rglob("*"))
    _checked(rpms.rpm(folder / f"kernel-{_VRA}", payload))
    new = {path for path in set(folder.parent.rglob("*")) - before if folder.parent / "cache" not in path.parents}
    assert {path.name for path in new} == {f"kernel-{_VRA}", "cache"}
    assert not list(folder.parent.rglob("*escaped*"))


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (rpms.entry("./boot/vmlinuz-1", b"", size=1 << 31), "larger than any kernel's package"),
        (rpms.entry("./boot/vmlinuz-1", b"short", size=4000), "it ends within a file"),
        (b"".join(rpms.entry(f"./{n}", bytes(1000)) for n in range(3)), "it ends within its archive"),
        (b"070707" + bytes(200), "begins with b'070707'"),
        (b"070701" + b"zz" * 100, "has no numbers"),
        (rpms.entry("x" * 5000, b""), "a name of 5001 bytes"),
    ],
)
def test_an_archive_that_is_none_is_one_line(
    payload: bytes, says: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kvmtest.lab.qemu.Qemu.check", lambda *args: None)  # no emulator is needed to come so far
    path = rpms.rpm(folder / f"kernel-{_VRA}", payload)
    with pytest.raises(LabError, match=says):
        kernels.find(str(path))
    assert main(["lab", "run", "--backend", "svm", "--kernel", str(path)]) == 3
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith(f"kvmtest: {path} cannot be unpacked: ") and "Traceback" not in error
    assert not list(folder.parent.rglob(".new-*"))


def test_all_files_together_may_not_fill_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpm, "MOST", 3000)
    path = rpms.rpm(folder / f"kernel-{_VRA}", {f"./lib/modules/x/{n}.ko": bytes(1000) for n in range(4)}, "xz")
    with pytest.raises(LabError, match=r"3\.ko', of 1000 bytes, makes it larger"):
        kernels.find(str(path))


@pytest.mark.parametrize("compressor", ["gzip", "xz", "zstd"])
def test_one_cut_short_or_damaged_is_one_line(compressor: str, folder: Path) -> None:
    if compressor == "zstd" and not shutil.which("zstd"):
        pytest.skip("zstd is not here")
    path = rpms.rpm(folder / f"kernel-{_VRA}", {f"./boot/vmlinuz-{_RELEASE}": random.Random(1).randbytes(5000)}, compressor)
    whole = path.read_bytes()
    for at in (*range(0, 600, 40), len(whole) - 2500, len(whole) - 20):
        path.write_bytes(whole[:at])
        with pytest.raises(LabError, match=r"cut short|cannot be unpacked"):
            kernels.find(str(path))
    path.write_bytes(whole[:-3000] + bytes(2500) + whole[-500:])
    with pytest.raises(LabError, match="cannot be unpacked"):
        kernels.find(str(path))


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({1124: "drpm"}, "its contents are 'drpm', no cpio archive"),
        ({1125: "lzip"}, "compressed by 'lzip'"),
    ],
)
def test_what_is_in_no_archive_of_the_kind(tags: dict[int, str], says: str, folder: Path) -> None:
    with pytest.raises(LabError, match=says):
        kernels.find(str(rpms.rpm(folder / f"kernel-{_VRA}", {}, strings=tags)))


def test_of_another_architecture(folder: Path) -> None:
    path = rpms.rpm(folder / "kernel-9.9.9-1.el9.aarch64.rpm", {"./boot/vmlinuz-1": b""}, arch="aarch64")
    with pytest.raises(NotFound, match="is of aarch64"):
        kernels.find(str(path))


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python has zstd itself")
def test_zstd_that_is_not_there_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rpms.rpm(folder / f"kernel-{_VRA}", {}, "none", strings={1125: "zstd"})
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LabError, match="needs zstd to unpack: apt-get install zstd"):
        kernels.find(str(path))
