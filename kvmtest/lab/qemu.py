# SPDX-License-Identifier: GPL-2.0-only
"""QEMU: boots from its own command line, saves guests and restores them."""

from __future__ import annotations

from kvmtest.lab.port import ORDER, WAIT
from kvmtest.lab.start import APPEND, Emulator, Started, version

__all__ = ("MONITOR", "Qemu")

#: The name of the FIFOs to QEMU's monitor, without .in and .out.
MONITOR = "monitor"


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
        return "QEMU " + version([self._PROGRAM, "--version"], r"version (\S+)") + " (TCG)"

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
        return ["-kernel", image, "-initrd", initrd, "-append", f"console=ttyS0 {APPEND} {append}".strip()]

    def _kept(self, share: str, order: str, serial: str, parallel: str, memory: str, start: list[str]) -> Started:
        """A machine whose RAM is a file, with an order, and with a monitor at the FIFOs of that name."""
        ram = f"memory-backend-file,id=ram,size={self._MIB}M,share={share},mem-path={_escaped(memory)}"
        monitor = [*f"-chardev pipe,id={MONITOR},path={MONITOR} -mon chardev={MONITOR},mode=control".split()]
        command = self._command("-M q35,memory-backend=ram", serial, parallel)
        return Started([*command, "-object", ram, "-fw_cfg", f"name={ORDER},{order}", *monitor, *start], False)
