# SPDX-License-Identifier: GPL-2.0-only
"""Coverage of this host's KVM by its kernel's CONFIG_KCOV, which calls the same function in each block."""

from __future__ import annotations

import os
from collections.abc import Iterable

from kvmtest.coverage import disassembly
from kvmtest.coverage.blocks import Block
from kvmtest.coverage.error import CoverageError
from kvmtest.coverage.table import Cell, Recording, Table

__all__ = ("Native",)

_MODULES = ("kvm", "kvm_amd", "kvm_intel")
#: The address of the kernel's text without KASLR: __START_KERNEL_map and CONFIG_PHYSICAL_START.
_TEXT = 0xFFFF_FFFF_8100_0000


class Native:
    """Recorder of what cases run of the loaded modules; ``folder`` has the same modules, not stripped. Raises CoverageError."""

    def __init__(self, release: str, backend: str, folder: str, started: str, root: str = "/") -> None:
        self._root = root
        blocks: list[Block] = []
        loaded = [name for name in _MODULES if os.path.isdir(self._path("sys/module", name, "sections"))]
        if "kvm" not in loaded:
            raise CoverageError("kvm is not a module here, or this user cannot read its sections in sysfs")
        for name in loaded:
            blocks += disassembly.read(_file(folder, name))
        if not blocks:
            raise CoverageError(f"the modules in {folder} were not built with CONFIG_KCOV, or have no debug information")
        self._table = Table(release, folder, f"{release}-native", blocks, [Cell("this host", backend, {}, started)])
        self._recording = Recording(blocks, self._table.cells[0])
        self._sections = {pair: self._address(*pair) for pair in {(block.module, block.section) for block in blocks}}
        self._moved = self._kaslr()

    def _path(self, *parts: str) -> str:
        return os.path.join(self._root, *parts)

    def _read(self, *parts: str) -> str:
        path = self._path(*parts)
        try:
            with open(path, encoding="ascii") as file:
                return file.read()
        except OSError as error:
            raise CoverageError(f"{path}: {error.strerror}") from error

    def _address(self, module: str, section: str) -> int:
        return int(self._read("sys/module", module, "sections", section), 16)

    def _kaslr(self) -> int:
        """Return the KASLR offset, which KCOV subtracts from the addresses that it reports."""
        for line in self._read("proc/kallsyms").splitlines():
            address, _, name, *_ = line.split()
            if name == "_text":
                if not int(address, 16):
                    raise CoverageError("/proc/kallsyms hides addresses from this user: run as root")
                return int(address, 16) - _TEXT
        raise CoverageError("/proc/kallsyms has no _text")

    def take(self, case: str, addresses: Iterable[int]) -> None:
        """Note what ``case`` executed, from `kvmtest.kvm.kcov`."""
        words: dict[int, int] = {}
        for address in addresses:
            at = address + self._moved
            words[at & ~63] = words.get(at & ~63, 0) | 1 << (at & 63)
        self._recording.take(case, self._sections, words)

    @property
    def table(self) -> Table:
        """The coverage recorded so far."""
        return self._table


def _file(folder: str, module: str) -> str:
    """The module's file below ``folder``. Raises CoverageError."""
    names = {f"{module}.ko", f"{module.replace('_', '-')}.ko"}
    for where, _, files in os.walk(folder):
        if found := names.intersection(files):
            return os.path.join(where, found.pop())
    raise CoverageError(f"no {module}.ko in {folder}, or a packed one: name the folder where it was built, with --kvm-modules")
