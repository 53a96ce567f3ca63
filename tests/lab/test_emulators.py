# SPDX-License-Identifier: GPL-2.0-only
"""Emulators that are kept like kernels: with an apt and packages that are made up, so without a network."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.lab import cache, emulator, emulators
from kvmtest.lab.bochs import MODELS
from kvmtest.lab.cell import _with
from kvmtest.lab.emulators import INSTALLED
from kvmtest.lab.error import LabError, NotFound
from kvmtest.lab.start import Cpu
from tests.lab.debs import deb

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
#: Answers as apt does for a suite with both emulators; $APT_FAILS makes it say no.
_APT = """#!/bin/sh
echo "$(basename "$0") $*" >>"$APT_LOG"
case "$(basename "$0") $*" in
*indextargets*) echo 'http://mirror/debian/|bookworm|/keyring.gpg|Debian|Packages' ;;
*"config dump"*) ;;
*update*) [ -z "$APT_FAILS" ] || { echo "E: $APT_FAILS" >&2; exit 100; } ;;
*--simulate*qemu*) echo "Inst qemu-system-x86 (1:11 Debian:unstable [amd64]) []" ;;
*--simulate*) echo "Inst systemd (262 Debian:unstable [amd64])"; echo "Inst libc6 (2.43 Debian:unstable [amd64])"
	echo "Conf libc6 (2.43 Debian:unstable [amd64])"; echo "Inst bochs (${NOW:-3.0} Debian:unstable [amd64]) []" ;;
