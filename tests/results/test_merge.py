# SPDX-License-Identifier: GPL-2.0-only
"""Shards of a run that were saved: merged they are what one machine would have shown."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.model.record import Observation
from kvmtest.model.run import Run
from kvmtest.model.shard import Shard
from kvmtest.results.merge import Found, merged
from tests.report.samples import HOST, STARTED, made, saved, written

_WORDS = [f"ap,xapic,plant-{word}" for word in "abcdefghijkl"]
_ORDER = {made("pass", words=words).case.name: number for number, words in enumerate(_WORDS)}  # type: ignore[union-attr]
_SEEN = [made("fail" if number % 3 else "pass", words=words) for number, words in enumerate(_WORDS)]


def _shards(of: int, seen: Sequence[Observation] = _SEEN, host: str = "amd1", folder: str = "") -> list[Found]:
    """The runs of a host, a shard each, in files that are named after their numbers."""
    found = []
    for number in range(1, of + 1):
        shard = Shard((number,), of)
        path = f"{folder}{host}-{number}.json"
        run = saved([one for one in seen if one.case and shard.has(one.case.name)], path, HOST._replace(name=host))
        found.append((path, run._replace(head=run.head._replace(shard=shard))))
    return found


def _like(found: Sequence[Found], seen: Sequence[Observation] = _SEEN) -> None:
    """The one run in ``found`` is what one machine had shown."""
    ((_, run),) = found
    whole = saved(seen, run.name, run.host)
    assert run._replace(duration_s=0.5) == whole and written("text", run._replace(duration_s=0.5)) == written("text", whole)


@given(st.integers(2, 9), st.randoms())
def test_shards_in_any_order_are_the_whole_run(of: int, random: object) -> None:
    found = _shards(of)
    random.shuffle(found)  # type: ignore[attr-defined]
    reported: list[str] = []
    _like(merged(found, _ORDER, reported.append))
    assert not reported


def test_what_is_no_shard_stays_as_it_is() -> None:
    found = [("a.json", saved(_SEEN, "a.json")), ("b.json", saved(_SEEN, "b.json"))]
    assert merged(found, _ORDER) == found


def test_a_run_is_named_after_what_its_files_have_in_common() -> None:
    ((path, run),) = merged(_shards(3, folder="results/"), _ORDER)
    assert path == run.name == "results/amd1"
    ((path, run),) = merged(_shards(3, host=""), _ORDER)
    assert path == run.name == "-1.json"


@pytest.mark.parametrize(
    ("name", "says"),
    [("text", "shard 2/3"), ("ktap", "# shard 2/3"), ("junit", '<property name="shard" value="2/3"/>'), ("html", "<dd>2/3</dd>"),
     ("json", '"shard":"2/3"'), ("jsonl", '"shard":"2/3"')],
)  # fmt: skip
def test_each_report_says_what_part_it_is(name: str, says: str) -> None:
    assert says in written(name, _shards(3)[1][1])


def test_parts_that_are_missing_are_said_and_stay_named() -> None:
    reported: list[str] = []
    ((path, run),) = merged([one for one in _shards(4) if not one[0].startswith(("amd1-2", "amd1-4"))], _ORDER, reported.append)
    assert reported == ["amd1-1.json: shard 2/4, 4/4 of this run are missing"]
    assert run.head.shard == Shard((1, 3), 4)
    # A merged run can be merged with the rest.
    rest = [one for one in _shards(4) if one[0].startswith(("amd1-2", "amd1-4"))]
    _like([(path, one._replace(head=one.head._replace(name=path))) for path, one in merged([(path, run), *rest], _ORDER)])


def test_each_host_gets_its_own_shards_in_whatever_order_they_come() -> None:
    a, b = _shards(2, host="a"), _shards(2, host="b")
    found = merged([a[0], b[1], a[1], b[0]], _ORDER)
    assert [(run.host.name, run.head.shard) for _, run in found] == [("a", None), ("b", None)]


def test_hosts_of_one_kind_that_ran_a_part_each_are_one_run() -> None:
    ((_, run),) = merged([_shards(2, host="a")[0], _shards(2, host="b")[1]], _ORDER)
    assert run.host.name == "a,b" and run.head.shard is None
    assert run.observations == tuple(_SEEN)


def test_another_kernel_another_number_and_a_part_twice_stay_apart() -> None:
    one, two = _shards(2)

    def changed(found: Found, **fields: object) -> Found:
        path, run = found
        return path, run._replace(head=run.head._replace(**fields))

    other = two[1].host._replace(kernel="6.12.0-1-amd64")
    assert len(merged([one, changed(two, host=other)], _ORDER)) == 2
    assert len(merged([one, changed(two, shard=Shard((2,), 3))], _ORDER)) == 2
    assert len(merged([one, changed(two, name="another cell")], _ORDER)) == 2
    assert len(merged([one, one, two], _ORDER)) == 2


def test_a_part_that_was_cut_short_or_interrupted_makes_the_run_so() -> None:
    def ended(*how: bool | None) -> bool | None:
        shards = [(path, run._replace(interrupted=one)) for (path, run), one in zip(_shards(3), how, strict=True)]
        ((_, run),) = merged(shards, _ORDER)
        return run.interrupted

    assert (ended(False, False, False), ended(False, True, False), ended(True, None, False)) == (False, True, None)


def test_it_began_with_the_first_and_took_what_all_took() -> None:
    (path, run), other = _shards(2)
    late: Run = run._replace(head=run.head._replace(started="2026-11-23T00:00:00Z"))
    ((_, found),) = merged([(path, late), other], _ORDER)
    assert (found.head.started, found.duration_s) == (STARTED, 1.0)
