# SPDX-License-Identifier: GPL-2.0-only
"""The initramfs that the lab's kernels boot: this host's Python with the modules that are imported, and this package. No shell.

Files have the same paths as on the host, so that the interpreter and the dynamic loader find them there, except for this
package, which is below LAB. Sources are compiled here once: the emulated CPU would take seconds for it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import marshal
import os
import re
import shutil
import struct
import sys
import time
from collections.abc import Iterable, Iterator

from kvmtest.lab import cache, program
from kvmtest.lab.error import LabError
from kvmtest.lab.inside import MODULES
from kvmtest.lab.modules import Module

__all__ = ("LAB", "base", "cell", "order", "waiting", "write")

LAB = "/lab"
#: Modules that the program inside imports, some only inside functions.
_ENGINE = ("run", "doctor", "host", "plan")
_ROOTS = ("kvmtest.lab.inside", "kvmtest.lab.relay", *(f"kvmtest.engine.{name}" for name in _ENGINE))
#: Imported by the interpreter itself when something goes wrong.
_SPARE = ("traceback", "linecache", "textwrap", "tokenize", "token", "warnings", "contextlib", "codeop")
#: Run by the host's Python as it will run inside: prints which files it used.
_WATCH = """
import importlib, json, sys
parent, names, spare = json.loads(sys.argv[1])
sys.path.append(parent)
for name in names:
    importlib.import_module(name)
for name in spare:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
files = {name: getattr(m, "__file__", None) for name, m in sys.modules.items() if name != "__main__"}
maps = [line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if "/" in line]
print(json.dumps([files, sorted(set(maps))]))
"""
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_FILE, _DIRECTORY, _LINK = 0o100000, 0o040000, 0o120000
_PT_LOAD, _PT_INTERP = 1, 3


class _Archive:
    """A cpio archive in the kernel's `newc` format; the same content gives the same bytes."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes]] = {}

    def add(self, path: str, content: bytes, mode: int = _FILE | 0o755) -> None:
        """Add a file with the folders above it; ``path`` is absolute."""
        above = os.path.dirname(path)
        while above != "/" and above not in self._entries:
            self._entries[above] = (_DIRECTORY | 0o755, b"")
            above = os.path.dirname(above)
        self._entries[path] = (mode, content)

    def copy(self, path: str, content: bytes | None = None) -> None:
        """Add the host's file ``path``, with every symbolic link on the way to it."""
        parts = path.strip("/").split("/")
        for i in range(1, len(parts) + 1):
            here = "/" + "/".join(parts[:i])
            if os.path.islink(here):
                target = os.readlink(here)
                self.add(here, target.encode(), _LINK | 0o777)
                rest = "/".join(parts[i:])
                self.copy(os.path.normpath(os.path.join(os.path.dirname(here), target, rest)), content)
                return
        self.add(path, _loadable(_read(path)) if content is None else content)

    def pack(self) -> bytes:
        """The archive, padded to what the kernel asks of one that another one follows."""
        out = bytearray()
        for number, path in enumerate(sorted(self._entries), 1):
            mode, content = self._entries[path]
            out += _record(number, path.strip("/"), mode, content)
        out += _record(0, "TRAILER!!!", 0, b"")
        return bytes(out) + bytes(-len(out) % 512)


def _record(number: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _segments(image: bytes) -> Iterator[tuple[int, int, int]]:
    """(p_type, p_offset, p_filesz) of the program headers of a 64-bit ELF file."""
    offset, size, count = struct.unpack_from("<32xQ14xHH", image)
    for i in range(count):
        kind, start, length = struct.unpack_from("<I4xQ16xQ", image, offset + i * size)
        yield kind, start, length


def _loadable(image: bytes) -> bytes:
    """An ELF file without what follows its segments: symbols and debug information are not needed to run it."""
    if image[:5] != b"\x7fELF\x02":
        return image
    end = max((start + length for _, start, length in _segments(image)), default=len(image))
    # e_shoff, e_shnum and e_shstrndx: there are no sections any more.
    return image[:40] + bytes(8) + image[48:60] + bytes(4) + image[64:end]


def _interpreter(image: bytes) -> str | None:
    for kind, start, length in _segments(image):
        if kind == _PT_INTERP:
            return image[start : start + length].rstrip(b"\0").decode()
    return None


def _compiled(path: str, shown: str, optimize: int) -> bytes:
    source = _read(path)
    code = compile(source, shown, "exec", dont_inherit=True, optimize=optimize)
    # Flags 1: by hash, and unchecked; there is no source beside it to check it against.
    return importlib.util.MAGIC_NUMBER + struct.pack("<I", 1) + importlib.util.source_hash(source) + marshal.dumps(code)


def _lazy(names: Iterable[str], files: dict[str, str]) -> set[str]:
    """Return what functions of this package import. Importing the package does not reveal these imports."""
    found: set[str] = set()
    for name in names:
        package = name if files[name].endswith("__init__.py") else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(_read(files[name]))):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = package.rsplit(".", node.level - 1)[0] if node.level else ""
                base = ".".join(part for part in (above, node.module) if part)
                found.add(base)
                found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def _python() -> str:
    return os.path.realpath(sys.executable)


