# SPDX-License-Identifier: GPL-2.0-only
"""Ioctls that fail on demand, below the one place that issues them, and what a run of cases shows then.

The C code has calls of its own: of those, too, each can be refused, and the rest it makes.
"""

from __future__ import annotations

import ctypes
import errno
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from typing import Any, NamedTuple
from zlib import crc32

import pytest

from kvmtest.engine import host, native, run
from kvmtest.engine.plan import Case
from kvmtest.kvm import Kvm, vcpu
from kvmtest.kvm import ioctl as calls
from kvmtest.model.record import Result
from kvmtest.uapi.kvm import KVM_RUN
from kvmtest.uapi.names import IOCTLS
from tests.cases import CASES, the

__all__ = ("CHOSEN", "ERRORS", "NUMBERS", "TIMES", "Product", "Refusal", "Refusing", "departures", "verdicts")

#: The C code's struct op, where `done` is in it, and its first kind.
_OP, _DONE, _IOCTL = Struct("<2HiIIQQQQq"), 48, 0
#: One of each kind; those of the second half are there for ioctls that hardly any other case issues.
CHOSEN = (
    the("reset.create.host/bsp,boot-id-1,full-irqchip,no-cpuid"),
    the("reset.vmm-reset.host/bsp,full-irqchip,intel,xapic,plant-a"),
    the("reset.vmm-reset.guest/bsp,full-irqchip,intel,xapic,plant-a"),
    the("init.msi.host/ap,intel,xapic,plant-a"),
    the("init.msi.guest/bsp,intel,xapic,plant-a"),
    the("init.msi.host/bsp,intel,xapic,plant-guest-long,in-loop"),
    the("init.broadcast.host/ap,intel,8-vcpus,xapic,plant-a"),
    the("init.irqfd.host/bsp,amd,xapic,plant-guest-long,guest-debug,migrated-before-qemu"),
    the("init.ioapic.guest/bsp,amd,x2apic,plant-guest-long,guest-debug,migrated-after-cloud-hypervisor"),
    the("sipi.msi.host/ap,intel,xapic,plant-sipi,vector-9f"),
    *(
        CASES[name]
        for name in (
            "none.interrupt-window.guest/bsp,no-irqchip,intel,without-irqchip",
            "none.set-boot-cpu-id.host/ap,intel,after-vcpus",
            "none.set-fpu.host/ap,intel,alone-over-a",
            "none.set-sregs.host/ap,intel,into-64-bit-mode-and-back",
            "none.irq-line.host/ap,intel,rtc",
            "none.task-gate.guest/bsp,amd,nmi",
            "none.tpr-access.guest/bsp,split-irqchip,amd,read",
            "none.vapic-addr.guest/bsp,amd,interrupt-in-service",
            "init.msi.host/bsp,intel,msr-filter",
        )
    ),
)
ERRORS = (errno.EINVAL, errno.ENOMEM, errno.EINTR)
#: Those that are no answer: KVM lacked memory or time.
_PASSING = (errno.ENOMEM, errno.EINTR)
#: Of those cases that issue an ioctl, so many that issue the fewest are chosen from.
_CHEAP = 6
#: The number of each ioctl, by name.
NUMBERS = {name: number for number, name in IOCTLS.items()}
Results = dict[tuple[str, str], Result]


class Refusal(NamedTuple):
    """An ioctl's ``request`` that fails with ``error``: each ``every``-th call of it, or once, after ``after`` others."""

    request: int
    error: int
    every: int = 0
    after: int = 0

    def fails(self, call: int) -> bool:
        """Return True if the call of that number, counted from 1, fails."""
        return not call % self.every if self.every else call == self.after + 1

    @property
    def words(self) -> tuple[str, str]:
        """The names of the ioctl and of its error."""
        return IOCTLS[self.request], errno.errorcode[self.error]

    @property
    def time(self) -> str:
        """When it fails, in words."""
        each = {2: "2nd", 3: "3rd"}.get(self.every, f"{self.every}th")
        return "always" if self.every == 1 else f"each {each} time" if self.every else f"once, after {self.after}"


