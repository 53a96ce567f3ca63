# SPDX-License-Identifier: GPL-2.0-only
"""Pages that are made of tables: found.md of the deviations, trust.md of mutants.tsv and coverage.tsv. python docs/pages.py"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from kvmtest.engine import plan  # noqa: E402
from kvmtest.model.select import SelectorError, takes  # noqa: E402
from kvmtest.report.show import count  # noqa: E402
from kvmtest.spec import commits, logged  # noqa: E402
from kvmtest.spec.commits.entry import KEPT, LESS, Version, version  # noqa: E402
from kvmtest.spec.deviations import DEVIATIONS, Deviation  # noqa: E402
from tests.lab.caught import BREAKS, Row, kept  # noqa: E402
from tests.lab.counter import COUNTERS, Counter  # noqa: E402

_SPDX = "<!-- SPDX-License-Identifier: GPL-2.0-only -->\n<!-- Made by docs/pages.py: change the tables that it reads. -->\n"
#: The lab's kernels, the newest first: a deviation is shown on the first one that it names.
_KERNELS: tuple[Version, ...] = ((7, 2), (6, 12), (6, 1), (5, 10))
#: The event in ids of a deviation, where it has another name.
_IDS = {"vmm-reset": "reset.vmm-reset.host", "migrate": "none.migrate.host"}
_EVENTS = {
    "none": "", "migrate": "after a migration", "vmm-reset": "after a VMM's reset", "views": "as the guest reads it",
    "shutdown": "after SHUTDOWN",
}  # fmt: skip
_WORDS = {KEPT: "the value from before", LESS: "less than before"}
_UPSTREAM = "https://git.kernel.org/torvalds/c/"
_MODULES = {"svm": "kvm_amd", "vmx": "kvm_intel"}
_UNLESS = re.compile(r"!\(MUTANT && (.*)\)")

_FOUND = """\
# What this tool has found

Departures of KVM from the Intel and AMD manuals, or from KVM's own documentation, as `kvmtest run` observed them on Debian's
5.10, 6.1, 6.12 and 7.2. Each entry gives a command that shows it. `kvmtest repro` writes a C program for `<linux/kvm.h>` and
libc alone, with the KVM of a cell of the lab; without `--backend` and `--kernel` it uses the KVM of this machine ([A
reproducer in C](repro.md)). `kvmtest run` shows what has no such program. `kvmtest explain` of an item, a case or a commit
prints the rule, with its citation.
"""
_OPEN = """\
## Open

Nothing in KVM's source says that these are meant to be so, and no commit is known that fixes them. *Proof* is a change of one
line of 6.1 after which the case passes; `make nightly` tries each of them again.
"""
_ADMITTED = """\
## Intended

KVM's comments, changelogs or documentation say that it is so.
"""
_FIXED = """\
## Fixed

Bugs that a commit fixed, and that kernels without it still show. [The series](series.md) says how results show whether a
kernel has a commit.
"""
_TRUST = """\
# Why believe a green run

A check that cannot fail is worth nothing. So KVM is broken on purpose, in one line at a time, and the case that must notice
is run. [Reading results](results.md) says what a `pass` requires: the planted value was read back before the event, and the
event was proven.
"""
_BREAKS = """\
## One line of KVM broken

{count}, in KVM of Debian's 6.1: {modules}. {result} Each is built into the modules, where a parameter chooses it, and runs in
a cell of the lab. *Shown by* is the first of the results that fail then and do not fail without the break; it is also the
selector that runs it. `make mutants` runs all of them, which takes about an hour, and writes this table.
"""
_COVERED = """\
## KVM's code that the cases run

