# SPDX-License-Identifier: GPL-2.0-only
"""Kernels for the lab: Debian's by suite or version, a .deb, a .rpm, an image with its modules folder, the one that runs here.

What comes from a package is kept: the image, the KVM modules with what they depend on, and where they came from.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from typing import NamedTuple

from kvmtest.lab import apt, cache, deb, modules, rpm
from kvmtest.lab.error import LabError, NotFound

__all__ = ("Kernel", "cached", "find", "nearest")

_KIND = "kernels"
#: The suite that a version is looked for in first. Others are searched as well.
_VERSIONS = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "7.2": "sid"}
_ALIASES = {"unstable": "sid"}
_SUITE = re.compile(r"[a-z]+(?:-[a-z-]+)?")
_VERSION = re.compile(r"\d+\.\d+[\w.+~-]*")
_IMAGE = re.compile(r"\./(?:(?:usr/)?lib/modules/[^/]+/vmlinu[xz]|boot/(?:vmlinuz|bzImage)-.+)")
_KEPT = re.compile(r"\./(?:usr/)?lib/modules/.+(?:\.ko(?:\.\w+)?|/modules\.builtin)")
_RELEASE = re.compile(r"/lib/modules/([^/]+)/")
#: The form of `uname -r`, and the maximal length of the text in a bzImage.
_RELEASED, _LONGEST = re.compile(r"[\w.+~-]{1,64}", re.ASCII), 512
#: A package with modules, by the name of its file; those for debugging and development have none.
_MODULES = re.compile(r"-modules(?:-core)?-\d")
_CHUNK = 1 << 20


class Kernel(NamedTuple):
    """A kernel that the lab can boot: its release, the path of its image, its modules folder, and where it came from."""

    name: str
    release: str
    image: str
    modules: str
    source: str


def _chosen(package: str, folder: str, everything: str) -> str:
    """Put the image into ``folder`` and all modules below ``everything``. Returns the release, if the package has it."""
    release = ""
    for path, content in (rpm if package.endswith(".rpm") else deb).files(package):
        name = "./" + path.removeprefix("./")
        if ".." in name.split("/") or not (_IMAGE.fullmatch(name) or _KEPT.fullmatch(name)):
            continue
        image = bool(_IMAGE.fullmatch(name))
        if (found := _RELEASE.search(name)) and _RELEASED.fullmatch(found[1]):
            release = found[1]
        where = os.path.join(folder, "image") if image else os.path.join(everything, name)
        os.makedirs(os.path.dirname(where), exist_ok=True)
        with open(where, "wb") as out:
            shutil.copyfileobj(content, out, _CHUNK)
    return release


def _unpack(packages: list[str], folder: str, source: str) -> int:
    """Put the image, the KVM modules with their dependencies, and a note of the source into ``folder``.

    Returns of how many vendors it has KVM.
    """
    everything = os.path.join(folder, "everything")
    release = ""
    for package in packages:
        try:
            release = _chosen(package, folder, everything) or release
        except (*deb.BROKEN, *rpm.BROKEN) as error:
            raise LabError(f"{package} cannot be unpacked: {error}") from error
    if not os.path.exists(os.path.join(folder, "image")):
        raise LabError(f"no kernel image in {', '.join(map(os.path.basename, packages))}")
    kept = os.path.join(folder, "modules")
    os.mkdir(kept)
    for where, _, files in os.walk(everything):
        if "modules.builtin" in files:
            shutil.copy(os.path.join(where, "modules.builtin"), kept)
    vendors = 0
    for vendor in modules.VENDOR.values():
        try:
            for module in modules.closure(vendor, everything):
                with open(os.path.join(kept, f"{module.name}.ko"), "wb") as out:
                    out.write(module.image)
            vendors += 1
        except LabError:
            continue  # said when that backend is asked for
    shutil.rmtree(everything, ignore_errors=True)
    with open(os.path.join(folder, "kernel.json"), "w", encoding="utf-8") as file:
        json.dump({"release": release or "unknown", "source": source}, file)
    return vendors


def _load(name: str, folder: str) -> Kernel | None:
    """The kernel kept in ``folder``; None where what is there says nothing of one, as after a power loss."""
    try:
        with open(os.path.join(folder, "kernel.json"), encoding="utf-8") as file:
            facts = json.load(file)
        release, source = facts["release"], facts["source"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(release, str) or not isinstance(source, str) or not os.path.isfile(os.path.join(folder, "image")):
        return None
    return Kernel(name, release, os.path.join(folder, "image"), os.path.join(folder, "modules"), source)


def _kept_or_made(name: str, kind: str, key: str, fill: Callable[[str], None]) -> Kernel:
    """The kernel kept as ``key``, which ``fill`` makes where it is not there, or damaged. Raises LabError."""
    for _ in range(2):
        folder = cache.folder(kind, key, fill)
        if kernel := _load(name, folder):
            return kernel
        shutil.rmtree(folder, ignore_errors=True)
    raise LabError(f"{folder} is damaged, and cannot be removed")


def cached() -> list[tuple[str, Kernel]]:
    """All Debian kernels that are kept, with the suite each is of."""
    found = []
    parent = os.path.join(cache.home(), _KIND)
    if os.path.isdir(parent):
        for name in sorted(os.listdir(parent)):
            suite = name.partition("_")[0]
            if not name.startswith(".") and (kernel := _load(suite, os.path.join(parent, name))):
                found.append((suite, kernel))
    return found


def _debian(name: str, suite: str, say: Callable[[str], None], fresh: bool, version: str = "") -> Kernel:
    """The kernel of ``suite``; of ``version`` only, if it is given. Raises NotFound, LabError."""
    if not fresh and (kept := _newest(name, suite, version)):
        return kept
    with cache.locked(f"apt-{suite}", say):
        if not fresh and (kept := _newest(name, suite, version)):  # somebody else got it meanwhile
            return kept
        say(f"looking for {suite}'s kernel on this machine's mirror")
        here = apt.Apt(suite)
        here.update()
        packages = here.kernel()
        main = packages[0]
        if version and not _is(_named(main[0]), version):
            raise NotFound(f"{suite} has no kernel {version} any more: it has {_named(main[0])}")

        def fill(folder: str) -> None:
            say(f"getting {main[0]} {main[1]}")
            download = os.path.join(folder, "download")
            os.mkdir(download)
            _unpack(here.download(packages, download), folder, f"Debian {suite}, {main[0]} {main[1]}")
            shutil.rmtree(download)

        return _kept_or_made(name, _KIND, f"{suite}_{main[0]}_{main[1]}".replace("/", "_").replace(":", "_"), fill)


def _newest(name: str, suite: str, version: str) -> Kernel | None:
    """The kernel of ``suite`` that was kept last."""
    parent = os.path.join(cache.home(), _KIND)
    kept = [os.path.join(parent, entry) for entry in _kept(parent) if entry.startswith(f"{suite}_")]
    found = [_load(name, entry) for entry in sorted(kept, key=lambda entry: os.stat(entry).st_mtime)]
    return next((kernel for kernel in reversed(found) if kernel and (not version or _is(kernel.release, version))), None)


def _kept(parent: str) -> list[str]:
    return [name for name in os.listdir(parent) if not name.startswith(".")] if os.path.isdir(parent) else []


def _is(release: str, version: str) -> bool:
    return release == version or release.startswith((f"{version}.", f"{version}-", f"{version}+"))


def _named(package: str) -> str:
    """The release of the kernel in a package, as that is called."""
    return package.removeprefix("linux-image-")


def _by_version(name: str, say: Callable[[str], None], fresh: bool) -> Kernel:
    """Find the suite that has this version by the names of its packages, without fetching a kernel."""
    short = re.match(r"\d+\.\d+", name)
    likely = _VERSIONS.get(short[0] if short else "")
    for _, kernel in [] if fresh else sorted(cached(), key=lambda pair: pair[0] != likely):
        if _is(kernel.release, name):
            return kernel._replace(name=name)
    there: list[str] = []
    errors: dict[str, LabError] = {}
    for suite in dict.fromkeys([*([likely] if likely else []), *apt.SUITES]):
        try:
            with cache.locked(f"apt-{suite}", say):
                release = _named(apt.Apt(suite).known(say, fresh)[0][0])
        except LabError as error:
            errors[suite] = error
            continue
        if _is(release, name):
            return _debian(name, suite, say, fresh, name)
        there.append(f"{release} ({suite})")
    if not there:
        raise next(iter(errors.values()))
    rest = "".join(f"; {suite} could not be asked: {error}" for suite, error in errors.items())
    raise NotFound(f"no suite of Debian on this machine's mirror has a kernel {name}; there are {', '.join(there)}{rest}")


def nearest(version: str) -> list[str]:
    """The versions of the lab's kernels, the nearest to ``version`` first."""
    numbers = re.match(r"(\d+)\.(\d+)", version)

    def number(text: str) -> int:
        # A release with .19 has been the last of its number.
        major, minor = text.split(".")[:2]
        return int(major) * 20 + int(minor)

    return sorted(_VERSIONS, key=lambda one: abs(number(one) - number(numbers[0]))) if numbers else list(_VERSIONS)


