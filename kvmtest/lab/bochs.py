# SPDX-License-Identifier: GPL-2.0-only
"""Bochs: boots from a CD, as it cannot load a kernel itself."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from typing import NamedTuple

from kvmtest.lab import program, start
from kvmtest.lab.error import LabError, NotFound
from kvmtest.lab.start import Cpu, Emulator, Started, number

__all__ = ("MODELS", "UNATTENDED", "Bochs", "Model")


class Model(NamedTuple):
    """A CPU model: whose virtualization it has, the ``versions`` of Bochs in which kernels boot on it (all, if none is named),
    the ``suites`` of these, and the ``parameters`` of KVM's modules with which it works.
    """

    backend: str
    versions: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    parameters: dict[str, str] = {}


#: Facts about models; of those that are not here Intel's have VMX, if any.
MODELS = {
    "phenom_8650_toliman": Model("svm"),
    "zambezi": Model("svm"),
    "trinity_apu": Model("svm"),
    "ryzen": Model("svm", ("3.0",), ("trixie",)),
    # In 3.0 the descriptor of posted interrupts has to begin a page, so with APICv each VM entry fails (Bochs commit a77e02ff3,
    # which 3.1 has); in 3.1 Linux 7.2 stops before it has a console.
    "tigerlake": Model("vmx", ("3.0",), ("trixie",), {"kvm_intel": "enable_apicv=0"}),
}
#: The usual model of each backend; that of vmx is the newest that all kernels of the lab boot on.
_USUAL = {"vmx": "corei7_haswell_4770", "svm": "ryzen"}

_TERM = "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so.0.0.0"
#: For any machine that nobody sits at, whatever Bochs was built with.
_COMMON = """\
vga: update_freq=1
clock: sync=none
log: {folder}/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""
#: With the displays and the sound that distributions' have.
UNATTENDED = f"""\
{_COMMON}sound: driver=dummy
speaker: enabled=0
display_library: term
"""
#: With none.
_NO_DISPLAY = f"""\
{_COMMON}display_library: nogui
"""
_BOCHSRC = """\
megs: 1024
cpu: model={cpu}, count=1, ips={ips}, reset_on_triple_fault=0
romimage: file={share}/BIOS-bochs-latest
vgaromimage: file={share}/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path={folder}/lab.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={serial}
parport1: enabled=1, file={parallel}
"""
_GRUB = "set timeout=0\nmenuentry lab {{\n linux /image {append}\n initrd /initrd\n}}\n"


class Bochs(Emulator):
    """Bochs: emulates VMX with EPT and unrestricted guest, and SVM. It is built for one CPU."""

    name = "Bochs"
    kind = "bochs"
    accel = "bochs"
    memory_mib = 1300
    boot_s = 480.0
    silence_s = 240.0
    case_s = 1200.0
    _IPS = 100_000_000

    def __init__(self, backend: str, asked: Cpu) -> None:
        super().__init__(backend, asked, _USUAL[backend])
        self._facts = MODELS.get(self.cpu, Model("vmx"))
        self.parameters = self._facts.parameters

    def programs(self) -> dict[str, str]:
        own = {
            self._program: "bochs",
            "/usr/share/bochs/BIOS-bochs-latest": "bochsbios",
            "/usr/share/bochs/VGABIOS-lgpl-latest": "vgabios",
            _TERM: "bochs-term",
        }
        return ({} if self.place.root else own) | {
            "grub-mkrescue": "grub-common",
            "/usr/lib/grub/i386-pc/moddep.lst": "grub-pc-bin",
            "xorriso": "xorriso",
            "mformat": "mtools",
        }

    def models(self) -> frozenset[str]:
        return frozenset(re.findall(r"^(\w+)$", self.place.run(self._program, "--help", "cpu"), re.MULTILINE))

    def suites(self) -> tuple[str, ...]:
        return self._facts.suites

    def does(self) -> bool:
        # One may know the name of a model that works in another version alone.
        return super().does() and (not self._facts.versions or self._number() in self._facts.versions)

    @property
    def _program(self) -> str:
        return "bochs-bin" if self.place.root or shutil.which("bochs-bin") else "bochs"

    def _number(self) -> str:
        return number(self.place.run(self._program, "--help"), r"Emulator ([\d.]+)")

    def check(self, say: Callable[[str], None] = lambda line: None) -> None:
        if self.number > 1:
            raise NotFound("--smp needs QEMU, --accel tcg or kvm: Bochs is built for one CPU")
        if self._facts.backend != self.backend:
            raise NotFound(f"Bochs's {self.cpu} has no {self.backend.upper()}: --backend {self._facts.backend}")
        super().check(say)

    def version(self) -> str:
        return f"Bochs {self._number()}"

    def prepare(self, folder: str, image: str, initrd: str, serial: str, parallel: str, append: str) -> Started:
        boot = os.path.join(folder, "iso", "boot", "grub")
        os.makedirs(boot)
        os.link(initrd, os.path.join(folder, "iso", "initrd"))
        shutil.copyfile(image, os.path.join(folder, "iso", "image"))
        with open(os.path.join(boot, "grub.cfg"), "w", encoding="utf-8") as file:
            file.write(_GRUB.format(append=start.append(self.number, append)))
        options = ["--compress=no", "--fonts=", "--locales=", "--themes=", "-d", "/usr/lib/grub/i386-pc"]
        command = ["grub-mkrescue", *options, "-o", os.path.join(folder, "lab.iso"), os.path.join(folder, "iso")]
        environment = os.environ | {"TMPDIR": folder}
        done = program.run(command, text=True, errors="replace", env=environment, start_new_session=True)
        if done.returncode:
            raise LabError(f"grub-mkrescue: {done.stderr.strip().rpartition(chr(10))[2]}")
        shutil.rmtree(os.path.join(folder, "iso"))
        built = self.place.built
        with open(os.path.join(folder, "bochsrc"), "w", encoding="utf-8") as file:
            share = self.place.path("/usr/share/bochs")
            said = {"cpu": self.cpu, "ips": self._IPS, "folder": folder, "serial": serial, "parallel": parallel, "share": share}
            file.write((_BOCHSRC + (_NO_DISPLAY if built else UNATTENDED)).format(**said))
        options = ["-q", "-f", os.path.join(folder, "bochsrc")]
        if not built:
            # A build with the debugger waits for a command first.
            with open(os.path.join(folder, "commands"), "w", encoding="utf-8") as file:
                file.write("c\n")
            options += ["-rc", os.path.join(folder, "commands")]
        return Started([*self.place.command(self._program), *options], not built, self.place.environment)