Code that no case runs is not tested. The table counts basic blocks of KVM of Debian's 6.1, run by the default plan in the
cells of both backends, and by some cases with other module parameters. Each block of the functions for RESET, INIT, SIPI and
SHUTDOWN that no case runs has a reason why no guest and no VMM of the lab reaches it. `kvmtest lab coverage --kernel 6.1`
measures it again: [Which of KVM's code the cases run](kvm-coverage.md).
"""
_NOT_SEEN = """\
## What a green run does not say

State that neither ioctls nor guest code can read, and behaviour that no case can bring about: [What is covered](coverage.md)
lists both. What the manuals leave undefined is `info`, and what this host cannot show a `skip` with its reason: neither is a
pass.
"""


class Found(NamedTuple):
    """Deviations with one cause, in one line: those of the first kernel and backend that have it."""

    first: Deviation
    all: tuple[Deviation, ...]


def found(kind: str) -> Iterator[Found]:
    """The deviations of this kind, those of one commit or function and one reason together."""
    of_kind = [one for one in DEVIATIONS if one.kind == kind]
    causes = dict.fromkeys((one.commit, one.why) for one in of_kind)
    for commit, why in causes:
        same = tuple(one for one in of_kind if (one.commit, one.why) == (commit, why))
        yield Found(same[0], same)


def selector(d: Deviation) -> str:
    """A selector of results that show it, the host's view first where it has both; "" where no case of the plan does."""
    if d.item.count(".") >= 3:
        ids = [d.item]
    else:
        known = [name for name in _ids() if name.split(".", 3)[3] == d.item]
        event = _IDS.get(d.event, d.event)
        view = "views" if d.event == "views" else d.view or "host"
        ids = [name for name in known if name.startswith(f"{event}.") or d.event == "views"]
        ids = [name for name in ids if f".{view}." in name] or ids
    for name in ids:
        asked = f"{name}/*{d.case}*" if d.case else name
        if name.startswith(logged.ID):
            return asked
        with contextlib.suppress(SelectorError):
            if plan.select(plan.plan(), (asked,), plan.plan(full=True)):
                return asked
    return ""


def _ids(made: list[str] = []) -> list[str]:  # noqa: B006
    made = made or plan.ids(plan.plan())
    return made


def command(found: Found, counter: Counter | None = None) -> str:
    """The command that shows it in the lab, on the newest kernel that has it."""
    d, asked = next((d, asked) for d in found.all if (asked := counter.selector if counter else selector(d)))
    backend = d.backends.split()[0] if d.backends else "svm"
    # A deviation that shows only sometimes was seen on the kernel that was examined.
    kernels = sorted(_KERNELS, key=(6, 1).__ne__) if d.sometimes else _KERNELS
    kernel = next((one for one in kernels if d.names(backend, one) and one not in d.backports), None)
    quoted = f"'{asked}'" if re.search(r"[*{]", asked) else asked
    if not kernel:
        return f"kvmtest explain {d.commit}"
    verb = "lab run" if ".views." in asked or asked.startswith(logged.ID) else "repro"
    parameter = f" --module-param {_MODULES[backend]}.{d.without}=0" if d.without else ""
    return f"kvmtest {verb} --backend {backend} --kernel {kernel[0]}.{kernel[1]}{parameter} {quoted}"


def _shows(found: Found) -> str:
    """The items with the event, and the observed value."""
    parts = []
    for (event, observed), group in groupby(found.all, key=lambda d: (d.event, d.observed)):
        names = list(dict.fromkeys(d.item for d in group))
        shown = ", ".join(f"`{name}`" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        value = _WORDS.get(str(observed), f"{observed:#x}" if isinstance(observed, int) else str(observed))
        after = "" if names[0].count(".") >= 3 else _EVENTS.get(event, f"after {event.upper()}")
        parts.append(" ".join(filter(None, (shown, after))) + f": {value}")
    return "; ".join(parts[:2]) + (f"; {len(parts) - 2} more" if len(parts) > 2 else "")


def _where(found: Found) -> str:
    """The modules and the kernels that have it."""
    backends = dict.fromkeys(name for d in found.all for name in d.backends.split() or ("",))
    module = "kvm" if "" in backends else ", ".join(_MODULES[name] for name in backends)
    return f"{module}, {found.first.range}"


def _counter(found: Found) -> Counter | None:
    return next((c for c in COUNTERS for d in found.all if c.commit == d.commit and _about(c, d)), None)


def _about(counter: Counter, d: Deviation) -> bool:
    """Return True if what passes with the line is of that item, or has that id."""
    ids = counter.selector.partition("/")[0]
    return d.item in ids or takes([ids], d.item)


def _open() -> Iterator[str]:
    for number, one in enumerate(found("open"), 1):
        counter = _counter(one)
        lines = [f"**{_sentence(one.first.why)}**", f"`{one.first.commit}`; {_where(one)}.", _sentence(_shows(one))]
        if counter:
            lines.append(f"Proof: `{counter.file}`, {_broken(counter.statement, counter.line.strip())}")
        lines += ("", "```sh", command(one, counter), "```", "")
        mark = f"{number}. "
        yield mark + f"\n{' ' * len(mark)}".join(lines).replace(f"\n{' ' * len(mark)}\n", "\n\n").rstrip(" ")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _intended() -> Iterator[str]:
    for one in found("admitted"):
        where = one.first.commit
        link = f"[{where}]({_UPSTREAM}{where})" if commits.find(where) else f"`{where}`"
        yield f"* {_sentence(one.first.why)} {link}; {_where(one)}. `kvmtest explain {one.first.item}`"


def _fixed() -> Iterator[str]:
    yield "| commit | first in | what it changed | on a kernel without it |\n|---|---|---|---|"
    rows = [(commits.find(one.first.commit)[0], one) for one in found("fixed")]
    for entry, one in sorted(rows, key=lambda row: version(row[0].release), reverse=True):
        link = f"[{entry.commit}]({_UPSTREAM}{entry.commit}) KVM: {entry.subject}"
        yield f"| {link} | {entry.release} | {_sentence(entry.what)} | `{command(one)}` |"


def _broken(statement: str, line: str) -> str:
    """A statement before a line, in words: what is not executed, or is besides."""
    statement = " ".join(statement.split())
    condition, does = _condition(statement)
    if condition == "!MUTANT":
        return f"without `{line}`"
    if unless := _UNLESS.fullmatch(condition):
        return f"without `{line}` if `{unless[1]}`"
    if not does or not condition.startswith("MUTANT"):
        return f"before `{line}`: `{statement}`"
    when = condition.removeprefix("MUTANT").removeprefix(" && ")
    when = f" if `{when}`" if when else ""
    where = "instead of" if does.endswith(" else") else "before"
    return f"`{does.removesuffix(' else')}`{when}, {where} `{line}`"


def _condition(statement: str) -> tuple[str, str]:
    """The condition of an if statement, and what it controls."""
    depth = 0
    for i, letter in enumerate(statement):
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and not depth:
            return statement.removeprefix("if (")[: i - 4], statement[i + 1 :].strip()
    return "", ""


def _module(row: Row) -> str:
    folder = row.file.partition("/")[0]
    return _MODULES.get(folder, "kvm")


def _breaks(rows: Sequence[Row]) -> Iterator[str]:
    by_module = {name: [row for row in rows if _module(row) == name] for name in ("kvm", *_MODULES.values())}
    counts = ", ".join(f"{len(of)} in {name}" for name, of in by_module.items())
    missed = [row.name for row in rows if not row.caught]
    result = f"Not shown by any case: {', '.join(missed)}." if missed else "Each is shown by the case that must show it."
    if left := {mutant.name for mutant in BREAKS} - {row.name for row in rows}:
        result += f" {len(left)} more are in the lists, and have not been run yet."
    yield _BREAKS.format(count=count(len(rows), "break"), modules=counts, result=result)
    for name, of in by_module.items():
        yield f"### {name}\n\n| function | broken | shown by |\n|---|---|---|"
        yield from (_break(row) for row in sorted(of, key=lambda row: (row.file, row.function)))
        yield ""


def _break(row: Row) -> str:
    cells = (f"`{row.function}()`", _broken(row.statement, row.line), f"`{row.selector}`: {_short(row.observed)}")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _short(observed: str) -> str:
    return shorten(observed, 80, placeholder=" ...").replace("*", "\\*")


def _covered() -> Iterator[str]:
    yield "| code | blocks | run | |\n|---|---:|---:|---:|"
    for line in (HERE / "coverage.tsv").read_text().splitlines()[1:]:
        name, blocks, run = line.split("\t")
        yield f"| {name} | {blocks} | {run} | {100 * int(run) / int(blocks):.0f} % |"


def pages() -> dict[str, str]:
    """The text of each page by its name."""
    return {
        "found.md": _page(_FOUND, _OPEN, *_open(), "", _ADMITTED, *_intended(), "", _FIXED, *_fixed()),
        "trust.md": _page(_TRUST, *_breaks(list(kept().values())), _COVERED, *_covered(), "", _NOT_SEEN),
    }


def _page(*parts: str) -> str:
    return _SPDX + "\n".join(parts).rstrip("\n") + "\n"


def main(folder: Path) -> None:
    """Write all pages into ``folder``."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(HERE)