def _own(path: str, folder: str) -> Kernel:
    """An image of the user's, with the modules in ``folder`` or where `make modules_install` would put them."""
    release = _release(path)
    beside = os.path.join(os.path.dirname(path), "lib/modules", release)
    for place in [folder] if folder else [beside, f"/lib/modules/{release}"]:
        if os.path.isdir(place):
            return Kernel(os.path.basename(path), release, path, place, path)
    raise NotFound(f"no modules folder for {path} ({release}): name it with --modules")


def _release(path: str) -> str:
    """The release that a bzImage names in its header (Documentation/arch/x86/boot.rst, kernel_version)."""
    try:
        with open(path, "rb") as file:
            head = file.read(0x8000 + 0x200 + _LONGEST)
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from None
    if head[0x202:0x206] != b"HdrS":
        raise NotFound(f"{path} is not a bzImage")
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    release, end, _ = head[start : start + _LONGEST].partition(b"\0")
    words = release.decode(errors="replace").split()
    if not end or not words or not _RELEASED.fullmatch(words[0]):
        raise NotFound(f"{path} does not say its release: it is damaged, or no bzImage")
    return words[0]


def _host() -> Kernel:
    release = os.uname().release
    for image in (f"/boot/vmlinuz-{release}", f"/lib/modules/{release}/vmlinuz"):
        if os.path.exists(image) and os.path.isdir(f"/lib/modules/{release}"):
            return Kernel("host", release, image, f"/lib/modules/{release}", "this host")
    raise LabError(f"the image or the modules of the running kernel are not here (/boot/vmlinuz-{release})")


