# SPDX-License-Identifier: GPL-2.0-only
"""A cell in several emulators shows what it shows in one, in the same order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.kvm import Stop
from kvmtest.lab import ids, matrix, parts
from kvmtest.lab.cell import Cell, cases
from kvmtest.lab.error import Cancelled, LabError
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.steps import Begin, Booting, Remark, Running, Spec, Step, Times
from kvmtest.model.host import Host
from kvmtest.model.shard import WHOLE
from kvmtest.model.verdict import Verdict
from kvmtest.results import saved
from tests.report.samples import made

_SPEC = Spec("svm", Kernel("5.10", "5.10.0", "", "", ""), ("init.msi.host.cr3",))
_HOST = Host("5.10.0", "svm", "", "", {})
_LOG, _PASS = ids.of_kernel("log", Verdict.PASS, ""), made("pass", "cr3")


class _Cell:
    """A cell that shows one result of each case, and calls ``before`` before each."""

    before: Callable[[int, int], None] = staticmethod(lambda part, number: None)
    log: Verdict = Verdict.PASS

    def __init__(self, spec: Spec, stop: Stop) -> None:
        assert spec.shard
        self.spec, self._stop, self._part = spec, stop, spec.shard.numbers[0] - 1

    def steps(self) -> Iterator[Step]:
        chosen = cases(self.spec)
        order = sorted(chosen, key=lambda case: parts.fatal(case.name, "svm", (5, 10)))
        yield Booting("5.10.0", "made up", "", 0)
        yield Begin(_HOST, len(order))
        for number, case in enumerate(order):
            if self._stop.seen:
                raise Cancelled
            self.before(self._part, number)
            yield Running(case.look().case)
            yield [_PASS._replace(case=case.look().case)]
        yield [_LOG] if self.log is Verdict.PASS else [ids.of_kernel("log", self.log, "WARNING")]
        yield Times(1.0 + self._part, 2.0, 0.5)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> type[_Cell]:
    made_up = type("_Cell", (_Cell,), {})
    monkeypatch.setattr(parts, "Cell", made_up)
    return made_up


def _shown(steps: Iterator[Step]) -> tuple[list[Step], BaseException | None]:
    seen: list[Step] = []
    try:
        for step in steps:
            seen.append(step)
    except (Cancelled, LabError) as error:
        return seen, error
    return seen, None


def _names(seen: list[Step]) -> list[str]:
    """Those of the cases, each with its result."""
    for running, one in zip(seen, seen[1:], strict=False):
        if isinstance(running, Running):
            assert isinstance(one, list) and one[0].case == running.case
    return [step.case.name for step in seen if isinstance(step, Running)]


def _verdicts(step: Step) -> list[Verdict]:
    assert isinstance(step, list)
    return [record.verdict for one in step for record in one.records]


@pytest.mark.parametrize("count", [2, 3])
def test_it_is_as_of_one(cell: type[_Cell], count: int) -> None:
    alone, _ = _shown(_Cell(_SPEC._replace(shard=WHOLE), Stop()).steps())
    # The first one is the slow one.
    cell.before = staticmethod(lambda part, number: time.sleep(0.0005 * (part == 0)))  # type: ignore[assignment]
    seen, error = _shown(parts.Parts(_SPEC, count).steps())
    # A part that boots says so as long as none is up.
    seen, alone = ([step for step in steps if not isinstance(step, Booting)] for steps in (seen, alone))
    assert error is None and seen[:-2] == alone[:-2] and len(_names(seen)) > 100
    assert _verdicts(seen[-2]) == [Verdict.PASS] and seen[-1] == Times(float(count), 2.0, 0.5)
    # Some case of kernels that die of it comes last: as in a cell alone.
    assert "in-svm-l2-with-nested-paging" in _names(seen)[-1]


def test_a_part_of_a_run_is_shared_as_well(cell: type[_Cell]) -> None:
    whole = [case.name for case in cases(_SPEC)]
    shards = [shard for part in WHOLE.split(3) for shard in part.split(2)]
    assert len({*shards}) == 6 and all(sum(shard.has(name) for shard in shards) == 1 for name in whole)
    second = WHOLE.split(3)[1]
    seen, _ = _shown(parts.Parts(_SPEC._replace(shard=second), 2).steps())
    assert sorted(_names(seen)) == sorted(name for name in whole if second.has(name))


def test_what_one_part_cannot_do_costs_the_others_nothing(cell: type[_Cell]) -> None:
    def ends(part: int, number: int) -> None:
        if part == 1 and number == 3:
            raise LabError("the emulator is gone")

    cell.before = staticmethod(ends)  # type: ignore[assignment]
    seen, error = _shown(parts.Parts(_SPEC, 2).steps())
    assert str(error) == "the emulator is gone"
    first, second = ([case.name for case in cases(_SPEC) if shard.has(case.name)] for shard in WHOLE.split(2))
    names = _names(seen)
    assert {*first} < {*names} and len(names) == len(first) + 3 and len({*names} & {*second}) == 3
    # A log that was not read to its end has no pass.
    assert all(step[0].view != "kernel" for step in seen if isinstance(step, list))


def test_a_log_that_says_something_is_no_pass(cell: type[_Cell]) -> None:
    cell.log = Verdict.FAIL
    seen, _ = _shown(parts.Parts(_SPEC, 2).steps())
    logs = [step for step in seen if isinstance(step, list) and step[0].view == "kernel"]
    assert [_verdicts(step) for step in logs] == [[Verdict.FAIL]] * 2


def test_what_was_measured_is_shown_before_it_ends_by_a_signal(cell: type[_Cell]) -> None:
    stop = Stop()

    def stopping(part: int, number: int) -> None:
        if part == 0 and number == 5:
            stop.seen = True
            time.sleep(0.3)

    cell.before = staticmethod(stopping)  # type: ignore[assignment]
    seen, error = _shown(parts.Parts(_SPEC, 2, stop).steps())
    assert isinstance(error, Cancelled)
    first = [case.name for case in cases(_SPEC) if WHOLE.split(2)[0].has(case.name)]
    assert {*first[:6]} <= {*_names(seen)} and len(_names(seen)) < len(cases(_SPEC))


def test_a_kernel_that_does_not_boot_is_one_error(cell: type[_Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(self: _Cell) -> Iterator[Step]:
        yield Begin(_HOST, 0)
        yield [ids.of_kernel("boot", Verdict.ERROR, f"did not boot, {self.spec.shard}")]
        yield Times(1.0, 0.0, 0.0)

    monkeypatch.setattr(cell, "steps", steps)
    seen, _ = _shown(parts.Parts(_SPEC, 3).steps())
    assert [_verdicts(step) for step in seen if isinstance(step, list)] == [[Verdict.ERROR]]


def test_a_guest_that_runs_another_ones_cases_holds_nothing_up(cell: type[_Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cases(_SPEC)[:6]
    monkeypatch.setattr(f"{__name__}.cases", lambda spec: whole)
    monkeypatch.setattr(parts, "cases", lambda spec: whole)
    seen, error = _shown(parts.Parts(_SPEC, 2).steps())
    assert error is None and sorted(_names(seen)) == sorted(case.name for case in whole * 2)


def test_remarks_come_as_they_are(cell: type[_Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    steps = _Cell.steps
    monkeypatch.setattr(cell, "steps", lambda self: (one for one in (Remark("slow"), *steps(self))))
    seen, _ = _shown(parts.Parts(_SPEC, 2).steps())
    assert [step for step in seen if isinstance(step, Remark)] == [Remark("slow")] * 2


def test_whatever_goes_wrong_ends_it(cell: type[_Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(part: int, number: int) -> None:
        raise RecursionError("too deep")

    cell.before = staticmethod(broken)  # type: ignore[assignment]
    with pytest.raises(RecursionError):
        list(parts.Parts(_SPEC, 2).steps())
    monkeypatch.setattr(cell, "steps", lambda self: [])
    with pytest.raises(AttributeError):
        list(parts.Parts(_SPEC, 2).steps())


def test_few_cases_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = Spec("svm", _SPEC.kernel, ("init.latched.host.cr3/*,plant-a",)), Spec("svm", _SPEC.kernel)
    monkeypatch.setattr(matrix, "jobs", lambda specs, asked: asked or 16)
    assert len(cases(few)) < 200 and matrix.shared([few], 4) == 1 and isinstance(parts.cell(few, 1), Cell)
    assert matrix.shared([many], 4) == 4 and matrix.shared([many]) == len(cases(many)) // 100
    # As many as there are cells are one each, and what is left over is nobody's.
    assert matrix.shared([many] * 2, 2) == 1 and matrix.shared([many] * 2, 5) == 2


def test_a_run_in_two_emulators_is_one_run(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command; the made-up guests run the same two cases each."""
    monkeypatch.setattr(matrix, "_FEWEST", 1)
    command = ["lab", "run", "--backend", "svm", "--kernel", kernel.image, "--modules", kernel.modules, "--jobs", "2"]
    assert main([*command, "--format", "json", "-o", str(fake / "r.json")]) == 1
    (run,) = saved.load(str(fake / "r.json"))
    assert run.head.shard is None and run.interrupted is False
    assert {result.item for result in run.results} == {"halted", "log", "ram"}
