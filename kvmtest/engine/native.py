# SPDX-License-Identifier: GPL-2.0-only
"""Ops in a row between which there is nothing to decide: prepared once, run by one call of guests/runner.c."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache
from struct import Struct
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from kvmtest import guests
from kvmtest.engine.operands import Operands, room
from kvmtest.kvm import GuestMemory
from kvmtest.kvm.ioctl import INTERRUPTED
from kvmtest.model.by_type import ByType
from kvmtest.scenario import program as p
from kvmtest.state.sections import Snapshot
from kvmtest.state.snapshot import ROOM, Reader, contents_of, point
from kvmtest.uapi.kvm import KVM_RUN

__all__ = ("NAME", "Library", "Stretches", "library")

#: The shared object.
NAME = "runner.so"
#: enum kind of the C code, in its order.
_IOCTL, _PUT, _COMPARE, _COPY, _UPDATE = range(5)
#: Its struct op, and where `done` is in that.
_OP, _DONE = Struct("<2HiIIQQQQq"), 48
#: The number of bytes that are compared at once.
_LINE = 32
_WORD, _ALL = 8, (1 << 64) - 1

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
    return run if size == _OP.size else None


def _op(kind: int, size: int = 0, *, address: int, other: int = 0, value: int = 0, mask: int = 0, count: int = 0) -> bytes:
    return _OP.pack(kind, size, 0, 0, count, address, other, value, mask, 0)


def _ioctl(fd: int, request: int, address: int, other: int = 0, value: int = 0) -> bytes:
    return _OP.pack(_IOCTL, 0, fd, request, 0, address, other, value, 0, 0)


class _Look:
    """The addresses where ioctls put the sections of one vCPU, and the last contents.

    A section that has not changed since then is the same object, and so is a snapshot.
    """

    def __init__(self, reader: Reader) -> None:
        self._sections: dict[str, bytes] = {}
        self._snapshot: Snapshot | None = None
        self._names = [buf.section for buf in reader.buffers]
        #: The addresses of each section's buffers, and their sizes.
        self._parts: dict[str, list[tuple[int, int]]] = {}
        sizes = [-(-buf.size // _LINE) * _LINE for buf in reader.buffers]
        self._now, self._last = ctypes.create_string_buffer(sum(sizes)), ctypes.create_string_buffer(sum(sizes))
        self._changed = ctypes.create_string_buffer(len(sizes))
        now, last, changed = map(ctypes.addressof, (self._now, self._last, self._changed))
        ops, compared = [], []
        for number, (buf, size) in enumerate(zip(reader.buffers, sizes, strict=True)):
            self._parts.setdefault(buf.section, []).append((last, buf.size))
            ctypes.memmove(now, buf.address, buf.size)
            if buf.section == "ssp":
                point(now)
            elif buf.section == "nested":
                ops.append(_op(_PUT, 4, address=now + ROOM, value=buf.size, mask=_ALL))
            # Of MSRs fewer are read where KVM refuses one.
            result = (buf.size - 8) // 16 if buf.section == "msrs" else 0
            ops.append(_ioctl(reader.vcpu.fd, buf.request, now, value=result))
            compared.append(_op(_UPDATE, count=size, address=last, other=now, value=changed + number))
            now, last = now + size, last + size
        #: The ioctls, and where all succeed the comparisons.
        self.ops = ops + compared

    def read(self) -> Snapshot:
        """Return what was read."""
        flags = self._changed.raw if self._snapshot else b"\1" * len(self._names)
        at = flags.find(1)
        if self._snapshot is None or at >= 0:
            self._sections = self._sections.copy()
            while at >= 0:
                name = self._names[at]
                first, *more = self._parts[name]
                contents = contents_of(name, ctypes.string_at(*first))
                if more:
                    contents = b"".join([contents, *(contents_of(name, ctypes.string_at(*part)) for part in more)])
                self._sections[name] = contents
                at = flags.find(1, at + 1)
            self._snapshot = Snapshot(self._sections, {})
        return self._snapshot


#: Those of each vCPU, for the looks of a program in order.
_LOOKS: WeakKeyDictionary[Reader, list[_Look]] = WeakKeyDictionary()


class _Evidence(NamedTuple):
    """Evidence: the number of the program's op, its step, and what gets it."""

    number: int
    step: int
    get: Callable[[], Any]


