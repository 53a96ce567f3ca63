# SPDX-License-Identifier: GPL-2.0-only
"""Compare the whole state of a vCPU with what the manuals say of an event."""

from __future__ import annotations

import textwrap
from collections import deque
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from kvmtest import spec
from kvmtest.engine import host as host_facts
from kvmtest.judge.item import Context, Seen, judge
from kvmtest.kvm import Vcpu
from kvmtest.model.case import Case
from kvmtest.model.host import Host
from kvmtest.model.record import Block, Observation, Record, Result
from kvmtest.model.verdict import Verdict
from kvmtest.report.show import difference, named, printable
from kvmtest.x86 import cpuid

from .like import compared
from .state import State, open_vcpu, read_state

__all__ = ["EVENTS", "Judged", "StateMismatch", "assert_state", "assert_unchanged", "judge_state", "log"]

EVENTS = (*spec.EVENTS, "none")
_APIC_ENABLED, _X2APIC = 1 << 11, 1 << 10
#: The number of reasons that a summary shows.
_REASONS = 8
#: The last results of assert_state(): the pytest plugin clears it after each test.
log: deque[Judged] = deque(maxlen=1000)


class Judged(NamedTuple):
    """A vCPU's state item by item: ``results`` are as `kvmtest run` has them, ``event`` and ``of`` say what was judged.

    ``event`` is "" where it was compared with another state; ``like`` says what it is compared with.
    """

    event: str
    of: str
    results: tuple[Result, ...]
    strict: bool = False
    like: str = "the manuals say"

    @property
    def failed(self) -> tuple[Result, ...]:
        """The results that differ from the manuals; with `strict` also those that a deviation explains."""
        return tuple(r for r in self.results if r.verdict.unexpected or self.strict and r.verdict is Verdict.KNOWN)

    @property
    def good(self) -> tuple[Result, ...]:
        """The results that agree with the manuals."""
        return tuple(r for r in self.results if r.verdict in (Verdict.PASS, Verdict.FIXED))

    @property
    def not_judged(self) -> dict[str, str]:
        """The items that nothing can be said of, with the reason."""
        return {r.item: r.reason for r in self.results if r.verdict in (Verdict.SKIP, Verdict.INFO)}

    @property
    def counts(self) -> str:
        """One line of numbers."""
        known = len(self.results) - len(self.failed) - len(self.good) - len(self.not_judged)
        explained = f", {known} as a listed deviation of KVM explains" if known else ""
        return f"{len(self.good)} as {self.like}, {len(self.failed)} not{explained}, {len(self.not_judged)} not judged"

    @property
    def head(self) -> str:
        """One line: the state that was judged, and the numbers."""
        return f"{self.of}{f' after {self.event.upper()}' if self.event else ''}: {self.counts}"

    def report(self) -> str:
        """Return the failures, formatted as in the text report of `kvmtest run`, and the summary."""
        shown = [line for result in self.failed for line in (*_shown(result), "")]
        return "\n".join((self.head, "", *shown, *self._rest()))

    def summary(self) -> str:
        """Summarise in some lines what was judged, what was not, and why not."""
        return "\n".join((self.head, *self._rest()))

    def _rest(self) -> list[str]:
        """List what the numbers do not say: results judged in part, results that a deviation explains, items not judged."""
        partly = [r for r in self.good if r.reason and r.verdict is Verdict.PASS]
        known = [] if self.strict else [r for r in self.results if r.verdict is Verdict.KNOWN]
        lines = [f"  {r.item}: {r.reason}" for r in partly]
        lines += [f"  {r.item}: {r.observed}, {r.reason} [{r.deviation}]" for r in known]
        reasons: dict[str, list[str]] = {}
        for item, reason in self.not_judged.items():
            reasons.setdefault(reason, []).append(item)
        ranked = sorted(reasons.items(), key=lambda pair: -len(pair[1]))
        for reason, items in ranked[:_REASONS]:
            more = f" and {len(items) - 3} more" if len(items) > 3 else ""
            lines.append(f"  not judged: {', '.join(items[:3])}{more}: {reason}")
        if len(ranked) > _REASONS:
            rest = sum(len(items) for _, items in ranked[_REASONS:])
            lines.append(f"  not judged: {rest} more items, for {len(ranked) - _REASONS} more reasons")
        return lines


