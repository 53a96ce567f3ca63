# SPDX-License-Identifier: GPL-2.0-only
"""Run cases in several processes at once: what they show comes in the order of the cases, as if one had run them all.

A worker is made by fork(), runs the cases that it is given as `kvmtest.engine.run` does, and judges them. No two share a VM.
Where one ends in the middle of a case, another takes its place: that case is an error, and no other one is lost.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from kvmtest.engine.plan import Case
from kvmtest.engine.run import Done, run
from kvmtest.judge.cache import Cache
from kvmtest.judge.cases import judge
from kvmtest.judge.evidence import Untried
from kvmtest.kvm import Kvm, Stop
from kvmtest.kvm.alarm import TICK_S
from kvmtest.model.host import Host
from kvmtest.scenario.program import DEFAULT_ROUNDS, StressRounds
from kvmtest.scenario.setup import Setup

__all__ = ("run_in",)

#: The number of cases that a worker is given ahead, so that it does not wait for the next one.
_AHEAD = 4
#: Signals that a terminal or a supervisor sends to all of them: they are for the process that started them.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Left:
    """The numbers of the cases that nobody runs yet, in order.

    A worker gets those whose setup no other one has begun with, as long as there are any: it keeps a VM for each.
    """

    def __init__(self, cases: list[Case]) -> None:
        self._cases = cases
        self._of: dict[Setup, deque[int]] = {}
        self._owners: dict[Setup, _Worker] = {}
        for number, case in enumerate(cases):
            self._of.setdefault(case.setup, deque()).append(number)

    def __bool__(self) -> bool:
        return bool(self._of)

    def take(self, worker: _Worker) -> int | None:
        """The next one for ``worker``."""
        mine = [setup for setup in self._of if self._owners.get(setup, worker) is worker]
        setup = min(mine or self._of, key=lambda one: self._of[one][0], default=None)
        if setup is None:
            return None
        self._owners.setdefault(setup, worker)
        number = self._of[setup].popleft()
        if not self._of[setup]:
            del self._of[setup]
        return number

    def back(self, numbers: list[int]) -> None:
        """Take ``numbers`` back from a worker that is no more."""
        for number in reversed(numbers):
            setup = self._cases[number].setup
            self._owners.pop(setup, None)
            self._of.setdefault(setup, deque()).appendleft(number)


class _Worker:
    """A process that runs cases: what it is given, and what it sends of each that is over.

    What was sent once is sent as a number: most of what cases show is what others showed.
    """

    def __init__(self, work: Callable[[Iterator[int], Callable[[Any], None]], None], others: list[_Worker]) -> None:
        #: The numbers of its cases that are not over; it runs the first one.
        self.given: deque[int] = deque()
        self.connection, theirs = Pipe()
        self._message = io.BytesIO()
        self._unpickler = pickle.Unpickler(self._message)
        self.pid = os.fork()
        if self.pid:
            theirs.close()
            return
        status = 1
        try:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            # As long as anybody has them open, nobody sees that the other end is closed.
            for one in (self, *others):
                one.connection.close()
            _serve(theirs, work)
            status = 0
        except BrokenPipeError:  # who started it is no more
            status = 0
        finally:
            os._exit(status)

    def give(self, number: int) -> None:
        """Let it run a case, after those that it has."""
        self.given.append(number)
        with contextlib.suppress(OSError):  # it has ended: what comes next says how
            self.connection.send(number)

    def receive(self) -> Any:
        """Return the next value that it sent. Raises EOFError if it has ended."""
        try:
            data = self.connection.recv_bytes()
        except OSError:
            raise EOFError from None
        self._message.seek(0)
        self._message.truncate()
        self._message.write(data)
        self._message.seek(0)
        return self._unpickler.load()

    def close(self) -> str:
        """End it, in the middle of what it does if need be; how it has ended by itself, if it has."""
        self.connection.close()
        os.kill(self.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _serve(connection: Connection, work: Callable[[Iterator[int], Callable[[Any], None]], None]) -> None:
    message = io.BytesIO()
    pickler = pickle.Pickler(message, pickle.HIGHEST_PROTOCOL)

    def send(value: Any) -> None:
        message.seek(0)
        message.truncate()
        pickler.dump(value)
        connection.send_bytes(message.getbuffer())

    def asked() -> Iterator[int]:
        with contextlib.suppress(EOFError, OSError):
            while True:
                yield connection.recv()

    try:
        work(asked(), send)
    except BrokenPipeError:
        raise
    except BaseException as error:
        import traceback

        traceback.print_exc()
        send(RuntimeError(f"in a worker: {type(error).__name__}: {error}"))


def run_in(
    jobs: int,
    kvm: Kvm,
    host: Host,
    cases: list[Case],
    timeout_s: float = 1.0,
    started: Callable[[Case], None] | None = None,
    stress_rounds: StressRounds = DEFAULT_ROUNDS,
) -> Generator[Done, None, None]:
    """Run ``cases`` in ``jobs`` workers, with the parameters of `run`; but ``started`` is called with a case when it is over.

    Where ``kvm.stop`` is set, all that is over by then is shown.
    """

    def work(numbers: Iterator[int], send: Callable[[Any], None]) -> None:
        kvm.stop = Stop()
        for done in run(kvm, host, map(cases.__getitem__, numbers), timeout_s, None, stress_rounds):
            send((done.seen, done.seconds))

    pool = _Pool(min(jobs, len(cases)), cases, work, host)
    # Its own function, so that the workers are made now: before there are threads.
    return _in_order(pool, kvm, cases, started)


class _Pool:
    """The workers, which have been given their first cases."""

    def __init__(self, jobs: int, cases: list[Case], work: Callable[..., None], host: Host) -> None:
        self._cases, self._work, self._host = cases, work, host
        self._left, self._workers = _Left(cases), list[_Worker]()
        for _ in range(jobs):
            self._add()

    def _add(self) -> None:
        worker = _Worker(self._work, self._workers)
        self._workers.append(worker)
        self._fill(worker)

    def _fill(self, worker: _Worker) -> None:
        while len(worker.given) < _AHEAD and (number := self._left.take(worker)) is not None:
            worker.give(number)

    def over(self, timeout_s: float) -> Iterator[tuple[int, Done]]:
        """The cases that are over, after a wait of ``timeout_s`` seconds at most, with their numbers."""
        by = {worker.connection: worker for worker in self._workers}
        for ready in wait(list(by), timeout_s):
            worker = by[ready]  # type: ignore[index]
            try:
                value = worker.receive()
            except (EOFError, pickle.UnpicklingError):
                yield from self._ended(worker)
                continue
            if isinstance(value, Exception):
                raise value
            number = worker.given.popleft()
            self._fill(worker)
            yield number, Done(self._cases[number], *value)

    def _ended(self, worker: _Worker) -> Iterator[tuple[int, Done]]:
        self._workers.remove(worker)
        how = worker.close()
        first, *rest = worker.given or (None,)
        self._left.back(rest)
        if first is not None:
            case = self._cases[first]
            seen = judge(Cache(), case.look(), self._host, (), Untried("error", f"the process that ran it {how}"))
            yield first, Done(case, seen, 0.0)
        if self._left:
            self._add()

    def close(self) -> None:
        """End all workers."""
        while self._workers:
            self._workers.pop().close()

    def last(self) -> Iterator[tuple[int, Done]]:
        """Yield the results that the workers have sent by now; they get no other case."""
        self._left = _Left([])
        while found := list(self.over(0)):
            yield from found


def _in_order(
    pool: _Pool, kvm: Kvm, cases: list[Case], started: Callable[[Case], None] | None
) -> Generator[Done, None, None]:
    over: dict[int, Done] = {}
    following = 0
    try:
        while following < len(cases) and not kvm.stop.seen:
            over.update(pool.over(TICK_S))
            while following in over:
                if started:
                    started(cases[following])
                yield over.pop(following)
                following += 1
        over.update(pool.last() if kvm.stop.seen else ())
    finally:
        pool.close()
    for number in sorted(over):
        if started:
            started(cases[number])
        yield over[number]