class _Stretch:
    """The longest beginning of ``ops`` that the C code can run: ``count`` of them. Each comes with the number of its step."""

    def __init__(self, run: Library, ops: tuple[tuple[int, p.Op], ...], operands: Operands, looked: dict[int, int]) -> None:
        self._run, self._at, self._looked = run, operands, looked
        self._made: list[bytes] = []
        self._kept: list[Any] = []
        self._evidence: list[_Evidence] = []
        #: By the C code's ops, the program's that they belong to.
        self._numbers: list[int] = []
        self.count = 0
        add = self._add  # looked up once, which costs more than a call
        for self._step, op in ops:
            if not add(op):
                break
            self._numbers += [self.count] * (len(self._made) - len(self._numbers))
            self.count += 1
        self._end = len(self._made)
        self._ops = room(b"".join(self._made))
        self._address = ctypes.addressof(self._ops)

    def run(self, evidence: list[tuple[int, Any]]) -> tuple[int, int]:
        """Run it and append to ``evidence``; return how many ops succeeded, and the result of the ioctl that failed."""
        at, result, left = 0, -errno.EINTR if self._end else 0, INTERRUPTED
        while at < self._end and result == -errno.EINTR and left:
            # Python's handlers of signals run in between.
            stopped = self._run(self._address, at, self._end)
            left = left - 1 if stopped == at else INTERRUPTED
            at = stopped
            result = self._done(at) if at < self._end and self._is_ioctl(at) else 0
        count = self.count if at == self._end else self._numbers[at]
        for one in self._evidence:
            if one.number < count:
                evidence.append((one.step, one.get()))
        return count, result

    def _done(self, at: int) -> int:
        return ctypes.c_int64.from_address(self._address + _OP.size * at + _DONE).value

    def _is_ioctl(self, at: int) -> bool:
        return ctypes.c_uint16.from_address(self._address + _OP.size * at).value == _IOCTL

    def _tell(self, get: Callable[[], Any]) -> None:
        self._evidence.append(_Evidence(self.count, self._step, get))

    @ByType
    def _add(self, op: object) -> bool:
        """Append the C code's form of ``op``; return False, and append nothing, if it has none."""
        return False

    @_add.register
    def _(self, op: p.Ioctl) -> bool:
        on, request, arg, result = op
        if request == KVM_RUN or on == p.NEW_VM:
            return False  # it has no end of its own; another VM each time
        address = self._at.address
        arg = arg & _ALL if isinstance(arg, int) else address(arg)
        self._made.append(_ioctl(self._at.fd(on), request, arg, address(result) if result else 0))
        return True

    @_add.register
    def _(self, op: p.Put) -> bool:
        if op.place.size > _WORD:
            return False
        at = self._at.address(op.place.buffer) + op.place.offset
        self._made.append(_op(_PUT, op.place.size, address=at, value=op.value & _ALL, mask=op.mask & _ALL))
        return True

    @_add.register
    def _(self, op: p.Compare) -> bool:
        place, signed = op.place, op.place.buffer == "result"
        if place.size > _WORD or signed and place.size < _WORD:
            return False
        legal = range(-1 << 63, 1 << 63) if signed else range(1 << 64)
        values = [value & _ALL for value in op.values if value in legal]
        mask = _ALL if signed else op.mask & (1 << 8 * place.size) - 1
        self._kept.append(array := (ctypes.c_uint64 * len(values))(*values))
        address, at = self._at.address(place.buffer) + place.offset, len(self._made)
        self._made.append(
            _op(
                _COMPARE,
                place.size,
                address=address,
                other=ctypes.addressof(array),
                count=len(values),
                mask=mask,
                value=op.unlike,
            )
        )
        self._tell(lambda: self._done(at) if signed else self._done(at) & _ALL)
        return True

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
        # If it does not exist, or not yet, the Python runner continues.
        inside = memory is not None and gpa + size <= memory.gpa + memory.size
        return memory.address + gpa - memory.gpa if memory and inside else None

    def _copy(self, to: int | None, source: int | None, count: int) -> bool:
        if to is None or source is None:
            return False
        self._made.append(_op(_COPY, address=to, other=source, count=count))
        return True

    @_add.register
    def _(self, op: p.Look) -> bool:
        reader = self._at.reader(op.vcpu)
        looks, number = _LOOKS.setdefault(reader, []), self._looked.get(op.vcpu, 0)
        if number == len(looks):
            looks.append(_Look(reader))
        self._looked[op.vcpu] = number + 1
        self._made += looks[number].ops
        self._tell(lambda: self._at.seen(op, looks[number].read()))
        return True


class Stretches:
    """The stretches of ``program`` that the C code runs."""

    def __init__(self, run: Library, program: p.Program, operands: Operands) -> None:
        self._run, self._program, self._at = run, program, operands
        #: By the number of their first op; they know the VM, and where its memory is.
        self._stretches: dict[int, _Stretch] = {}
        self._vm, self._memory = operands.vm, list[GuestMemory]()
        #: The number of observations of each vCPU.
        self._looked: dict[int, int] = {}

    def run(self, at: int, evidence: list[tuple[int, Any]]) -> tuple[int, int]:
        """Run the stretch from ``at`` on and append to ``evidence``; return the first op not done, and its result."""
        if (self._vm, self._memory) != (self._at.vm, self._at.vm.memory):
            self._vm, self._memory = self._at.vm, list(self._at.vm.memory)
            self._stretches.clear()
            self._looked.clear()
        stretch = self._stretches.get(at)
        if stretch is None:
            stretch = self._stretches[at] = _Stretch(self._run, self._program.ops[at:], self._at, self._looked)
        count, result = stretch.run(evidence)
        return at + count, result
