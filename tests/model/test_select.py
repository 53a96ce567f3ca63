# SPDX-License-Identifier: GPL-2.0-only
"""Selectors: whatever is printed can be pasted back, braces, bare items, and what was meant by what takes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.model.case import Case
from kvmtest.model.record import EVENTS, VIEWS, Block, Observation, Record, Result
from kvmtest.model.select import SelectorError, braces, near, parse, takes
from kvmtest.model.verdict import Verdict

CR3 = ("init.msi.host.cr3", "init.msi/ap,intel,xapic,plant-a")


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ("init.msi.host.cr3", True),
        ("init.msi.host", True),
        ("init", True),
        ("init.msi.host.c", False),
        ("init.*.host.cr*", True),
        ("ini?", True),
        ("init.msi.guest.cr3", False),
        ("cr3", True),
        ("cr*", True),
        ("cr", False),
        ("cr[34]", True),
        ("msr.*", False),
        ("init.{msi,latched}.host.cr3", True),
        ("init.{latched,irqfd}.host.cr3", False),
        ("{cr2,cr3}", True),
        ("{reset,init}", True),
        ("init.{m{si,x},latched}.host", True),
        ("init.msi/ap,intel,xapic,plant-a", True),
        ("init.msi/ap,intel,xapic", False),
        ("init.msi/ap,*", True),
        ("init.*/*,xapic,*", True),
        ("init.*/*,x2apic*", False),
        ("sipi.msi/ap,intel,xapic,plant-a", False),
        ("init.msi.host.cr3/ap,intel,xapic,plant-a", True),
        ("init.msi.host.cr3/bsp,*", False),
        ("init.msi.host/{ap,bsp},*", True),
        ("cr3/ap,*", False),
        ("*", True),
        ("", False),
    ],
)
def test_what_a_selector_takes(selector: str, taken: bool) -> None:
    assert takes((selector,), *CR3) == taken


def test_none_take_everything_and_several_any() -> None:
    assert takes((), *CR3)
    assert takes(("cr2", "cr3"), *CR3) and not takes(("cr2", "cr4"), *CR3)


def test_a_bare_item_with_dots_is_none_of_an_event() -> None:
    assert takes(("events.nmi_masked",), "init.msi.host.events.nmi_masked")
    assert takes(("cs.base",), "sipi.msi.guest.cs.base")
    # A selector that begins with an event is an id.
    assert not takes(("init.cr3",), "init.msi.host.cr3")


@pytest.mark.parametrize("bad", ["{", "a{b", "a{b,c", "}", "a}b", "a{b}c}", "{a,{b}"])
def test_braces_that_do_not_match_are_one_line(bad: str) -> None:
    with pytest.raises(SelectorError) as error:
        parse(bad)
    assert "\n" not in str(error.value) and " has a " in str(error.value)


def test_braces_that_stand_for_too_many_are_one_line() -> None:
    with pytest.raises(SelectorError, match="more than 1000 selectors"):
        parse("{a,b}" * 60)


def test_braces() -> None:
    assert braces("a{b,c}d{e,f}") == ["abde", "abdf", "acde", "acdf"]
    assert braces("{a,b{c,d}}") == ["a", "bc", "bd"]
    assert braces("a{}b") == ["ab"] and braces("{a,}") == ["a", ""]


_WORDS = st.lists(st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True), min_size=1, max_size=5).map(",".join)
_ITEMS = st.from_regex(r"[a-z0-9_-]{1,8}(\.[a-z0-9_-]{1,8}){0,2}", fullmatch=True)


@given(st.sampled_from(EVENTS), st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True), st.sampled_from(VIEWS), _ITEMS, _WORDS)
def test_whatever_is_printed_selects_what_it_names(event: str, trigger: str, view: str, item: str, words: str) -> None:
    case = Case(f"{event}.{trigger}/{words}")
    result = Result(Observation(case, event, trigger, view, (Block(()),)), Record(item, Verdict.PASS))
    for printed in (result.id, result.prefix, case.name, result.selector):
        assert takes((printed,), result.id, case.name)
    other = Case(f"{event}.{trigger}/{words}x")
    assert takes((result.id,), result.id, other.name) and not takes((result.selector, case.name), result.id, other.name)
    outside = result._replace(of=result.of._replace(case=None))
    assert takes((outside.selector,), outside.id, "")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("cr33", "cr3"),
        ("init.mis", "init.msi"),
        ("int.msi.host.cr3", "init.msi.host.cr3"),
        ("INIT.MSI", "init.msi"),
        ("init.msi/ap,intel,xapic,plant", "init.msi/ap,intel,xapic,plant-a"),
    ],
)
def test_what_may_have_been_meant(said: str, meant: str) -> None:
    found = list(near(said, CR3))
    assert meant in found and len(found) <= 3


def test_nothing_comes_near() -> None:
    assert list(near("zzzzzz", CR3)) == [] and list(near("", CR3)) == []
