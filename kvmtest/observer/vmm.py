# SPDX-License-Identifier: GPL-2.0-only
"""A VMM or an emulator with the observer in it: how each is started, and reset from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kvmtest.lab.bochs import UNATTENDED
from kvmtest.observer.image import Options, build

__all__ = ("Machine", "Seen", "VmmError", "kind", "run")

#: Seconds between two looks at the log.
_POLL = 0.05
_SEND, _END = re.compile(rb"^send (\S+)\ncrc [0-9a-f]+\n", re.MULTILINE), re.compile(rb"^end\ncrc [0-9a-f]+\n", re.MULTILINE)
_PLACES = ("{image}", "{log}", "{cpus}")

_BOCHSRC = """\
megs: 64
cpu: model={model}, count={cpus}, ips=4000000, reset_on_triple_fault=1
{boot}
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
com1: enabled=1, mode=file, dev={log}
"""
_BOCHS_BIOS = "romimage: file=/usr/share/bochs/BIOS-bochs-latest"


class VmmError(RuntimeError):
    """A command that cannot be run so; the message says why."""


class Machine(NamedTuple):
    """A machine to run: ``command`` as the user gave it, the image's ``form`` and options, and the seconds that it may be silent.

    ``model`` is the CPU of a Bochs.
    """

    command: Sequence[str]
    form: str
    options: Options
    timeout_s: float
    model: str = "corei7_haswell_4770"


class Seen(NamedTuple):
    """The log, True if it came to its end, the version of what printed it, and what that said on standard error."""

    log: bytes
    ended: bool
    version: str
    errors: str


def kind(command: Sequence[str]) -> str:
    """ "qemu", "bochs", or "other" for a command with places for image and log. Raises VmmError."""
    name = os.path.basename(command[0])
    if name.startswith("qemu-system"):
        return "qemu"
    if name.startswith("bochs"):
        return "bochs"
    if not any("{image}" in word for word in command):
        raise VmmError(
            f"{name} is neither QEMU nor Bochs: its command needs {{image}}, and {{log}} where its serial port goes to a file"
        )
    return "other"


def run(machine: Machine, say: Callable[[str], None]) -> Seen:
    """Start the machine, wait until the observer has ended or says nothing any more, and stop it. Raises VmmError, ImageError."""
    which = kind(machine.command)
    with tempfile.TemporaryDirectory(prefix="kvmtest-") as folder:
        image, log, monitor = (os.path.join(folder, name) for name in ("image", "log", "qmp"))
        with open(image, "wb") as file:
            file.write(build(machine.form, machine.options))
        if which == "qemu":
            command = [*machine.command, *_qemu(machine, image, log, monitor)]
        elif which == "bochs":
            command = [*machine.command, *_bochs(machine, image, log, folder)]
        else:
            command = [_filled(word, image, log, machine.options.cpus) for word in machine.command]
        captured = which == "other" and not any("{log}" in word for word in machine.command)
        reset = (lambda: _system_reset(monitor)) if which == "qemu" else None
        if "wait" in machine.options.methods and reset is None:
            say("nothing resets this VMM from outside: do it when the observer waits")
        errors = os.path.join(folder, "errors")
        with open(log if captured else os.path.join(folder, "out"), "wb") as out, open(errors, "wb") as err:
            # Bochs' only display that needs none is a terminal.
            terminal = _Terminal() if which == "bochs" else None
            screen = terminal.slave if terminal else out
            keys = terminal.slave if terminal else subprocess.DEVNULL
            try:
                process = subprocess.Popen(command, stdin=keys, stdout=screen, stderr=err, start_new_session=True, cwd=folder)
            except OSError as error:
                raise VmmError(f"cannot run {command[0]}: {error.strerror}") from None
            try:
                ended = _watch(process, log, machine.timeout_s, reset)
            finally:
                # The whole session: a script may have started the VMM.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if terminal:
                    terminal.close()
        with open(errors, encoding="utf-8", errors="replace") as text:
            return Seen(_read(log), ended, _version(machine.command[0]), text.read().strip())


class _Terminal:
    """A terminal whose screen nobody looks at."""

    def __init__(self) -> None:
        self._master, self.slave = os.openpty()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # EIO once nobody has the other end open.
        with contextlib.suppress(OSError):
            while os.read(self._master, 1 << 16):
                pass

    def close(self) -> None:
        """After the program has ended."""
        os.close(self.slave)
        self._reader.join()
        os.close(self._master)


def _filled(word: str, image: str, log: str, cpus: int) -> str:
    for place, value in zip(_PLACES, (image, log, str(cpus or 1)), strict=True):
        word = word.replace(place, value)
    return word


def _qemu(machine: Machine, image: str, log: str, monitor: str) -> Iterator[str]:
    yield from ("-nodefaults", "-no-user-config", "-display", "none", "-m", "64", "-smp", str(machine.options.cpus or 1))
    yield from ("-chardev", f"file,id=observer,path={log}", "-device", "isa-debugcon,iobase=0x402,chardev=observer")
    yield from ("-qmp", f"unix:{monitor},server=on,wait=off")
    yield from {"bios": ("-bios", image), "iso": ("-cdrom", image)}.get(machine.form, ("-kernel", image))


def _bochs(machine: Machine, image: str, log: str, folder: str) -> Iterator[str]:
    if machine.form == "bios":
        boot = f"romimage: file={image}, address=0xffff0000"
    elif machine.form == "iso":
        boot = f"{_BOCHS_BIOS}\nata0-master: type=cdrom, path={image}, status=inserted\nboot: cdrom"
    else:
        raise VmmError("Bochs takes no kernel: --form bios or iso")
    path = os.path.join(folder, "bochsrc")
    with open(path, "w", encoding="utf-8") as file:
        said = {"cpus": machine.options.cpus or 1, "boot": boot, "log": log, "folder": folder, "model": machine.model}
        file.write((_BOCHSRC + UNATTENDED).format(**said))
    with open(os.path.join(folder, "commands"), "w", encoding="ascii") as file:
        # A build with the debugger waits for a command first, and after each triple fault.
        file.write("c\n" * 100)
    yield from ("-q", "-f", path, "-rc", os.path.join(folder, "commands"))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _watch(process: subprocess.Popen[bytes], path: str, timeout_s: float, reset: Callable[[], None] | None) -> bool:
    """Wait for the end of the log or the process, or for ``timeout_s`` of silence; reset the machine when the observer asks."""
    last, seen, answered = time.monotonic(), 0, 0
    while True:
        over = process.poll() is not None
        data = _read(path).replace(b"\r", b"")
        if _END.search(data):
            return True
        if len(data) != seen:
            seen, last = len(data), time.monotonic()
        waits = sum(found[1] == b"wait" for found in _SEND.finditer(data))
        if reset and waits > answered:
            answered = waits
            # The image halts a moment after its last line.
            time.sleep(_POLL)
            reset()
        if over or time.monotonic() - last > timeout_s:
            return False
        time.sleep(_POLL)


def _system_reset(path: str) -> None:
    """QMP's system_reset."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as to:
        to.connect(path)
        with to.makefile("rw", encoding="utf-8") as file:
            file.readline()
            for order in ("qmp_capabilities", "system_reset"):
                file.write(json.dumps({"execute": order}) + "\n")
                file.flush()
                while "return" not in (answer := json.loads(file.readline() or '{"return": 0}')) and "error" not in answer:
                    pass


def _version(program: str) -> str:
    """The first line of what a program says of its version."""
    option = "--help" if os.path.basename(program).startswith("bochs") else "--version"
    try:
        done = subprocess.run(
            [program, option],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return os.path.basename(program)
    said = done.stdout + done.stderr
    found = re.search(r"(QEMU|Bochs x86) (?:emulator version|Emulator) (\S+)", said)
    return f"{found[1].split()[0]} {found[2]}" if found else said.strip().partition("\n")[0][:60] or os.path.basename(program)
