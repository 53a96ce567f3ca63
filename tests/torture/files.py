# SPDX-License-Identifier: GPL-2.0-only
"""Files of each kind that is read, changed at random, and every command that reads them."""

from __future__ import annotations

import gzip
import io
import json
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvmtest.coverage import file as coverage
from kvmtest.report import FORMATS
from kvmtest.testing.file import to_file
from tests.coverage.made import FILE, source, table
from tests.torture import rules
from tests.torture.child import start
from tests.torture.faults import Native

__all__ = ("KINDS", "in_bytes", "mutated")

#: Members whose text is shown to people.
_SHOWN = ("kernel", "cpu_model", "name", "started", "version", "reason", "observed", "why", "model", "kernel_source", "emulator")
#: Far more than any of these files is worth.
_MEMORY = 3 << 30
#: One case.
_ONE = "init.msi.host.cr0/ap,intel,xapic,plant-a"
#: Inputs on which programs fail: in a string, and as a value.
_TEXTS = (
    "\x1b]0;pwned\x07\x1b[31mRED",
    "\x1b[2J",
    "\x9b31m",
    "\ud800",
    "\u202egnp.exe",
    "=HYPERLINK(1)",
    "*/ int main",
    "<script>alert(1)</script>",
    "]]></failure>",
    "ok 1 # SKIP",
    "../../../etc/passwd",
    "a" * 5000,
    "\0",
    "0x",
    "0xg",
    "0x10000, 7 LVT entries",
    "",
)
_VALUES: tuple[Any, ...] = (None, True, -1, 0, 2**31, 2**64, 2**70, 1e308, 0.1, [], {}, [[]], "x", *_TEXTS)
_SPLICES = (b"\x00", b"\xff\xfe", b"\x1b[31m", b"[" * 3000, b"9" * 5000, b"1e999", b"NaN", b"\n", b"{}", b'"', b"\\ud800", b"\r")


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each place in a document: what holds it, and its key."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        for key in list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ():
            found.append((one, key))
            waiting.append(one[key])
    return found


def _in_structure(data: bytes, rng: random.Random) -> bytes:
    """Another value, key, or order somewhere in a document, or in one of its lines."""
    lines = data.split(b"\n")
    number = rng.randrange(len(lines))
    whole = data.lstrip()[:1] == b"{" and not data.startswith(b'{"schema":"kvmtest.results/2","run"')
    try:
        document = json.loads(data if whole else lines[number])
    except ValueError:
        return in_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        places = _places(document)
        if not places:
            break
        shown = [(holder, key) for holder, key in places if key in _SHOWN and isinstance(holder[key], str)]
        if shown and rng.random() < 0.4:
            (holder, key), kind = rng.choice(shown), 2
        else:
            (holder, key), kind = rng.choice(places), rng.randrange(5)
        if kind == 0 and isinstance(holder, dict):
            holder[rng.choice(_TEXTS)] = holder.pop(key)
        elif kind == 1:
            del holder[key]
        elif kind == 2 and isinstance(holder[key], str):
            at = rng.randrange(len(holder[key]) + 1)
            holder[key] = holder[key][:at] + rng.choice(_TEXTS) + holder[key][at:]
        elif kind == 3:
            other, at = rng.choice(places)
            if at in other if isinstance(other, dict) else at < len(other):
                holder[key] = json.loads(json.dumps(other[at]))
        else:
            holder[key] = rng.choice(_VALUES)
    changed = json.dumps(document).encode()
    return changed if whole else b"\n".join([*lines[:number], changed, *lines[number + 1 :]])


