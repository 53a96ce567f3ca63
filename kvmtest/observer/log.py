# SPDX-License-Identifier: GPL-2.0-only
"""Parse what an observer printed, strictly.

A line that is not as the observer writes it, or a checksum that is not that of the lines before it, is an error; what stands
before a boot's first line is the firmware's, and passed over.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from kvmtest.guests import spine
from kvmtest.kvm.cpuid import CpuidEntry

__all__ = ("VERSION", "Boot", "Log", "LogError", "Look", "parse")

VERSION = "1"
_HEAD = "KVMTEST-OBSERVER"
_KINDS = ("read", "plant", "kept")
_METHODS = ("power-on", "cf9", "port-64h", "triple-fault", "wait", "icr-xapic", "icr-xapic-halted", "sipi", "restore", "end")
#: After these the boot goes on.
_SAME_BOOT = ("icr-", "restore")
_HEX = re.compile("0|[1-9a-f][0-9a-f]{0,15}")
#: Numbers that a line of each kind has after its name, least and most.
_LISTS = {"msr": (2, 3), "lapic": (2, 3), "fxsave": (3, 3), "xsave": (3, 3), "cpuid": (6, 6), "xcr0": (2, 2)}
_PORTS = {item.upper().replace(".", "_") for item in spine.PORT_ITEMS}
_SLOTS = {item.upper().replace(".", "_") for names in spine.STEP_ITEMS.values() for item in names}


class LogError(ValueError):
    """A log that is not as an observer wrote it; the message says where."""


class Look(NamedTuple):
    """One processor's state: ``kind`` read (after an event), plant (before one) or kept (what is left of a plant without one), by
    which ``method`` it came or will.

    ``named`` are the values of registers by the observer's names, ``steps`` the status of each step, ``lists`` the numbers of
    the lines that have several, by the lines' name.
    """

    kind: str
    apic_id: int
    round: int
    method: str
    named: dict[str, int]
    steps: dict[str, int]
    lists: dict[str, list[tuple[int, ...]]]

    @property
    def leaves(self) -> list[CpuidEntry]:
        """CPUID, as this processor had it."""
        return [CpuidEntry(row[0], row[1], 0, *row[2:]) for row in self.lists["cpuid"]]


class Boot(NamedTuple):
    """One boot of the image: ``number`` from 1, whether a loader started it, and what it printed.

    ``lost`` are processors that did not come to their end, ``sent`` the events that the boot processor was to get, in order.
    """

    number: int
    image: int
    loaded: bool
    looks: list[Look]
    lost: list[int]
    sent: list[str]


class Log(NamedTuple):
    """All boots; ``ended`` is whether the last one came to its end, ``why`` what is wrong where it did not."""

    boots: list[Boot]
    ended: bool
    why: str = ""


def _numbers(words: list[str], where: str) -> tuple[int, ...]:
    if any(not _HEX.fullmatch(word) for word in words):
        raise LogError(f"{where}: not numbers in hex: {' '.join(words)[:60]!r}")
    return tuple(int(word, 16) for word in words)


class _Parser:
    """Reads line by line; raises LogError."""

    def __init__(self) -> None:
        self.boots: list[Boot] = []
        self.look: Look | None = None
        self.crc = 0
        self.ended = False
        #: The lines that may come next: after some lines only a checksum.
        self.closing = ""
        self.names: Iterator[str] = iter(())

    def line(self, number: int, text: str) -> None:
        where = f"line {number}"
        words = text.split(" ")
        if words[0] == _HEAD:
            self._head(words, where)
        elif not self.boots or self.closing == "noise":
            return
        elif words[0] == "crc":
            self._checksum(words, where)
            return
        elif self.closing:
            raise LogError(f"{where}: a checksum should stand here")
        elif self.ended:
            raise LogError(f"{where}: something after the end")
        elif self.look:
            self._state(words, where)
        else:
            self._event(words, where)
        self.crc = zlib.crc32(text.encode("ascii") + b"\n", self.crc)

    def _head(self, words: list[str], where: str) -> None:
        if self.boots and self.closing != "noise":
            raise LogError(
                f"{where}: a boot begins where the one before it has not ended: nobody sent a reset, or lines are missing"
            )
        if len(words) != 6 or words[3] != "boot" or words[5] not in ("firmware", "loaded"):
            raise LogError(f"{where}: not the first line of a boot")
        if words[1] != VERSION:
            raise LogError(f"{where}: version {words[1]} of the observer's lines, where this is for {VERSION}")
        image, number = _numbers([words[2], words[4]], where)
        if number != len(self.boots) + 1:
            raise LogError(f"{where}: boot {number}, where number {len(self.boots) + 1} should come")
        self.boots.append(Boot(number, image, words[5] == "loaded", [], [], []))
        self.crc, self.closing = 0, ""

    def _checksum(self, words: list[str], where: str) -> None:
        if not self.closing or len(words) != 2:
            raise LogError(f"{where}: a checksum in the wrong place")
        (value,) = _numbers(words[1:], where)
        if value != self.crc:
            raise LogError(
                f"{where}: the checksum is {value:#x}, that of the lines before it {self.crc:#x}: the log is corrupted"
            )
        self.crc = zlib.crc32(" ".join(words).encode("ascii") + b"\n", self.crc)
        if self.closing == "look":
            assert self.look
            self.boots[-1].looks.append(self.look)
            self.look = None
        self.closing = "noise" if self.closing == "sent" else ""

    def _event(self, words: list[str], where: str) -> None:
        boot = self.boots[-1]
        if words[0] in _KINDS and len(words) == 4 and words[3] in _METHODS:
            apic_id, number = _numbers(words[1:3], where)
            lists: dict[str, list[tuple[int, ...]]] = {name: [] for name in _LISTS}
            self.look = Look(words[0], apic_id, number, words[3], {}, {}, lists)
        elif words[0] == "send" and len(words) == 2 and words[1] in _METHODS:
            boot.sent.append(words[1])
            self.closing = "event" if words[1].startswith(_SAME_BOOT) else "sent"
        elif words[0] == "lost" and len(words) == 2:
            boot.lost.extend(_numbers(words[1:], where))
        elif words == ["end"]:
            self.ended, self.closing = True, "end"
        else:
            raise LogError(f"{where}: not a line of an observer: {' '.join(words)[:60]!r}")

    def _state(self, words: list[str], where: str) -> None:
        look = self.look
        assert look
        name = words[0]
        if words == ["over"]:
            missing = [step for step in spine.STEP_ITEMS if step not in look.steps]
            if missing or _SLOTS - look.named.keys() or len(look.lists["xcr0"]) != 1 or not look.lists["cpuid"]:
                raise LogError(f"{where}: the state ends before all of it is printed")
            self.closing = "look"
        elif name == "step" and len(words) == 3 and words[1] in spine.STEP_ITEMS and words[1] not in look.steps:
            look.steps[words[1]] = _numbers(words[2:], where)[0]
        elif name in _LISTS:
            least, most = _LISTS[name]
            row = _numbers(words[1:], where)
            if not least <= len(row) <= most:
                raise LogError(f"{where}: {len(row)} numbers after {name}")
            look.lists[name].append(row)
        elif name in _PORTS | _SLOTS and len(words) == 2 and name not in look.named:
            look.named[name] = _numbers(words[1:], where)[0]
        else:
            raise LogError(f"{where}: not a line of a state: {' '.join(words)[:60]!r}")

    def finish(self) -> str:
        """The reason why the log is not whole; "" if it is."""
        if not self.boots:
            return "it has no line of an observer"
        if self.look:
            return f"it ends in the middle of a state, in boot {self.boots[-1].number}"
        if not self.ended or self.closing:
            sent = self.boots[-1].sent
            after = f"after {sent[-1]!r} was sent" if sent else "before its end"
            return f"it ends in boot {self.boots[-1].number}, {after}"
        return ""


def parse(data: bytes, cut: bool = False) -> Log:
    """The log in ``data``. Raises LogError; of a log that was ``cut`` off what is whole is accepted."""
    parser = _Parser()
    lines = data.replace(b"\r", b"").split(b"\n")
    whole, rest = lines[:-1], lines[-1]
    for number, line in enumerate(whole, 1):
        try:
            text = line.decode("ascii")
        except UnicodeDecodeError:
            if parser.boots and parser.closing != "noise":
                raise LogError(f"line {number}: bytes that no observer prints") from None
            continue
        parser.line(number, text[text.find(_HEAD) :] if _HEAD in text else text)
    why = parser.finish()
    if not cut and (why or rest.strip() and not parser.ended):
        raise LogError(f"the log is cut short: {why}")
    return Log(parser.boots, parser.ended and not why, why)
