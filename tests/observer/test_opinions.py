# SPDX-License-Identifier: GPL-2.0-only
"""Opinions: made of judged logs, kept as data, shown beside the rule."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from kvmtest import cli, explain, spec
from kvmtest.observer.judge import judged, machine
from kvmtest.observer.opinions import opinions
from kvmtest.spec.opinions import FILE, Opinion, parse, printed
from tests.observer import made

KEPT = parse(resources.files("kvmtest.spec").joinpath(FILE).read_text("utf-8"))


def test_what_is_kept_is_of_items_that_have_a_rule_and_sorted() -> None:
    assert KEPT and {one.item for one in KEPT} <= spec.ENTRIES.keys()
    assert printed(KEPT) == resources.files("kvmtest.spec").joinpath(FILE).read_text("utf-8")


def test_a_departure_in_any_place_is_one_of_the_machine() -> None:
    found = {one[:3]: one for one in opinions([judged(made.recorded(), machine(made.recorded(), name="Q"), "now")])}
    assert found["cr0", "init", "amd"] == Opinion("cr0", "init", "amd", "Q (tcg)", "0x60000010", "0x10")
    assert not found["cr0", "reset", "amd"].departs and ("msr.tsc", "reset", "amd") not in found


def test_they_stand_beside_the_rule_with_a_mark_where_they_disagree() -> None:
    lines = " ".join(line.strip() for line in explain.explain("cr0"))
    assert "! QEMU 7.2.22 (tcg), AMD: 0x60000010, where 0x10 is asked for" in lines
    assert "QEMU 7.2.22 (tcg), AMD: the same" in lines


def test_the_command_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, saved, out = tmp_path / "log", tmp_path / "saved.json", tmp_path / "out.tsv"
    log.write_bytes(made.RECORDED)
    cli.main(["observer", "judge", "--report", f"json={saved}", "--name", "box", str(log)])
    assert cli.main(["observer", "opinions", "-o", str(out), str(saved)]) == 0
    assert Opinion("rdx", "reset", "amd", "box (tcg)") in parse(out.read_text())
    capsys.readouterr()
    saved.write_text(json.dumps({}))
    assert cli.main(["observer", "opinions", str(saved)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
