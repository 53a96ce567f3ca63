# SPDX-License-Identifier: GPL-2.0-only
"""One run of the shards of it that were read from files, as if one machine had run all cases."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from kvmtest.model.case import Case
from kvmtest.model.run import Run
from kvmtest.model.shard import Shard

__all__ = ("merged",)

#: The path of the file, and a run in it.
Found = tuple[str, Run]


def merged(found: Sequence[Found], order: Mapping[str, int], note: Callable[[str], object] = lambda line: None) -> list[Found]:
    """``found`` with the shards of one run as one, in place of the first; ``note`` is called with the parts that are missing.

    Shards belong together if tool, KVM, name and number of parts are the same: those of one host first, then those of hosts that
    lack parts of each other. ``order`` are the places of cases in the plan.
    """
    groups = _grouped([[one] for one in found], lambda one: (*_kind(one), one[1].host.name))
    groups = _grouped(groups, _kind)
    for group in groups:
        (path, _), shard = group[0], _of(group)
        if shard and (missing := sorted({*range(1, shard.of + 1)} - {*shard.numbers})):
            parts = "shard " + ", ".join(f"{number}/{shard.of}" for number in missing[:16]) + ", ..." * (len(missing) > 16)
            note(f"{path}: {parts} of this run {'is' if len(missing) == 1 else 'are'} missing")
    return [_one(group, order) if len(group) > 1 else group[0] for group in groups]


def _kind(found: Found) -> tuple[object, ...]:
    """The facts that all shards of a run have in common, on whatever host each ran, and in whatever file it is."""
    path, run = found
    of = run.head.shard.of if run.head.shard else 0
    return of, run.head.tool, run.host._replace(name=""), "" if run.name == path else run.name


def _of(group: Sequence[Found]) -> Shard | None:
    """The parts that a group has together."""
    shards = [run.head.shard for _, run in group if run.head.shard]
    return Shard(tuple(sorted(number for shard in shards for number in shard.numbers)), shards[0].of) if shards else None


def _grouped(groups: Iterable[list[Found]], kind: Callable[[Found], tuple[object, ...]]) -> list[list[Found]]:
    """Join groups of one ``kind`` that have no part in common; those that are whole stay as they are."""
    made: list[list[Found]] = []
    for group in groups:
        fits = (other for other in made if kind(other[0]) == kind(group[0]) and _apart(_of(other), _of(group)))
        other = next(fits, None)
        if other:
            other += group
        else:
            made.append(list(group))
    return made


def _apart(a: Shard | None, b: Shard | None) -> bool:
    """Return True if both are shards, and have no part in common."""
    return bool(a and b) and not {*(a.numbers if a else ())} & {*(b.numbers if b else ())}


def _one(group: Sequence[Found], order: Mapping[str, int]) -> Found:
    """The run that a group is together."""
    shard = _of(group)
    assert shard
    paths, runs = [path for path, _ in group], [run for _, run in group]
    path, first = _path(paths), runs[0]
    names = ",".join(dict.fromkeys(run.host.name for run in runs if run.host.name))
    own = first.name if first.name != paths[0] else path
    whole = len(shard.numbers) == shard.of
    head = first.head._replace(
        host=first.host._replace(name=names), started=min(run.head.started for run in runs), name=own,
        shard=None if whole else shard,
    )  # fmt: skip

    def place(case: Case | None) -> int:
        # A case of no plan, as a scenario file's, comes after those of the plan; what belongs to no case ends it.
        return len(order) + 1 if case is None else order.get(case.name, len(order))

    seen = sorted((one for run in runs for one in run.observations), key=lambda one: place(one.case))
    cases = sorted(dict.fromkeys(case for run in runs for case in run.cases), key=place)
    ended = [run.interrupted for run in runs]
    interrupted = None if None in ended else any(ended)
    return path, Run(head, tuple(cases), tuple(seen), sum(run.duration_s for run in runs), interrupted)


def _path(paths: Sequence[str]) -> str:
    """A name for several files: what their names begin with, without numbers of parts; the first one's, if that is nothing."""
    shared = os.path.commonprefix(list(paths)).rstrip("0123456789").rstrip("-_. ")
    return shared if os.path.basename(shared) else paths[0]
