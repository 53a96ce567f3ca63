# SPDX-License-Identifier: GPL-2.0-only
"""The recipes of contrib/: valid to the tools that they are for, and doing what they say."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmtest.cli import parser
from kvmtest.kvm import Kvm

pytestmark = pytest.mark.program

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib"
SCRIPTS = sorted(CONTRIB.rglob("*.sh"))
#: The folder in which make contrib installs tools.
BIN = Path(sys.executable).parent
PATH = f"{BIN}:{os.environ['PATH']}"


def tool(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if not found:
        pytest.skip(f"{name} is not installed (make contrib)")
    return found


def run(*command: str | Path, cwd: Path = CONTRIB, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    whole = os.environ | {"PATH": PATH} | env
    return subprocess.run([str(word) for word in command], cwd=cwd, env=whole, input=stdin, capture_output=True, text=True)


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command, and of each command of a command."""
    return dict(_commands(parser()))


def _commands(of: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, found in action.choices.items():
                yield name, found
                yield from ((f"{name} {inner}", parser) for inner, parser in _commands(found))


@pytest.fixture
def kvmtest(tmp_path: Path) -> Path:
    """A program that says its arguments, ends with $STATUS, and says $SAYS on standard error."""
    program = tmp_path / "bin" / "kvmtest"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "args: $*"\n[ -z "$SAYS" ] || echo "kvmtest: $SAYS" >&2\nexit "${STATUS:-0}"\n')
    program.chmod(0o755)
    return program


# The tools' own opinion


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_shellcheck(script: Path) -> None:
    done = run(tool("shellcheck"), script)
    assert (done.returncode, done.stdout) == (0, "")
    assert os.access(script, os.X_OK)


SCHEMAS = {
    "ci/github.yml": ["--builtin-schema", "vendor.github-workflows"],
    "ci/gitlab.yml": ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
}


@pytest.mark.parametrize("path", SCHEMAS)
def test_workflows_fit_their_schema(path: str, tmp_path: Path) -> None:
    checker = tool("check-jsonschema")
    done = run(checker, *SCHEMAS[path], CONTRIB / path)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "broken.yml"
    broken.write_text(re.sub(r"(?m)^( *)(runs-on|script):", r"\1runs-at:", (CONTRIB / path).read_text()))
    assert run(checker, *SCHEMAS[path], broken).returncode != 0


def test_the_workflows_shell_is_sound() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (make contrib)")
    checker = tool("shellcheck")
    steps = yaml.safe_load((CONTRIB / "ci/github.yml").read_text())["jobs"]["kvm"]["steps"]
    job = yaml.safe_load((CONTRIB / "ci/gitlab.yml").read_text())["kvmtest"]
    scripts = [step["run"] for step in steps if "run" in step]
    for script in scripts:
        done = run(checker, "--shell=bash", "-", stdin=script)
        assert (done.returncode, done.stdout) == (0, ""), script
    # GitLab's $SELECTORS is split on purpose (SC2086); directives cannot stand between the lines of a list.
    done = run(checker, "--shell=bash", "--exclude=SC2086", "-", stdin="\n".join(job["before_script"] + job["script"]))
    assert (done.returncode, done.stdout) == (0, "")


def test_tmt_lint() -> None:
    done = run(tool("tmt"), "lint", cwd=CONTRIB / "tmt")
    assert done.returncode == 0, done.stdout
    assert not re.search(r"^(warn|fail) ", done.stdout, re.M), done.stdout


def test_ansible_lint_and_syntax() -> None:
    done = run(tool("ansible-lint"), "--offline", "--profile", "production", "kvmtest.yml", cwd=CONTRIB / "ansible")
    assert done.returncode == 0, done.stdout
    done = run(tool("ansible-playbook"), "-i", "localhost,", "--syntax-check", "kvmtest.yml", cwd=CONTRIB / "ansible")
    assert done.returncode == 0, done.stderr


def test_what_they_call_exists() -> None:
    texts = {path: path.read_text() for path in [*SCRIPTS, *(CONTRIB / "ci").iterdir(), CONTRIB / "ansible/kvmtest.yml"]}
    known = {option for command in commands().values() for action in command._actions for option in action.option_strings}
    called = [(path, option) for path, text in texts.items() for line in re.findall(r"\b(?:run|report) --[^\n|;]*", text)
              for option in re.findall(r"(?<= )--[a-z-]+", line)]  # fmt: skip
    assert len({path for path, _ in called}) == 6
    assert not [where for where in called if where[1] not in known]


def test_nothing_is_installed_by_a_name_that_anybody_may_register() -> None:
    named = re.compile(r"""install\b[^\n]*(?:['"\s]|:-)kvmtest(?:\[|['"}\s]|$)|KVMTEST: kvmtest|source \| default""", re.M)
    assert named.search("pip install 'kvmtest[html]'") and named.search('pip" install "${KVMTEST:-kvmtest}"')
    folders = (ROOT / "docs", ROOT / "kvmtest", CONTRIB)
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".md", ".sh", ".yml", ".fmf")]
    assert len(files) > 150
    assert not [path for path in [*files, ROOT / "README.md", ROOT / "CHANGELOG.md"] if named.search(path.read_text())]


# The kselftest


@pytest.mark.parametrize(
    ("status", "says", "want", "last"),
    [
        ("0", "", 0, "args: run --format ktap init.msi"),
        ("1", "", 1, "args: run --format ktap init.msi"),
        ("2", "no result id matches 'x'", 1, "not ok 1 kvmtest # no result id matches 'x'"),
        ("3", "/dev/kvm: no such device", 4, "1..0 # SKIP /dev/kvm: no such device"),
        ("3", "nothing could be tested: every result is a skip", 4, "args: run --format ktap init.msi"),
        ("130", "interrupted", 1, "args: run --format ktap init.msi"),
    ],
)
def test_kselftest_status(kvmtest: Path, status: str, says: str, want: int, last: str) -> None:
    done = run(CONTRIB / "kselftest/kvmtest.sh", "init.msi", KVMTEST=str(kvmtest), STATUS=status, SAYS=says)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (want, last)
    assert says in done.stderr


