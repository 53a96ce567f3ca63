# SPDX-License-Identifier: GPL-2.0-only
"""Choice of a kernel, and handling of its package: with a fake apt, so without a network."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kvmtest.lab import apt, cache, kernels, modules
from kvmtest.lab.error import LabError, NotFound
from kvmtest.lab.kernels import Kernel
from tests.lab.debs import deb

_RELEASE = "9.9.9-cloud-amd64"
#: Answers as apt does, for a suite with one kernel that is split into two packages; $APT_FAILS makes it say no.
_APT = """#!/bin/sh
echo "$(basename "$0") $*" >>"$APT_LOG"
case "$(basename "$0") $*" in
*indextargets*) echo 'http://mirror/debian/|bookworm|/keyring.gpg|Debian|Packages'
	echo 'http://mirror/debian-security/|bookworm-security|/keyring.gpg|Debian|Packages' ;;
*"config dump"*) echo 'Acquire::http::Proxy "http://proxy:1/";'; echo 'APT::Update::Post-Invoke:: "touch /hooked";' ;;
*update*) [ -z "$APT_FAILS" ] || { echo "E: $APT_FAILS" >&2; exit 100; } ;;
*show*linux-image-cloud-amd64) printf "Version: 9\\nDepends: linux-image-${NOW:-9.9.9}-cloud-amd64 (= 9)\\n" ;;
*show*linux-image-9*|*show*linux-image-10*) printf 'Version: 9\\nDepends: linux-modules-9.9.9-cloud-amd64, kmod\\n' ;;
*show*linux-modules-9*) printf 'Version: 9\\nDepends: kmod\\n' ;;
*download*) [ -z "$DOWNLOAD_FAILS" ] || { echo "E: $DOWNLOAD_FAILS" >&2; exit 100; }; cp "$PACKAGES"/*.deb . ;;
*) exit 100 ;;
esac
"""


def _ko(depends: str) -> bytes:
    return b"\0depends=" + depends.encode() + b"\0"


def _packages(folder: Path) -> None:
    kvm = f"usr/lib/modules/{_RELEASE}/kernel/arch/x86/kvm"
    deb(folder / "linux-image.deb", {f"boot/vmlinuz-{_RELEASE}": b"the image"})
    files = {
        f"{kvm}/kvm.ko.xz": lzma.compress(_ko("irqbypass")),
        f"{kvm}/kvm-amd.ko.xz": lzma.compress(_ko("kvm")),
        f"usr/lib/modules/{_RELEASE}/kernel/virt/lib/irqbypass.ko": _ko(""),
        f"usr/lib/modules/{_RELEASE}/kernel/drivers/other.ko": _ko(""),
    }
    deb(folder / "linux-modules.deb", files)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt with one kernel in each suite, a cache of its own."""
    for name in ("bin", "packages"):
        (tmp_path / name).mkdir()
    for program in ("apt-get", "apt-cache", "apt-config"):
        script = tmp_path / "bin" / program
        script.write_text(_APT)
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    _packages(tmp_path / "packages")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "log").touch()
    monkeypatch.setenv("APT_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PACKAGES", str(tmp_path / "packages"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def _hidden(folder: Path) -> list[Path]:
    """Return the files that an unfinished step would have left."""
    return list(folder.rglob(".new-*"))


def test_a_suite_is_fetched_once_and_kept(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernels.find("trixie")
    assert kernel.release == _RELEASE and Path(kernel.image).read_bytes() == b"the image"
    assert kernel.source == "Debian trixie, linux-image-9.9.9-cloud-amd64 9"
    assert sorted(os.listdir(kernel.modules)) == ["irqbypass.ko", "kvm.ko", "kvm_amd.ko"]
    monkeypatch.setenv("APT_FAILS", "no network")
    assert kernels.find("trixie") == kernel
    assert kernels.find("9.9").image == kernel.image
    assert [suite for suite, _ in kernels.cached()] == ["trixie"]
    with pytest.raises(LabError, match="no network"):
        kernels.find("trixie", fresh=True)
    assert not _hidden(mirror)


def test_apt_gets_the_machines_proxy_and_none_of_its_hooks(mirror: Path) -> None:
    kernels.find("bullseye")
    home = Path(cache.home()) / "apt" / "bullseye"
    config = (home / "apt.conf").read_text()
    assert "http://proxy:1/" in config and "hooked" not in config
    sources = (home / "sources.list").read_text().splitlines()
    assert sources == [
        "deb [arch=amd64 signed-by=/keyring.gpg] http://mirror/debian/ bullseye main",
        "deb [arch=amd64 signed-by=/keyring.gpg] http://mirror/debian-security/ bullseye-security main",
    ]
    assert apt._sources("sid").count("\n") == 1


@pytest.mark.parametrize("variable", ["APT_FAILS", "DOWNLOAD_FAILS"])
def test_what_apt_refuses_is_one_line_and_leaves_nothing(mirror: Path, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "The following signatures were invalid")
    with pytest.raises(LabError, match="signatures were invalid") as error:
        kernels.find("trixie")
    assert "\n" not in str(error.value)
    assert kernels.cached() == [] and not _hidden(mirror)


def test_a_package_cut_short_leaves_nothing(mirror: Path) -> None:
    package = mirror / "packages" / "linux-modules.deb"
    package.write_bytes(package.read_bytes()[:-200])
    with pytest.raises(LabError):
        kernels.find("trixie")
    assert kernels.cached() == [] and not _hidden(mirror)


@pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not here")
def test_a_package_packed_by_zstd(mirror: Path) -> None:
    package = deb(mirror / "own.deb", {f"boot/vmlinuz-{_RELEASE}": b"the image"})
    head, _, data = package.read_bytes().partition(b"data.tar.xz")
    packed = subprocess.run(["zstd", "-qc"], input=lzma.decompress(data[49:]), capture_output=True, check=True).stdout
    package.write_bytes(head + b"data.tar.zst    " + data[5:37] + f"{len(packed):<10}`\n".encode() + packed)
    assert Path(kernels.find(str(package)).image).read_bytes() == b"the image"


@pytest.mark.parametrize("size", ["-60", "-124", "9999999999", "0x10", "1e3", "?"])
def test_a_package_with_a_member_of_no_size_is_one_line(size: str, mirror: Path) -> None:
    package = deb(mirror / "own.deb", {f"boot/vmlinuz-{_RELEASE}": b"the image"}, size=size)
    with pytest.raises(LabError, match=f"own.deb is cut short, or no Debian package: a member of {size.replace('?', '.')} bytes"):
        kernels.find(str(package))
    assert not _hidden(mirror)


@pytest.mark.parametrize("root", ["./", "/", "//", "../", "./lib/modules/../../../../../"])
def test_a_package_writes_nowhere_but_in_the_cache(root: str, mirror: Path) -> None:
    (mirror / "outside").mkdir()
    deb(mirror / "packages" / "linux-image.deb", {f"boot/vmlinuz-{_RELEASE}": b"the image"})
    kvm = f"lib/modules/{_RELEASE}"
    files = {f"{kvm}/kvm.ko.xz": lzma.compress(_ko("")), "lib/modules/escaped.ko": b"x", "lib/modules/../../escaped.ko": b"x"}
    deb(mirror / "packages" / "linux-modules.deb", files, root, link=f"{root}{kvm}")
    before = {path for path in mirror.rglob("*") if mirror / "cache" not in path.parents}
    kernel = kernels.find("trixie")
    assert {path for path in mirror.rglob("*") if mirror / "cache" not in path.parents} - before == {mirror / "cache"}
    assert not [path for path in mirror.rglob("*escaped*") if path.parent != Path(kernel.modules)]


def test_a_full_disk_is_one_line(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernels, "_unpack", full)
    with pytest.raises(LabError, match="No space left"):
        kernels.find("trixie")
    assert kernels.cached() == [] and not _hidden(mirror)


@pytest.mark.parametrize("which", ["/nonexistent/vmlinuz", "./nothing.deb", "No Such"])
def test_what_is_not_there(mirror: Path, which: str) -> None:
    with pytest.raises(NotFound):
        kernels.find(which)


def test_a_version_is_its_own_suites_where_another_one_is_kept_too(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suite in ("bullseye", "forky", "trixie"):
        kernels.find(suite)
    monkeypatch.setitem(kernels._VERSIONS, "9.9", "forky")
    assert "Debian forky" in kernels.find("9.9").source


def _asked(mirror: Path, what: str) -> int:
    """Count how often apt was called with ``what`` so far."""
    return (mirror / "log").read_text().count(f" {what} ")


def test_a_version_that_no_suite_has_is_reported_by_names_alone(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = r"has a kernel 9\.8; there are 9\.9\.9-cloud-amd64 \(bullseye\), .*9\.9\.9-cloud-amd64 \(sid\)$"
    said: list[str] = []
    with pytest.raises(NotFound, match=says):
        kernels.find("9.8", say=said.append)
    assert said == [f"getting {suite}'s list of packages from this machine's mirror" for suite in apt.SUITES]
    # From then on nothing needs a mirror to say so.
    monkeypatch.setenv("APT_FAILS", "no network")
    before = (mirror / "log").read_text()
    with pytest.raises(NotFound, match=says):
        kernels.find("9.8", say=said.append)
    assert (mirror / "log").read_text() == before and len(said) == len(apt.SUITES) and not _asked(mirror, "download")


def test_a_version_of_which_the_suite_has_another_one_by_now(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        kernels.find("9.8")
    monkeypatch.setenv("NOW", "10.1.1")
    with pytest.raises(NotFound, match=r"bullseye has no kernel 9\.9 any more: it has 10\.1\.1-cloud-amd64"):
        kernels.find("9.9")
    assert not _asked(mirror, "download")


def test_a_kernel_that_is_kept_is_not_taken_for_another_version(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.find("bullseye")
    monkeypatch.setenv("NOW", "10.1.1")
    with pytest.raises(NotFound, match=r"there are 10\.1\.1"):
        kernels.find("9.9", fresh=True)


def test_a_suite_that_cannot_be_asked_is_named(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        kernels.find("9.8")
    (Path(cache.home()) / "apt" / "forky" / "kernel.json").unlink()
    monkeypatch.setenv("APT_FAILS", "no network")
    with pytest.raises(NotFound, match=r"\(sid\); forky could not be asked: apt-get update: no network$"):
        kernels.find("9.8")


def test_no_network_and_no_lists_is_said(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APT_FAILS", "no network")
    with pytest.raises(LabError, match="no network"):
        kernels.find("9.8")


def test_two_at_once_get_it_once(mirror: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(kernels.find, ["trixie", "trixie"])
    assert first == second and _asked(mirror, "-qq linux-image-9.9.9-cloud-amd64=9") == _asked(mirror, "update") == 1


def test_an_own_image_names_its_release(kernel: Kernel) -> None:
    found = kernels.find(kernel.image, kernel.modules)
    assert (found.release, found.modules) == ("9.9.9-fake", kernel.modules)
    with pytest.raises(NotFound, match="--modules"):
        kernels.find(kernel.image)


def test_modules_load_in_the_order_of_their_dependencies(kernel: Kernel, tmp_path: Path) -> None:
    assert [m.name for m in modules.closure("kvm_amd", kernel.modules)] == ["irqbypass", "kvm", "ccp", "kvm_amd"]
    own = tmp_path / "own"
    own.mkdir()
    with pytest.raises(LabError, match="neither"):
        modules.closure("kvm_amd", kernel.modules, str(own))
    (own / "kvm.ko").write_bytes(_ko("irqbypass") + b"mine")
    by_name = {m.name: m.image for m in modules.closure("kvm_amd", kernel.modules, str(own))}
    assert by_name["kvm"].endswith(b"mine") and by_name["kvm_amd"].endswith(b"kvm-amd\0")


def test_a_built_in_module_is_not_loaded(kernel: Kernel) -> None:
    os.unlink(f"{kernel.modules}/irqbypass.ko")
    Path(kernel.modules, "modules.builtin").write_text("kernel/virt/lib/irqbypass.ko\n")
    assert [m.name for m in modules.closure("kvm_amd", kernel.modules)] == ["kvm", "ccp", "kvm_amd"]
