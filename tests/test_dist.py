# SPDX-License-Identifier: GPL-2.0-only
"""The source archive and the wheel: whole, each from the one before, and running with Python's standard library alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from kvmtest import __version__, guests, schemas
from kvmtest.engine import native
from tests.wheel import ROOT, built, unpacked

pytestmark = pytest.mark.program


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, what was in it, and the wheel that was made from that."""
    made = tmp_path_factory.mktemp("dist")
    with tarfile.open(built(ROOT, "sdist", made)) as archive:
        archive.extractall(made, filter="data")
    built(made / f"kvmtest-{__version__}", "wheel", made)
    return made


@pytest.fixture
def source(folder: Path) -> Path:
    """The folder that the source archive unpacks to."""
    return folder / f"kvmtest-{__version__}"


@pytest.fixture
def wheel(folder: Path) -> Path:
    """The wheel, by a name that says that it is for any Python 3 and any machine."""
    return folder / f"kvmtest-{__version__}-py3-none-any.whl"


def test_the_archive_has_what_git_has(source: Path) -> None:
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = {path for path in done.stdout.split("\0") if path and (ROOT / path).exists()}
    assert [path for path in sorted(files) if not path.startswith(".ci/") and not (source / path).exists()] == []


def test_the_wheel_has_all_that_is_built(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    data, info = f"kvmtest-{__version__}.data/data/share", f"kvmtest-{__version__}.dist-info"
    assert {f"kvmtest/guests/{name}.{kind}" for name in (*guests.IMAGES, "observer") for kind in ("bin", "sym")} <= names
    assert {f"kvmtest/schemas/{name}.schema.json" for name in schemas.NAMES} <= names
    assert ("kvmtest/guests/runner.so" in names) == (native.library() is not None)
    assert {f"{data}/man/man1/kvmtest.1", f"{info}/licenses/LICENSE", "kvmtest/py.typed"} <= names
    shells = ("bash-completion/completions/kvmtest", "zsh/site-functions/_kvmtest", "fish/vendor_completions.d/kvmtest.fish")
    assert {f"{data}/{path}" for path in shells} <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "contrib")) or "__pycache__" in name]


def test_it_has_every_file_of_the_package(wheel: Path) -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "kvmtest").rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        assert {path for path in files if "__pycache__" not in path} <= set(archive.namelist())


def test_it_needs_nothing(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        said = archive.read(f"kvmtest-{__version__}.dist-info/METADATA").decode().partition("\n\n")[0].splitlines()
    assert f"Version: {__version__}" in said and "License-Expression: GPL-2.0-only" in said
    assert [line for line in said if line.startswith("Requires-Dist") and "extra ==" not in line] == []


@pytest.mark.parametrize("line", ["list init.msi.host.cr3", "explain cr3", "spec", "report --help", "series"])
def test_the_standard_library_is_enough(line: str, wheel: Path, tmp_path: Path) -> None:
    where, words = unpacked(wheel, tmp_path), line.split()
    code = f"import sys; sys.path.append({str(where)!r}); from kvmtest.cli import main; sys.exit(main({words!r}))"
    command = [sys.executable, "-ISc", code]
    done = subprocess.run(command, cwd="/", env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout
