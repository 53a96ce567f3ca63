# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's KVM modules: found in its modules folder, unpacked, in the order of loading."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
from typing import NamedTuple

from kvmtest.lab import program
from kvmtest.lab.error import LabError

__all__ = ("VENDOR", "Module", "closure", "find", "read")

#: Backend -> vendor module.
VENDOR = {"svm": "kvm_amd", "vmx": "kvm_intel"}

_NAME = re.compile(r"(.+)\.ko(?:\.(?:xz|gz|zst))?")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


class Module(NamedTuple):
    """A module by its name in /proc/modules, with its unpacked contents."""

    name: str
    image: bytes


def find(folder: str) -> dict[str, str]:
    """Path by module name of all modules below ``folder``."""
    found: dict[str, str] = {}
    for where, _, files in os.walk(folder):
        for file in files:
            if name := _NAME.fullmatch(file):
                found[name[1].replace("-", "_")] = os.path.join(where, file)
    return found


def read(path: str) -> bytes:
    """A module unpacked. Raises LabError where it cannot be."""
    try:
        if path.endswith(".zst"):
            return _zstd(path)
        with lzma.open(path) if path.endswith(".xz") else gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            return file.read()
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise LabError(f"cannot read {path}: {error}") from error


def _zstd(path: str) -> bytes:
    if not shutil.which("zstd"):
        raise LabError(f"{path} needs zstd to unpack: apt-get install zstd")
    done = program.run(["zstd", "-dcq", path])
    if done.returncode:
        raise LabError(f"cannot read {path}: {done.stderr.decode(errors='replace').strip()}")
    return bytes(done.stdout)


def _builtin(folder: str) -> set[str]:
    found: set[str] = set()
    for where, _, files in os.walk(folder):
        if "modules.builtin" in files:
            with open(os.path.join(where, "modules.builtin"), encoding="utf-8") as file:
                names = (_NAME.fullmatch(os.path.basename(line.strip())) for line in file)
                found |= {name[1].replace("-", "_") for name in names if name}
    return found


def closure(vendor: str, folder: str, own: str = "") -> list[Module]:
    """``vendor`` (a module's name), kvm and all that they depend on, in the order of loading, from ``folder``.

    Modules in the folder ``own`` come first. What is built into the kernel is left out. Raises LabError.
    """
    paths = find(folder)
    if own:
        ours = find(own)
        if not {"kvm", vendor} & ours.keys():
            raise LabError(f"{own} has neither kvm.ko nor {vendor}.ko")
        paths.update(ours)
    builtin = _builtin(folder)
    modules: dict[str, Module] = {}

    def add(name: str) -> None:
        if name in modules or name in builtin and name not in paths:
            return
        if name not in paths:
            raise LabError(f"this kernel has no {name}.ko (looked in {folder})")
        image = read(paths[name])
        depends = _DEPENDS.search(image)
        for other in depends[1].decode().split(",") if depends else ():
            if other:
                add(other.replace("-", "_"))
        modules[name] = Module(name, image)

    add("kvm")
    add(vendor)
    return list(modules.values())
