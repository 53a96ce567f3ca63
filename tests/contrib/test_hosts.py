# SPDX-License-Identifier: GPL-2.0-only
"""The recipes for many hosts, over SSH to hosts that are namespaces: one is not reached, and one hangs half-way."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmtest.kvm import Kvm
from kvmtest.results import saved
from tests.contrib.namespaces import Hosts, hosts
from tests.wheel import ROOT, built

pytestmark = [pytest.mark.program, pytest.mark.recipe, pytest.mark.nightly]

CONTRIB = ROOT / "contrib"
BIN = Path(sys.executable).parent
#: Some cases, most of them without a departure anywhere.
_SOME = "sipi.msi.host.rip sipi.msi.host.cs.*"
#: These for all hosts but the one that hangs, which has to be caught in the middle.
_MOST = "{{ '' if inventory_hostname == 'stuck' else '" + _SOME + "' }}"


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Hosts]:
    """The hosts good, gone, which has no SSH daemon, and stuck."""
    with hosts(tmp_path, ("good", "gone", "stuck")) as made:
        made.serve("good")
        made.serve("stuck")
        yield made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


def _play(on: Hosts, wheel: Path, folder: Path, *more: str, of: str = "") -> subprocess.CompletedProcess[str]:
    """Run the playbook on hosts."""
    playbook = BIN / "ansible-playbook"
    if not playbook.exists():
        pytest.skip("ansible-playbook is not installed (make contrib)")
    inventory = folder / "hosts"
    names = of.split() or list(on.addresses)
    inventory.write_text("[kvm]\n" + "".join(f"{name} ansible_host={on.addresses[name]}\n" for name in names))
    given = {"kvmtest_source": wheel, "kvmtest_results": folder / "results", "kvmtest_program": BIN / "kvmtest"}
    extra = [word for name, value in given.items() for word in ("-e", f"{name}={shlex.quote(str(value))}")]
    extra += ["-e", f"kvmtest_python={sys.executable}", *more]
    command = [*on.inside, str(playbook), "-i", str(inventory), "kvmtest.yml", *extra]
    settings = {"ANSIBLE_SSH_ARGS": on.options, "ANSIBLE_TIMEOUT": "5", "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
    folder = CONTRIB / "ansible"
    return subprocess.run(command, cwd=folder, env=os.environ | settings, capture_output=True, text=True, timeout=600)


@contextlib.contextmanager
def _stopped_half_way(on: Hosts, name: str, results: Path | None = None) -> Iterator[None]:
    """Within it kvmtest on a host is stopped, as if it hung in an ioctl, when there is something in ``results``, or in what its
    command line has as --output.
    """
    over = threading.Event()

    def written(pid: int) -> int:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        where = results or (Path(words[words.index("--output") + 1]) if "--output" in words else None)
        return where.stat().st_size if where else 0

    def stop() -> None:
        while not over.wait(0.1):
            with contextlib.suppress(OSError):  # it may end meanwhile
                found = on.processes(name, "kvmtest run")
                if any(written(pid) > 10_000 for pid in found):
                    for pid in found:
                        os.kill(pid, signal.SIGSTOP)
                    return

    stopping = threading.Thread(target=stop)
    stopping.start()
    try:
        yield
    finally:
        over.set()
        stopping.join()


def test_ansible_reports_the_host_that_was_not_reached_and_the_one_that_hung(
    kvm: Kvm, three: Hosts, wheel: Path, tmp_path: Path
) -> None:
    with _stopped_half_way(three, "stuck"):
        done = _play(three, wheel, tmp_path, "-e", f'{{"kvmtest_limit": 60, "kvmtest_selectors": "{_MOST}"}}')
    assert done.returncode != 0
    assert "unexpected results on: none; not tested, or not to the end: gone, stuck; findings" in done.stdout, done.stdout
    results = tmp_path / "results"
    assert sorted(path.name for path in results.iterdir()) == ["good.jsonl.gz", "kvmtest.html", "kvmtest.xml", "stuck.jsonl.gz"]
    (good,), (stuck,) = (saved.load(str(results / f"{name}.jsonl.gz")) for name in ("good", "stuck"))
    # Its results from before it hung are kept, marked as cut short.
    assert good.interrupted is False and stuck.interrupted is None and len(stuck.cases) > len(good.cases)
    page = (results / "kvmtest.html").read_text()
    assert '<th scope="col"><span>good</span></th><th scope="col"><span>stuck</span></th>' in page and "cut short" in page
    assert not three.processes("stuck", "kvmtest") and not three.processes("good", "kvmtest")


def test_ansible_notices_a_host_whose_line_is_cut(kvm: Kvm, three: Hosts, wheel: Path, tmp_path: Path) -> None:
    def cut() -> None:
        while not three.processes("stuck", "kvmtest run"):
            time.sleep(0.05)
        three.unplug("stuck")

    cutting = threading.Thread(target=cut, daemon=True)
    cutting.start()
    done = _play(three, wheel, tmp_path, "-e", f'{{"kvmtest_limit": 40, "kvmtest_selectors": "{_MOST}"}}', of="good stuck")
    cutting.join(1)
    assert done.returncode != 0 and "unreachable=1" in done.stdout, done.stdout
    assert "not tested, or not to the end: stuck" in done.stdout
    assert (tmp_path / "results" / "good.jsonl.gz").exists()


def test_ansible_shares_a_run_between_hosts(kvm: Kvm, three: Hosts, wheel: Path, tmp_path: Path) -> None:
    three.serve("gone")
    selectors = f'{{"kvmtest_selectors": "{_SOME}", "kvmtest_share": true}}'
    done = _play(three, wheel, tmp_path, "-e", selectors)
    assert done.returncode == 0, done.stdout
    runs = [saved.load(str(tmp_path / "results" / f"{name}.jsonl.gz"))[0] for name in three.addresses]
    assert [str(run.head.shard) for run in runs] == ["1/3", "2/3", "3/3"]
    whole = tmp_path / "whole.jsonl"
    assert subprocess.run([BIN / "kvmtest", "run", "--format", "jsonl", "-o", whole, *_SOME.split()]).returncode == 0
    (run,) = saved.load(str(whole))
    assert sorted(case.name for one in runs for case in one.cases) == sorted(case.name for case in run.cases)
    assert "shard" not in done.stdout.partition("Show it")[2]


def test_hosts_sh_over_ssh(kvm: Kvm, three: Hosts, tmp_path: Path) -> None:
    results = tmp_path / "results"
    script = [*three.inside, str(CONTRIB / "hosts.sh"), "-o", str(results), *(f"-s{word}" for word in _SOME.split())]
    environment = os.environ | {"SSH": f"ssh {three.options}", "KVMTEST": str(BIN / "kvmtest"), "REPORT": str(BIN / "kvmtest")}
    addresses = [f"root@{three.addresses[name]}" for name in ("good", "gone")]
    done = subprocess.run([*script, *addresses], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"{addresses[0]}: exit status 0" in done.stdout and f"{addresses[1]}: exit status 255" in done.stdout
    assert [path.name for path in results.glob("*.jsonl")] == [f"{addresses[0]}.jsonl"]


def test_hosts_sh_ends_a_host_that_hangs(kvm: Kvm, three: Hosts, tmp_path: Path) -> None:
    results, host = tmp_path / "results", f"root@{three.addresses['stuck']}"
    names = {"SSH": f"ssh {three.options}", "KVMTEST": str(BIN / "kvmtest"), "REPORT": str(BIN / "kvmtest"), "LIMIT": "40"}
    command = [*three.inside, str(CONTRIB / "hosts.sh"), "-o", str(results), host]
    with _stopped_half_way(three, "stuck", results / f"{host}.jsonl"):
        done = subprocess.run(command, env=os.environ | names, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3 and "exit status 124" in done.stdout and "cut short" in done.stdout, done.stdout + done.stderr
