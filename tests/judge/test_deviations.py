# SPDX-License-Identifier: GPL-2.0-only
"""Each listed deviation is known by its exact value in recorded evidence, and with one judged bit of that otherwise a fail.

What was recorded shows few of them: the value is put where the item was read, and the kernel is one that the deviation names.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from kvmtest import spec
from kvmtest.judge.cache import Cache
from kvmtest.judge.evidence import Played, ResetSeen
from kvmtest.judge.item import excused
from kvmtest.model.record import Record
from kvmtest.model.value import Expected
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import looks as of
from kvmtest.spec.commits.entry import KEPT, LESS
from kvmtest.spec.deviations import DEVIATIONS, Deviation
from kvmtest.state.guest_view import Report
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.x86 import xsave
from tests.judge import recorded
from tests.judge.trial import Trial, trials

_RECORDED = {"svm": ("7.2-svm",), "vmx": ("7.2-vmx",), "": ("7.2-svm", "7.2-vmx", "native")}
#: So many cases that may have it are looked at.
_MOST = 200
_LONE = "no AP without a local APIC is migrated"
#: Those whose item no recorded case judges by its value, and why not.
_UNREACHED = {
    **dict.fromkeys((("apic_base", "migrate", "01913c57c225"), ("msr.apic_base", "migrate", "01913c57c225")), _LONE),
    **dict.fromkeys(
        (("msr.tsc", "migrate", "bf328e22e472"), ("lapic.timer_current", "shutdown", "265e43530cb2")),
        "where a counter stood is not kept",
    ),
    ("events.exception_injected", "shutdown", "265e43530cb2"): "guest code plants no exception",
    ("msr.perf_global_ctrl", "reset", "c49467a45fe0"): "the emulated CPU has no such MSR",
}
#: Those of items; another's is a check, whose text is what is observed.
_ITEMS = [deviation for deviation in DEVIATIONS if deviation.item in spec.ENTRIES]
_CHECKS = [deviation for deviation in DEVIATIONS if deviation.item not in spec.ENTRIES]


def _kernel(deviation: Deviation) -> tuple[int, int]:
    """A kernel that shows it always."""
    major, minor = deviation.until
    tried = (deviation.since, (5, 10), (5, 15), (6, 1), (6, 12), (7, 2), (major, minor - 1), (major - 1, 19))
    backend = (deviation.backends or "svm").split()[0]
    return next(one for one in tried if one > (0, 0) and deviation.names(backend, one) and one not in deviation.backports)


@cache
def _named(name: str, event: str, case: str) -> tuple[Trial, ...]:
    """The cases of a recording that have the ``event``; those that show whole tables alone come first."""
    found = [trial for trial in trials(name) if case in trial.look.case.name and _has(trial, event)]
    return tuple(sorted(found, key=lambda trial: "sequence" in trial.params))


def _has(trial: Trial, event: str) -> bool:
    if isinstance(trial.seen, ResetSeen):
        return event == "vmm-reset"
    if not isinstance(trial.seen, Played) or trial.seen.end or trial.look.scenario is None:
        return False
    if event == "views":
        return trial.look.view == "guest"
    looks = of.looks(trial.look.scenario)
    if event == "migrate":
        return any((look.event, look.trigger, look.view) == of.MIGRATION for look in looks)
    return any(look.event == event and not look.item for look in looks)


def _places(trial: Trial, deviation: Deviation) -> Iterator[tuple[str, int]]:
    """The prefixes under which the table is that it departs in, and the steps of those."""
    if isinstance(trial.seen, ResetSeen):
        if deviation.view in ("", "host") and trial.look.view == "host":
            yield trial.prefix, 0
        return
    view = "views" if deviation.event == "views" else deviation.view
    for look in of.looks(trial.look.scenario):
        prefix = (look.event, look.trigger, look.view)
        fits = prefix == of.MIGRATION if deviation.event == "migrate" else prefix != of.PLANT and look.event == deviation.event
        if deviation.event == "views":
            fits = look.view == "views"
        if fits and not look.item and look.view in ((view,) if view else ("host", "guest")):
            yield ".".join(prefix), look.step


def _put(trial: Trial, step: int, view: str, item: str, value: int) -> Any:
    """The evidence with ``value`` instead of the value that was read of ``item``."""
    layout, seen = trial.bases[0].layout, trial.seen
    if isinstance(seen, ResetSeen):
        tries = [one._replace(seen=one.seen._replace(after=_with(one.seen.after, layout, item, value))) for one in seen.tries]
        return seen._replace(tries=tuple(tries))
    evidence = list(seen.evidence)
    at = [at for at, (number, one) in enumerate(evidence) if number == step and isinstance(one, (Snapshot, Report))]
    if view == "host":
        # A migration is read before it and after it.
        at = at[len(at) // 2 :] if view == "host" and len(at) == 2 * len(trial.bases) else at
    for one in at:
        if isinstance(evidence[one][1], Report):
            evidence[one] = (evidence[one][0], evidence[one][1]._replace(values=evidence[one][1].values | {item: value}))
        else:
            evidence[one] = (evidence[one][0], _with(evidence[one][1], layout, item, value))
    return seen._replace(evidence=tuple(evidence))


def _with(snapshot: Snapshot, layout: Layout, item: str, value: int) -> Snapshot:
    """The ``snapshot`` that shows ``value`` as that of ``item``, whose XSAVE component is in use then."""
    made, component = snapshot.put(layout, item, value), layout.fields[item].component
    if component is None:
        return made
    area = bytearray(made.sections["xsave"])
    area[xsave.XSTATE_BV_OFFSET + component // 8] |= 1 << component % 8
    return made._replace(sections=made.sections | {"xsave": bytes(area)})


_BOOKS: dict[tuple[str, str, int], Cache] = {}


def _judged(trial: Trial, deviation: Deviation, seen: Any) -> dict[tuple[str, str], Record]:
    """Judge evidence as of a kernel that the deviation names."""
    host = trial.host._replace(kernel="{}.{}".format(*_kernel(deviation)), parameters={deviation.without: "N"})
    if deviation.backends and host.backend not in deviation.backends.split():
        host = host._replace(backend=deviation.backends.split()[0])
    bases = tuple(basis._replace(ctx=basis.ctx._replace(host=host)) for basis in trial.bases)
    # A cache is of one run.
    cache = _BOOKS.setdefault((host.kernel, host.backend, id(trial.cache)), Cache())
    return Trial(cache, host, trial.look, bases, seen).by_place(seen)


def _shown(deviation: Deviation) -> Iterator[tuple[Trial, str, int, int]]:
    """The cases in which its value would show: the case, the prefix, the step, and the value."""
    for name in _RECORDED.get(deviation.backends, ("7.2-svm", "7.2-vmx")):
        left = _MOST
        # Those of the mode first.
        named = _named(name, deviation.event, deviation.case)
        for trial in sorted(named, key=lambda trial: deviation.mode not in trial.look.case.name):
            target = {"target": trial.look.target, "vendor": trial.look.vendor}
            if any(getattr(deviation, key) not in ("", value) for key, value in target.items()) or not left:
                continue
            left -= 1
            now = None
            for prefix, step in _places(trial, deviation):
                now = now or _judged(trial, deviation, trial.seen)
                record = now.get((prefix, deviation.item))
                # What is skipped with an expected value is as it was planted.
                if record is None or not (record.verdict.judged or record.expected) or not isinstance(record.observed, int):
                    continue
                value = deviation.value(record.planted if isinstance(record.planted, int) else None)
                value = value - 1 if deviation.observed == LESS and isinstance(value, int) and value else value
                if isinstance(value, int) and record.expected and _departs(record, value):
                    yield trial, prefix, step, value


def _departs(record: Record, value: int) -> bool:
    assert record.expected
    return bool(record._replace(observed=value).differing) and value not in record.expected.values


@pytest.mark.parametrize("deviation", _ITEMS, ids=lambda d: f"{d.item}-{d.event}-{d.commit}-{d.backends}-{d.case}-{d.view}")
def test_a_deviation_of_an_item_is_known_and_with_another_bit_a_fail(deviation: Deviation) -> None:
    item = deviation.item
    if why := _LONE if deviation.case.endswith(",migrated") else _UNREACHED.get((item, deviation.event, deviation.commit)):
        pytest.skip(f"no recording shows it: {why}")
    for trial, prefix, step, value in _shown(deviation):
        view = prefix.rpartition(".")[2]
        known = _judged(trial, deviation, _put(trial, step, view, item, value)).get((prefix, item))
        if known is None or known.deviation != deviation.commit:
            continue  # in another mode of the local APIC, or of a vCPU that this is not said of
        assert known.verdict is Verdict.KNOWN and known.observed == value
        assert known.expected
        size = 8 * trial.bases[0].layout.fields[item].size
        mask = (1 << size) - 1 if known.expected.mask is None else known.expected.mask
        for bit in (bit for bit in range(min(size, 64)) if mask >> bit & 1):
            other = value ^ 1 << bit
            if _departs(known, other) and not _explained(trial, deviation, prefix, other, known):
                failed = _judged(trial, deviation, _put(trial, step, view, item, other))[prefix, item]
                assert (failed.verdict, failed.deviation) == (Verdict.FAIL, None), (trial.look.case.name, bit)
                return
        if mask.bit_count() == 1:
            # Its only other value is the manuals'.
            right = _judged(trial, deviation, _put(trial, step, view, item, value ^ mask))[prefix, item]
            # Where it is what was planted it proves nothing.
            assert right.verdict is (Verdict.SKIP if value ^ mask == known.planted else Verdict.FIXED)
            return
    raise AssertionError("no recording shows it")


def _explained(trial: Trial, deviation: Deviation, prefix: str, value: int, known: Record) -> bool:
    """Return True if another deviation of this item explains that value."""
    planted = known.planted if isinstance(known.planted, int) else None
    mine = [one for one in DEVIATIONS if (one.item, one.event) == (deviation.item, deviation.event)]
    return any(one.explains(value, planted) for one in mine)


@pytest.mark.parametrize("deviation", _CHECKS, ids=lambda d: f"{d.item}-{d.case}-{d.commit}")
def test_a_deviation_of_a_check_is_known_and_with_another_letter_a_fail(deviation: Deviation) -> None:
    """On the record of it, of any kernel that shows it."""
    event, _, view, name = deviation.item.split(".", 3)
    backend = (deviation.backends or "svm").split()[0]
    (host, *_), kernel = (trial.host for trial in trials(recorded.NAMES[0])[:1]), _kernel(deviation)
    host = host._replace(kernel="{}.{}".format(*kernel), backend=backend, parameters={deviation.without: "N"})
    case = f"{event}/{deviation.target or 'ap'},{deviation.vendor or 'intel'},{deviation.case}"
    where = (deviation.item, host, event, deviation.vendor or "intel", deviation.target or "ap", deviation.view or view, case)
    assert isinstance(deviation.observed, str) and deviation.observed not in (KEPT, LESS)
    record = Record(name, Verdict.FAIL, None, Expected(("what the manuals ask for",)), deviation.observed)
    known = excused(record, *where)
    assert (known.verdict, known.deviation) == (Verdict.KNOWN, deviation.commit)
    for other in (f"{deviation.observed} ", deviation.observed[:-1], f"{deviation.observed[:-1]}~"):
        assert excused(record._replace(observed=other), *where).verdict is Verdict.FAIL
    if deviation.without:
        for parameters in ({}, {deviation.without: "Y"}):
            usual = host._replace(parameters=parameters)
            assert excused(record, deviation.item, usual, *where[2:]).verdict is Verdict.FAIL
    assert excused(record, deviation.item, host._replace(backend="tdx"), *where[2:]).verdict is (
        Verdict.FAIL if deviation.backends else Verdict.KNOWN
    )