def _shown(result: Result) -> Iterator[str]:
    """The lines of a result that failed."""
    yield f"{result.verdict.upper():5} {result.id}"
    values = (("planted", result.planted), ("expected", result.expected), ("observed", result.observed))
    said = [(label, named(result.item, value)) for label, value in values]
    said += [
        ("differs", difference(result.record)),
        ("because", printable(result.reason + (f" [{result.deviation}]" if result.deviation else ""))),
    ]
    said += [("cases", result.of.case.words if result.of.case else ""), ("cite", printable("; ".join(result.cite)))]
    for label, text in said:
        if text:
            yield from textwrap.wrap(text, 100, initial_indent=f"      {label:9} ", subsequent_indent=" " * 16)


class StateMismatch(AssertionError):
    """The state is not what the manuals say; ``judged`` has all results. The message is the report's."""

    def __init__(self, judged: Judged, message: str) -> None:
        super().__init__(message)
        self.judged = judged


def assert_state(
    vcpu: Vcpu | int | State,
    event: str = "",
    *,
    like: Vcpu | int | State | None = None,
    before: State | None = None,
    vendor: str = "",
    backend: str = "",
    kernel: str = "",
    bsp: bool | None = None,
    apic_id: int | None = None,
    vector: int | None = None,
    ignore: Iterable[str] = (),
    strict: bool = False,
) -> Judged:
    """Assert that ``vcpu`` is as the manuals say after ``event``: "reset", "init", "sipi", "shutdown" or "none" (nothing).

    With ``like`` instead of an event: that it is as that other vCPU, a new one for instance, also in what the manuals leave
    undefined. What follows from its id, and what counts by itself, is not judged; of the rest only ``ignore`` is heeded.

    ``vcpu`` is a Vcpu, the descriptor of a vCPU that this process made, or a State that was saved. ``before`` is its state
    before the event (read_state()), full of values that the event must change or keep: without it what must be unchanged is
    not judged, with it a value that the event would have left as it was proves nothing and is not judged either.

    ``vendor`` is "intel" or "amd", ``backend`` "vmx" or "svm", ``kernel`` a release: found out where they can be. ``bsp`` is
    whether it is the boot CPU, by default the vCPU with ``apic_id`` 0. A Vcpu has its id; of a descriptor or a saved state
    give that of any vCPU but the first. ``vector`` is the SIPI's. ``ignore`` are globs of items, such as "msr.tsc" or
    "lapic.*". With ``strict`` what a listed deviation of KVM explains fails too: a VMM that writes all state itself has no
    use for KVM's.

    Returns what was judged. Raises StateMismatch, also where nothing at all could be judged; ValueError for an event, vendor or
    glob that does not exist; KvmError where KVM refuses to be read.
    """
    __tracebackhide__ = True
    if like is not None:
        if event:
            raise ValueError("a state is compared with what an event leaves, or with like= with another state")
        return _same(vcpu, like, ignore, itself=False)
    judged = judge_state(
        vcpu,
        event,
        before=before,
        vendor=vendor,
        backend=backend,
        kernel=kernel,
        bsp=bsp,
        apic_id=apic_id,
        vector=vector,
        ignore=ignore,
        strict=strict,
    )
    return _asserted(judged)


def assert_unchanged(before: State, vcpu: Vcpu | int | State, *, ignore: Iterable[str] = ()) -> Judged:
    """Assert that ``vcpu`` is as ``before``, which read_state() gave: after a save and restore, into a new vCPU of that id too.

    The TSC may have counted on, and must not have gone back; what else counts by itself is not judged. Returns and raises as
    assert_state().
    """
    __tracebackhide__ = True
    return _same(vcpu, before, ignore, itself=True)


def _same(vcpu: Vcpu | int | State, other: Vcpu | int | State, ignore: Iterable[str], *, itself: bool) -> Judged:
    __tracebackhide__ = True
    seen = compared(_state(vcpu), _state(other), ignore, itself=itself)
    return _asserted(Judged("", _called(vcpu), tuple(seen.results), True, "before" if itself else "the other one"))


def _called(vcpu: Vcpu | int | State) -> str:
    if isinstance(vcpu, State):
        return "saved vCPU"
    return f"vCPU on descriptor {vcpu}" if isinstance(vcpu, int) else f"vCPU {vcpu.id}"


def _asserted(judged: Judged) -> Judged:
    __tracebackhide__ = True
    log.append(judged)
    if judged.failed:
        raise StateMismatch(judged, judged.report())
    if not judged.good:
        raise StateMismatch(judged, f"nothing was judged: {judged.summary()}")
    return judged


