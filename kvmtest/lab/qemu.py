# SPDX-License-Identifier: GPL-2.0-only
"""QEMU: boots from its own command line, saves guests and restores them."""

from __future__ import annotations

import re
from collections.abc import Callable

from kvmtest.lab.error import LabError
from kvmtest.lab.port import ORDER, WAIT
from kvmtest.lab.start import Cpu, Emulator, Started, append, number

__all__ = ("MONITOR", "Kvm", "Qemu", "nests")

#: The name of the FIFOs to QEMU's monitor, without .in and .out.
MONITOR = "monitor"
_VERSION = r"version (\S+)"
_MODEL = re.compile(r"^(?:x86|  ?) ?(\w\S*)", re.MULTILINE)


def _escaped(path: str) -> str:
    return path.replace(",", ",,")


class Qemu(Emulator):
    """QEMU without KVM: TCG emulates SVM with nested paging. Each CPU is a thread of its own where there are several (MTTCG)."""

    name = "QEMU"
    kind = "qemu"
    accel = "tcg"
    memory_mib = 1300
    boot_s = 120.0
    silence_s = 60.0
    case_s = 300.0
    saves = True
    _PROGRAM = "qemu-system-x86_64"
    _MIB = 1024
    # With ERMS kernel and libc clear and copy by REP MOVSB and STOSB, which TCG executes byte by byte.
    _USUAL = "max,-erms"

    def __init__(self, backend: str, asked: Cpu) -> None:
        super().__init__(backend, asked, self._USUAL)

    def programs(self) -> dict[str, str]:
        return {} if self.place.root else {self._PROGRAM: "qemu-system-x86"}

    def models(self) -> frozenset[str]:
        said = self.place.run(self._PROGRAM, "-cpu", "help")
        return frozenset(_MODEL.findall(said.partition("Recognized CPUID flags")[0]))

    def version(self) -> str:
        cpus = f", {self.number} CPUs" if self.number > 1 else ""
        return f"QEMU {number(self.place.run(self._PROGRAM, '--version'), _VERSION)} ({self.accel.upper()}{cpus})"

    def prepare(self, folder: str, image: str, initrd: str, serial: str, parallel: str, append: str) -> Started:
        return self._started([*self._command("-M q35", serial, parallel), *self._boot(image, initrd, append)])

    def waiting(self, image: str, initrd: str, serial: str, parallel: str, memory: str) -> Started:
        return self._kept("on", f"string={WAIT}", serial, parallel, memory, self._boot(image, initrd, ""))

    def restored(self, order: str, serial: str, parallel: str, memory: str) -> Started:
        return self._kept("off", f"file={_escaped(order)}", serial, parallel, memory, ["-incoming", "defer"])

    def _command(self, machine: str, serial: str, parallel: str) -> list[str]:
        accel = f"-accel {self._accel()} {machine} -m {self._MIB} -smp {self.number}"
        options = f"-nodefaults -no-user-config {accel} -display none -no-reboot".split()
        ports = ["-chardev", f"file,id=serial,path={serial}", "-serial", "chardev:serial"]
        ports += ["-chardev", f"file,id=parallel,path={parallel}", "-parallel", "chardev:parallel"]
        data = ["-L", self.place.path("/usr/share/qemu")] if self.place.root else []
        return [*self.place.command(self._PROGRAM), *data, *options, "-cpu", self.cpu, *ports]

    def _started(self, command: list[str]) -> Started:
        return Started(command, False, self.place.environment)

    def _accel(self) -> str:
        return "tcg,thread=multi" if self.number > 1 else "tcg"

    def _boot(self, image: str, initrd: str, more: str) -> list[str]:
        return ["-kernel", image, "-initrd", initrd, "-append", append(self.number, more)]

    def _kept(self, share: str, order: str, serial: str, parallel: str, memory: str, start: list[str]) -> Started:
        """A machine whose RAM is a file, with an order, and with a monitor at the FIFOs of that name."""
        ram = f"memory-backend-file,id=ram,size={self._MIB}M,share={share},mem-path={_escaped(memory)}"
        monitor = [*f"-chardev pipe,id={MONITOR},path={MONITOR} -mon chardev={MONITOR},mode=control".split()]
        command = self._command("-M q35,memory-backend=ram", serial, parallel)
        return self._started([*command, "-object", ram, "-fw_cfg", f"name={ORDER},{order}", *monitor, *start])


class Kvm(Qemu):
    """QEMU on this host's own KVM, which nests: the kernel under test is its guest, with the host's CPU.

    A guest is not saved: it boots in a second, and would fit no other host, nor this one after an update of its kernel.
    """

    accel = "kvm"
    saves = False
    _USUAL = "host"

    def check(self, say: Callable[[str], None] = lambda line: None) -> None:
        super().check(say)
        if (found := nests()) != self.backend:
            raise LabError(f"--accel kvm has no --backend {self.backend} here: this host's KVM has --backend {found}")

    def _accel(self) -> str:
        return "kvm"


def nests() -> str:
    """The backend of a kernel that runs on this host's own KVM. Raises LabError where that does not nest."""
    from kvmtest.engine import doctor, host, nesting
    from kvmtest.model.host import module_of

    try:
        with doctor.open_kvm("/dev/kvm") as kvm:
            found, offered = nesting.backend(kvm), nesting.offered(kvm.supported_cpuid())
    except doctor.Unusable as error:
        raise LabError(f"--accel kvm: {error}") from error
    if not found:
        facts = host.detect()
        what = f"--accel kvm: this host's KVM ({module_of(facts.backend)}) does not nest"
        raise LabError(f"{what}; {nesting.enable(facts, bool(offered))}")
    return found
