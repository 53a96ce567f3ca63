# SPDX-License-Identifier: GPL-2.0-only
"""Sphinx: the documentation of this folder and of the package's docstrings."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kvmtest import __version__ as release  # noqa: E402

project = "kvmtest"
author = "the kvmtest authors"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "alabaster"
html_theme_options = {"description": "what a vCPU looks like after RESET and INIT", "fixed_sidebar": True, "page_width": "1240px"}
html_title = f"kvmtest {release}"
#: Links to a heading: [text](#the-heading) and [text](page.md#the-heading) are checked.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
suppress_warnings = ["misc.highlighting_failure"]


def _plain(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings here are plain text with code in one or two backticks: nothing else in them is markup."""
    text = "\n".join(lines)
    parts = re.split(r"(``[^`]+``|`[^`]+`)", text)
    parts[::2] = [re.sub(r"([*_|\\])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part.strip('`')}``" for part in parts[1::2]]
    lines[:] = "".join(parts).split("\n")


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _plain)  # type: ignore[attr-defined]