def judge_state(
    vcpu: Vcpu | int | State,
    event: str,
    *,
    before: State | None = None,
    vendor: str = "",
    backend: str = "",
    kernel: str = "",
    bsp: bool | None = None,
    apic_id: int | None = None,
    vector: int | None = None,
    ignore: Iterable[str] = (),
    strict: bool = False,
) -> Judged:
    """As assert_state(), but only judges."""
    if event not in EVENTS:
        raise ValueError(f"event {event!r}: one of {', '.join(EVENTS)}")
    if vendor not in ("", *spec.VENDORS):
        raise ValueError(f"vendor {vendor!r}: one of {', '.join(spec.VENDORS)}")
    if event == "sipi" and vector is None:
        raise ValueError("CS after a SIPI depends on its vector: give vector=")
    of = _called(vcpu)
    state = _state(vcpu)
    host = _host(state, backend, kernel)
    number = apic_id if apic_id is not None else state.apic_id or 0
    boot = bsp if bsp is not None else number == 0
    ctx = Context(
        f"{event}.external.host",
        f"{event}.external.host/{'bsp' if boot else 'ap'},{vendor or state.vendor or 'no-cpuid'}",
        host,
        vendor or state.vendor,
        boot,
        number,
        state.value("lapic.id") is not None,
        _apic_mode(event, before or state),
        next((leaf.eax for leaf in state.leaves if leaf.function == 1), None),
        vector,
        cpuid.gp_counters(state.leaves),
        before is not None,
        extended_apic=cpuid.extended_apic(state.leaves),
    )
    known = (item for item in spec.ENTRIES if item not in spec.SYNTHETIC)
    items = list(dict.fromkeys((*known, *state.layout.fields)))
    left_out = set(_matched(ignore, items))
    records = tuple(_one(i, ctx, state, before) for i in items if i not in left_out)
    case = Case(f"{event}.external/{ctx.case.partition('/')[2]}", (("target", "bsp" if boot else "ap"),))
    return Judged(event, of, tuple(Observation(case, event, "external", "host", (Block(records),)).results), strict)


def _state(vcpu: Vcpu | int | State) -> State:
    if isinstance(vcpu, State):
        return vcpu
    if isinstance(vcpu, int):
        kvm, borrowed = open_vcpu(vcpu)
        with kvm, borrowed:
            return read_state(borrowed)._replace(apic_id=None)
    return read_state(vcpu)


def _host(state: State, backend: str, kernel: str) -> Host:
    """The host whose KVM it is: this one where the state was read here."""
    if state.backend:
        here = host_facts.detect()
        return here._replace(backend=backend or here.backend, kernel=kernel or here.kernel)
    return Host(kernel, backend or "unknown", "unknown", "unknown", {})


def _apic_mode(event: str, state: State) -> str:
    """The local APIC's mode when the event came, which RESET changes and other events do not."""
    base = state.value("apic_base")
    if event == "reset" or base is None:
        return "xapic"
    return "disabled" if not base & _APIC_ENABLED else "x2apic" if base & _X2APIC else "xapic"


def _matched(globs: Iterable[str], items: list[str]) -> Iterable[str]:
    for glob in globs:
        found = [item for item in items if fnmatchcase(item, glob)]
        if not found:
            raise ValueError(f"ignore: no item matches {glob!r}; kvmtest spec shows them all")
        yield from found


def _one(item: str, ctx: Context, state: State, before: State | None) -> Record:
    planted = before.value(item) if before else None
    refused = f"before= has no {item}" if before else "the state before the event is not known (before=)"
    unreadable = state.absent.get(item, "no ioctl shows it")
    seen = Seen(planted, _at_reset(item, ctx, planted), state.value(item), "" if planted is not None else refused, unreadable)
    return judge(item, ctx, seen)


def _at_reset(item: str, ctx: Context, planted: int | None) -> int | None:
    """Return a value that shows whether an item was planted: ``planted`` itself if it is RESET's value, else 0.

    An item without a rule for RESET counts as planted if it is not 0.
    """
    if planted is None:
        return None
    reset = ctx._replace(prefix="reset.external.host", before=False, apic_mode="xapic")
    if judge(item, reset, Seen(None, None, planted)).verdict in (Verdict.PASS, Verdict.KNOWN, Verdict.FIXED):
        return planted
    return 0
