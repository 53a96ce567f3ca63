# SPDX-License-Identifier: GPL-2.0-only
"""Operands of a program's ops, on one machine: file descriptors, buffers, guest memory, and what reads a vCPU."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from kvmtest.engine.machine import Machine
from kvmtest.kvm import GuestMemory, Vm
from kvmtest.scenario import program as p
from kvmtest.state.sections import Snapshot
from kvmtest.state.snapshot import Reader, point

__all__ = ("Operands", "room")

#: Buffers begin at a multiple of this, in bytes.
_ALIGNED = 16
#: Memory comes in multiples of this.
_UNIT = 1024


@cache
def _array(count: int) -> type[ctypes.Array[ctypes.c_char]]:
    """The type of memory of so many units: that of each length would have to be made anew."""
    return ctypes.c_char * (count * _UNIT)


def room(contents: bytes | bytearray) -> ctypes.Array[ctypes.c_char]:
    """Memory that begins with ``contents``."""
    made = _array(len(contents) // _UNIT + 1)()
    ctypes.memmove(made, bytes(contents), len(contents))
    return made


class _Buffers(dict[str, Any]):
    """Buffers in one piece of memory, by their names. Each is made when it is used: most are used by their addresses alone."""

    def __init__(self, memory: ctypes.Array[ctypes.c_char], places: dict[str, tuple[int, int]]) -> None:
        #: Of each buffer the offset and the size.
        self._memory, self._places, self._begin = memory, places, ctypes.addressof(memory)

    def __missing__(self, name: str) -> Any:
        at, size = self._places[name]
        made = self[name] = (ctypes.c_char * size).from_buffer(self._memory, at)
        return made

    def address(self, name: str) -> int:
        """Return the address of a buffer."""
        return self._begin + self._places[name][0]


class Operands:
    """Operands of ``program`` on ``machine``; ``buffers`` are its buffers by name."""

    def __init__(self, program: p.Program, machine: Machine) -> None:
        self._beside: Vm | None = None
        self.move(machine)
        contents, places = bytearray(), dict[str, tuple[int, int]]()
        for name, buffer in program.buffers.items():
            size = len(buffer.contents)
            places[name] = (len(contents), size)
            contents += buffer.contents
            if odd := -size % _ALIGNED:
                contents += bytes(odd)
        self._memory = room(contents)
        self.buffers = _Buffers(self._memory, places)
        #: The address of a buffer by its name.
        self.address = self.buffers.address
        for name, buffer in program.buffers.items():
            if buffer.kind == "ssp":
                point(self.address(name))
        self._contents = ctypes.string_at(self._memory, len(contents))

    def move(self, machine: Machine) -> None:
        """Take the VM, the vCPUs and the memory of ``machine``."""
        self.vm = machine.vm
        self.targets = {target.vcpu.id: target for target in machine.targets}
        self.vcpus = {id: target.vcpu for id, target in self.targets.items()}

    def renew(self) -> None:
        """Give all buffers the contents that they have at first."""
        ctypes.memmove(self._memory, self._contents, len(self._contents))

    def fd(self, on: int) -> int:
        """The file descriptor of a vCPU, of the VM, or of the one beside it."""
        if on == p.NEW_VM:
            if self._beside is None:
                self._beside = self.vm.kvm.create_vm()
            return self._beside.fd
        return self.vm.fd if on == p.VM else self.vcpus[on].fd

    def close(self) -> None:
        """Free the VM that is beside the machine's."""
        if self._beside:
            self._beside.close()
            self._beside = None

    def memory(self, gpa: int, space: int) -> GuestMemory | None:
        """The memory at ``gpa`` of the address space ``space``: 1 is that of SMM."""
        there = (memory for memory in self.vm.memory if memory.slot >> 16 == space)
        return next((memory for memory in there if memory.gpa <= gpa < memory.gpa + memory.size), None)

    def reader(self, vcpu: int) -> Reader:
        """Return the reader of a vCPU."""
        return self.targets[vcpu].reader

    def seen(self, op: p.Look, read: Snapshot) -> Snapshot:
        """The evidence of a Look that ``read`` this."""
        layout = self.targets[op.vcpu].layout
        rip = read.get(layout, "rip") if op.back else None
        return read if rip is None else read.put(layout, "rip", rip - op.back)
