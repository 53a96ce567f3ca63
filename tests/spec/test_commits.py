# SPDX-License-Identifier: GPL-2.0-only
"""The catalogue of commits is whole, and names what exists."""

import re
from collections import Counter

import pytest

from kvmtest import spec
from kvmtest.engine import plan
from kvmtest.spec import commits
from kvmtest.spec.commits.entry import KEPT, Entry, version
from kvmtest.spec.commits.v1 import V1
from kvmtest.spec.commits.v2 import V2

ENTRIES = commits.ENTRIES


def test_the_series_is_there_patch_by_patch() -> None:
    assert [entry.place for entry in V1] == [f"v1#{n}" for n in range(1, 44)]
    assert len(V2) == 7 and {entry.place for entry in V2} == {"v2"}


def test_each_commit_is_there_once() -> None:
    names = Counter(name for entry in ENTRIES for name in entry.names())
    assert not [name for name, count in names.items() if count > 1]
    assert len({entry.key for entry in ENTRIES}) == len(ENTRIES)
    assert all(re.fullmatch("[0-9a-f]{12}", name) for name in names)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.key)
def test_an_entry_says_what_it_changes_and_what_shows_it_or_why_nothing_can(entry: Entry) -> None:
    assert entry.subject and entry.what and not entry.what.endswith(".")
    assert entry.signs or entry.hidden
    assert not entry.commit or version(entry.release)
    assert entry.commit or not any(sign.known for sign in entry.signs)
    assert set(entry.backends.split()) <= {"vmx", "svm"}
    for sign in entry.signs:
        assert set(sign.backends.split()) <= {"vmx", "svm"} and sign.target in ("", "bsp", "ap")
        assert sign.new is None or sign.old != sign.new
        assert not sign.check or sign.old != KEPT


def test_what_shows_a_commit_exists() -> None:
    signs = [sign for entry in ENTRIES for sign in entry.signs]
    assert not [item for sign in signs if not sign.check for item in sign.items if item not in spec.ENTRIES]
    assert not [one for sign in signs for one in sign.selectors if not plan.finds(one)]


def test_what_shows_a_commit_is_tried_by_default() -> None:
    """By one of the triggers that show it, in a case that it names."""
    signs = [sign for entry in ENTRIES for sign in entry.signs]
    assert not [sign.selectors for sign in signs if not any(plan.finds(one, full=False) for one in sign.selectors)]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("4c72ab5", "4c72ab5aa6e0"),
        ("4C72AB5AA6E0", "4c72ab5aa6e0"),
        ("4c72ab5aa6e0ac2a5c11f9180e1fff89d7f2d38b", "4c72ab5aa6e0"),
        ("v1#14", "01913c57c225"),
        ("V1#42", "v1#42"),
        ("5b4ac1a1b713", "1b7a1b78d660"),
    ],
)
def test_a_commit_is_found_by_its_id_or_its_place(name: str, found: str) -> None:
    assert [entry.key for entry in commits.find(name)] == [found]


@pytest.mark.parametrize("name", ["", "4c72ab", "4c72ab6", "v1#44", "v2", "v1#", "cr3", "4c72ab5aa6e1"])
def test_nothing_else_is(name: str) -> None:
    assert commits.find(name) == []
