# SPDX-License-Identifier: GPL-2.0-only
"""Shrinking keeps what shows a departure, and leaves out the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvmtest.fuzz.model import WAITS
from kvmtest.fuzz.moves import BETWEEN
from kvmtest.fuzz.shrink import shrunk
from kvmtest.scenario import step as s
from kvmtest.scenario.states import STATES

_RBX, _RCX, _CR2 = (s.Set(((name, 5),)) for name in ("rbx", "rcx", "cr2"))
_INIT = (BETWEEN, s.Observe(), s.Send("init"), s.Observe())
_SIPI = (BETWEEN, s.Observe(), s.Send("sipi", vector=3), s.Observe())
_PLANT = (BETWEEN, s.Plant())
_LONG = s.Scenario("none", "fuzz", "one", (*_PLANT, BETWEEN, _RBX, _CR2, _RCX, *_INIT, *_SIPI, *_INIT, *_SIPI), ("x",))


def _sends(tried: s.Scenario, event: str) -> bool:
    return any(isinstance(step, s.Send) and step.event == event for step in tried.steps)


def _each(shows: Callable[[s.Scenario], bool]) -> Callable[[Sequence[s.Scenario]], list[bool]]:
    return lambda tried: [shows(one) for one in tried]


def _plain(*steps: s.Step) -> tuple[s.Step, ...]:
    return tuple(step for step in steps if step != BETWEEN)


def test_what_does_not_matter_is_left_out() -> None:
    small = shrunk(_LONG, _each(lambda tried: _CR2 in tried.steps and _sends(tried, "init")))
    assert small.steps == _plain(*_PLANT, _CR2, *_INIT[2:])


def test_the_look_before_an_event_stays_where_it_matters() -> None:
    looked = (s.Observe(), s.Send("init"))
    small = shrunk(_LONG, _each(lambda tried: looked in zip(tried.steps, tried.steps[1:], strict=False)))
    assert small.steps == _plain(*_PLANT, *_INIT)


def test_another_choice_that_does_with_less_is_found() -> None:
    # Left out one by one, the moves end with the later one, which has more steps.
    nmi = (BETWEEN, s.Observe(), s.Send("nmi", judged=False), s.Expect(s.Same(("events.nmi_pending",))))
    reads = s.Expect(s.Is("mp_state", 0), "mp_state")
    long = _LONG._replace(steps=(BETWEEN, s.Plant("b"), BETWEEN, _CR2, reads, *nmi, BETWEEN, _RCX))
    shows = _each(lambda tried: _CR2 in tried.steps and (reads in tried.steps or _sends(tried, "nmi")))
    assert shrunk(long, shows).steps == (s.Plant("b"), _CR2, reads)


def test_a_look_at_all_others_is_left_out_with_the_look_before_it() -> None:
    same = s.Expect(s.Same(("rbx", "rcx")))
    long = _LONG._replace(steps=(*_PLANT, BETWEEN, s.Observe(), _RBX, _RCX, same, *_INIT))
    assert shrunk(long, _each(lambda tried: same in tried.steps)).steps == _plain(*_PLANT, s.Observe(), same)
    assert shrunk(long, _each(lambda tried: _RCX in tried.steps)).steps == _plain(*_PLANT, _RCX, s.Observe())


def test_a_sipi_keeps_its_init() -> None:
    assert shrunk(_LONG, _each(lambda tried: _sends(tried, "sipi"))).steps == _plain(*_PLANT, *_INIT[2:], *_SIPI[2:])


def test_what_only_makes_a_vcpu_differ_is_left_out_alone() -> None:
    long = _LONG._replace(steps=(*_PLANT, BETWEEN, _RBX, *_INIT[1:]))
    assert shrunk(long, _each(lambda tried: _sends(tried, "init"))).steps == _plain(*_PLANT, *_INIT[2:])
    assert shrunk(long, _each(lambda tried: _RBX in tried.steps)).steps == _plain(*_PLANT, _RBX, s.Observe())


def test_an_activity_state_keeps_what_leads_to_it() -> None:
    waits = s.Expect(s.Is("mp_state", WAITS), "mp_state")
    long = _LONG._replace(steps=(*_PLANT, *_INIT, *_SIPI, *_INIT, BETWEEN, _CR2, waits))
    assert shrunk(long, _each(lambda tried: waits in tried.steps)).steps == _plain(*_PLANT, *_INIT[2:], waits)


def test_what_distinguishes_moves_stays_where_that_matters() -> None:
    small = shrunk(_LONG, _each(lambda tried: _sends(tried, "sipi") and tried.steps.count(BETWEEN) > 1))
    assert small.steps == (*_PLANT, BETWEEN, *_INIT[2:], BETWEEN, *_SIPI[2:])[1:]


def test_several_that_are_asked_for_at_once_come_to_the_same() -> None:
    asked: list[int] = []

    def shows(tried: Sequence[s.Scenario]) -> list[bool]:
        asked.append(len(tried))
        return [_CR2 in one.steps and _sends(one, "sipi") for one in tried]

    alone = shrunk(_LONG, shows).steps
    single = len(asked)
    asked.clear()
    assert shrunk(_LONG, shows, ahead=60).steps == alone == _plain(*_PLANT, _CR2, *_INIT[2:], *_SIPI[2:])
    assert len(asked) < single


def test_a_migration_is_left_with_what_it_needs() -> None:
    line, same = s.Call(0, who="vm"), s.Expect(s.Same())
    long = _LONG._replace(steps=(*_PLANT, BETWEEN, s.Observe(), _CR2, line, same, s.Observe(), s.Migrate(), *_INIT))
    assert shrunk(long, _each(lambda tried: s.Migrate() in tried.steps)).steps == (s.Plant(), s.Migrate())
    both = _each(lambda tried: s.Migrate() in tried.steps and line in tried.steps)
    assert shrunk(long, both).steps == (s.Plant(), line, s.Migrate())
    assert shrunk(long, _each(lambda tried: same in tried.steps)).steps == (s.Plant(), s.Observe(), same)


def test_an_init_that_was_held_becomes_one_that_is_not() -> None:
    smm = STATES["in-smm"]
    init = s.Send("init", "latched")
    held = (BETWEEN, *smm.prepare, s.Observe(), init, s.Expect(s.Is("events.smi_latched_init", 1), "pending"))
    long = _LONG._replace(steps=(*_PLANT, *held, *smm.leave, s.Observe(), *_SIPI))
    assert shrunk(long, _each(lambda tried: _sends(tried, "sipi"))).steps == _plain(*_PLANT, init, s.Observe(), *_SIPI[2:])
    assert shrunk(long, _each(lambda tried: init in tried.steps)).steps == _plain(*_PLANT, init, s.Observe())
    looked = (s.Observe(), init)
    shows = _each(lambda tried: looked in zip(tried.steps, tried.steps[1:], strict=False))
    assert shrunk(long, shows).steps == _plain(*_PLANT, s.Observe(), init, s.Observe())
    left = (*smm.leave, s.Observe())
    assert shrunk(long, _each(lambda tried: smm.leave[0] in tried.steps)).steps == _plain(*_PLANT, *smm.prepare, init, *left)


def test_what_follows_a_departure_is_left_out_and_what_it_shows_without() -> None:
    smm, init = STATES["in-smm"], s.Send("init", "latched")
    pending, shown = s.Expect(s.Is("events.smi_latched_init", 1), "pending"), s.Expect(s.Is("events.smi_smm", 1))
    same = s.Expect(s.Same(("events.smi_latched_init",)))
    held = (BETWEEN, *smm.prepare, s.Observe(), shown, init, pending, same, *smm.leave, s.Observe())
    long = _LONG._replace(steps=(*_PLANT, *held))
    assert shrunk(long, _each(lambda tried: pending in tried.steps)).steps == _plain(*_PLANT, *smm.prepare, init, pending)
    # A comparison keeps the look that it is with.
    small = shrunk(long, _each(lambda tried: same in tried.steps and init in tried.steps)).steps
    assert small == _plain(*_PLANT, *smm.prepare, s.Observe(), init, same)


def test_what_a_vm_is_expected_to_have_was_written_to_it() -> None:
    written, read = s.Set((("pic_master.imr", 0xFF),), "vm", check=False), s.Expect(s.Is("pic_master.imr", 0xFF), who="vm")
    long = _LONG._replace(steps=(*_PLANT, *_INIT, BETWEEN, s.Observe(), written, read, s.Expect(s.Same()), s.Migrate()))
    assert shrunk(long, _each(lambda tried: read in tried.steps)).steps == _plain(*_PLANT, written, read)


def test_what_departs_no_more_stays_as_it_is() -> None:
    assert shrunk(_LONG, _each(lambda tried: False)) == _LONG


def test_an_expectation_keeps_what_was_written() -> None:
    shadow = s.Expect(s.Is("events.interrupt_shadow", 3, 1), "events.interrupt_shadow")
    wrote = s.Set((("events.nmi_masked", 1), ("events.interrupt_shadow", 3)), check=False)
    masked = s.Expect(s.Is("events.nmi_masked", 1), "events.nmi_masked")
    long = _LONG._replace(steps=(*_PLANT, *_INIT, BETWEEN, wrote, shadow, masked))
    assert shrunk(long, _each(lambda tried: shadow in tried.steps)).steps == _plain(*_PLANT, wrote, shadow)
