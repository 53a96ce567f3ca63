# SPDX-License-Identifier: GPL-2.0-only
"""Each rule of each item that an observer reports fails where a log with the right checksum shows another value, and no other."""

from __future__ import annotations

from functools import cache

import pytest

from kvmtest import spec
from kvmtest.model.run import Run
from kvmtest.model.verdict import Verdict
from kvmtest.state.guest_view import ITEMS, LIMITS
from tests.observer import made
from tests.observer.wide import ALIASES, PLACES, records, run, wide

_LOGS = {"qemu-tcg": "amd", "bochs": "intel"}
_ERROR_POINTERS = "an AMD CPU need not load and store the x87 error pointers"
_FRED = ("rsp0", "rsp1", "rsp2", "rsp3", "stklvls", "ssp1", "ssp2", "ssp3", "config")
#: Items of which no change of a log makes a fail, and the reason that the record gives.
_NEVER = {"gs.base": "the observer loads GS before it has any memory", "msr.smbase": "the observer does not read it"}
#: Items that no manual gives a value after RESET or INIT: what they show is recorded, and not judged.
_UNDEFINED = {
    **dict.fromkeys(("tilecfg", *(f"tile{i}" for i in range(8))), "neither manual's table lists AMX state"),
    **dict.fromkeys((f"r{i}" for i in range(16, 32)), "found in one independent compilation only"),
    **dict.fromkeys((f"msr.fred_{name}" for name in _FRED), "no manual's table lists the FRED MSRs"),
    **dict.fromkeys(("msr.xfd", "msr.xfd_err"), "no manual's table lists it"),
    **dict.fromkeys((f"msr.fixed_ctr{i}" for i in range(4)), "contradict each other"),
}
#: The same by the log, of items that the other one has.
_NEVER_IN = {
    "qemu-tcg": {
        **dict.fromkeys(LIMITS, "limits are not enforced here"),
        **dict.fromkeys(("fop", "fip", "fdp"), _ERROR_POINTERS),
    },
    "bochs": {},
}
#: Items on which the judgement of others depends: RESET by which way, the local APIC's mode, and the MTRRs that a CPU has.
_ALONE = ("apic_base",)


@cache
def _judged(name: str) -> Run:
    return run(wide(name, _LOGS[name]))


def _fails(of: Run) -> set[tuple[str, str]]:
    return {(result.id, result.of.case.name) for result in of.results if result.of.case and result.verdict is Verdict.FAIL}


def _id(case: str, item: str) -> tuple[str, str]:
    event, _, trigger = case.partition("/")[0].partition(".")
    return f"{event}.{trigger}.guest.{item}", case


def _both(items: set[str]) -> set[str]:
    """``items`` and the others that are the same registers."""
    return items | {other for other, item in ALIASES.items() if item in items}


@pytest.mark.parametrize("name", _LOGS)
@pytest.mark.parametrize("place", PLACES)
def test_each_rule_that_can_be_judged_passes_in_the_wide_log(place: str, name: str) -> None:
    vendor, (case, _, _) = _LOGS[name], PLACES[place]
    event, excepted = case.partition(".")[0], _NEVER | _NEVER_IN[name]
    seen = records(_judged(name), case.format(vendor))
    assert set(seen) == set(ITEMS)
    for item, record in seen.items():
        if item in excepted:
            assert record.verdict is Verdict.SKIP and excepted[item] in record.reason
        elif spec.rule_for(item, event, vendor, "none").kind == "undefined":
            assert record.verdict is Verdict.INFO and record.reason
        else:
            assert (item, record.verdict) == (item, Verdict.PASS)


def test_each_item_is_judged_somewhere_but_those_that_the_observer_cannot_see_and_those_that_are_undefined() -> None:
    judged, reasons = set(), dict[str, set[str]]()
    for name, vendor in _LOGS.items():
        for place in PLACES.values():
            for item, record in records(_judged(name), place.case.format(vendor)).items():
                reasons.setdefault(item, set()).add(record.reason)
                if record.verdict is Verdict.PASS:
                    judged.add(item)
    assert set(ITEMS) - judged == {*_NEVER, *_UNDEFINED}
    for item, why in _UNDEFINED.items():
        assert any(why in reason for reason in reasons[item])


@pytest.mark.parametrize("name", _LOGS)
@pytest.mark.parametrize("place", PLACES)
def test_all_of_a_look_fail_at_once_and_nothing_else_does(place: str, name: str) -> None:
    log, vendor = wide(name, _LOGS[name]), _LOGS[name]
    case = PLACES[place].case.format(vendor)
    good = {item: record for item, record in records(_judged(name), case).items() if record.verdict is Verdict.PASS}
    changed = {item: made.another(record) for item, record in good.items() if item not in (*ALIASES, *_ALONE)}
    after = _fails(run(made.changed(log, *PLACES[place].read, changed)))
    assert after - _fails(_judged(name)) == {_id(case, item) for item in _both(set(changed)) & good.keys()}


@pytest.mark.parametrize("item", [pytest.param(item, marks=() if item in _ALONE else pytest.mark.nightly) for item in ITEMS])
def test_one_item_fails_alone(item: str) -> None:
    failed = 0
    for name, vendor in _LOGS.items():
        log = wide(name, vendor)
        for place in PLACES.values():
            case = place.case.format(vendor)
            seen = records(_judged(name), case)
            if item in ALIASES or seen[item].verdict is not Verdict.PASS:
                continue
            after = _fails(run(made.changed(log, *place.read, {item: made.another(seen[item])}))) - _fails(_judged(name))
            assert after == {_id(case, one) for one in _both({item}) if seen[one].verdict is Verdict.PASS}
            failed += 1
    assert failed or item in (*ALIASES, *_NEVER, *_UNDEFINED)
