# SPDX-License-Identifier: GPL-2.0-only
"""What saved results say of the commits of the catalogue, and of the deviations that are listed. Pure.

A kernel's version decides nothing here: a distribution's kernel has what it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kvmtest.engine.host import kernel_version
from kvmtest.engine.result import Host, Result
from kvmtest.report.saved import Saved
from kvmtest.spec.commits import ENTRIES
from kvmtest.spec.commits.entry import KEPT, Entry, Sign
from kvmtest.spec.deviations import DEVIATIONS, Deviation

__all__ = ("BUG", "CANNOT_TELL", "FIXED", "HIDDEN", "SCHEMA", "STATES", "Seen", "Unseen", "document", "states", "unseen")

SCHEMA = "kvmtest.series/1"
FIXED, BUG, CANNOT_TELL, HIDDEN = STATES = ("fixed", "bug present", "cannot tell", "not observable")
_JUDGED = frozenset(("pass", "fail", "known", "fixed"))


class Seen(NamedTuple):
    """What one run says of one commit: one of STATES, ``why``, and the ids of the results that it rests on."""

    state: str
    why: str = ""
    ids: tuple[str, ...] = ()


class Unseen(NamedTuple):
    """A listed deviation that no run of a kernel and backend that it names shows; ``tried`` is whether one has results of it."""

    deviation: Deviation
    runs: tuple[str, ...]
    tried: bool


class _Index:
    """The results of one run by event and item, and by id."""

    def __init__(self, results: Iterable[Result]) -> None:
        self.by_item: dict[tuple[str, str], list[Result]] = {}
        self.by_id: dict[str, list[Result]] = {}
        for result in results:
            if result.view != "views":
                self.by_item.setdefault((_event(result), result.item), []).append(result)
            else:
                self.by_item.setdefault(("views", result.item), []).append(result)
            self.by_id.setdefault(result.id, []).append(result)

    def of(self, sign: Sign) -> Iterator[Result]:
        """The results of where ``sign`` shows."""
        if sign.check:
            found = [result for id in sign.ids for result in self.by_id.get(id, ())]
        else:
            found = [result for item in sign.items for result in self.by_item.get((sign.event, item), ())]
        return (result for result in found if _where(result, sign.target, sign.vendor, sign.view, sign.case))

    def of_deviation(self, deviation: Deviation) -> Iterator[Result]:
        """The results of where ``deviation`` would show."""
        found = self.by_item.get((deviation.event, deviation.item)) or self.by_id.get(deviation.item) or ()
        where = (deviation.target, deviation.vendor, deviation.view, deviation.case)
        return (result for result in found if _where(result, *where))


def _event(result: Result) -> str:
    return "vmm-reset" if result.trigger == "vmm-reset" else result.event


def _where(result: Result, target: str, vendor: str, view: str, case: str) -> bool:
    words = result.case.partition("/")[2].split(",")
    target_too = target in ("", words[0]) and (not vendor or vendor in words)
    return target_too and view in ("", result.view) and case in result.case


def _number(text: str | None) -> int | None:
    try:
        return int(text, 16) if text is not None else None
    except ValueError:
        return None


def _has(result: Result, old: int | str | None, recorded: bool = False) -> bool:
    """Whether ``result`` shows the value ``old``, and the manuals do not ask for it; ``recorded`` is whether they are silent."""
    if old is None or result.observed is None or result.verdict not in _JUDGED and not (recorded and result.verdict == "info"):
        return False
    if not recorded and result.observed == result.expected:
        return False
    return _is(result, old)


def _is(result: Result, value: int | str) -> bool:
    """Whether ``result`` shows ``value``: a number, a text, or KEPT."""
    if value == KEPT:
        return result.planted is not None and result.observed == result.planted
    return result.observed == value if isinstance(value, str) else _number(result.observed) == value


def _tells(result: Result, sign: Sign) -> bool:
    """Whether ``result`` shows the manuals' value where a kernel without the commit would show another one."""
    if sign.new is not None:
        return result.verdict in (*_JUDGED, "info") and _is(result, sign.new)
    if result.verdict not in ("pass", "fixed"):
        return False
    # A pass has its plant proven; it tells nothing where the old value is what the manuals ask for.
    return sign.old is None or not _is(result, sign.old)


def _state(entry: Entry, host: Host, index: _Index) -> Seen:
    if entry.hidden:
        return Seen(HIDDEN, entry.hidden)
    bad: list[Result] = []
    good: list[Result] = []
    other: list[Result] = []
    mute: list[Result] = []
    elsewhere: list[str] = []
    for sign in entry.signs:
        backends = sign.backends or entry.backends
        if backends and host.backend not in backends.split():
            elsewhere += backends.split()
            continue
        for result in index.of(sign):
            if _has(result, sign.old, sign.new is not None):
                bad.append(result)
            elif _tells(result, sign):
                good.append(result)
            elif result.verdict in ("fail", "error"):
                other.append(result)
            else:
                mute.append(result)
    if bad:
        return Seen(BUG, _said(bad[0]), _ids(bad))
    if other:
        return Seen(CANNOT_TELL, f"neither value: {_said(other[0])}", _ids(other))
    if good:
        return Seen(FIXED, "", _ids(good))
    if mute:
        return Seen(CANNOT_TELL, mute[0].reason or "what was seen is the same before and after", _ids(mute))
    if all(host.backend not in (sign.backends or entry.backends or host.backend).split() for sign in entry.signs):
        return Seen(CANNOT_TELL, f"it shows on {' and '.join(sorted(set(elsewhere)))}, and this is {host.backend}")
    return Seen(CANNOT_TELL, "none of its ids were run")


def _said(result: Result) -> str:
    return f"{result.id} is {result.observed}" if result.observed is not None else f"{result.id}: {result.reason}"


def _ids(results: Iterable[Result]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(result.id for result in results))


def states(saved: Saved) -> dict[str, Seen]:
    """What a run says of each commit, by the entries' keys."""
    index = _Index(saved.results)
    return {entry.key: _state(entry, saved.host, index) for entry in ENTRIES}


def unseen(runs: Sequence[Saved]) -> list[Unseen]:
    """The deviations that some of the runs should show, and none does.

    A kernel with backports does not have to show what stable releases of it have fixed.
    """
    indices = [(run, kernel_version(run.host.kernel), _Index(run.results)) for run in runs]
    found = []
    for deviation in DEVIATIONS:
        named = []
        shown = tried = False
        for run, kernel, index in indices:
            if not deviation.names(run.host.backend, kernel) or kernel in deviation.backports:
                continue
            named.append(run.name)
            for result in index.of_deviation(deviation):
                tried = tried or result.verdict in _JUDGED
                shown = shown or _has(result, deviation.observed)
        if named and not shown:
            found.append(Unseen(deviation, tuple(named), tried))
    return found


def document(runs: Sequence[Saved]) -> dict[str, object]:
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
