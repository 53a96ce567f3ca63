# SPDX-License-Identifier: GPL-2.0-only
"""KVM's modules, built out of tree against the headers of a lab kernel: from Debian's source of it, or from a tree of the user's.

Modules are kept by a hash of what they were built from. Objects are kept too, so that the next build is of what differs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kvmtest.lab import cache, kbuild, program
from kvmtest.lab.error import LabError, NotFound
from kvmtest.lab.kernels import Kernel

__all__ = ("KVM", "Unbuildable", "build", "change", "common", "objects")

#: KVM's folder in a kernel's tree. In what `build` gives, that folder's is below ``tree/``.
KVM = "arch/x86/kvm"
#: Headers that a build makes.
_GENERATED = {Path(KVM, "kvm-asm-offsets.h")}
_MODULES = ("kvm", "kvm-amd", "kvm-intel")
_KIND, _OBJECTS = "builds", "objects"
_KEPT = 12
#: Some 250 MB each.
_KEPT_OBJECTS = 6
#: Changes with the way modules are built, so that none is reused that was built in another way.
_RECIPE = "2"
#: An option of the kernel's configuration -> the compiler's flag that it is about: a compiler without it builds modules without.
_FLAGS = {
    "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT": "-fmin-function-alignment=16",
}
#: Options that modules can do without: BTF needs pahole and the kernel's vmlinux; a newer compiler has warnings of its own.
_WITHOUT = ("CONFIG_DEBUG_INFO_BTF_MODULES", "CONFIG_KVM_WERROR")
#: Files that a build leaves in a tree.
_MADE = ("*.o", "*.ko", "*.mod", "*.mod.c", ".*", "*.order", "Module.symvers", "kvm-asm-offsets.[hs]")
#: The folders of KVM's own headers.
_INCLUDES = ("arch/x86/include", "arch/x86/include/uapi", "include", "include/uapi")
_PROGRAMS = {"gcc": "gcc", "make": "make", "ld": "binutils"}
_ERROR = re.compile(r"\berror:|\bfatal error:|^ERROR: modpost|undefined!$|^make(?:\[\d+\])?: \*\*\* No rule")
_COMPILED = re.compile(r"  CC(?: \[M\])?\s+(?:\S*/)?(\S+)\.o\b")
_SHOWN_ERRORS = 4


class Unbuildable(LabError):
    """The source does not build; ``errors`` are the first lines that say why."""

    def __init__(self, release: str, errors: Sequence[str]) -> None:
        super().__init__(f"KVM's modules do not build against the headers of {release}: {errors[0]}")
        self.release, self.errors = release, tuple(errors)


def build(
    kernel: Kernel,
    tree: str = "",
    *,
    edit: Callable[[Path], None] | None = None,
    flags: Sequence[str] = (),
    also: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
    tick: Callable[[str], None] = lambda line: None,
) -> str:
    """The folder with kvm.ko, kvm-amd.ko and kvm-intel.ko for ``kernel``, not stripped, and their source below ``tree/``.

    They are built from the kernel tree ``tree``, or from Debian's source of that kernel, after ``edit`` of a copy of
    arch/x86/kvm, with the compiler's ``flags``. ``also`` are modules that ``edit`` added, by their paths in arch/x86/kvm.
    ``say`` is called with what begins, ``tick`` with each file that is compiled. Raises Unbuildable, NotFound, LabError.
    """
    if missing := [package for name, package in _PROGRAMS.items() if not shutil.which(name)]:
        raise LabError(f"building KVM's modules needs: apt-get install {' '.join(missing)}")
    headers = kbuild.headers(kernel, say)
    where = tree or kbuild.source(kernel, say)
    if not os.path.isfile(os.path.join(where, KVM, "Makefile")):
        raise NotFound(f"{where} is not a kernel tree: it has no {KVM}/Makefile")
    compiler = _compiler(headers)
    with cache.scratch(_KIND) as work:
        staged = Path(work, "tree")
        _stage(where, staged, headers)
        if edit:
            edit(staged / KVM)
        key = _hash(staged, (_RECIPE, kernel.release, headers, _version(compiler), *flags))
        kept = os.path.join(cache.home(), _KIND, key)
        if os.path.isdir(kept):
            os.utime(kept)
            return kept
        objects = f"{kernel.release}-{hashlib.sha256(repr((headers, compiler, *flags)).encode()).hexdigest()[:12]}"
        with cache.locked(f"{_OBJECTS}-{objects}"):
            place = Path(cache.home(), _OBJECTS, objects, "tree")
            _sync(staged, place)
            os.utime(place.parent)
            cache.trim(_OBJECTS, _KEPT_OBJECTS)
            say(f"building KVM's modules for {kernel.release}")
            _make(place, headers, compiler, flags, kernel.release, tick)
            fresh = os.path.join(work, "whole")
            shutil.move(staged, os.path.join(fresh, "tree"))
            for name in (*_MODULES, *also):
                shutil.copy(place / KVM / f"{name}.ko", fresh)
        cache.keep(_KIND, key, fresh, _KEPT)
    return kept


def change(file: Path, line: str, instead: str) -> None:
    """Replace the one ``line`` of ``file``, which ends with a newline. Raises LabError."""
    lines = file.read_text().splitlines(keepends=True)
    if lines.count(line) != 1:
        raise LabError(f"{file.name} has {lines.count(line)} times the line {line.strip()!r}")
    file.write_text("".join(instead if one == line else one for one in lines))


def _compiler(headers: str) -> str:
    """The compiler that the kernel was built with, where it is here; gcc otherwise."""
    try:
        variables = Path(headers, ".kernelvariables").read_text(encoding="utf-8")
    except OSError:
        variables = ""
    theirs = re.search(r"^CC\s*=.*\b(gcc-\d+)$", variables, re.MULTILINE)
    return theirs[1] if theirs and shutil.which(theirs[1]) else "gcc"


def _version(compiler: str) -> str:
    return str(program.run([compiler, "--version"], text=True, errors="replace").stdout.partition("\n")[0])


def _stage(where: str, staged: Path, headers: str) -> None:
    """Copy KVM's part of the tree ``where``, with those of KVM's headers that are not as the kernel's."""
    for folder in (KVM, "virt/kvm"):
        shutil.copytree(os.path.join(where, folder), staged / folder, ignore=shutil.ignore_patterns(*_MADE))
    shared = common(headers)
    for path in _files(Path(where), "include", "arch/x86/include"):
        name = str(path.relative_to(where))
        theirs = shared / name
        if kbuild.HEADERS.fullmatch(name) and not (theirs.exists() and theirs.read_bytes() == path.read_bytes()):
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, staged / name)
    # Below include/trace, trace.h is looked for at ../../arch/x86/kvm; the kernel's own headers have none there.
    (staged / "include/trace").mkdir(parents=True, exist_ok=True)


