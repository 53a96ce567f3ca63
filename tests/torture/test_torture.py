# SPDX-License-Identifier: GPL-2.0-only
"""`make torture` for half a minute, with a seed that does not change; and faults in a copy of the code, which it finds."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvmtest.kvm import Kvm
from tests.torture.child import Ended
from tests.torture.files import mutated
from tests.torture.rules import unbegun

pytestmark = pytest.mark.program
_ROOT = Path(__file__).parents[2]


def _torture(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.torture", *words]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=1800, check=False)


def test_half_a_minute_breaks_no_promise(kvm: Kvm) -> None:
    done = _torture(_ROOT, "--time", "30", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken promises" in done.stdout


#: In which file, what stands there, what in its place, the kind of fault that finds it, and by which rule.
_PLANTED = {
    "a signal cuts what is written": (
        "kvmtest/commands/common.py",
        "        if not self.running:\n",
        "        if True:\n",
        "each",
        ("130 is an interrupted report", "a whole report is not interrupted", "whole lines are readable", "a report is whole",
         "nothing counted is lost", "what was measured is in the report", "no traceback"),
    ),
    "a report is written in its place": (
        "kvmtest/commands/output.py",
        "if not by_line and _is_replaceable(path)",
        "if False",
        "disk",
        ("what was there before stays", "a report is whole"),
    ),
    "a file speaks to the terminal": (
        "kvmtest/report/show.py",
        "    if text.isprintable():\n",
        "    if True:\n",
        "files",
        ("no control character",),
    ),
    "lines wait in a buffer": (
        "kvmtest/report/jsonl.py",
        "        self.out = out\n        self._lines = Lines(out.write)\n",
        "        self.out = __import__('io').StringIO()\n        self._lines = Lines(out.write)\n",
        "killed",
        ("nothing counted is lost",),
    ),
    "a report that was not whole stays beside it": (
        "kvmtest/commands/output.py",
        "                os.unlink(self._fresh)\n",
        "                pass\n",
        "disk",
        ("no file beside the reports",),
    ),
    "a work folder stays": (
        "kvmtest/lab/cache.py",
        "        shutil.rmtree(made, ignore_errors=True)\n",
        "        pass\n",
        "guests",
        ("no temporary file left",),
    ),
    "a name in a package leads out of the cache": (
        "kvmtest/lab/kernels.py",
        "        if \"..\" in name.split(\"/\") or not (",
        "        if not (",
        "packages",
        ("no file elsewhere",),
    ),
    "an ioctl that was interrupted is not called again": (
        "kvmtest/kvm/ioctl.py",
        "        if error != errno.EINTR or request == KVM_RUN or not left:\n",
        "        if True:\n",
        "refused",
        ("no other verdict",),
    ),
}  # fmt: skip


#: Faults of a kind, where 60 from this seed do not show what is planted.
_COUNTS = {"files": "400"}


@pytest.mark.nightly
@pytest.mark.parametrize("name", _PLANTED)
def test_it_finds_what_is_planted(name: str, kvm: Kvm, tmp_path: Path) -> None:
    where, old, new, kind, rules = _PLANTED[name]
    for folder in ("kvmtest", "tests"):
        shutil.copytree(_ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "evidence"))
    text = (tmp_path / where).read_text()
    assert text.count(old) == 1
    (tmp_path / where).write_text(text.replace(old, new))
    done = _torture(tmp_path, "--time", "600", "--count", _COUNTS.get(kind, "60"), "--seed", "1", "--only", kind)
    assert done.returncode == 1, done.stdout + done.stderr
    found = [line.partition("times: ")[2] for line in done.stdout.splitlines() if " times: " in line]
    assert found and set(found) & set(rules), done.stdout


@pytest.mark.parametrize(
    ("status", "said", "made", "allowed"),
    [
        (-15, b"", "tmp", (-15,)),
        (-15, b"kvmtest: interrupted\n", "tmp", ()),
        (-15, b"", "main", ()),
        (-11, b"", "tmp", ()),
        (1, b"", "tmp", ()),
    ],
)
def test_a_signal_before_it_begins_is_none_to_it(
    status: int, said: bytes, made: str, allowed: tuple[int, ...], tmp_path: Path
) -> None:
    (tmp_path / made).mkdir()
    assert unbegun(Ended([], status, b"", said, False, []), tmp_path) == allowed


def test_the_same_seed_changes_a_file_in_the_same_way() -> None:
    data = b'{"schema": "kvmtest.results/2", "cases": [{"name": "x"}], "runs": []}'
    many = [[mutated(data, random.Random(f"1/{number}")) for number in range(200)] for _ in range(2)]
    assert many[0] == many[1] and len(set(many[0])) > 100
