# SPDX-License-Identifier: GPL-2.0-only
"""The state of the catalogue's commits and of the listed deviations, from saved results. Pure.

A kernel's version decides nothing here: distributions backport commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kvmtest.model.host import Host
from kvmtest.model.record import Block, Observation, Record, Result
from kvmtest.model.run import Run
from kvmtest.model.value import parse
from kvmtest.model.verdict import Verdict
from kvmtest.spec.commits import ENTRIES
from kvmtest.spec.commits.entry import KEPT, LESS, Entry, Sign, meant
from kvmtest.spec.deviations import DEVIATIONS, Deviation

__all__ = ("BUG", "CANNOT_TELL", "FIXED", "HIDDEN", "SCHEMA", "STATES", "Seen", "Unseen", "document", "states", "unseen")

SCHEMA = "kvmtest.series/1"
FIXED, BUG, CANNOT_TELL, HIDDEN = STATES = ("fixed", "bug present", "cannot tell", "not observable")


class Seen(NamedTuple):
    """The state of one commit in one run: one of STATES, ``why``, and the ids of the results that prove it."""

    state: str
    why: str = ""
    ids: tuple[str, ...] = ()


class Unseen(NamedTuple):
    """A listed deviation that no run of a kernel and backend that it names shows; ``tried`` is whether one has results of it."""

    deviation: Deviation
    runs: tuple[str, ...]
    tried: bool


#: Target, guest's vendor, view, and a part of the case's name; "" is any.
_Where = tuple[str, str, str, str]


class _Index:
    """The observations of one run by the items, and the ids, that entries and deviations are about.

    What a record shows is decided once for each distinct record, where it lies once for each place that is asked for.
    """

    def __init__(self, observations: Sequence[Observation]) -> None:
        self._observations = observations
        #: (event, item), or an id -> record -> the numbers of its observations.
        self._found: dict[object, dict[Record, list[int]]] = {}
        self._places: dict[_Where, frozenset[int]] = {}
        asked: dict[Block, list[Record]] = {}
        for number, seen in enumerate(observations):
            event = "views" if seen.view == "views" else seen.trigger if seen.trigger in _OWN_RULES else seen.event
            for block in seen.blocks:
                records = asked.get(block)
                if records is None:
                    records = asked[block] = [record for record in block.records if record.item in _ITEMS]
                for record in records:
                    for key in ((event, record.item), f"{seen.prefix}.{record.item}"):
                        self._found.setdefault(key, {}).setdefault(record, []).append(number)

    def of(self, sign: Sign) -> Iterator[_Shown]:
        """Yield the results that ``sign`` is about."""
        keys = sign.ids if sign.check else [(sign.event, item) for item in sign.items]
        return (found for key in keys for found in self._at(key, (sign.target, sign.vendor, sign.view, sign.case)))

    def of_deviation(self, deviation: Deviation) -> Iterator[_Shown]:
        """Yield the results that ``deviation`` is about."""
        key = (deviation.event, deviation.item)
        where = (deviation.target, deviation.vendor, deviation.view, deviation.case)
        return self._at(key if key in self._found else deviation.item, where)

    def result(self, record: Record, number: int) -> Result:
        """``record`` where the observation of that number has it."""
        return Result(self._observations[number], record)

    def _at(self, key: object, where: _Where) -> Iterator[_Shown]:
        place = self._place(where) if any(where) else None
        for record, numbers in self._found.get(key, {}).items():
            here = numbers if place is None else [number for number in numbers if number in place]
            if here:
                yield record, here

    def _place(self, where: _Where) -> frozenset[int]:
        if where not in self._places:
            self._places[where] = frozenset(n for n, seen in enumerate(self._observations) if _is_at(seen, *where))
        return self._places[where]


#: Triggers whose observations have rules of their own.
_OWN_RULES = ("vmm-reset", "migrate")
#: A record, and the numbers of the observations that show it.
_Shown = tuple[Record, list[int]]
_ITEMS = frozenset(
    (
        *(name for entry in ENTRIES for sign in entry.signs for name in sign.items),
        *(name for d in DEVIATIONS for name in (d.item, d.item.split(".", 3)[-1])),
    )
)


def _is_at(seen: Observation, target: str, vendor: str, view: str, case: str) -> bool:
    if view not in ("", seen.view) or seen.case is None:
        return False
    return target in ("", seen.case.get("target")) and vendor in ("", seen.case.get("vendor")) and case in seen.case.name


def _has(record: Record, old: int | str | None, recorded: bool = False) -> bool:
    """Return True if ``record`` shows the value ``old``, which the manuals do not require; ``recorded`` if they are silent."""
    if old is None or record.observed is None or not record.verdict.judged and not (recorded and record.verdict is Verdict.INFO):
        return False
    asked = record.expected is not None and record.expected.values == (record.observed,)
    return (recorded or not asked) and _is(record, old)


def _is(record: Record, value: int | str) -> bool:
    """``record`` shows ``value``: a number, a text, KEPT or LESS."""
    if value == LESS:
        seen, planted = record.observed, record.planted
        return isinstance(seen, int) and isinstance(planted, int) and seen < planted
    if isinstance(value, str) and value.startswith(KEPT):
        return isinstance(record.planted, int) and record.observed == meant(value, record.planted)
    return record.observed == parse(record.item, value) if isinstance(value, str) else record.observed == value


def _conclusive(record: Record, sign: Sign) -> bool:
    """``record`` shows the manuals' value where a kernel without the commit would show another one."""
    if sign.new is not None:
        return (record.verdict.judged or record.verdict is Verdict.INFO) and _is(record, sign.new)
    if record.verdict not in (Verdict.PASS, Verdict.FIXED):
        return False
    # A pass has its plant proven; it proves nothing if the old value is what the manuals require.
    return sign.old is None or not _is(record, sign.old)


