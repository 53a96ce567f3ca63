# SPDX-License-Identifier: GPL-2.0-only
"""Files to build a kernel's modules from: its headers with the programs of its build, and KVM's source.

Both come from Debian's packages, unpacked into the cache: nothing is installed, and no privilege is needed. Programs that were
linked against a newer libc than this machine's run with that of their suite.
"""

from __future__ import annotations

import os
import re
import shlex
import tarfile
from collections.abc import Callable
from typing import NamedTuple

from kvmtest.lab import apt, cache, deb, foreign, program
from kvmtest.lab.error import LabError, NotFound
from kvmtest.lab.kernels import Kernel

__all__ = ("HEADERS", "SOURCE", "headers", "source")

_KIND = "kbuild"
_DEBIAN = re.compile(r"Debian (\S+), (linux-image-\S+) (\S+)")
_OF_HEADERS = "linux-(?:headers|kbuild)-"
_OF_LIBRARIES = "libc6|libelf1|zlib1g|libzstd1"
_LIBRARIES = ("libelf1t64", "libelf1")
_ELF = b"\x7fELF"
_UNFIT = re.compile(rb"version `GLIBC_|loading shared libraries: lib(?:elf|z|zstd)\.")
#: KVM's own headers outside of its folders: those of a tree must be used instead of the kernel's.
HEADERS = re.compile(
    r"arch/x86/include/(?:uapi/)?asm/(?:kvm\w*|kvm-\w+|svm|vmx|virt|posted_intr)\.h|include/(?:uapi/)?linux/kvm\w*\.h"
    r"|include/trace/events/kvm\.h"
)
#: The files of a kernel's source that are kept.
SOURCE = re.compile(rf"(?:arch/x86/kvm|virt)/.+|{HEADERS.pattern}|Makefile")


class _Package(NamedTuple):
    suite: str
    image: str
    version: str


def _package(kernel: Kernel) -> _Package | None:
    """Return the package that a Debian kernel came from, None for another kernel."""
    found = _DEBIAN.fullmatch(kernel.source)
    return _Package(*found.groups()) if found else None


def _place(name: str) -> str:
    return os.path.join(cache.home(), _KIND, name.replace("/", "_").replace(":", "_"))


def headers(kernel: Kernel, say: Callable[[str], None] = lambda line: None) -> str:
    """The folder to build modules of ``kernel`` in: installed, or from Debian's packages. Raises LabError."""
    likely = (os.path.join(kernel.modules, "build"), f"/lib/modules/{kernel.release}/build")
    for folder in (*likely, f"/usr/src/linux-headers-{kernel.release}"):
        if os.path.exists(os.path.join(folder, "include/config/auto.conf")):
            return os.path.realpath(folder)
    if not (package := _package(kernel)):
        raise LabError(f"no headers of {kernel.release} are here (there is no {' and no '.join(likely)})")
    place = _place(f"{package.suite}_headers-{kernel.release}_{package.version}")

    def fill(folder: str) -> None:
        wanted = f"linux-headers-{kernel.release}"
        here, found = _look(package, wanted, _OF_HEADERS, say)
        if not any(name == wanted for name, _ in found):
            raise NotFound(f"the mirror has no {wanted} any more: kvmtest lab kernels --fetch {package.suite}")
        say(f"getting {', '.join(name for name, _ in found)}")
        _unpacked(here, found, folder)
        _relocate(folder, place)
        if unfit := _unfit(folder):
            say(f"getting the libraries of {package.suite} for the programs of its kernel's build")
            _unpacked(here, here.closure(*_LIBRARIES, of=_OF_LIBRARIES), os.path.join(folder, "libraries"))
            for path in unfit:
                _wrap(path, folder, place)

    return os.path.join(_cached(package.suite, place, fill), "usr/src", f"linux-headers-{kernel.release}")


