# SPDX-License-Identifier: GPL-2.0-only
"""Bochs built from its source: with a source that is made up, whose program is a shell script."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.lab import bochs_build, cache, emulators
from kvmtest.lab.bochs import Bochs
from kvmtest.lab.bochs_build import OPTIONS
from kvmtest.lab.error import LabError, NotFound
from kvmtest.lab.start import Cpu
from tests.lab.test_emulators import _place, mirror

__all__ = ("mirror",)

_CONFIGURE = """#!/bin/sh
[ -z "$NO_CURSES" ] || { echo "configure: error: no curses" >&2; exit 1; }
echo "$*" >configured
printf 'all:\\n\\tcp made bochs\\ndist-clean:\\n\\trm -f bochs configured\\n' >Makefile
"""
_MADE = """#!/bin/sh
[ "$2" = cpu ] && printf 'Supported CPU models:\\n\\ncorei7_haswell_4770\\n' >&2
echo "Bochs x86 Emulator 2.7"
"""


@pytest.fixture
def source(mirror: Path) -> Path:
    """Bochs's source as a clone has it."""
    tree = mirror / "clone" / "bochs"
    for folder in ("bx_debug", "bios"):
        (tree / folder).mkdir(parents=True)
    (tree / "configure").write_text(_CONFIGURE)
    (tree / "made").write_text(_MADE)
    (tree / "made").chmod(0o755)
    (tree / "bios" / "BIOS-bochs-latest").write_bytes(b"bios")
    (tree / "bios" / "VGABIOS-lgpl-latest.bin").write_bytes(b"vgabios")
    return tree.parent


def test_it_is_used_from_then_on_unless_another_one_is_asked_for(source: Path) -> None:
    built = bochs_build.build(str(source))
    assert built.built and built.source == f"built from {source}" and built == emulators.find("bochs", "built")
    assert Path(built.path("/usr/share/bochs/VGABIOS-lgpl-latest")).read_bytes() == b"vgabios"
    assert _place("vmx", Cpu()) == built.source
    assert _place("vmx", Cpu(suite="installed")) == ""
    assert _place("vmx", Cpu(suite="trixie")) == "Debian trixie, bochs 3.0"
    # Of models that it does not have, and of those that work in another version alone, nothing changes.
    assert _place("vmx", Cpu("tigerlake")) == "Debian trixie, bochs 3.0"
    # The source is left as it was.
    assert sorted(path.name for path in (source / "bochs").iterdir()) == ["bios", "bx_debug", "configure", "made"]
    assert not list(Path(cache.home(), "emulators").glob(".new-*"))


def test_it_has_the_cpu_of_debians_and_neither_debugger_nor_instrumentation(source: Path) -> None:
    assert {"--enable-vmx=2", "--enable-svm", "--enable-evex", "--enable-cet", "--enable-x86-debugger"} < set(OPTIONS)
    assert not [option for option in OPTIONS if option.startswith(("--enable-debugger", "--enable-instr", "--enable-smp"))]
    # What it was configured with, in the place of its firmware.
    (source / "bochs" / "configure").write_text(_CONFIGURE.replace("cp made", "cp configured bios/BIOS-bochs-latest; cp made"))
    built = bochs_build.build(str(source))
    assert Path(built.path("/usr/share/bochs/BIOS-bochs-latest")).read_text().split() == [*OPTIONS]


def test_it_needs_no_terminal_and_waits_for_no_command(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = bochs_build.build(str(source))
    monkeypatch.setattr("kvmtest.lab.program.run", lambda command, **_: type("Done", (), {"returncode": 0}))
    for place in (built, emulators.INSTALLED):
        folder = tmp_path / place.source.partition(" ")[0]
        folder.mkdir(exist_ok=True)
        (folder / "image").touch()
        (folder / "initrd").touch()
        bochs = Bochs("vmx", Cpu())
        bochs.place = place
        started = bochs.prepare(str(folder), str(folder / "image"), str(folder / "initrd"), "serial", "parallel", "")
        rc = (folder / "bochsrc").read_text()
        (folder / "bochsrc").unlink()
        assert started.terminal is not place.built is ("-rc" not in started.command)
        assert ("nogui" if place.built else "term") in rc and ("sound:" in rc) is not place.built
        assert f"file={place.root}/usr/share/bochs/BIOS-bochs-latest" in rc
    assert built.command("bochs-bin") == [f"{built.root}/usr/bin/bochs-bin"]


@pytest.mark.parametrize("compressed", ["gz", "xz"])
def test_an_archive_will_do_and_one_that_was_built_before(compressed: str, source: Path) -> None:
    (source / "bochs" / "Makefile").write_text("dist-clean:\n\trm bochs\n")
    (source / "bochs" / "bochs").write_text("with the debugger")
    archive = source.parent / f"bochs.tar.{compressed}"
    with tarfile.open(archive, f"w:{compressed}") as tar:  # type: ignore[call-overload]
        tar.add(source / "bochs", "bochs-2.7")
    assert "Emulator 2.7" in bochs_build.build(str(archive)).run("bochs-bin", "--help")


def test_what_cannot_be_built_is_one_line(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def says(status: int, *words: str) -> None:
        assert main(["lab", "emulators", "--build", str(source)]) == status
        err = capsys.readouterr().err.splitlines()[-1]
        assert err.startswith("kvmtest: ") and all(word in err for word in words)

    monkeypatch.setenv("NO_CURSES", "1")
    says(3, "Bochs does not build: sh ./configure: configure: error: no curses")
    monkeypatch.delenv("NO_CURSES")
    made = source / "bochs" / "made"
    made.write_text("#!/bin/sh\necho Segmentation fault\nexit 1\n")
    says(3, "does not start: Segmentation fault")
    made.unlink()
    says(3, "Bochs does not build: make")
    shutil.rmtree(source / "bochs")
    says(2, f"{source} is not Bochs's source")
    source.rmdir()
    says(2, f"{source}: no such file or folder")
    assert not list(emulators.kept())


def test_without_the_firmware_or_the_compiler_it_says_what_to_install(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "bochs" / "bios" / "BIOS-bochs-latest").unlink()
    monkeypatch.setattr(bochs_build, "_SHARE", "usr/share/no-bochs")
    with pytest.raises(LabError, match="no BIOS-bochs-latest in the source.*apt-get install bochsbios"):
        bochs_build.build(str(source))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(LabError, match="building Bochs needs: apt-get install g\\+\\+ make"):
        bochs_build.build(str(source))


def test_what_was_not_built_cannot_be_asked_for(mirror: Path) -> None:
    with pytest.raises(NotFound, match=r"no bochs was built here \(kvmtest lab emulators --build SOURCE"):
        _place("vmx", Cpu(suite="built"))