def objects() -> list[str]:
    """The folders that modules are built in."""
    return [str(path) for path in Path(cache.home(), _OBJECTS).glob("*/tree")]


def common(headers: str) -> Path:
    """The folder with the kernel's headers that all flavours share; of another distribution, or of a tree, the same one."""
    try:
        makefile = Path(headers, "Makefile").read_text(encoding="utf-8")
    except OSError as error:
        raise LabError(f"{error.filename}: {error.strerror}") from error
    included = re.search(r"^include (\S+)/Makefile$", makefile, re.MULTILINE)
    return Path(included[1] if included else headers)


def _files(root: Path, *folders: str) -> Iterator[Path]:
    for folder in folders:
        for where, _, names in os.walk(root / folder):
            for name in names:
                if "kvm" in name or name in ("svm.h", "vmx.h", "virt.h", "posted_intr.h"):
                    yield Path(where, name)


def _hash(staged: Path, rest: tuple[str, ...]) -> str:
    sum = hashlib.sha256(repr(rest).encode())
    for path in sorted(path for path in staged.rglob("*") if path.is_file()):
        sum.update(f"\0{path.relative_to(staged)}\0".encode() + path.read_bytes())
    return sum.hexdigest()[:24]


def _sync(staged: Path, place: Path) -> None:
    """Make the source in ``place`` that in ``staged``, and touch nothing that is so already; objects stay."""
    place.mkdir(parents=True, exist_ok=True)
    ours = {path.relative_to(staged) for path in staged.rglob("*") if path.is_file()}
    theirs = {path.relative_to(place) for path in place.rglob("*.[chS]") if path.is_file()} - _GENERATED
    if {name for name in ours ^ theirs if name.suffix == ".h"}:
        # A header that comes or goes replaces another one; objects only depend on that one.
        for path in [*place.rglob("*.o"), *place.rglob(".*.cmd")]:
            path.unlink()
    for name in theirs - ours:
        (place / name).unlink()
    for name in ours:
        fresh, old = (staged / name).read_bytes(), place / name
        if name == Path(KVM, "Makefile"):
            fresh = _makefile(fresh.decode(), place).encode()
        if not (old.exists() and old.read_bytes() == fresh):
            old.parent.mkdir(parents=True, exist_ok=True)
            old.write_bytes(fresh)
    (place / "include/trace").mkdir(parents=True, exist_ok=True)


