# SPDX-License-Identifier: GPL-2.0-only
"""The new register of docs/extending.md is as many lines as it says, and gives what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.shell import PAGES, ROOT

pytestmark = pytest.mark.program

_PAGE = PAGES["docs/extending.md"]
_LINES = re.findall(r'^((?:Msr|entry)\("(?:msr\.)?k7_clk_ctl".*?),? +# (kvmtest/\S+\.py)$', _PAGE, re.MULTILINE)
#: A line of each of the two files, after which the new one comes.
_AFTER = {"kvmtest/x86/msr.py": '    Msr("hwcr", ', "kvmtest/spec/msr_amd.py": '    entry("msr.hwcr", '}


def _kvmtest(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(where)}
    return subprocess.run([sys.executable, "-m", "kvmtest", *words], env=environment, cwd=where, capture_output=True, text=True)


def test_a_register_is_two_lines(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kvmtest", tmp_path / "kvmtest", ignore=shutil.ignore_patterns("__pycache__"))
    assert [name for _, name in _LINES] == list(_AFTER)
    for number, (line, name) in enumerate(_LINES):
        path = tmp_path / name
        kept = path.read_text().splitlines(keepends=True)
        (at,) = (i for i, one in enumerate(kept) if one.startswith(_AFTER[name]))
        path.write_text("".join((*kept[: at + 1], f"    {line},\n", *kept[at + 1 :])))
        listed = _kvmtest(tmp_path, "list", "msr.k7_clk_ctl")
        if number == 0:
            assert listed.returncode and "msr.k7_clk_ctl has no rule" in listed.stderr
    found = re.match(r"(\d+) cases, (\d+) result ids", listed.stdout)
    assert found, listed.stderr
    said = re.search(r"some (\d+) result ids in some (\d+) cases", _PAGE)
    assert said
    assert round(int(found[1]), -2) == int(said[2]) and round(int(found[2]), -1) == int(said[1])
    assert "undefined" in _kvmtest(tmp_path, "explain", "msr.k7_clk_ctl").stdout
