# SPDX-License-Identifier: GPL-2.0-only
"""Opinions: made of judged logs, kept as data, shown beside the rule."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import pytest

from kvmtest import cli, explain, spec
from kvmtest.observer.judge import judged, machine
from kvmtest.observer.opinions import opinions
from kvmtest.spec.contradictions import CONTRADICTIONS, why
from kvmtest.spec.opinions import FILE, Opinion, parse, printed
from tests.observer import made


def _lines(lines: Iterable[str]) -> str:
    return " ".join(line.strip() for line in lines)


KEPT = parse(resources.files("kvmtest.spec").joinpath(FILE).read_text("utf-8"))


def test_what_is_kept_is_of_items_that_have_a_rule_and_sorted() -> None:
    assert KEPT and {one.item for one in KEPT} <= spec.ENTRIES.keys()
    assert printed(KEPT) == resources.files("kvmtest.spec").joinpath(FILE).read_text("utf-8")


def test_a_departure_in_any_place_is_one_of_the_machine() -> None:
    found = {one[:3]: one for one in opinions([judged(made.recorded(), machine(made.recorded(), name="Q"), "now")])}
    assert found["cr0", "init", "amd"] == Opinion("cr0", "init", "amd", "Q (tcg)", "0x60000010", "0x10")
    assert not found["cr0", "reset", "amd"].departs and ("msr.tsc", "reset", "amd") not in found


def test_they_stand_beside_the_rule_with_a_mark_where_they_disagree() -> None:
    lines = _lines(explain.explain("cr0"))
    departs = r"! [^:]*QEMU 7.2.22 \(tcg\), AMD[^:]*: 0x60000010, where the rule requires 0x10 QEMU is wrong: do_cpu_init\(\)"
    assert re.search(departs, lines)
    assert re.search(r"the same in [^:]*QEMU 7.2.22 \(tcg\), AMD", lines)


def test_each_departure_of_an_emulator_was_looked_up() -> None:
    departures = [one for one in KEPT if one.departs and one.who.startswith(("QEMU", "Bochs"))]
    assert [one for one in departures if not why(one)] == []
    assert {why(one) for one in departures} == {one.why for one in CONTRADICTIONS}


def test_a_machine_of_ones_own_stands_beside_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, saved = tmp_path / "log", tmp_path / "saved.json"
    log.write_bytes(made.RECORDED)
    cli.main(["observer", "judge", "--report", f"json={saved}", "--accel", "silicon", "--name", "box", str(log)])
    capsys.readouterr()
    assert cli.main(["explain", "cr0", "--measured", str(saved)]) == 0
    said = _lines(capsys.readouterr().out.splitlines())
    assert "! box (silicon), AMD: 0x60000010, where the rule requires 0x10" in said
    assert cli.main(["explain", "cr0"]) == 0
    assert "box" not in capsys.readouterr().out
    saved.write_text(json.dumps({}))
    assert cli.main(["explain", "cr0", "--measured", str(saved)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


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
