# SPDX-License-Identifier: GPL-2.0-only
"""The documentation builds without a warning, and a dead link is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.program

pytest.importorskip("sphinx", reason="Sphinx is not installed (make docs)")
pytest.importorskip("myst_parser", reason="myst-parser is not installed (make docs)")

DOCS = Path(__file__).parents[2] / "docs"


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "-c", str(DOCS)]
    return subprocess.run([*command, "-b", "html", str(source), str(out)], capture_output=True, text=True)


def test_it_builds_and_has_every_page_in_the_contents(tmp_path: Path) -> None:
    done = build(DOCS, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    index = (tmp_path / "index.html").read_text()
    for page in DOCS.glob("*.md"):
        assert f'href="{page.stem}.html"' in index or page.stem == "index"
    assert "assert_state" in (tmp_path / "api.html").read_text()


@pytest.mark.parametrize(
    "link", ["[x](nowhere.md)", "[x](#nowhere)", "[x](other.md#nowhere)", "[x](../contrib/nowhere.yml)"]
)
def test_a_dead_link_fails_it(link: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.md").write_text("# Title\n\n## Part\n\n[a](#part) [b](other.md#there)\n\n```{toctree}\nother\n```\n")
    (source / "other.md").write_text("# Other\n\n## There\n")
    assert build(source, tmp_path / "good").returncode == 0
    (source / "index.md").write_text((source / "index.md").read_text() + f"\n{link}\n")
    done = build(source, tmp_path / "bad")
    assert done.returncode != 0 and "nowhere" in done.stderr
