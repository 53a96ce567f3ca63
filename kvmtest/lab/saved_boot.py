# SPDX-License-Identifier: GPL-2.0-only
"""Guests saved after boot, before they load any module: a cell continues from there in a fraction of a second.

Kept are the guest's RAM, which each QEMU that restores it maps privately, and the rest of its state, as QEMU migrates it
with RAM that is shared left out (x-ignore-shared).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shlex
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from kvmtest.lab import cache, initramfs
from kvmtest.lab.error import LabError
from kvmtest.lab.qemu import MONITOR
from kvmtest.lab.start import Emulator, Started

__all__ = ("SavedBoot", "Unusable")

_KIND = "boots"
_MEMORY, _STATE, _SUMS = "memory", "state", "sums"
_CHUNK, _PIECE = 1 << 16, 1 << 16
#: Seconds for a reply of QEMU's monitor, and for a guest to be saved or restored; either is a matter of milliseconds.
_ANSWER_S = 60.0
_TICK_S = 0.02
#: The free space needed to save a boot: a guest that has just booted has filled an eighth of its RAM.
_ROOM = 1 << 29


class Unusable(Exception):
    """The reason why a cell cannot continue from a saved boot."""


class SavedBoot:
    """The saved boot of the kernel ``image`` by ``emulator``. ``folder`` is the cell's, with FIFOs for the ports.

    ``alive`` is whether the emulator runs that was started last.
    """

    def __init__(self, emulator: Emulator, version: str, image: str, folder: str, alive: Callable[[], bool]) -> None:
        self._emulator = emulator
        self._version = version
        self._image = image
        self._folder = folder
        self._alive = alive
        self._ports = (os.path.join(folder, "serial"), os.path.join(folder, "parallel"))
        self._base = initramfs.base()
        self._name = self._key()
        self._path = os.path.join(cache.home(), _KIND, self._name)
        for end in ("in", "out"):
            os.mkfifo(os.path.join(folder, f"{MONITOR}.{end}"))

    def _key(self) -> str:
        """A hash of all that the saved boot depends on: kernel, initramfs, QEMU and its command line."""
        command = self._emulator.waiting("image", "initrd", "serial", "parallel", _MEMORY).command
        program = os.stat(shutil.which(command[0]) or command[0])
        parts = (command, self._version, program.st_size, program.st_mtime_ns, os.path.basename(self._base))
        digest = hashlib.sha256(repr(parts).encode() + initramfs.waiting())
        with open(self._image, "rb") as file:
            digest.update(file.read())
        return digest.hexdigest()[:32]

    def kept(self) -> bool:
        """Return True if the saved boot exists. It may still be incomplete."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path)
            return True
        return False

    def remove(self) -> None:
        """Keep it no longer."""
        shutil.rmtree(self._path, ignore_errors=True)

    @contextlib.contextmanager
    def making(self) -> Iterator[tuple[Started, Callable[[], None]]]:
        """Yield the command that boots the guest, and a function that saves it once it waits. Both raise Unusable."""
        try:
            with cache.scratch(_KIND) as work:
                room = shutil.disk_usage(work).free
                if room < _ROOM:
                    raise Unusable(f"{work} has room for {room >> 20} MiB, a saved boot may need {_ROOM >> 20}")
                fresh = os.path.join(work, "whole")
                os.mkdir(fresh)
                initrd = os.path.join(work, "initrd")
                initramfs.write(initrd, initramfs.waiting())
                yield (
                    self._emulator.waiting(self._image, initrd, *self._ports, os.path.join(fresh, _MEMORY)),
                    lambda: self._save(fresh),
                )
        except LabError as error:
            raise Unusable(str(error)) from error

    def _save(self, fresh: str) -> None:
        state = os.path.join(fresh, _STATE)
        with self._monitor() as ask:
            ask("migrate", uri=f"exec:cat > {shlex.quote(state)}")
            while (status := ask("query-migrate").get("status")) != "completed":
                if status in ("failed", "cancelled"):
                    raise Unusable("QEMU cannot save the guest")
                time.sleep(_TICK_S)
            ask("quit")
        with open(os.path.join(fresh, _SUMS), "w", encoding="utf-8") as file:
            json.dump(_sums(fresh), file)
        cache.keep(_KIND, self._name, fresh)

    def restored(self, order: bytes) -> Started:
        """Return the command that continues the guest, after `restore` was called."""
        path = os.path.join(self._folder, "order")
        with open(path, "wb") as file:
            file.write(order)
        return self._emulator.restored(path, *self._ports, os.path.join(self._path, _MEMORY))

    def restore(self) -> None:
        """Load the state into the running emulator. Raises Unusable.

        The sums are checked here, as that takes about as long as the emulator needs to start.
        """
        if not self._whole():
            raise Unusable("the saved boot is damaged, and was removed")
        with self._monitor() as ask:
            ask("migrate-incoming", uri=f"exec:cat {shlex.quote(os.path.join(self._path, _STATE))}")

    def _whole(self) -> bool:
        try:
            with open(os.path.join(self._path, _SUMS), encoding="utf-8") as file:
                return bool(json.load(file) == _sums(self._path))
        except (OSError, ValueError):
            return False

    @contextlib.contextmanager
    def _monitor(self) -> Iterator[Callable[..., dict[str, Any]]]:
        with contextlib.ExitStack() as stack:
            fds = []
            for end in ("in", "out"):
                fds.append(os.open(os.path.join(self._folder, f"{MONITOR}.{end}"), os.O_RDWR | os.O_NONBLOCK))
                stack.callback(os.close, fds[-1])
            into, out = fds
            buffer = b""

            def ask(command: str, **arguments: object) -> dict[str, Any]:
                nonlocal buffer
                os.write(into, json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
                over = time.monotonic() + _ANSWER_S
                while True:
                    while b"\n" not in buffer:
                        if select.select([out], [], [], _TICK_S)[0]:
                            buffer += os.read(out, _CHUNK)
                        elif not self._alive() or time.monotonic() > over:
                            raise Unusable(f"QEMU does not answer to {command}")
                    line, _, buffer = buffer.partition(b"\n")
                    answer = json.loads(line)
                    if "error" in answer:
                        raise Unusable(f"QEMU refuses {command}: {answer['error'].get('desc')}")
                    if "return" in answer:
                        returned: dict[str, Any] = answer["return"]
                        return returned

            ask("qmp_capabilities")
            ask("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
            yield ask


def _sums(folder: str) -> dict[str, list[int]]:
    """Size and checksum of the saved boot. Pieces of zeros are left out, as the file system may or may not have holes there."""
    sums: dict[str, list[int]] = {}
    for name in (_MEMORY, _STATE):
        with open(os.path.join(folder, name), "rb", buffering=0) as file:
            fd, at, crc = file.fileno(), 0, 0
            size = os.fstat(fd).st_size
            while at < size:
                try:
                    at = os.lseek(fd, at, os.SEEK_DATA) // _PIECE * _PIECE
                except OSError:  # nothing but a hole
                    break
                end = os.lseek(fd, at, os.SEEK_HOLE) if at else min(_PIECE, size)
                while at < end:
                    piece = os.pread(fd, _PIECE, at)
                    if piece.strip(b"\0"):
                        crc = zlib.crc32(piece, zlib.crc32(at.to_bytes(8, "little"), crc))
                    at += _PIECE
        sums[name] = [size, crc]
    return sums
