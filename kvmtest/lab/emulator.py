# SPDX-License-Identifier: GPL-2.0-only
"""The two emulators: how each boots a kernel with an initramfs, its serial and its parallel port going to files."""

from __future__ import annotations

import os
import re
import shutil
from typing import NamedTuple

from kvmtest.lab import program
from kvmtest.lab.error import LabError
from kvmtest.lab.port import ORDER, WAIT

__all__ = ("BACKENDS", "MONITOR", "Emulator", "Started", "for_backend")

#: The name of the FIFOs to QEMU's monitor, without .in and .out.
MONITOR = "monitor"

#: The whole kernel command line but for the console: no delay on panic, and none of what slows down an emulated CPU, as waiting
#: for the ticks of a grace period whenever a VM comes or goes.
_APPEND = (
    "panic=-1 quiet loglevel=3 nokaslr mitigations=off nosmp tsc=reliable random.trust_cpu=on cryptomgr.notests"
    " rcupdate.rcu_expedited=1 rdinit=/init"
)


class Started(NamedTuple):
    """An emulator's command line, and whether it needs a terminal."""

    command: list[str]
    terminal: bool


class Emulator:
    """One emulator. ``memory_mib`` is what a cell takes of this machine. The rest is CPU time that it may use: ``boot_s`` for the
    longest boot, ``silence_s`` without a word from a guest that is up, and ``case_s`` for one case, or for whatever
    else is done between two of its lines, while it is alive. ``accel`` is as in `kvmtest.model.host.Host`.

    ``saves`` is whether a guest can be saved and restored: then `waiting` and `restored` are there.
    """

    name = ""
    saves = False
    backend = ""
    accel = ""
    cpu = ""
    memory_mib = 0
    boot_s = silence_s = case_s = 0.0

    def programs(self) -> dict[str, str]:
        """Program or file that is needed -> the Debian package that brings it."""
        raise NotImplementedError

    def version(self) -> str:
        """Name and version."""
        raise NotImplementedError

    def prepare(self, folder: str, image: str, initrd: str, serial: str, parallel: str, append: str) -> Started:
        """Write into ``folder`` what is needed to boot ``image`` with ``initrd``. Raises LabError."""
        raise NotImplementedError

    def waiting(self, image: str, initrd: str, serial: str, parallel: str, memory: str) -> Started:
        """Boots ``image`` with ``initrd`` into a guest that can be saved, its RAM in the file ``memory``."""
        raise NotImplementedError

    def restored(self, order: str, serial: str, parallel: str, memory: str) -> Started:
        """Goes on with such a guest, which finds the file ``order``; ``memory`` is left as it is."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise LabError, with the missing programs and their packages."""
        missing = {n: p for n, p in self.programs().items() if not (os.path.exists(n) if "/" in n else shutil.which(n))}
        if missing:
            packages = " ".join(dict.fromkeys(missing.values()))
            raise LabError(f"--backend {self.backend} needs {', '.join(missing)}: apt-get install {packages}")


def _version(command: list[str], pattern: str) -> str:
    done = program.run(command, text=True, errors="replace")
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "of unknown version"


def _escaped(path: str) -> str:
    return path.replace(",", ",,")


class Qemu(Emulator):
    """QEMU without KVM: TCG emulates SVM with nested paging."""

    name = "QEMU"
    backend = "svm"
    accel = "tcg"
    # With ERMS kernel and libc clear and copy by REP MOVSB and STOSB, which TCG executes byte by byte.
    cpu = "max,-erms"
    memory_mib = 1300
    boot_s = 120.0
    silence_s = 60.0
    case_s = 300.0
    saves = True
    _PROGRAM = "qemu-system-x86_64"
    _MIB = 1024

    def programs(self) -> dict[str, str]:
        return {self._PROGRAM: "qemu-system-x86"}

    def version(self) -> str:
        return "QEMU " + _version([self._PROGRAM, "--version"], r"version (\S+)") + " (TCG)"

    def prepare(self, folder: str, image: str, initrd: str, serial: str, parallel: str, append: str) -> Started:
        return Started([*self._command("-M q35", serial, parallel), *self._boot(image, initrd, append)], False)

    def waiting(self, image: str, initrd: str, serial: str, parallel: str, memory: str) -> Started:
        return self._kept("on", f"string={WAIT}", serial, parallel, memory, self._boot(image, initrd, ""))

    def restored(self, order: str, serial: str, parallel: str, memory: str) -> Started:
        return self._kept("off", f"file={_escaped(order)}", serial, parallel, memory, ["-incoming", "defer"])

    def _command(self, machine: str, serial: str, parallel: str) -> list[str]:
        options = f"-nodefaults -no-user-config -accel tcg {machine} -m {self._MIB} -smp 1 -display none -no-reboot".split()
        ports = ["-chardev", f"file,id=serial,path={serial}", "-serial", "chardev:serial"]
        ports += ["-chardev", f"file,id=parallel,path={parallel}", "-parallel", "chardev:parallel"]
        return [self._PROGRAM, *options, "-cpu", self.cpu, *ports]

    def _boot(self, image: str, initrd: str, append: str) -> list[str]:
        return ["-kernel", image, "-initrd", initrd, "-append", f"console=ttyS0 {_APPEND} {append}".strip()]

    def _kept(self, share: str, order: str, serial: str, parallel: str, memory: str, start: list[str]) -> Started:
        """A machine whose RAM is a file, with an order, and with a monitor at the FIFOs of that name."""
        ram = f"memory-backend-file,id=ram,size={self._MIB}M,share={share},mem-path={_escaped(memory)}"
        monitor = [*f"-chardev pipe,id={MONITOR},path={MONITOR} -mon chardev={MONITOR},mode=control".split()]
        command = self._command("-M q35,memory-backend=ram", serial, parallel)
        return Started([*command, "-object", ram, "-fw_cfg", f"name={ORDER},{order}", *monitor, *start], False)