*download*) cp "$PACKAGES"/*.deb . ;;
*) exit 100 ;;
esac
"""
_BOCHS = """#!/bin/sh
[ "$2" = cpu ] && printf 'Supported CPU models:\\n\\n%s\\n' "MODELS" >&2
echo "Bochs x86 Emulator VERSION"; echo "share $BXSHARE"
"""
#: Runs a program as a loader does: its name comes after the libraries.
_LOADER = b'#!/bin/sh\n[ "$1" = --library-path ] || exit 127\nshift 2\nexec "$@"\n'


def _bochs(version: str, *models: str) -> str:
    return _BOCHS.replace("VERSION", version).replace("MODELS", "\n".join(models))


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt that has emulators in each suite, a Bochs 2.7 that is installed, a cache of its own."""
    for name in ("bin", "packages"):
        (tmp_path / name).mkdir()
    for program in ("apt-get", "apt-cache", "apt-config"):
        _program(tmp_path / "bin" / program, _APT)
    _program(tmp_path / "bin" / "bochs-bin", _bochs("2.7", "corei7_haswell_4770", "ryzen", "tigerlake"))
    files = {
        "usr/bin/bochs-bin": _bochs("3.0", "corei7_haswell_4770", "ryzen", "tigerlake", "arrow_lake").encode(),
        "usr/share/bochs/BIOS-bochs-latest": b"bios",
        "usr/share/doc/bochs/README": b"to be read",
        "usr/bin/qemu-system-x86_64": b"#!/bin/sh\necho QEMU emulator version 11.1\n",
    }
    deb(tmp_path / "packages" / "bochs.deb", files)
    deb(tmp_path / "packages" / "libc6.deb", {f"{_LIBRARIES}/ld-linux-x86-64.so.2": _LOADER, f"{_LIBRARIES}/libc.so.6": b""})
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "log").touch()
    monkeypatch.setenv("APT_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PACKAGES", str(tmp_path / "packages"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_one_is_fetched_once_and_runs_from_the_cache(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = emulators.find("bochs", "trixie")
    assert place.source == "Debian trixie, bochs 3.0" and place.root.startswith(cache.home())
    said = place.run("bochs-bin", "--help")
    assert "Emulator 3.0" in said and f"share {place.root}/usr/share/bochs" in said
    assert Path(place.path("/usr/share/bochs/BIOS-bochs-latest")).exists() and not Path(place.path("/usr/share/doc")).exists()
    # Only what it needs, in the version that was found; not what an installed system would want.
    (download,) = [line for line in (mirror / "log").read_text().splitlines() if "download" in line]
    assert download == "apt-get download -qq libc6=2.43 bochs=3.0"
    monkeypatch.setenv("APT_FAILS", "no network")
    assert emulators.find("bochs", "trixie") == place and list(emulators.kept()) == [("bochs", "trixie", place)]
    with pytest.raises(LabError, match="no network"):
        emulators.find("bochs", "trixie", fresh=True)


def test_it_stays_as_it_is_until_a_newer_one_is_asked_for(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = emulators.find("bochs", "trixie")
    monkeypatch.setenv("NOW", "3.1")
    assert emulators.find("bochs", "trixie") == old
    assert emulators.find("bochs", "trixie", fresh=True).source == "Debian trixie, bochs 3.1"


def test_what_cannot_run_is_not_kept(mirror: Path) -> None:
    package = mirror / "packages" / "bochs.deb"
    package.write_bytes(package.read_bytes()[:-100])
    with pytest.raises(LabError, match="cannot be unpacked|cut short"):
        emulators.find("bochs", "trixie")
    package.unlink()
    (mirror / "packages" / "libc6.deb").unlink()
    deb(package, {"usr/bin/bochs-bin": b""})
    with pytest.raises(LabError, match="no libraries to run by"):
        emulators.find("bochs", "trixie")
    assert not list(emulators.kept()) and not list(Path(cache.home(), "emulators").rglob(".new-*"))


def _place(backend: str, cpu: Cpu) -> str:
    """Find the emulator, whatever else of it is missing here."""
    return emulator.for_backend(backend, cpu)._found(lambda line: None).source


def test_the_installed_one_is_used_where_it_will_do(mirror: Path) -> None:
    assert MODELS["tigerlake"].versions == ("3.0",)
    assert _place("vmx", Cpu()) == _place("vmx", Cpu("corei7_haswell_4770")) == _place("svm", Cpu("zambezi")) == ""
    assert not list(emulators.kept())
    # It has a model of that name, on which no kernel boots.
    assert _place("vmx", Cpu("tigerlake")) == "Debian trixie, bochs 3.0"
    assert _place("vmx", Cpu("tigerlake", suite="sid")) == "Debian sid, bochs 3.0"
    _program(mirror / "bin" / "bochs-bin", _bochs("3.0", "tigerlake"))
    assert _place("vmx", Cpu("tigerlake")) == ""
    # And none in a later one.
    _program(mirror / "bin" / "bochs-bin", _bochs("3.1", "tigerlake"))
    assert _place("vmx", Cpu("tigerlake")).startswith("Debian ")


def test_one_that_is_kept_is_used_before_another_is_fetched(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emulators.find("bochs", "sid")
    monkeypatch.setenv("APT_FAILS", "no network")
    assert _place("vmx", Cpu("tigerlake")) == "Debian sid, bochs 3.0"
    emulators.remove()
    with pytest.raises(LabError, match="no network"):
        _place("vmx", Cpu("tigerlake"))


def test_a_kept_qemu_finds_its_own_firmware_and_modules(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = emulator.for_backend("svm", Cpu(suite="sid"))
    monkeypatch.setattr(qemu, "place", emulators.find("qemu", "sid"))
    root = qemu.place.root
    started = qemu.prepare("folder", "image", "initrd", "serial", "parallel", "")
    command = " ".join(started.command)
    loader = f"{root}/{_LIBRARIES}/ld-linux-x86-64.so.2"
    assert command.startswith(f"{loader} --library-path {root}/{_LIBRARIES} {root}/usr/bin/qemu-system-x86_64 ")
    assert f" -L {root}/usr/share/qemu " in command
    assert started.environment["QEMU_MODULE_DIR"] == f"{root}/{_LIBRARIES}/qemu"
    assert qemu.version() == "QEMU 11.1 (TCG)"
    monkeypatch.setattr(qemu, "place", INSTALLED)
    assert qemu.prepare("folder", "image", "initrd", "serial", "parallel", "").command[0] == "qemu-system-x86_64"


def test_a_model_has_the_parameters_that_it_works_with(mirror: Path) -> None:
    usual = emulator.for_backend("vmx", Cpu("tigerlake")).parameters
    assert usual == {"kvm_intel": "enable_apicv=0"}
    assert _with({}, usual) == usual and _with({"kvm": "x=1"}, {}) == {"kvm": "x=1"}
    assert _with({"kvm_intel": "ept=0"}, usual) == {"kvm_intel": "enable_apicv=0 ept=0"}
    assert _with({"kvm_intel": "enable_apicv=1"}, usual) == {"kvm_intel": "enable_apicv=1"}


def test_the_command_lists_fetches_and_removes(mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "emulators"]) == 0
    out = capsys.readouterr().out
    assert "installed  Bochs 2.7\n" in out and "trixie     not here; fetched when --emulator names it\n" in out
    assert main(["lab", "emulators", "--fetch", "bochs/trixie", "--models"]) == 0
    out = capsys.readouterr().out
    assert "trixie     Bochs 3.0  (Debian trixie, bochs 3.0)\n" in out and "  arrow_lake\n" in out
    assert main(["lab", "emulators", "--remove"]) == 0
    assert not list(emulators.kept())


@pytest.mark.parametrize(
    ("which", "status", "says"), [("xen/sid", 2, "'xen' is not one of bochs, qemu"), ("sid", 3, "no network")]
)
def test_what_cannot_be_fetched_is_one_line(
    which: str, status: int, says: str, mirror: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APT_FAILS", "no network")
    assert main(["lab", "emulators", "--fetch", which]) == status
    assert says in capsys.readouterr().err


def test_a_model_of_the_other_vendor_is_refused_by_name(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bochs = emulator.for_backend("vmx", Cpu("ryzen"))
    monkeypatch.setattr(bochs, "programs", dict)
    with pytest.raises(NotFound, match="Bochs's ryzen has no VMX: --backend svm"):
        bochs.check()
    bochs = emulator.for_backend("vmx", Cpu(number=2))
    monkeypatch.setattr(bochs, "programs", dict)
    with pytest.raises(NotFound, match="Bochs is built for one CPU"):
        bochs.check()