def _package(path: str, say: Callable[[str], None]) -> Kernel:
    name, kind = os.path.splitext(os.path.basename(path))
    packages = [path] if kind == ".deb" else [path, *_beside(path)]
    stats = [os.stat(one) for one in packages]

    def fill(folder: str) -> None:
        say(f"unpacking {', '.join(packages)}")
        if not _unpack(packages, folder, path) and kind == ".rpm":
            of = rpm.head(path).of
            raise NotFound(f"no KVM in {path}: put the package of its modules beside it, as *-modules-core{of} or *-modules{of}")

    about = "_".join(f"{stat.st_size}_{stat.st_mtime_ns}" for stat in stats)
    return _kept_or_made(name, "debs", f"{name}_{about}", fill)


def _beside(path: str) -> list[str]:
    """The packages of modules that were built with the one at ``path``: Fedora and RHEL have them apart from the image."""
    about = rpm.head(path)
    if about.arch != "x86_64":
        raise NotFound(f"{path} is of {about.arch or 'no architecture'}: the lab's CPUs are x86_64")
    folder = os.path.dirname(path)
    others = sorted(name for name in os.listdir(folder) if name.endswith(about.of) and name != os.path.basename(path))
    return [os.path.join(folder, name) for name in others if _MODULES.search(name)]


def find(which: str, folder: str = "", say: Callable[[str], None] = lambda line: None, *, fresh: bool = False) -> Kernel:
    """The kernel ``which``: a Debian suite or version, a .deb, a .rpm, an image (with its modules in ``folder``), or ``host``.

    ``say`` is called with what takes long. ``fresh`` asks the mirror even where a kernel is kept. Raises NotFound, LabError.
    """
    if which == "host":
        return _host()
    if os.sep in which or os.path.isfile(which):
        if not os.path.isfile(which):
            raise NotFound(f"no such kernel: {which}")
        packed = which.endswith((".deb", ".rpm"))
        return _package(os.path.abspath(which), say) if packed else _own(os.path.abspath(which), folder)
    if _VERSION.fullmatch(which):
        return _by_version(which, say, fresh)
    if _SUITE.fullmatch(which):
        return _debian(which, _ALIASES.get(which, which), say, fresh)
    raise NotFound(f"{which!r} is neither a Debian suite or version, nor a file, nor 'host'")