_BOCHSRC = """\
megs: 1024
cpu: model={cpu}, count=1, ips={ips}, reset_on_triple_fault=0
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path={folder}/lab.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={serial}
parport1: enabled=1, file={parallel}
sound: driver=dummy
speaker: enabled=0
display_library: term
vga: update_freq=1
clock: sync=none
log: {folder}/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""
_GRUB = "set timeout=0\nmenuentry lab {{\n linux /image console=ttyS0 {append}\n initrd /initrd\n}}\n"


class Bochs(Emulator):
    """Bochs: emulates VMX with EPT and unrestricted guest. Boots from a CD, as it cannot load a kernel otherwise."""

    name = "Bochs"
    backend = "vmx"
    accel = "bochs"
    cpu = "corei7_haswell_4770"  # the newest model that all kernels boot on
    memory_mib = 1300
    boot_s = 480.0
    silence_s = 240.0
    case_s = 1200.0
    _IPS = 100_000_000

    def programs(self) -> dict[str, str]:
        return {
            "bochs-bin" if shutil.which("bochs-bin") else "bochs": "bochs",
            "/usr/share/bochs/BIOS-bochs-latest": "bochsbios",
            "/usr/share/bochs/VGABIOS-lgpl-latest": "vgabios",
            _TERM: "bochs-term",
            "grub-mkrescue": "grub-common",
            "/usr/lib/grub/i386-pc/moddep.lst": "grub-pc-bin",
            "xorriso": "xorriso",
            "mformat": "mtools",
        }

    def version(self) -> str:
        return "Bochs " + _version(["bochs", "--help"], r"Emulator ([\d.]+)")

    def prepare(self, folder: str, image: str, initrd: str, serial: str, parallel: str, append: str) -> Started:
        boot = os.path.join(folder, "iso", "boot", "grub")
        os.makedirs(boot)
        os.link(initrd, os.path.join(folder, "iso", "initrd"))
        shutil.copyfile(image, os.path.join(folder, "iso", "image"))
        with open(os.path.join(boot, "grub.cfg"), "w", encoding="utf-8") as file:
            file.write(_GRUB.format(append=f"{_APPEND} {append}".strip()))
        options = ["--compress=no", "--fonts=", "--locales=", "--themes=", "-d", "/usr/lib/grub/i386-pc"]
        command = ["grub-mkrescue", *options, "-o", os.path.join(folder, "lab.iso"), os.path.join(folder, "iso")]
        environment = os.environ | {"TMPDIR": folder}
        done = program.run(command, text=True, errors="replace", env=environment, start_new_session=True)
        if done.returncode:
            raise LabError(f"grub-mkrescue: {done.stderr.strip().rpartition(chr(10))[2]}")
        shutil.rmtree(os.path.join(folder, "iso"))
        with open(os.path.join(folder, "bochsrc"), "w", encoding="utf-8") as file:
            file.write(_BOCHSRC.format(cpu=self.cpu, ips=self._IPS, folder=folder, serial=serial, parallel=parallel))
        # A build with the debugger waits for a command first.
        with open(os.path.join(folder, "commands"), "w", encoding="utf-8") as file:
            file.write("c\n")
        return Started(["bochs", "-q", "-f", os.path.join(folder, "bochsrc"), "-rc", os.path.join(folder, "commands")], True)


_TERM = "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so.0.0.0"
_EMULATORS: dict[str, Emulator] = {"svm": Qemu(), "vmx": Bochs()}
BACKENDS = tuple(_EMULATORS)


def for_backend(backend: str) -> Emulator:
    """The emulator for ``backend`` (one of BACKENDS)."""
    return _EMULATORS[backend]