def test_kselftest_without_kvmtest_is_a_skip() -> None:
    done = run(CONTRIB / "kselftest/kvmtest.sh", KVMTEST="/nonexistent/kvmtest")
    assert (done.returncode, done.stdout) == (4, "KTAP version 1\n1..0 # SKIP /nonexistent/kvmtest is not installed\n")


def test_kselftest_for_real(kvm: Kvm) -> None:
    done = run(CONTRIB / "kselftest/kvmtest.sh", "sipi.msi.host.rip", KVMTEST=str(BIN / "kvmtest"))
    assert done.returncode == 0
    assert done.stdout.startswith("KTAP version 1\n1..1\n") and done.stdout.rstrip().endswith("ok 1 sipi")


def test_kselftest_for_real_without_kvm() -> None:
    done = run(CONTRIB / "kselftest/kvmtest.sh", "--device", "/nonexistent", KVMTEST=str(BIN / "kvmtest"))
    assert done.returncode == 4
    assert done.stdout.startswith("KTAP version 1\n1..0 # SKIP /nonexistent: no such device")


# Many hosts by ssh


@pytest.fixture
def ssh(tmp_path: Path) -> Path:
    """As ssh, to hosts that are this machine; $STATUS is that of the host "bad" alone, and "gone" is not reached."""
    program = tmp_path / "ssh"
    program.write_text(
        '#!/bin/sh\n[ "$1" != gone ] || { echo "ssh: no route to host" >&2; exit 255; }\n'
        '[ "$1" = bad ] || export STATUS=0\nexec sh -c "$2"\n'
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("hosts", "status", "want"),
    [("a b", "0", 0), ("a bad", "1", 1), ("a bad", "3", 3), ("bad gone", "1", 1), ("gone bad", "1", 1), ("a gone", "0", 3)],
)
def test_hosts_status(kvmtest: Path, ssh: Path, tmp_path: Path, hosts: str, status: str, want: int) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old.json").write_text("of another run")
    command = [CONTRIB / "hosts.sh", "-o", folder, "-s", "init.*.host.cr*", "-s", "reset", *hosts.split()]
    done = run(*command, KVMTEST=str(kvmtest), REPORT=str(kvmtest), SSH=str(ssh), STATUS=status)
    assert done.returncode == want
    reached = [host for host in hosts.split() if host != "gone"]
    for host in reached:
        # The command of the host, its globs not expanded here or there.
        assert (folder / f"{host}.jsonl").read_text() == "args: run --format jsonl init.*.host.cr* reset\n"
    assert not (folder / "gone.jsonl").exists()
    assert f"args: report --report junit=kvmtest.xml {' '.join(f'{host}.jsonl' for host in reached)}" in done.stdout


def test_hosts_without_a_host_is_wrong_usage() -> None:
    assert run(CONTRIB / "hosts.sh").returncode == 2
    assert run(CONTRIB / "hosts.sh", "-x", "a").returncode == 2


# tmt and Ansible


@pytest.mark.parametrize(
    ("status", "says", "want"),
    [("0", "", "pass"), ("1", "", "fail"), ("2", "it's wrong", "error"), ("3", "/dev/kvm: no such device", "skip")],
)
def test_tmt_result(kvmtest: Path, tmp_path: Path, status: str, says: str, want: str) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (make contrib)")
    data = tmp_path / "data"
    data.mkdir()
    path = f"{kvmtest.parent}:{PATH}"
    done = run(CONTRIB / "tmt/kvmtest.sh", TMT_TEST_DATA=str(data), PATH=path, STATUS=status, SAYS=says, SELECTORS="reset i*.x")
    (result,) = yaml.safe_load((data / "results.yaml").read_text())
    assert (done.returncode, result["result"], result.get("note")) == (0, want, [says] if says else None)
    assert f"args: run --shard 1/1 --output {data}/kvmtest.txt --report json={data}/kvmtest.json reset i*.x" in done.stdout


@pytest.mark.recipe
def test_ansible_for_real(kvm: Kvm, tmp_path: Path) -> None:
    playbook = tool("ansible-playbook")
    inventory = tmp_path / "hosts"
    inventory.write_text(
        "[kvm]\ngood kvmtest_selectors='sipi.msi.host.rip sipi.msi.host.cs.*'\nabsent kvmtest_selectors=reset.no.such\n"
        "[kvm:vars]\nansible_connection=local\nansible_python_interpreter='{{ ansible_playbook_python }}'\n"
    )
    results = tmp_path / "results"
    extra = f"kvmtest_source={ROOT} kvmtest_results={results} kvmtest_program={shlex.quote(str(BIN / 'kvmtest'))}"
    command = [playbook, "-i", inventory, "kvmtest.yml", "-e", extra, "-e", f"kvmtest_python={sys.executable}"]
    good = run(*command, "--limit", "good,localhost", cwd=CONTRIB / "ansible")
    assert good.returncode == 0, good.stdout
    assert sorted(path.name for path in results.iterdir()) == ["good.jsonl.gz", "kvmtest.html", "kvmtest.xml"]
    assert " results in " in good.stdout and "kvmtest  0." in good.stdout
    both = run(*command, cwd=CONTRIB / "ansible")
    assert both.returncode != 0
    assert "unexpected results on: none; not tested, or not to the end: absent;" in both.stdout
