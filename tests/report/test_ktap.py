# SPDX-License-Identifier: GPL-2.0-only
"""KTAP, read back by a strict parser and by the kernel's own."""

from __future__ import annotations

import glob
import itertools
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from kvmtest.model.record import Observation
from kvmtest.model.run import Run
from kvmtest.model.verdict import VERDICTS
from tests.report.ktap_strict import KtapError, Node, parse
from tests.report.samples import HOSTILE, made, of_each, saved, saved_runs, written
from tests.sample import at_most

#: ok, directive.
_SAYS = {
    "pass": (True, ""),
    "fail": (False, ""),
    "error": (False, "ERROR"),
    "known": (True, "XFAIL"),
    "fixed": (True, "XPASS"),
    "skip": (True, "SKIP"),
    "info": (True, "SKIP"),
}


def _leaves(text: str) -> dict[str, Node]:
    return {name: leaf for node in parse(text) for name, leaf in node.leaves().items()}


def test_each_verdict_has_its_line() -> None:
    leaves = _leaves(written("ktap", saved(of_each())))
    for verdict, says in _SAYS.items():
        leaf = leaves[f"init.msi.host.item-{verdict}"]
        assert (leaf.ok, leaf.directive) == says
    assert leaves["init.msi.host.item-known"].reason == "because known [03a6e84069d1]"
    assert leaves["init.msi.host.item-info"].reason == "not judged: because info"


def test_a_test_is_an_id_and_its_verdict_is_the_worst() -> None:
    leaf = _leaves(written("ktap", saved(of_each())))["init.msi.host.all"]
    assert not leaf.ok and leaf.directive == ""
    remarks = "\n".join(leaf.remarks)
    assert "cases: 1 fail, 1 error, 1 fixed" in remarks and "fail in case-fail" in remarks and "error in case-error" in remarks
    assert "planted 0x5000" in remarks and "repeat: kvmtest run init.msi.host.all" in remarks


@pytest.mark.parametrize(("worse", "better"), list(itertools.pairwise(("fail", "error", "fixed", "known", "pass", "skip"))))
def test_what_is_worse(worse: str, better: str) -> None:
    results = [made(better, words="a"), made(worse, words="b"), made(better, words="c")]
    leaf = _leaves(written("ktap", saved(results)))["init.msi.host.cr3"]
    assert (leaf.ok, leaf.directive) == _SAYS[worse]


def test_what_was_never_judged_is_not_judged() -> None:
    leaf = _leaves(written("ktap", saved([made("skip", words="a"), made("info", words="b")])))["init.msi.host.cr3"]
    assert (leaf.ok, leaf.directive, leaf.reason) == (True, "SKIP", "not judged: because info")


def test_findings_are_named_at_the_head_and_by_each_test() -> None:
    seen = [made("fail", words="a"), made("fail", words="b"), made("fail", "cr4", "a"), made("known", "cr0"), made("pass", "cr2")]
    text = written("ktap", saved(seen))
    kept = [f"{item} keeps the planted value after INIT ({cases})" for item, cases in (("cr3", "2 cases"), ("cr4", "1 case"))]
    head = [line[2:] for line in text.splitlines() if line.startswith("# finding: ")]
    assert head[:2] == [f"finding: fail: {said}" for said in kept] and len(head) == 3 and "known: cr0" in head[2]
    leaves = _leaves(text)
    for item, said in zip(("cr3", "cr4"), kept, strict=True):
        assert f"{item}: finding: {said}" in leaves[f"init.msi.host.{item}"].remarks
    assert not any("finding" in line for line in leaves["init.msi.host.cr2"].remarks)


def test_a_case_that_is_repeated_is_counted_each_time() -> None:
    one = made("fail")
    leaf = _leaves(written("ktap", saved([one] * 300)))["init.msi.host.cr3"]
    assert "cr3: cases: 300 fail" in leaf.remarks


def test_runs_are_nested_by_name() -> None:
    text = written("ktap", saved([made("pass")], "a.b#c"), saved([made("fail")], "two"))
    one, two = parse(text)
    assert one.ok and not two.ok and (one.name, two.name) == ("a.b_c", "two")
    assert list(two.leaves()) == ["two.init.msi.host.cr3"]


def test_what_could_not_be_tried_at_all_is_no_pass() -> None:
    (init,) = parse(written("ktap", saved([made("skip"), made("info", "x")])))
    assert init.directive == "SKIP" and init.children[0].directive == "SKIP"


@pytest.mark.parametrize("reason", HOSTILE)
@pytest.mark.parametrize("verdict", VERDICTS)
def test_no_reason_becomes_a_result(verdict: str, reason: str) -> None:
    leaves = _leaves(written("ktap", saved([made(verdict, reason=reason)])))
    assert [(leaf.ok, leaf.directive) for leaf in leaves.values()] == [_SAYS[verdict]]


