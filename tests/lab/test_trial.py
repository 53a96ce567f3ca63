# SPDX-License-Identifier: GPL-2.0-only
"""Both sides of a change are built and run, and of its lines those are reported that no case ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmtest.commands import trial as trial_command
from kvmtest.coverage.source import Sources
from kvmtest.lab import build, instrument, trial
from kvmtest.lab.build import KVM, Unbuildable
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.steps import Spec
from kvmtest.lab.tree import Change
from tests.coverage import made
from tests.lab import fakes

_KERNEL = Kernel("9.9", "9.9.9", "", "", "")


@pytest.fixture
def change(tmp_path: Path) -> Change:
    """A change of two trees."""
    before, after = (str(fakes.tree(tmp_path / side)) for side in ("before", "after"))
    return Change(before, after, "old", "new", "a title", "9.9", {f"{KVM}/x86.c": ()}, ())


def _diff(old: str, new: str) -> list[str]:
    """A hunk that replaces the line ``old`` of the source by ``new``, which the source has."""
    number = made.SOURCE.splitlines().index(new) + 1
    return [f"--- a/{made.FILE}", f"+++ b/{made.FILE}", f"@@ -{number} +{number} @@", f"-{old}", f"+{new}"]


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """The source after the change."""
    return Sources([str(made.source(tmp_path / "source"))])


def test_lines_that_ran_and_those_that_no_case_ran(sources: Sources) -> None:
    diffs = [_diff("wait(x, 1);", "\t\twait(x);"), _diff("\twait();", "\twait(0);"), _diff("/* called */", "/* never called */")]
    ran = trial.lines(made.table(), sources, diffs)
    assert ran.run == {(made.FILE, 11): "wait(x);"} and ran.missed == {(made.FILE, 17): "wait(0);"}
    assert ran.cases == ("sipi.msi/ap,intel",) and not ran.elsewhere


def test_a_module_that_no_cell_loads_is_reported_apart(sources: Sources) -> None:
    table = made.table()
    blocks = [block._replace(module="kvm-intel") if block.function == "unused" else block for block in table.blocks]
    ran = trial.lines(table._replace(blocks=blocks), sources, [_diff("\twait();", "\twait(0);")])
    assert ran.elsewhere == {(made.FILE, 17): "wait(0);"} and not ran.missed


@pytest.mark.parametrize("side", ["old", "new"])
def test_the_side_that_does_not_build_is_named(side: str, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(kernel: Kernel, tree: str, **more: object) -> str:
        if Path(tree).name == {"old": "before", "new": "after"}[side]:
            raise Unbuildable("9.9.9", ["x86.c:1: error: no"])
        return tree

    monkeypatch.setattr(build, "build", made)
    with pytest.raises(trial.Broken) as caught:
        trial.builds(change, _KERNEL, instrumented=False)
    assert caught.value.side == side and caught.value.errors == ("x86.c:1: error: no",)


def test_what_is_said_of_a_build_names_its_side(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def modules(kernel: Kernel, tree: str, *, say: object, tick: object) -> str:
        assert callable(say) and callable(tick)
        say("building")
        tick("1 files")
        return tree

    monkeypatch.setattr(build, "build", modules)
    assert trial.builds(change, _KERNEL, False, said.append, said.append) == (change.before, change.after, None)
    assert said == ["old: building", "old: 1 files", "new: building", "new: 1 files"]


def test_the_second_cell_of_a_pair_alone_reports_what_it_executes(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrument.Instrumented, "table", lambda self: made.table())
    specs = [Spec("svm", _KERNEL), Spec("vmx", _KERNEL)]
    built = trial.Builds("before", "after", instrument.Instrumented("folder"))
    pairs = trial.pairs(change, built, specs, "", lambda name, step: None)
    assert [(p.before.name, p.after.name) for p in pairs] == [("9.9/svm old", "9.9/svm new"), ("9.9/vmx old", "9.9/vmx new")]
    cells = [one.spec for p in pairs for one in (p.before, p.after)]
    assert [(spec.own_modules, spec.coverage) for spec in cells] == [("before", False), ("after", True)] * 2
    plain = trial.pairs(change, trial.Builds("before", "after", None), specs, "", lambda name, step: None)
    assert not any(one.spec.coverage for p in plain for one in (p.before, p.after))
    assert trial.Trial(change, _KERNEL, trial.Builds("before", "after", None), plain).ran() is None


def test_a_change_without_a_line_of_code_says_so() -> None:
    (said,) = trial_command._coverage(trial.Ran({}, {}, {}, ()))
    assert "none of those that it adds has code" in said
    (run, missed) = trial_command._coverage(trial.Ran({("x86.c", 1): "a;"}, {("x86.c", 2): "b;"}, {}, ("init.msi/ap",)))
    assert run.endswith("1 of 2 lines with code were run, by 1 case, and these by none:") and missed == "  x86.c:2  b;"
