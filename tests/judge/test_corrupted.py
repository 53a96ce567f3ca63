# SPDX-License-Identifier: GPL-2.0-only
"""Evidence that is corrupted at random changes the records of what was touched, and no other: a few hundred, nightly 10,000.

``python -m tests.judge.test_corrupted FILE`` writes what became of those.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from kvmtest.judge.evidence import Played
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import step as s
from tests.judge import recorded
from tests.judge.corrupting import KINDS, Corruption, corrupted, outcome
from tests.judge.trial import Trial, flipped, judged_bits, replaced, trials
from tests.sample import at_most

_ALL = 10_000


def _drawn(name: str, seed: int) -> Iterator[tuple[str, Trial, Corruption]]:
    """Corruptions of the run ``name``, without end: of each kind as many."""
    rng, every, kinds = random.Random(f"{name} {seed}"), trials(name), list(KINDS)
    while True:
        kind = kinds[0]
        trial = rng.choice(every)
        if (made := corrupted(trial, rng, kind)) is not None:
            kinds = [*kinds[1:], kind]
            yield kind, trial, made


def _tried(name: str, count: int, seed: int = 1) -> tuple[Counter[str], list[str]]:
    """Try ``count`` corruptions; return the outcomes by kind, and those that are not as they should be."""
    counts: Counter[str] = Counter()
    found: list[str] = []
    for kind, trial, made in _drawn(name, seed):
        changed, wrong = outcome(trial, made)
        counts[kind] += 1
        counts[f"{kind}: {'nothing' if not changed else 'one record' if len(changed) == 1 else 'several records'}"] += 1
        counts[f"{kind}: judged, and departs"] += bool(made.must)
        found += [f"{trial.look.case.name}, {trial.look.view}: {made.what}: {one}" for one in wrong]
        if sum(counts[one] for one in KINDS) == count:
            return counts, found
    raise AssertionError


@pytest.mark.parametrize("name", recorded.NAMES)
def test_a_corruption_changes_the_records_of_what_it_touches_alone(name: str) -> None:
    counts, found = _tried(name, at_most(100))
    assert not found, "\n".join(found[:9])
    assert all(counts[kind] for kind in KINDS)


@pytest.mark.nightly
@pytest.mark.parametrize("name", recorded.NAMES)
def test_ten_thousand_do(name: str) -> None:
    _, found = _tried(name, _ALL // len(recorded.NAMES) + 1, seed=2)
    assert not found, "\n".join(found[:9])


def _one() -> tuple[Trial, int, str, int]:
    """A case, where its table is, and a bit of an item there that is judged."""
    for trial in trials(recorded.NAMES[0]):
        at = trial.at(s.Observe) if isinstance(trial.seen, Played) and trial.look.view == "host" else []
        if len(at) == 1 and trial.look.event == "init":
            records = trial.of_view()
            if "rbx" in records and records["rbx"].verdict is Verdict.PASS:
                return trial, at[0], "rbx", judged_bits(records["rbx"], 8)[5]
    raise AssertionError


def test_a_record_that_was_not_touched_is_reported() -> None:
    trial, at, item, bit = _one()
    step, snapshot = trial.seen.evidence[at]
    seen = replaced(trial.seen, at, flipped(trial.bases[0].layout, snapshot, item, bit))
    made = Corruption("a bit", seen, frozenset((item,)), step, must=frozenset((item,)))
    assert outcome(trial, made) == ({(trial.prefix, item)}, [])
    _, (found,) = outcome(trial, made._replace(items=frozenset()))
    assert f"'{item}'): pass -> (<Verdict.FAIL" in found


def test_a_record_that_should_have_changed_is_reported() -> None:
    trial, _, item, _ = _one()
    _, (found,) = outcome(trial, Corruption("nothing", trial.seen, frozenset(), 0, must=frozenset((item,))))
    assert found.startswith(f"{item} is pass")


def _table(path: str) -> None:
    lines = ["# Corruptions of recorded evidence", "", f"{_ALL:,} at random, as many of each kind; each case judged anew.", ""]
    for name in recorded.NAMES:
        counts, found = _tried(name, _ALL // len(recorded.NAMES) + 1, seed=2)
        rows = [[counts[kind], *(counts[f"{kind}: {what}"] for what in _WHAT)] for kind in KINDS]
        lines += [f"## {name}: {sum(row[0] for row in rows):,}, of which {len(found)} changed what they should not", ""]
        lines += ["| kind | tried | " + " | ".join(_WHAT) + " |", "|---|" + "---|" * (len(_WHAT) + 1)]
        lines += [f"| {kind} | " + " | ".join(map(str, row)) + " |" for kind, row in zip(KINDS, rows, strict=True)]
        lines += ["", *(f"* {one}" for one in found[:50]), ""]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))


_WHAT = ("nothing", "one record", "several records", "judged, and departs")

if __name__ == "__main__":
    _table(sys.argv[1])