def _makefile(text: str, place: Path) -> str:
    """KVM's makefile for modules outside of their tree, which is at ``place``."""
    text = re.sub(r"include \$\(srctree\)/virt", f"include {place}/virt", text)
    includes = " ".join(f"-I{place}/{folder}" for folder in _INCLUDES)
    # A WARN names its file as in the tree.
    flags = f"-I{place}/{KVM} -I{place}/include/trace -fmacro-prefix-map={place}/= $(KVMTEST_FLAGS)"
    return f"LINUXINCLUDE := {includes} $(LINUXINCLUDE)\nccflags-y += {flags}\n{text}"


def _make(place: Path, headers: str, compiler: str, flags: Sequence[str], release: str, tick: Callable[[str], None]) -> None:
    without = [*_WITHOUT, *(option for option, flag in _FLAGS.items() if not _takes(compiler, flag))]
    options = [f"{option}=" for option in without] + ["CONFIG_KVM_AMD=m", "CONFIG_KVM_INTEL=m"]
    jobs = f"-j{len(os.sched_getaffinity(0))}"
    command = ["make", "-C", headers, f"M={place / KVM}", jobs, "modules", f"CC={compiler}", *options]
    command.append(f"KVMTEST_FLAGS={' '.join(flags)}")
    status, lines = _said(command, lambda name, number: tick(f"{number} files, {name}"))
    if status:
        lines = [line.replace(f"{place}/", "").replace(f"{KVM}/../../../", "") for line in lines]
        errors = [line for line in lines if _ERROR.search(line)] or lines[-3:]
        raise Unbuildable(release, errors[:_SHOWN_ERRORS])


def _said(command: Sequence[str], compiled: Callable[[str, int], None]) -> tuple[int, list[str]]:
    """Status and lines of make; ``compiled`` is called with each file and the count. Its processes end with it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    lines: list[str] = []
    number = 0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env=environment | {"LC_ALL": "C"}, start_new_session=True,
    ) as make:  # fmt: skip
        assert make.stdout
        try:
            for line in make.stdout:
                lines.append(line.rstrip("\n"))
                if found := _COMPILED.match(line):
                    number += 1
                    compiled(found[1], number)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(make.pid, signal.SIGKILL)
            raise
    return make.returncode, lines


def _takes(compiler: str, flag: str) -> bool:
    return not program.run([compiler, flag, "-x", "c", "-c", os.devnull, "-o", os.devnull]).returncode