def in_bytes(data: bytes, rng: random.Random) -> bytes:
    """``data`` with other bits, without a piece, with one more, or cut."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(made) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del made[at:]
        elif kind == 2:
            made[at:at] = rng.choice(_SPLICES)
        elif kind == 3:
            del made[at : at + rng.randrange(200)]
        else:
            other = rng.randrange(len(made) + 1)
            made[at:at] = made[other : other + rng.randrange(500)]
    return bytes(made)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """``data``, changed in one way or another."""
    packed = data[:2] == b"\x1f\x8b"
    if packed and rng.random() < 0.5:
        return gzip.compress(mutated(gzip.decompress(data), rng))
    return in_bytes(data, rng) if packed or rng.random() < 0.4 else _in_structure(data, rng)


_KNOWN = b"""\
[[known]]
selector = "init.*.host.cr2"
value = "0x5000"
reason = "our L0 keeps CR2 across INIT"
bug = "https://bugs.example.org/1234"
until = 2099-01-31
"""
_PATCH = f"""\
diff --git a/{FILE} b/{FILE}
--- a/{FILE}
+++ b/{FILE}
@@ -6,6 +6,7 @@ int accept(int x)
 int accept(int x)
 {{
 \tif (x)
-\t\treset(x);
+\t\treset(x, true);
+\t\tagain();
 \telse
 \t\twait(x);
"""
_LOGS = Path(__file__).parents[1] / "data" / "observer"


class _Corpus:
    """A file of each kind, as kvmtest, a VMM or an observer writes it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def fill(self, native: Native) -> None:
        """Make them, once."""
        if self.files:
            return
        where = native.new()
        for words in (
            ["run", "init.msi/ap,intel,xapic,plant-*", "none.*/*smm*", "--format", "json", "-o", "results.json"],
            ["report", "results.json", "--format", "jsonl", "-o", "results.jsonl"],
            ["report", "results.json", "--format", "json", "-o", "results.json.gz"],
            ["snapshot", "--event", "init", "-o", "snapshot.json"],
            ["explain", "init.msi/ap,intel,xapic,plant-a", "--format", "json"],
        ):
            done = start(words, where).end()
            rules.ended(done, (0, 1))
            if words[0] == "explain":
                (where / "scenario.json").write_bytes(done.out)
        coverage.write([table()], text := io.StringIO())
        self.files = {path.name: path.read_bytes() for path in where.iterdir() if path.is_file()} | {
            "known.toml": _KNOWN,
            "coverage.json": text.getvalue().encode(),
            "change.patch": _PATCH.encode(),
            "observer.log": gzip.decompress((_LOGS / "qemu-tcg.log.gz").read_bytes()),
            "vcpu.state": to_file({"regs": bytes(144), "sregs": bytes(312), "mp_state": bytes(4), "msrs": bytes(32)}),
        }


_CORPUS = _Corpus()


def _commands(name: str, rng: random.Random) -> list[str]:
    """A command that reads the file ``name``, the changed one, beside others as they should be."""
    if name == "snapshot.json":
        return rng.choice((["diff", name, "good-" + name], ["diff", "good-" + name, name, "--format", "json"]))
    if name == "scenario.json":
        return rng.choice((["run", "--scenario", name, "--timeout", "0.3"], ["repro", "--scenario", name, "--no-minimise"]))
    if name == "coverage.json":
        return [
            "lab",
            "coverage",
            "--from",
            name,
            *rng.choice(((), ("-v",), ("--missed",), ("--report", "html=out"), ("--report", "lcov=out"))),
        ]
    if name == "change.patch":
        return ["lab", "coverage", "--from", "good-coverage.json", "--tree", "tree", "--diff", name]
    if name == "observer.log":
        return ["observer", "judge", name, "--format", rng.choice(FORMATS)]
    if name == "vcpu.state":
        before = rng.choice(([], ["--before", name], ["--before", "good-" + name]))
        return ["judge", "--event", "init", *before, "--vendor", "intel", "--backend", "vmx", rng.choice((name, "good-" + name))]
    if name == "known.toml":
        return rng.choice((["report", "--known", name, "good-results.json"], ["run", _ONE, "--known", name]))
    return rng.choice(
        (
            ["report", name, "--format", rng.choice(FORMATS), "--color", "never"],
            ["report", name, "--verbose"],
            ["report", name, "good-results.json", "--format", rng.choice(FORMATS)],
            ["report", name, "--format", "jsonl", "--expand"],
            ["report", "--baseline", name, "good-results.json"],
            ["report", "--baseline", "good-results.json", name],
            ["series", "--results", name],
            ["series", "--results", name, "--format", "json"],
            ["run", _ONE, "--baseline", name],
            ["diff", name, "good-snapshot.json"],
        )
    )


def files(native: Native, rng: random.Random) -> str:
    """A changed file, and a command that reads it."""
    _CORPUS.fill(native)
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    name = rng.choice(sorted(_CORPUS.files))
    for other, data in _CORPUS.files.items():
        (where / f"good-{other}").write_bytes(data)
    (where / name).write_bytes(mutated(_CORPUS.files[name], rng))
    if name == "change.patch":
        source(where / "tree")
    words = _commands(name, rng)
    done = start(words, where, limits=[(resource.RLIMIT_AS, _MEMORY)]).end()
    try:
        rules.ended(done, (0, 1, 2, 3))
    except rules.Broken:
        keep = native.folder / f"broken-{name}"
        keep.write_bytes((where / name).read_bytes())
        raise
    expected = {name, "tree", "out", *(f"good-{other}" for other in _CORPUS.files)}
    native.over(where, expected, mounts)
    return f"files, {name}, {words[0]}"


#: Names that are, to be changed, and command lines that take one, with NAME or TEXT in its place.
_NAMES = ("init.msi.host.cr3", "init.*/*,in-hlt", "reset.{create,vmm-reset}.guest", "cr3", "ed129ec9057f", _ONE, "lapic.c:3155")
_LINES = (
    *(f"{words} NAME" for words in ("list", "list --cases", "list --ids", "list --full", "explain", "repro --no-minimise")),
    *(f"{words} TEXT" for words in ("list --covers", "report", "series --results", "judge --event init", "observer judge")),
    *(f"run {_ONE} {word} TEXT" for word in ("--timeout", "--seed", "--rounds", "--shard", "--commit", "--known", "--baseline")),
    *(f"run {_ONE} {word} TEXT" for word in ("--format", "--device", "--scenario", "--color")),
    *(
        f"judge --event init --vendor amd good-vcpu.state {word} TEXT"
        for word in ("--vector", "--apic-id", "--ignore", "--before")
    ),
    "run NAME --timeout 0.1 --shard 1/50",
    "diff good-snapshot.json TEXT",
    "observer judge good-observer.log --name TEXT",
    "lab run --kernel host --module-param TEXT",
    "lab coverage --from good-coverage.json --of TEXT",
    "report good-results.json --known TEXT",
)


def _changed(name: str, rng: random.Random) -> str:
    """``name`` with something in it that no name has."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(name) + 1)
        more = rng.choice(("*", "?", "[", "]", "{", "}", ",", "/", ".", "{a,b}", "[!-a]", " ", *_TEXTS))
        name = name[:at] + more + name[at + rng.randrange(3) :]
    return name.replace("\0", "")


def words(native: Native, rng: random.Random) -> str:
    """A command line with something in it that should not be there."""
    _CORPUS.fill(native)
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    for other, data in _CORPUS.files.items():
        (where / f"good-{other}").write_bytes(data)
    text = rng.choice((*_TEXTS, "-1", "0", "1e999", "nan", "9" * 40, "1/0", "0x", "\udcff")).replace("\0", "")
    made = {
        "NAME": _changed(rng.choice(_NAMES), rng),
        "TEXT": text.encode(errors="ignore").decode() if text != "\udcff" else text,
    }
    line = [made.get(word, word) for word in rng.choice(_LINES).split()]
    done = start(line, where, limits=[(resource.RLIMIT_AS, _MEMORY)]).end()
    rules.ended(done, (0, 1, 2, 3))
    native.over(where, {f"good-{other}" for other in _CORPUS.files}, mounts)
    return f"words, {line[0]}"


KINDS: dict[str, tuple[int, Callable[[Native, random.Random], str]]] = {"files": (10, files), "words": (3, words)}
