# SPDX-License-Identifier: GPL-2.0-only
"""Kernels and packages that lie: one line, and nothing outside of the cache."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.commands.cells import Boot
from kvmtest.lab import cache, deb, kernels
from kvmtest.lab.error import LabError, NotFound
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.steps import Booting
from tests.lab.debs import deb as package

_FAULTS = Path(__file__).parents[1] / "data" / "faults"
_RELEASE = "9.9.9-cloud-amd64"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in the test's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _image(path: Path, release: bytes, at: int = 0x600) -> Path:
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = at.to_bytes(2, "little")
    image[at + 0x200 : at + 0x200 + len(release)] = release
    path.write_bytes(image)
    return path


@pytest.mark.parametrize(
    "release",
    [b"x" * 0x800, b"\0", b" \0", b"6.1\x1b]0;title\x07 \0", b"../../etc \0", "6.1\u202e \0".encode(), b"9" * 65 + b"\0"],
)
def test_an_image_whose_release_is_none_is_one_line(release: bytes, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="bzImage does not say its release"):
        kernels.find(str(_image(tmp_path / "bzImage", release)), str(tmp_path))


def test_an_image_whose_version_has_no_end_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "bzImage"
    shutil.copy(_FAULTS / "bzImage-version-without-nul", image)
    with pytest.raises(NotFound, match="does not say its release"):
        kernels.find(str(image), str(tmp_path))


def test_an_image_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = str(_image(tmp_path / "bzImage", b"6.1 \0"))

    def refuse(path: str, *more: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(NotFound, match="cannot read .*bzImage: Permission denied"):
        kernels.find(image, str(tmp_path))


def test_a_package_that_names_files_elsewhere_writes_none(tmp_path: Path) -> None:
    shutil.copy(_FAULTS / "traversal.deb", own := tmp_path / "own.deb")
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    kernel = kernels.find(str(own))
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before
    kept = Path(kernel.image).parent
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and kept not in path.parents]


def test_a_package_with_a_negative_size_is_one_line(tmp_path: Path) -> None:
    shutil.copy(_FAULTS / "negative-size.deb", own := tmp_path / "own.deb")
    with pytest.raises(LabError, match="a member of -60 bytes"):
        kernels.find(str(own))


def test_a_package_unpacks_to_no_more_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = package(tmp_path / "own.deb", {f"boot/vmlinuz-{_RELEASE}": bytes(4 << 20)})
    assert own.stat().st_size < 1 << 14
    monkeypatch.setattr(deb, "MOST", 1 << 20)
    with pytest.raises(LabError, match="own.deb unpacks to more than"):
        kernels.find(str(own))
    assert not list((tmp_path / "cache").rglob("vmlinuz*")) and not list((tmp_path / "cache").rglob(".new-*"))


@pytest.mark.parametrize("said", ["", '{"release"', "{}", "[]", '{"release": 6, "source": "x"}', "[" * 100_000])
def test_a_kept_kernel_that_is_damaged_is_made_again_and_stops_no_other(said: str, tmp_path: Path) -> None:
    own = package(tmp_path / "own.deb", {f"boot/vmlinuz-{_RELEASE}": b"the image"})
    good = kernels.find(str(own))
    suites = Path(cache.home()) / "kernels"
    for suite in ("bookworm_x", "trixie_x"):
        shutil.copytree(Path(good.image).parent, suites / suite)
    (Path(good.image).parent / "kernel.json").write_text(said)
    (suites / "bookworm_x" / "kernel.json").write_text(said)
    assert kernels.find(str(own)) == good and Path(good.image).read_bytes() == b"the image"
    assert [suite for suite, _ in kernels.cached()] == ["trixie"]


def test_no_name_of_a_kernel_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["lab", "matrix", "--kernel", ","])
    assert done.value.code == 2 and "',' names nothing" in capsys.readouterr().err


def test_what_a_kernel_calls_itself_reaches_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    Boot().show(Booting("6.1\x1b]0;title\x07", "QEMU", "loading \x1b[2J.ko", 1))
    assert "\x1b" not in capsys.readouterr().err


def test_what_is_listed_of_kept_kernels_reaches_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = Kernel("x", "6.1\x1b[31m", "", "", "\x1b]0;title\x07")
    monkeypatch.setattr(kernels, "cached", lambda: [("bookworm", kernel)])
    assert main(["lab", "kernels"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_the_text_of_a_matrix_is_printable(tmp_path: Path) -> None:
    import io

    from kvmtest.lab.table import Table
    from kvmtest.report.play import Gatherer, play
    from tests.lab.test_matrix import _cell

    outcome, run = _cell("6.1", "svm")
    outcome.failed = "\x1b[31mno\x07"
    play(run, Gatherer(Table(out := io.StringIO(), [outcome])))
    assert "\x1b" not in out.getvalue() and os.linesep in out.getvalue()
