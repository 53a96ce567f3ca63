# SPDX-License-Identifier: GPL-2.0-only
"""A broken line is shown by results that count, and these are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmtest.model.record import Result
from tests.lab import caught
from tests.lab.caught import BREAKS, GROUPS, Row
from tests.lab.mutants import Mutant
from tests.report.samples import made

_MUTANT = Mutant("cr2-kept", "x86.c", "\tvcpu->arch.cr2 = 0;", "init.msi.host.cr2", "0x*")


def _results(*items: str) -> list[Result]:
    return [result for item in items for result in made("fail", item).results]


def test_a_result_that_fails_anyway_shows_no_break() -> None:
    seen = _results("cr2", "cr3")
    assert [result.item for result in caught.catching(_MUTANT, seen, [])] == ["cr2"]
    assert not caught.catching(_MUTANT, seen, seen)
    assert not caught.catching(_MUTANT._replace(shown="0x0"), seen, [])


def test_names_are_the_only_ones_and_lead_to_their_modules() -> None:
    assert len({mutant.name for mutant in BREAKS}) == len(BREAKS) >= 60
    for mutant in BREAKS:
        group, number = caught.number(mutant)
        assert GROUPS[group][number - 1] is mutant and "MUTANT" in mutant.statement


def test_the_function_of_a_line(tmp_path: Path) -> None:
    source = tmp_path / "x86.c"
    before = "static int f(int a)\n{\n}\n\n"
    source.write_text(before + "void kvm_vcpu_reset(struct kvm_vcpu *vcpu,\n\t\t    bool init)\n{\n\tx;\nlabel:\n\ty;\n}\n")
    assert caught.function(source, "\ty;") == "kvm_vcpu_reset"


def test_rows_are_kept_in_the_order_of_the_lists_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caught, "FILE", tmp_path / "mutants.tsv")
    assert caught.kept() == {}
    first, second = (Row(mutant.name, "svm", "x86.c", "f", "x;", "if (!MUTANT)", 1, 2, "init", "0x0") for mutant in BREAKS[:2])
    caught.keep({second.name: second, first.name: first, "gone": first._replace(name="gone")})
    assert list(caught.kept().values()) == [first, second]