#: When a call fails, of one that is made ``count`` times: always, each second to seventh time, and once in the middle.
TIMES: dict[str, Callable[[int], dict[str, int]]] = {
    "always": lambda count: {"every": 1},
    "each": lambda count: {"every": min(7, count, max(2, count // 3))},
    "once": lambda count: {"after": count // 2},
}


class Refusing:
    """Counts the calls of each ioctl, and refuses those that ``refusal`` names.

    ``native`` is whether the C code makes those that it can.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[int] = Counter()
        self.refusal: Refusal | None = None
        self.refused = 0
        self.native = True
        self._real = calls.raw_ioctl
        library = native.library()
        monkeypatch.setattr(calls, "raw_ioctl", self._call)
        monkeypatch.setattr(vcpu, "raw_ioctl", self._call)
        monkeypatch.setattr(native, "library", lambda: self._run if self.native and library else None)
        self._library = library

    def start(self, refusal: Refusal | None, *, native: bool = True) -> None:
        """Refuse from now on, and count anew."""
        self.calls.clear()
        self.refusal, self.refused, self.native = refusal, 0, native

    def _refuses(self, request: int) -> bool:
        request &= 0xFFFFFFFF
        self.calls[request] += 1
        of = self.refusal
        if not of or of.request != request or not of.fails(self.calls[request]):
            return False
        self.refused += 1
        return True

    def _call(self, fd: int, request: int, argument: Any = None) -> int:
        if self._refuses(request):
            assert self.refusal
            ctypes.set_errno(self.refusal.error)
            return -1
        result: int = self._real(fd, request, argument)
        return result

    def _run(self, ops: int, at: int, end: int) -> int:
        """The C code's function, of which each ioctl is asked for first."""
        assert self._library
        for number in range(at, end):
            kind, _, _, request, _, _, other, value, _, _ = _OP.unpack(ctypes.string_at(ops + _OP.size * number, _OP.size))
            if kind != _IOCTL:
                continue
            if (stopped := self._library(ops, at, number)) != number:
                return stopped
            at = number
            if not self._refuses(request):
                continue
            assert self.refusal
            done = -self.refusal.error
            ctypes.c_int64.from_address(ops + _OP.size * number + _DONE).value = done
            if self.refusal.error in _PASSING or not other:
                return number
            ctypes.c_int64.from_address(other).value = done
            at = number + 1
        return self._library(ops, at, end)


def departures(quiet: Mapping[tuple[str, str], str], seen: Results, refusal: Refusal) -> list[str]:
    """List results that are judged otherwise than in the ``quiet`` run, and are no error or skip that says so.

    Where the refusal itself is judged, it departs. Of a case that shows the refusal a part may not be there: what
    else it would have shown is not known. Where nothing of an item was planted, a migration proves nothing of it: why stands with
    what the event made of it.
    """
    said = {(result.item, case) for (_, case), result in seen.items() if _says(result, refusal)}
    reported = {case for (_, case), result in seen.items() if _says(result, refusal) or _answers(result, refusal)}
    found = [f"{'/'.join(key)}: not there" for key in quiet.keys() - seen.keys() if key[1] not in reported]
    for key, result in seen.items():
        was = quiet.get(key, "not there")
        named = _says(result, refusal) or _answers(result, refusal)
        proves = not (result.reason.endswith("proves nothing") and (result.item, key[1]) in said)
        if result.verdict != was and not named and proves:
            found.append(f"{'/'.join(key)}: {was} -> {result.verdict} {result.record.observed!r} {result.reason!r}")
    return found


def _says(result: Result, refusal: Refusal) -> bool:
    return result.verdict in ("error", "skip") and all(word in result.reason for word in refusal.words)


def _answers(result: Result, refusal: Refusal) -> bool:
    name, error = refusal.words
    answer = result.record.observed in (error, f"{name}: {error}")
    return answer and result.verdict == "fail" and refusal.error not in _PASSING


def verdicts(results: Results) -> dict[tuple[str, str], str]:
    """Each verdict."""
    return {key: result.verdict for key, result in results.items()}


class Reported(NamedTuple):
    """The verdicts of a run that changed: their number by new verdict, and the reason of one of them."""

    changed: Counter[str]
    example: str

    @classmethod
    def of(cls, quiet: Mapping[tuple[str, str], str], seen: Results) -> Reported:
        """That of the run ``seen``, which was ``quiet`` before."""
        others = [result for key, result in seen.items() if result.verdict != quiet.get(key)]
        example = next((one.reason or str(one.record.observed) for one in others), "")
        return cls(Counter(str(one.verdict) for one in others), example)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(self.changed.items()))
        return f"{counts}: {self.example}" if counts else "nothing"


class Product:
    """Ioctls, errors and times, in runs of the chosen cases with VMs of their own."""

    def __init__(self, refusing: Refusing) -> None:
        self.refusing, self._host = refusing, host.detect()
        self._quiet: dict[Case, dict[tuple[str, str], str]] = {}
        #: The outcome of the last try.
        self.reported = Reported(Counter(), "")
        self._calls: dict[tuple[Case, bool], Counter[int]] = {}

    def shown(self, cases: list[Case], refusal: Refusal | None, *, native: bool = True, timeout_s: float = 1.0) -> Results:
        """All results of a run of ``cases`` in which ``refusal`` holds."""
        self.refusing.start(refusal, native=native)
        with Kvm() as kvm:  # which keeps what it has asked once
            done = run.run(kvm, self._host, cases, timeout_s)
            found = {(result.id, result.case): result for one in done for seen in one.seen for result in seen.results}
        self.refusing.refusal = None
        return found

    def quiet(self, case: Case) -> dict[tuple[str, str], str]:
        """The verdicts of a run of ``case`` in which nothing is refused."""
        if case not in self._quiet:
            self._quiet[case] = verdicts(self.shown([case], None))
            self._calls[case, True] = Counter(self.refusing.calls)
        return self._quiet[case]

    def calls(self, case: Case, *, native: bool) -> Counter[int]:
        """Count the calls of each ioctl."""
        found = self.quiet(case)
        if (case, native) not in self._calls:
            assert verdicts(self.shown([case], None, native=native)) == found
            self._calls[case, native] = Counter(self.refusing.calls)
        return self._calls[case, native]

    @property
    def used(self) -> set[int]:
        """The ioctls that the chosen cases issue."""
        return {request for case in CHOSEN for request in self.calls(case, native=True)}

    def _user(self, request: int, error: int, time: str) -> tuple[Case, bool]:
        """One of the cases that issue it and hardly cost anything, and whether the C code is to."""
        every = ((case, native) for case in CHOSEN for native in (True, False))
        users = [(case, native) for case, native in every if self.calls(case, native=native)[request]]
        users = sorted(users, key=lambda user: self._calls[user].total())[:_CHEAP]
        return users[crc32(f"{request} {error} {time}".encode()) % len(users)]

    def some(self, error: int, time: str) -> Iterator[tuple[Refusal, tuple[str, ...]]]:
        """Each ioctl, refused to one of the cases that issue it: what is otherwise than it should be."""
        for request in sorted(self.used):
            case, native = self._user(request, error, time)
            yield self.tried(request, error, time, case, native=native)

    def every(self, error: int, time: str, *, native: bool) -> Iterator[tuple[Refusal, tuple[str, ...]]]:
        """The same of all cases."""
        for request in sorted(self.used):
            for case in (case for case in CHOSEN if self.calls(case, native=native)[request]):
                yield self.tried(request, error, time, case, native=native)

    def tried(self, request: int, error: int, time: str, case: Case, *, native: bool) -> tuple[Refusal, tuple[str, ...]]:
        refusal = Refusal(request, error, **TIMES[time](self.calls(case, native=native)[request]))
        stuck = request == KVM_RUN and error == errno.EINTR and time == "always"
        after = [CHOSEN[3]] if time == "once" and case != CHOSEN[3] else []
        quiet = {key: verdict for one in (case, *after) for key, verdict in self.quiet(one).items()}
        seen = self.shown([case, *after], refusal, native=native, timeout_s=0.1 if stuck else 1.0)
        assert self.refusing.refused, (refusal, case)
        self.reported = Reported.of(quiet, seen)
        if stuck:
            # A vCPU that never gets to run: that nothing comes in time is all that can be seen.
            return refusal, tuple(str(key) for key, one in seen.items() if one.verdict == "pass" and quiet[key] != "pass")
        if error == errno.EINTR and refusal.every != 1:
            # It is called again: nothing at all is otherwise.
            others = {key: one for key, one in seen.items() if quiet.get(key) != one.verdict}
            return refusal, tuple(f"{key}: {one.verdict} {one.reason}" for key, one in others.items())
        return refusal, tuple(departures(quiet, seen, refusal))


def _table(path: str) -> None:
    """Write what each refusal came to, in one case each."""
    lines = ["# Refused ioctls", "", "What other verdicts the case had then, and the reason of one of them; who issued it.", ""]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "INTERRUPTED", 5)
        patch.setattr(native, "INTERRUPTED", 5)
        product = Product(Refusing(patch))
        lines += [f"{len(product.used)} ioctls, {len(CHOSEN)} cases.", ""]
        lines += ["| ioctl | errno | when | what happened | case |", "|---|---|---|---|---|"]
        for request in sorted(product.used, key=lambda request: IOCTLS[request]):
            for error in ERRORS:
                for time in TIMES:
                    case, issued = product._user(request, error, time)
                    refusal, wrong = product.tried(request, error, time, case, native=issued)
                    said = f"{'WRONG: ' if wrong else ''}{product.reported}".replace("|", "/").replace("\n", " ")
                    by = "C" if issued else "Python"
                    lines.append(f"| {' | '.join(refusal.words)} | {refusal.time} | {said} | {case.prefix}/{case.words}, {by} |")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    _table(sys.argv[1])
