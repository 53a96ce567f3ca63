# SPDX-License-Identifier: GPL-2.0-only
"""The command lines by which VMMs and emulators boot an observer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kvmtest.lab.bochs import UNATTENDED
from kvmtest.observer.image import Options

__all__ = ("Files", "Machine", "VmmError", "completed", "kind", "readback", "usual_form")

#: MiB of each machine; Firecracker's and Cloud Hypervisor's own tests have no less than 128.
_MEMORY, _MICRO = 64, 128
_PLACES = ("{image}", "{log}", "{cpus}")

_BOCHSRC = """\
megs: {memory}
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


class Files(NamedTuple):
    """Paths of a machine's files: the image, the log, QEMU's monitor, the state that it continues from, and their folder."""

    image: str
    log: str
    monitor: str
    state: str
    folder: str


def kind(command: Sequence[str]) -> str:
    """Which template a command has; "other" for one with places for image and log. Raises VmmError."""
    if any("{image}" in word for word in command):
        return "other"
    name = os.path.basename(command[0])
    found = next((known for known in _TEMPLATES if name.startswith(known)), "")
    if not found:
        raise VmmError(
            f"{name} has no template ({', '.join(_TEMPLATES)}): "
            "its command needs {image}, and {log} where its serial port goes to a file"
        )
    return found


def usual_form(which: str) -> str:
    """The form of the image that a kind of VMM boots where none is asked for."""
    return "bios" if which in ("qemu-system", "bochs") else "pvh"


def readback(times: int) -> int:
    """The value of debug port 402H in a machine that was restored so many times: the observer goes on where it changes."""
    return 0xE9 + times % 2


def completed(machine: Machine, files: Files, restored: int = 0) -> list[str]:
    """The whole command, of a QEMU that was ``restored`` so many times. Raises VmmError."""
    which = kind(machine.command)
    if which == "other":
        return [_filled(word, files, machine.options.cpus) for word in machine.command]
    return [*machine.command, *_TEMPLATES[which](machine, files, restored)]


def _filled(word: str, files: Files, cpus: int) -> str:
    for place, value in zip(_PLACES, (files.image, files.log, str(cpus or 1)), strict=True):
        word = word.replace(place, value)
    return word


def _qemu(machine: Machine, files: Files, restored: int) -> list[str]:
    form = {"bios": "-bios", "iso": "-cdrom"}.get(machine.form, "-kernel")
    words = ["-nodefaults", "-no-user-config", "-display", "none", "-m", str(_MEMORY), "-smp", str(machine.options.cpus or 1)]
    words += ["-chardev", f"file,id=observer,append={'on' if restored else 'off'},path={files.log}"]
    words += ["-device", f"isa-debugcon,iobase=0x402,chardev=observer,readback={readback(restored)}"]
    words += ["-qmp", f"unix:{files.monitor},server=on,wait=off", form, files.image]
    return [*words, "-incoming", f"exec:cat '{files.state}'"] if restored else words


def _bochs(machine: Machine, files: Files, restored: int) -> list[str]:
    if machine.form == "bios":
        boot = f"romimage: file={files.image}, address=0xffff0000"
    elif machine.form == "iso":
        boot = f"{_BOCHS_BIOS}\nata0-master: type=cdrom, path={files.image}, status=inserted\nboot: cdrom"
    else:
        raise VmmError("Bochs cannot boot a kernel by itself: --form bios or iso")
    path = os.path.join(files.folder, "bochsrc")
    with open(path, "w", encoding="utf-8") as file:
        said = {"cpus": machine.options.cpus or 1, "boot": boot, "log": files.log, "folder": files.folder}
        file.write((_BOCHSRC + UNATTENDED).format(memory=_MEMORY, model=machine.model, **said))
    with open(os.path.join(files.folder, "commands"), "w", encoding="ascii") as file:
        # A build with the debugger waits for a command first, and after each triple fault.
        file.write("c\n" * 100)
    return ["-q", "-f", path, "-rc", os.path.join(files.folder, "commands")]


def _firecracker(machine: Machine, files: Files, restored: int) -> list[str]:
    if machine.form != "pvh":
        raise VmmError("Firecracker boots kernels for PVH only: --form pvh")
    path = os.path.join(files.folder, "vm.json")
    with open(path, "w", encoding="utf-8") as file:
        config = {
            "boot-source": {"kernel_image_path": files.image},
            "drives": [],
            "machine-config": {"vcpu_count": machine.options.cpus or 1, "mem_size_mib": _MICRO},
        }
        json.dump(config, file)
    # Its own messages would stand among the lines of the serial port, which is standard output.
    messages = os.path.join(files.folder, "messages")
    with open(messages, "wb"):
        pass
    return ["--no-api", "--config-file", path, "--log-path", messages]


def _cloud_hypervisor(machine: Machine, files: Files, restored: int) -> list[str]:
    if machine.form != "pvh":
        raise VmmError("Cloud Hypervisor boots kernels for PVH only: --form pvh")
    words = ["--kernel", files.image, "--cpus", f"boot={machine.options.cpus or 1}", "--memory", f"size={_MICRO}M"]
    return [*words, "--serial", f"file={files.log}", "--console", "off"]


_TEMPLATES: dict[str, Callable[[Machine, Files, int], list[str]]] = {
    "qemu-system": _qemu,
    "bochs": _bochs,
    "firecracker": _firecracker,
    "cloud-hypervisor": _cloud_hypervisor,
}