def _watch(names: Iterable[str], spare: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    asked = json.dumps([os.path.dirname(_PACKAGE), list(names), list(spare)])
    done = program.run([_python(), "-ISB", "-c", _WATCH, asked], text=True)
    if done.returncode:
        raise LabError(f"{_python()} cannot import what the lab needs: {done.stderr.strip().rpartition(chr(10))[2]}")
    files, maps = json.loads(done.stdout)
    return {name: path for name, path in files.items() if path and path.startswith("/")}, maps


def _needed() -> tuple[dict[str, str], list[str]]:
    """File by module name, and the shared libraries, that a run needs."""
    files, maps = _watch(_ROOTS, _SPARE)
    known: set[str] = set()
    while new := [name for name in files if name.startswith("kvmtest") and name not in known]:
        known.update(new)
        files, maps = _watch(_ROOTS, [*_SPARE, *sorted(_lazy(known, files))])
    return files, maps


def _libraries(maps: list[str]) -> Iterator[str]:
    for path in maps:
        if re.search(r"\.so[.\d]*$", path) and os.path.exists(path):
            yield path
            folder = os.path.dirname(path)
            for name in os.listdir(folder):
                other = os.path.join(folder, name)
                if ".so." in name and os.path.islink(other) and os.path.realpath(other) == path:
                    yield other


def _build() -> bytes:
    files, maps = _needed()
    archive = _Archive()
    python = _python()
    archive.copy(python)
    if interpreter := _interpreter(_read(python)):
        archive.copy(interpreter)
    for path in _libraries(maps):
        archive.copy(path)
    for name, path in files.items():
        ours = name.partition(".")[0] == "kvmtest"
        where = LAB + path.removeprefix(os.path.dirname(_PACKAGE)) if ours else path
        if path.endswith(".py"):
            archive.add(where + "c", _compiled(path, where, 0 if ours else 2))
        elif not ours:
            archive.copy(path)
    # The interpreter looks for these two before it believes that its library is there.
    stdlib = os.path.dirname(files["os"])
    archive.add(f"{stdlib}/os.pyc", _compiled(files["os"], files["os"], 2))
    archive.add(f"{stdlib}/lib-dynload/.here", b"")
    for file in sorted(os.listdir(f"{_PACKAGE}/guests")):
        if file.endswith((".bin", ".sym", ".so")):
            archive.add(f"{LAB}/kvmtest/guests/{file}", _read(f"{_PACKAGE}/guests/{file}"))
    return archive.pack()


def _key() -> str:
    """Return a hash of the archive's contents."""
    digest = hashlib.sha256(f"{_python()} {sys.version} {os.stat(_python())[6:9:2]}".encode())
    for where, folders, names in os.walk(_PACKAGE):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".py", ".bin", ".sym", ".so")):
                content = _read(os.path.join(where, name))
                digest.update(f"{where.removeprefix(_PACKAGE)}/{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:32]


def base() -> str:
    """The path of the archive with Python and this package, from the cache if it is there. Raises LabError."""
    return cache.file("initramfs", f"{_key()}.cpio", _build)


def _full(modules: list[Module], parameters: dict[str, str], config: dict[str, object]) -> dict[str, object]:
    return config | {"modules": [(module.name, parameters.get(module.name, "")) for module in modules]}


def _archive(config: dict[str, object] | None, modules: Iterable[Module] = ()) -> bytes:
    archive = _Archive()
    for module in modules:
        archive.add(f"{MODULES}/{module.name}.ko", module.image)
    for folder in ("/proc", "/sys", "/dev"):
        archive.add(folder, b"", _DIRECTORY | 0o755)
    init = f"#!{_python()} -ISB\nimport sys\nsys.path.append({LAB!r})\nfrom kvmtest.lab.inside import main\nmain({config!r})\n"
    archive.add("/init", init.encode())
    return archive.pack()


def cell(modules: list[Module], parameters: dict[str, str], config: dict[str, object]) -> bytes:
    """The archive that makes one cell of it, to be put after `base`'s: KVM's modules, and the init that runs `config`."""
    return _archive(_full(modules, parameters, config), modules)


def waiting() -> bytes:
    """The archive that makes a guest of it which waits for its order, to be put after `base`'s."""
    return _archive(None)


def order(modules: list[Module], parameters: dict[str, str], config: dict[str, object]) -> bytes:
    """Return the order for such a guest: as in `cell`, with the time of day, and random bytes for this guest alone."""
    images = {module.name: module.image for module in modules}
    return marshal.dumps((_full(modules, parameters, config), images, time.time(), os.urandom(64)))


def write(path: str, archive: bytes) -> None:
    """Write what a kernel boots into: `base`'s archive, then ``archive``."""
    with open(path, "wb") as out:
        with open(base(), "rb") as file:
            shutil.copyfileobj(file, out)
        out.write(archive)