def _is_of_another(record: Record, entry: Entry, sign: Sign) -> bool:
    """``record`` shows the planted value by chance: a listed deviation that is not the commit's explains it."""
    return sign.old == KEPT and record.verdict is Verdict.KNOWN and record.deviation not in (None, entry.commit, *entry.also)


def _state(entry: Entry, host: Host, index: _Index) -> Seen:
    if entry.hidden:
        return Seen(HIDDEN, entry.hidden)
    bad: list[_Shown] = []
    good: list[_Shown] = []
    other: list[_Shown] = []
    mute: list[_Shown] = []
    elsewhere: list[str] = []
    for sign in entry.signs:
        backends = sign.backends or entry.backends
        if backends and host.backend not in backends.split():
            elsewhere += backends.split()
            continue
        for record, numbers in index.of(sign):
            if _is_of_another(record, entry, sign):
                mute.append((record, numbers))
            elif _has(record, sign.old, sign.new is not None):
                bad.append((record, numbers))
            elif _conclusive(record, sign):
                good.append((record, numbers))
            elif record.verdict.unexpected:
                other.append((record, numbers))
            else:
                mute.append((record, numbers))
    for state, shown in ((BUG, bad), (CANNOT_TELL, other), (FIXED, good), (CANNOT_TELL, mute)):
        if shown:
            record, numbers = shown[0]
            first = index.result(record, numbers[0])
            said = f"{first.id} is {first.observed}" if first.observed is not None else f"{first.id}: {first.reason}"
            if shown is other:
                said = f"neither value: {said}"
            elif shown is mute:
                said = first.reason or "the observed value is the same with and without the commit"
            return Seen(state, "" if shown is good else said, _ids(shown, index))
    if all(host.backend not in (sign.backends or entry.backends or host.backend).split() for sign in entry.signs):
        return Seen(CANNOT_TELL, f"it shows on {' and '.join(sorted(set(elsewhere)))}, and this is {host.backend}")
    return Seen(CANNOT_TELL, "none of its ids were run")


def _ids(shown: Iterable[_Shown], index: _Index) -> tuple[str, ...]:
    return tuple(dict.fromkeys(index.result(record, number).id for record, numbers in shown for number in numbers))


def states(run: Run) -> dict[str, Seen]:
    """Return the state of each commit in a run, by the entries' keys."""
    index = _Index(run.observations)
    return {entry.key: _state(entry, run.host, index) for entry in ENTRIES}


def unseen(runs: Sequence[Run]) -> list[Unseen]:
    """The deviations that some of the runs should show, and none does.

    A kernel with backports does not have to show what stable releases of it have fixed.
    """
    indices = [(run, run.host.version, _Index(run.observations)) for run in runs]
    found = []
    for deviation in DEVIATIONS:
        named = []
        shown = tried = False
        for run, kernel, index in indices:
            if not deviation.names(run.host.backend, kernel) or not deviation.expected(kernel):
                continue
            named.append(run.name)
            for record, _ in index.of_deviation(deviation):
                tried = tried or record.verdict.judged
                # What a kernel logged is in the reason of its record.
                logged = record.verdict is Verdict.KNOWN and record.observed is None and record.deviation == deviation.commit
                shown = shown or logged or _has(record, deviation.observed)
        if named and not shown:
            found.append(Unseen(deviation, tuple(named), tried))
    return found


def document(runs: Sequence[Run]) -> dict[str, object]:
    """The catalogue and what ``runs`` say of it, for JSON."""
    commits = [
        {
            "commit": entry.commit or None,
            "also": list(entry.also),
            "place": entry.place or None,
            "subject": f"KVM: {entry.subject}",
            "release": entry.release or None,
            "path": entry.path,
            "what": entry.what,
            "before": entry.before or None,
            "after": entry.after or None,
            "ids": list(entry.ids),
            "not_observable": entry.hidden or None,
            "unverified": entry.unverified or None,
        }
        for entry in ENTRIES
    ]
    columns = [
        {
            "name": run.name,
            "kernel": run.host.kernel,
            "backend": run.host.backend,
            "commits": {key: {"state": s.state, "why": s.why, "ids": list(s.ids)} for key, s in states(run).items()},
        }
        for run in runs
    ]
    return {"schema": SCHEMA, "commits": commits, "runs": columns}
