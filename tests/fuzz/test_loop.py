# SPDX-License-Identifier: GPL-2.0-only
"""The loop: what departs is found once, what is known or not asked for is not, and it ends when it is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmtest.engine import host
from kvmtest.engine.machine import Machines
from kvmtest.fuzz import loop, save
from kvmtest.fuzz.loop import alike, departures, key_of
from kvmtest.kvm import Kvm, Vcpu
from kvmtest.model.case import Case
from kvmtest.model.record import OUT_OF_TIME, Block, Observation, Record
from kvmtest.model.select import Selection
from kvmtest.model.value import Expected
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import file
from kvmtest.scenario import step as s
from kvmtest.state.plant import Plant

_FAILS = Record("cr2", Verdict.FAIL, 5, Expected((0,)), 5)
_KNOWN = _FAILS._replace(item="cr3", verdict=Verdict.KNOWN, deviation="123456789abc")
_ERRS = [Record(item, Verdict.ERROR, reason="no INIT is pending on vcpu 1") for item in ("rax", "rbx")]


def _seen(*records: Record) -> list[Observation]:
    return [Observation(Case("none.fuzz/ap", ()), "init", "msi", "host", (Block(records),))]


def test_what_departs_has_a_key_of_its_own() -> None:
    found = departures(_seen(_FAILS, _KNOWN), Selection(()))
    assert list(found) == [("init", "cr2", "kept", "")]


def test_an_error_is_one_whatever_its_items_and_numbers() -> None:
    other = [record._replace(reason="no INIT is pending on vcpu 0") for record in _ERRS]
    assert len(departures([*_seen(*_ERRS), *_seen(*other)], Selection(()))) == 1


def test_other_values_are_the_same_departure() -> None:
    one, other = (next(iter(_seen(_FAILS._replace(planted=n, observed=n))[0].attention)) for n in (5, 6))
    assert key_of(one) == key_of(other)


def test_an_error_is_the_same_after_any_event() -> None:
    one, other = ((event, "", "reason", "no INIT is pending") for event in ("init", "sipi"))
    assert alike(one, other) and not alike(one, (*other[:3], "KVM_SET_SREGS: EINVAL"))
    assert not alike(("init", "cr2", "kept", ""), ("none", "cr2", "kept", ""))


def test_a_wrong_value_is_the_same_whatever_was_there_before() -> None:
    kept, zeroed, of_views = (("sipi", "cs.base", kind, "") for kind in ("kept", "zeroed", "disagree"))
    assert alike(kept, zeroed) and not alike(kept, of_views)
    assert not alike(kept, ("sipi", "cs.limit", "zeroed", "")) and not alike(kept, ("sipi", "cs.base", "kept", "xapic"))


def test_a_register_of_the_local_apic_is_another_one_in_each_mode() -> None:
    seen = _seen(_FAILS._replace(item="lapic.icr2"), _FAILS)
    found = {mode: set(departures(seen, Selection(()), mode)) for mode in ("xapic", "x2apic")}
    assert found["xapic"] - found["x2apic"] == {("init", "lapic.icr2", "kept", "xapic")}


def test_a_selector_chooses_what_counts() -> None:
    assert not departures(_seen(_FAILS), Selection(("init.*.cr3",)))
    assert departures(_seen(_FAILS), Selection(("init.*.cr2",)))


class _Busy:
    """In the place of run_case: nothing comes in time within ``least`` seconds."""

    def __init__(self, least: float) -> None:
        self.least = least
        self.limits: list[float] = []

    def __call__(self, case: object, machines: object, timeout_s: float, **more: object) -> list[Observation]:
        self.limits.append(timeout_s)
        if timeout_s < self.least:
            return _seen(Record("rax", Verdict.ERROR, reason=f"{OUT_OF_TIME}: no exit"))
        return _seen(Record("rax", Verdict.PASS))


def _fuzzed(kvm: Kvm, monkeypatch: pytest.MonkeyPatch, busy: _Busy) -> tuple[list[loop.Found], loop.Counts]:
    fuzzer = loop.Fuzzer(kvm, host.detect(), 1, Selection(()), events=frozenset({"init"}), states=frozenset())
    monkeypatch.setattr(loop, "run_case", busy)
    try:
        found = []
        for one in fuzzer.run(0.5):
            found.append(one)
            break
        return found, fuzzer.counts
    finally:
        fuzzer.close()


def test_what_kvm_does_not_keep_of_a_plant_is_written_unchecked(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    """With kvm_intel.unrestricted_guest=0 that are segments, and no MSRs alone."""
    write = Plant.write

    def changes(plant: Plant, vcpu: Vcpu) -> None:
        write(plant, vcpu)
        regs = vcpu.get_regs()
        regs.rbx ^= 1
        vcpu.set_regs(regs)

    machines = Machines(kvm, host.detect())
    try:
        before = loop.changed(machines)
        monkeypatch.setattr(Plant, "write", changes)
        assert loop.changed(machines) - before == {"rbx"}
    finally:
        machines.close()


def test_a_scenario_that_ran_new_code_is_reported_to_the_generator(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzzer = loop.Fuzzer(kvm, host.detect(), 1, Selection(()), events=frozenset({"init"}), states=frozenset())
    reached: list[bool] = []
    monkeypatch.setattr(fuzzer._generator, "reached", lambda: reached.append(True))
    new = iter((True, False, True))
    try:
        for _ in fuzzer.run(0.5, lambda: next(new, False)):
            pass
    finally:
        fuzzer.close()
    assert fuzzer.counts.scenarios > 3 and len(reached) == 2


def test_what_comes_late_on_a_busy_host_is_no_finding(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both limits are too short at first, and long enough then.
    monkeypatch.setattr(loop, "_PATIENCE", 30)
    busy = _Busy(least=1.2)
    found, counts = _fuzzed(kvm, monkeypatch, busy)
    assert not found and counts.skipped == counts.scenarios > 0 and not counts.departed
    assert all(late < 1.2 <= patient == 30 * late for late, patient in zip(busy.limits[::2], busy.limits[1::2], strict=True))


def test_what_never_comes_is_one(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    found, counts = _fuzzed(kvm, monkeypatch, _Busy(least=1000.0))
    assert [one.again for one in found] == [True] and counts.found == 1 and "out of time" in found[0].said[0]


def test_a_finding_is_a_scenario_file(tmp_path: Path) -> None:
    scenario = s.Scenario("none", "fuzz", "fuzz-1-2", (s.Plant(), s.Observe(), s.Send("init"), s.Observe()), ("x",))
    name = save.name_of(scenario, (("init", "cr2", "kept", ""),), True)
    save.write(str(tmp_path / name), scenario)
    assert [path.name for path in tmp_path.iterdir()] == ["init-cr2-fuzz-1-2.json"]
    assert file.load(str(tmp_path / name)) == scenario


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    scenario = s.Scenario("none", "fuzz", "fuzz-1-2", (s.Plant(),), ("x",))
    with pytest.raises(OSError):
        save.write(str(tmp_path / "no" / "such.json"), scenario)
    assert not list(tmp_path.iterdir())
