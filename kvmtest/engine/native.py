# SPDX-License-Identifier: GPL-2.0-only
"""Ops in a row between which there is nothing to decide: prepared once, run by one call of guests/runner.c."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterable
from functools import cache, singledispatchmethod
from typing import Any

from kvmtest import guests
from kvmtest.engine.operands import Operands
from kvmtest.scenario import program as p
from kvmtest.state.sections import Snapshot
from kvmtest.state.snapshot import ROOM, Reader, contents_of, point
from kvmtest.uapi.kvm import KVM_RUN

__all__ = ("NAME", "Library", "Span", "library")

#: The shared object.
NAME = "runner.so"

#: enum kind of the C code, in its order.
_IOCTL, _PUT, _COMPARE, _COPY, _UPDATE = range(5)
#: What it compares at once, in bytes.
_LINE = 32
_WORD, _ALL = 8, (1 << 64) - 1


class _Op(ctypes.Structure):
    """The C code's struct op."""

    _fields_ = (
        ("kind", ctypes.c_uint16),
        ("size", ctypes.c_uint16),
        ("fd", ctypes.c_int32),
        ("request", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("address", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("mask", ctypes.c_uint64),
        ("done", ctypes.c_int64),
    )


#: Of ops' address, the number of the first one to run, and that of the end, makes the number of the one that did not succeed.
Library = Callable[[int, int, int], int]


@cache
def library() -> Library | None:
    """The C code; None where it is not built, or where this host does not let it be loaded."""
    try:
        loaded = ctypes.CDLL(os.path.join(os.path.dirname(os.path.abspath(guests.__file__)), NAME))
        run = loaded.kvmtest_run
        size = ctypes.c_uint32.in_dll(loaded, "kvmtest_op_size").value
    except (AttributeError, OSError, ValueError):
        return None
    run.argtypes, run.restype = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64), ctypes.c_uint64
    # Otherwise it was built from another source than this one's.
    return run if size == ctypes.sizeof(_Op) else None


class _Look:
    """Where the ioctls of a Look put the sections, and what these were when it was made the last time.

    A section that has not changed since then is the same object, and so is a snapshot.
    """

    def __init__(self, reader: Reader, seen: Callable[[Snapshot], Snapshot]) -> None:
        self._seen = seen
        self._sections: dict[str, bytes] = {}
        self._snapshot: Snapshot | None = None
        self._buffers = [(buf, -(-buf.size // _LINE) * _LINE) for buf in reader.buffers]
        self._names = [buf.section for buf in reader.buffers]
        #: Where each section is, in all of its buffers, and their sizes.
        self._parts: dict[str, list[tuple[int, int]]] = {}
        room = sum(size for _, size in self._buffers)
        self._now, self._last = ctypes.create_string_buffer(room), ctypes.create_string_buffer(room)
        self._changed = ctypes.create_string_buffer(len(self._buffers))

    def ops(self, fd: int) -> Iterable[_Op]:
        """The ioctls, and where all succeed the comparisons."""
        now, last, changed = map(ctypes.addressof, (self._now, self._last, self._changed))
        compared, at = [], 0
        for number, (buf, size) in enumerate(self._buffers):
            self._parts.setdefault(buf.section, []).append((last + at, buf.size))
            ctypes.memmove(now + at, buf.address, buf.size)
            if buf.section == "ssp":
                point(now + at)
            elif buf.section == "nested":
                yield _Op(_PUT, 4, address=now + at + ROOM, value=buf.size, mask=_ALL)
            # Of MSRs fewer are read where KVM refuses one.
            answer = (buf.size - 8) // 16 if buf.section == "msrs" else 0
            yield _Op(_IOCTL, fd=fd, request=buf.request, address=now + at, value=answer)
            compared.append(_Op(_UPDATE, count=size, address=last + at, other=now + at, value=changed + number))
            at += size
        yield from compared

    def read(self) -> Snapshot:
        """What was read."""
        flags = self._changed.raw
        if self._snapshot is None:
            flags = b"\1" * len(flags)
        at = flags.find(1)
        if at < 0:
            assert self._snapshot
            return self._snapshot
        self._sections = self._sections.copy()
        while at >= 0:
            name = self._names[at]
            self._sections[name] = b"".join([contents_of(name, ctypes.string_at(*part)) for part in self._parts[name]])
            at = flags.find(1, at + 1)
        self._snapshot = self._seen(Snapshot(self._sections, {}))
        return self._snapshot


class Span:
    """The longest beginning of ``ops`` that the C code can run: ``count`` of them. Each comes with the number of its step."""

    def __init__(self, run: Library, ops: tuple[tuple[int, p.Op], ...], operands: Operands) -> None:
        self._run, self._at = run, operands
        self._made: list[_Op] = []
        self._kept: list[Any] = []
        #: The number of a program's op, its step, and what gets the evidence.
        self._tells: list[tuple[int, int, Callable[[], Any]]] = []
        #: By the C code's ops, the program's that they belong to.
        self._numbers: list[int] = []
        self.count = 0
        for self._step, op in ops:
            if not self._add(op):
                del self._made[len(self._numbers) :]
                break
            self._numbers += [self.count] * (len(self._made) - len(self._numbers))
            self.count += 1
        self._ops = (_Op * len(self._made))(*self._made)
        self._end, self._address = len(self._made), ctypes.addressof(self._ops)

    def run(self, told: list[tuple[int, Any]]) -> tuple[int, int]:
        """Run it and append the evidence to ``told``; how many ops succeeded, and the answer to the ioctl that did not."""
        at, answer = 0, -errno.EINTR
        while at < self._end and answer == -errno.EINTR:
            # Python's handlers of signals run in between.
            at = self._run(self._address, at, self._end)
            answer = self._ops[at].done if at < self._end and self._ops[at].kind == _IOCTL else 0
        count = self.count if at == self._end else self._numbers[at]
        for number, step, tell in self._tells:
            if number < count:
                told.append((step, tell()))
        return count, answer

    def _tell(self, tell: Callable[[], Any]) -> None:
        self._tells.append((self.count, self._step, tell))

    @singledispatchmethod
    def _add(self, op: object) -> bool:
        """Append what the C code does for ``op``; False for one that it cannot do."""
        return False

    @_add.register
    def _(self, op: p.Ioctl) -> bool:
        if op.request == KVM_RUN:
            return False  # it has no end of its own
        arg = op.arg & _ALL if isinstance(op.arg, int) else self._at.address(op.arg)
        other = self._at.address(op.result) if op.result else 0
        self._made.append(_Op(_IOCTL, fd=self._at.fd(op.on), request=op.request, address=arg, other=other))
        return True

    @_add.register
    def _(self, op: p.Put) -> bool:
        at = self._at.address(op.place.buffer) + op.place.offset
        self._made.append(_Op(_PUT, op.place.size, address=at, value=op.value & _ALL, mask=op.mask & _ALL))
        return op.place.size <= _WORD

    @_add.register
    def _(self, op: p.Compare) -> bool:
        place, signed = op.place, op.place.buffer == "result"
        mask = _ALL if signed else op.mask & (1 << 8 * place.size) - 1
        legal = range(-1 << 63, 1 << 63) if signed else range(1 << 64)
        values = [value & _ALL for value in op.values if value in legal]
        self._kept.append(array := (ctypes.c_uint64 * len(values))(*values))
        at, others, number = self._at.address(place.buffer) + place.offset, ctypes.addressof(array), len(self._made)
        self._made.append(_Op(_COMPARE, place.size, address=at, other=others, count=len(values), mask=mask & _ALL))
        self._tell(lambda: self._ops[number].done if signed else self._ops[number].done & _ALL)
        return place.size == _WORD if signed else place.size <= _WORD

    @_add.register
    def _(self, op: p.Write) -> bool:
        self._kept.append(op.data)
        data = ctypes.cast(ctypes.c_char_p(op.data), ctypes.c_void_p).value
        return self._copy(self._guest(op.gpa, len(op.data), op.space), data, len(op.data))

    @_add.register
    def _(self, op: p.Peek) -> bool:
        to = self._at.address(op.to.buffer) + op.to.offset
        return self._copy(to, self._guest(op.gpa, op.to.size, op.space), op.to.size)

    def _guest(self, gpa: int, size: int, space: int) -> int | None:
        memory = self._at.memory(gpa, space)
        # Where it is not there, or not yet, the runner goes on.
        inside = memory is not None and gpa + size <= memory.gpa + memory.size
        return memory.address + gpa - memory.gpa if memory and inside else None

    def _copy(self, to: int | None, source: int | None, count: int) -> bool:
        if to is None or source is None:
            return False
        self._made.append(_Op(_COPY, address=to, other=source, count=count))
        return True

    @_add.register
    def _(self, op: p.Look) -> bool:
        look = _Look(self._at.reader(op.vcpu), lambda read: self._at.seen(op, read))
        self._made += look.ops(self._at.fd(op.vcpu))
        self._tell(look.read)
        return True
