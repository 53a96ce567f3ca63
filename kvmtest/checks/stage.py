# SPDX-License-Identifier: GPL-2.0-only
"""A VM with the behaviour guest in it, and the words that the guest says."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType

from kvmtest import guests
from kvmtest.checks.check import Stopped, Subject
from kvmtest.guests import behaviour
from kvmtest.kvm import Exit, GuestMemory, RunTimeout, Vcpu
from kvmtest.kvm.clock import Limit
from kvmtest.kvm.where import where
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import KVM_EXIT_IO

__all__ = ("SIPI_VECTOR", "Stage")

_RAM_SLOT, _ROM_SLOT = 1, 0
#: Up to where a PC's video memory begins.
_RAM_SIZE = 0xA0000
#: How long a guest is given to show that it does nothing: seconds, for which no busy machine keeps a thread waiting, and so many
#: times what its slowest exit took until then.
_SILENT_S, _SILENT_EXITS = 0.1, 50
#: How long the guest runs until it is looked at again.
_SLICE_S = 0.02
#: SIPI vector of the page at CODE; what is expected names it, and can be listed without a built guest.
SIPI_VECTOR = 0x01


class Stage:
    """The behaviour guest in the subject's VM: RAM, ROM and vector table; ``topic`` is what it does when it starts.

    ``words`` is where the numbers of its source are.
    """

    words: ModuleType = behaviour

    def __init__(self, subject: Subject, topic: int, ram_size: int = _RAM_SIZE) -> None:
        self.vcpu = subject.vcpu
        self.timeout_s = subject.timeout_s
        self._slowest_s = 0.0
        vm = self.vcpu.vm
        image = guests.load(self.words.NAME)
        self.ram: GuestMemory = vm.add_memory(_RAM_SLOT, 0, ram_size)
        vm.add_memory(_ROM_SLOT, guests.ROM_GPA, len(image)).write(guests.ROM_GPA, image)
        self._fill()
        self.set(TOPIC=topic)

    def _fill(self) -> None:
        """Put what the guest needs into RAM."""
        self.ram.write(0, behaviour.vector_table())
        self.ram.write(behaviour.CODE, behaviour.page())

    def set(self, **words: int) -> None:
        """Write words of the guest (TOPIC, ARG_*), 32 bits each."""
        for name, value in words.items():
            self.ram.write_int(getattr(self.words, name), value, 4)

    def count(self) -> int:
        """How many interrupts came, or how far the spinning guest got."""
        return self.ram.read_int(behaviour.COUNT, 4)

    def run(self, vcpu: Vcpu | None = None) -> Exit:
        """One KVM_RUN of the subject's vCPU, or of another. Raises Stopped when the guest makes no exit in time."""
        start = time.monotonic()
        try:
            exit_ = (vcpu or self.vcpu).run(self.timeout_s)
        except RunTimeout as error:
            raise Stopped(str(error)) from error
        self._slowest_s = max(self._slowest_s, time.monotonic() - start)
        return exit_

    def run_for(self, seconds: float) -> Exit | None:
        """Run the subject's vCPU for ``seconds`` at most: its exit, None when it made none."""
        try:
            return self.vcpu.run(seconds)
        except RunTimeout:
            return None

    def until(self, reached: Callable[[], object]) -> Exit | None:
        """Run until ``reached()`` is true: None, or the exit that comes before. Raises Stopped where neither comes in time."""
        limit = Limit(self.timeout_s)
        while (seen := self.run_for(_SLICE_S)) is None and not reached():
            if limit.left() <= 0:
                raise Stopped(f"the guest does not get where it is to be ({where(self.vcpu)})") from TimeoutError()
        return seen

    def listen(self) -> Exit | None:
        """Run the subject's vCPU for as long as it may need to make an exit, by those that it made: None when it makes none.

        The slowest one was mostly the first, with whatever KVM or an emulator does only then.
        """
        enough = max(_SILENT_S, _SILENT_EXITS * self._slowest_s) if self._slowest_s else self.timeout_s
        return self.run_for(min(enough, self.timeout_s))

    def word(self, vcpu: Vcpu | None = None) -> tuple[int, int]:
        """The guest's next word, which may be that of an exception: port and value. Raises Stopped for any other exit."""
        seen = self.run(vcpu)
        if seen.reason != KVM_EXIT_IO or seen.port < behaviour.PORT_RESET:
            raise Stopped(f"the guest stopped: {seen} ({where(vcpu or self.vcpu)})")
        return seen.port, int.from_bytes(seen.data[:4], "little")

    def next(self, vcpu: Vcpu | None = None) -> tuple[int, int]:
        """The guest's next word: port and value. Raises Stopped for anything else that it does, exceptions as well."""
        port, value = self.word(vcpu)
        if port == behaviour.PORT_FAULT:
            raise Stopped(f"the guest stopped: an exception at CS:IP {value >> 16:04x}:{value & 0xFFFF:04x}")
        return port, value

    def expect(self, port: int, vcpu: Vcpu | None = None) -> int:
        """The value of the guest's next word, which must come by ``port``. Raises Stopped."""
        came, value = self.next(vcpu)
        if came != port:
            raise Stopped(f"the guest wrote {value:#x} to port {came:#x} where port {port:#x} comes next")
        return value

    def boot(self) -> None:
        """From RESET to the guest's first READY: a BSP by the reset vector, an AP by a SIPI behind an INIT."""
        if self.vcpu.get_mp_state():
            msi.init(self.vcpu)
            self.vcpu.get_mp_state()
            self.start()
        else:
            self.expect(behaviour.PORT_RESET)
        self.expect(behaviour.PORT_READY)

    def start(self) -> None:
        """Send a SIPI to the subject, which waits for one, and see it arrive. Raises Stopped."""
        msi.sipi(self.vcpu, SIPI_VECTOR)
        self.expect(behaviour.PORT_SIPI)