@settings(max_examples=at_most(50))
@given(saved_runs())
def test_any_run_is_strict_ktap(runs: list[Run]) -> None:
    text = written("ktap", *runs)
    nodes = parse(text)
    if len(runs) > 1:
        assert len(nodes) == len(runs)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1..1\nok 1 a\n",
        "KTAP version 1\nok 1 a\n",
        "KTAP version 1\n1..2\nok 1 a\n",
        "KTAP version 1\n1..1\nok 2 a\n",
        "KTAP version 1\n1..1\nok 1 a\nok 2 b\n",
        "KTAP version 1\n1..1\nsome words\nok 1 a\n",
        "KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  not ok 1 b\nok 1 a\n",
        "KTAP version 1\n1..1\nok 1 a # SOMETHING\n",
        "KTAP version 1\n1..1\n# \x1b\nok 1 a\n",
    ],
)
def test_the_strict_parser_is_strict(text: str) -> None:
    with pytest.raises(KtapError):
        parse(text)


@pytest.fixture(scope="session")
def kunit(request: pytest.FixtureRequest) -> str:
    """tools/testing/kunit/kunit.py: of KVMTEST_KERNEL, a kernel's source, or of Debian's linux-source, unpacked once."""
    if folder := os.environ.get("KVMTEST_KERNEL"):
        return f"{folder}/tools/testing/kunit/kunit.py"
    sources = sorted(glob.glob("/usr/src/linux-source-*.tar.xz"))
    if not sources:
        pytest.skip("no kernel source here: apt-get install linux-source, or set KVMTEST_KERNEL to one")
    cache: pytest.Cache | None = getattr(request.config, "cache", None)
    kept = cache.mkdir("kunit") if cache else request.getfixturevalue("tmp_path_factory").mktemp("kunit")
    # kunit.py finds the kernel's root by its own path.
    folder = kept / os.path.basename(sources[-1]) / "tools/testing/kunit"
    if not (folder / "kunit.py").exists():
        _unpack(sources[-1], folder)
    return str(folder / "kunit.py")


def _unpack(source: str, folder: Path) -> None:
    """kunit.py last, so that it is there only with all that it imports."""
    found = {}
    with tarfile.open(source, "r|xz") as archive:
        for member in archive:
            name = member.name.partition("/tools/testing/kunit/")[2]
            if name.endswith(".py") and "/" not in name and (file := archive.extractfile(member)):
                found[name] = file.read()
            elif found and not name:
                break
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(found, key=lambda name: name == "kunit.py"):
        (folder / name).write_bytes(found[name])


def _parsed(kunit: str, text: str) -> tuple[dict[str, int], list[str], str]:
    """kunit.py's counts, the names and statuses of its leaves, and what it printed."""
    program = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import kunit_parser as p\n"
        "import inspect; from kunit_printer import stdout\n"
        "more = [stdout] if len(inspect.signature(p.parse_run_tests).parameters) > 1 else []\n"
        "t = p.parse_run_tests(sys.stdin.read().splitlines(), *more)\n"
        "def leaves(t, path):\n"
        "    path = path + [t.name]\n"
        "    if not t.subtests: yield '.'.join(path[1:]) + ' ' + t.status.name\n"
        "    for s in t.subtests: yield from leaves(s, path)\n"
        "print('\\n' + json.dumps([vars(t.counts), list(leaves(t, []))]))"
    )
    command = [sys.executable, "-c", program, os.path.dirname(kunit)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60)
    counts, leaves = json.loads(done.stdout.splitlines()[-1])
    return counts, leaves, done.stdout


_KUNIT = {"fail": "FAILURE", "error": "FAILURE", "skip": "SKIPPED", "info": "SKIPPED"}


def _hostile() -> list[Observation]:
    return [made(v, f"{v}-{i}", reason=reason) for i, reason in enumerate(HOSTILE) for v in VERDICTS]


def test_the_kernels_parser_reads_it(kunit: str) -> None:
    results = of_each() + _hostile()
    for runs in ([saved(results)], [saved(results, "one"), saved(results, "two # SKIP")]):
        counts, leaves, printed = _parsed(kunit, written("ktap", *runs))
        assert counts["errors"] == 0 and counts["crashed"] == 0, printed
        tests = {result.id: result.verdict for one in results for result in one.results} | {"init.msi.host.all": "fail"}
        assert len(leaves) == len(tests) * len(runs)
        if len(runs) > 1:
            assert {name.partition(".")[0] for name in leaves} == {"one", "two _ SKIP"}
        else:
            assert sorted(leaves) == sorted(f"{name} {_KUNIT.get(v, 'SUCCESS')}" for name, v in tests.items())


def test_kunit_parse_takes_it(kunit: str, tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(written("ktap", saved([made("pass"), made("known", "cr0"), made("skip", "cr2")])))
    done = subprocess.run([sys.executable, kunit, "parse", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "init" in done.stdout, done.stdout + done.stderr
    file.write_text(written("ktap", saved([made("fail")])))
    assert subprocess.run([sys.executable, kunit, "parse", str(file)], capture_output=True, timeout=60).returncode == 1