def source(kernel: Kernel, say: Callable[[str], None] = lambda line: None) -> str:
    """The folder with KVM's part of Debian's source of ``kernel``. Raises LabError."""
    if not (package := _package(kernel)):
        raise LabError(f"{kernel.name} is not of Debian: name the tree of its source")
    short = ".".join(kernel.release.split(".")[:2])

    def fill(folder: str) -> None:
        wanted = f"linux-source-{short}"
        here, found = _look(package, wanted, "none of them", say)
        if not found:
            raise NotFound(f"the mirror has no {wanted}")
        say(f"getting {wanted} {package.version}, 150 MB, of which KVM's part is kept")
        with cache.scratch(_KIND) as download:
            try:
                (path,) = here.download([(wanted, package.version)], download)
            except LabError:
                say(f"{wanted} {package.version} is not there any more; {found[0][1]} in its place")
                (path,) = here.download(found, download)
            _kvm(path, folder)

    return _cached(package.suite, _place(f"{package.suite}_source-{short}_{package.version}"), fill)


def _cached(suite: str, place: str, fill: Callable[[str], None]) -> str:
    if os.path.isdir(place):
        return place
    with cache.locked(f"apt-{suite}"):
        return cache.folder(_KIND, os.path.basename(place), fill)


def _look(package: _Package, wanted: str, of: str, say: Callable[[str], None]) -> tuple[apt.Apt, list[tuple[str, str]]]:
    """``wanted`` and its dependencies, from the package lists here, or else from new ones."""
    here = apt.Apt(package.suite)
    if not (os.path.isdir(here.home) and (found := here.closure(wanted, of=of))):
        say(f"getting {package.suite}'s list of packages from this machine's mirror")
        here.update()
        found = here.closure(wanted, of=of)
    return here, found


def _unpacked(here: apt.Apt, packages: list[tuple[str, str]], folder: str) -> None:
    with cache.scratch(_KIND) as download:
        for path in here.download(packages, download):
            deb.unpack(path, folder)


def _relocate(folder: str, place: str) -> None:
    """Let the makefiles in ``folder`` look for each other at ``place`` instead of /usr/src."""
    for where in os.scandir(os.path.join(folder, "usr/src")):
        path = os.path.join(where.path, "Makefile")
        if os.path.isfile(path) and os.path.getsize(path) < 1000:
            with open(path, encoding="utf-8") as file:
                text = file.read()
            with open(path, "w", encoding="utf-8") as file:
                file.write(text.replace("/usr/src/", f"{place}/usr/src/"))


def _unfit(folder: str) -> list[str]:
    """The programs in ``folder`` that this machine's libraries do not do for."""
    found = []
    for where, _, names in os.walk(os.path.join(folder, "usr/lib")):
        for path in (os.path.join(where, name) for name in names):
            if os.access(path, os.X_OK) and not os.path.islink(path):
                with open(path, "rb") as file:
                    elf = file.read(4) == _ELF
                if elf and _UNFIT.search(program.run([path, "--help"]).stderr):
                    found.append(path)
    return found


def _wrap(path: str, folder: str, place: str) -> None:
    """Make the program at ``path`` run with the libraries in ``folder``, which will be at ``place``."""
    command = [*foreign.loader(os.path.join(folder, "libraries")), f"{path}.elf"]
    os.rename(path, f"{path}.elf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\nexec {shlex.join(part.replace(folder, place) for part in command)} "$@"\n')
    os.chmod(path, 0o755)


def _kvm(package: str, folder: str) -> None:
    """Put what `SOURCE` names of the source in ``package`` into ``folder``."""
    try:
        with deb.contents(package) as tar:
            for member in tar:
                if member.name.endswith(".tar.xz") and (inner := tar.extractfile(member)):
                    with tarfile.open(fileobj=inner, mode="r|xz") as files:
                        _chosen(files, folder)
                    return
    except deb.BROKEN as error:
        raise LabError(f"{package} cannot be unpacked: {error}") from error
    raise LabError(f"no source in {package}")


def _chosen(files: tarfile.TarFile, folder: str) -> None:
    for member in files:
        name = member.name.removeprefix("./").partition("/")[2]
        if member.isfile() and SOURCE.fullmatch(name) and ".." not in name.split("/"):
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            content = files.extractfile(member)
            assert content
            with open(path, "wb") as out:
                out.write(content.read())
