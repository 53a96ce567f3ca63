# SPDX-License-Identifier: GPL-2.0-only
"""Coverage as text: how many blocks of a module, a file or a place were run, which were not, and who ran the lines of a patch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from kvmtest.coverage.patch import Hunk, Patched
from kvmtest.coverage.reasons import reason
from kvmtest.coverage.source import OURS, Sources
from kvmtest.coverage.table import Ran, Table
from kvmtest.coverage.tally import Counts, Tally
from kvmtest.report.show import count

__all__ = ("diff", "functions", "head", "missed", "overview", "part", "rows")

_NAME = 34
#: The width of a column, and the space before it.
_CELL, _GAP = 13, 2
_SHOWN = 3


def head(table: Table) -> Iterator[str]:
    """Yield the kernel and the cells that were measured."""
    yield f"KVM of {table.kernel}: blocks of its code that cases ran"
    for cell in table.cells:
        yield f"  {cell.name}: {count(len(cell.cases), 'case')}, {cell.started}"


def rows(table: Table, counts: Mapping[str, Counts], room: int = 0, longest: int = 0) -> Iterator[str]:
    """A row for each of ``counts``, with a column for each cell, and one for them together.

    Where a row with all of them is longer than ``room``, if that is given, there is the last one alone. ``longest`` is the length
    of a name in another table, if that is to be as wide.
    """
    names = [cell.name for cell in table.cells]
    several = len(names) > 1
    columns = [max(len(name), _CELL) for name in names] + [_CELL] * several
    heads = names + ["together"] * several
    longest = max(longest, *map(len, counts), 0)
    left = room - 8 - sum(map(_GAP.__add__, columns)) if several and room else _NAME
    first = len(names) if several and room and longest > left else 0
    width = max(_NAME if first else min(left, _NAME), longest)
    yield f"{'':{width}} {'blocks':>7}" + _cells(heads[first:], columns[first:]) + ("  (each cell: -o FILE)" if first else "")
    for name, one in counts.items():
        cells = [part(ran, one.all) for ran in (*one.cells, *([one.any] if several else ()))]
        yield f"{name:{width}} {one.all:>7}" + _cells(cells[first:], columns[first:])


def _cells(cells: Sequence[str], columns: Sequence[int]) -> str:
    return "".join(f"{'':{_GAP}}{cell:>{width}}" for cell, width in zip(cells, columns, strict=True))


def part(ran: int | None, of: int) -> str:
    """Format the number that ran, and the percentage; a dash if they could not run."""
    if ran is None:
        return "-"
    return f"{ran} {100 * ran / of:5.1f} %" if of else "0"


def overview(table: Table, room: int = 0) -> Iterator[str]:
    """All modules, and all files."""
    tally = Tally(table)
    modules, files = tally.modules(), tally.files()
    longest = max(map(len, (*modules, *files)), default=0)
    yield from rows(table, modules, room, longest)
    yield ""
    yield from rows(table, files, room, longest)


def functions(table: Table, room: int = 0) -> Iterator[str]:
    """All functions, by file."""
    yield from rows(table, {f"{file}:{function}": one for (file, function), one in Tally(table).functions().items()}, room)


def missed(table: Table, numbers: Iterable[int], sources: Sources) -> Iterator[str]:
    """The blocks of these numbers that nothing ran: file, line, function, the line's text, and why, where that is known."""
    explained = left = 0
    for number in Tally(table).missed(numbers):
        block = table.blocks[number]
        inside = f", in {block.inside}()" if block.inside != block.function else ""
        line = sources.line(block.file, block.line)
        why = reason(block.function, block.inside, line)
        explained, left = explained + bool(why), left + 1
        yield f"{block.file}:{block.line}  {block.function}(){inside}  {line}".rstrip() + (f"  -- {why}" if why else "")
    if explained:
        yield f"{count(left, 'block')}: for {explained} of them the reason is listed why nothing in the lab runs them"


def diff(table: Table, fit: Sequence[Patched], unfit: Sequence[Hunk], sources: Sources, every: bool) -> Iterator[str]:
    """Yield the lines that a patch changes with the cases that ran them; with ``every`` all of the cases, else some."""
    at: dict[tuple[str, int], list[int]] = {}
    for number, block in enumerate(table.blocks):
        for place in block.lines:
            at.setdefault(place, []).append(number)
    run = code = 0
    for one in fit:
        what = "made by the patch" if one.made else "that the patch would change"
        yield f"{one.file}, lines {what}:"
        for line in one.lines:
            blocks = at.get((one.file, line), [])
            who = table.who(blocks)
            run, code = run + bool(who), code + bool(blocks)
            yield f"{line:>7}  {_said(blocks, who):>10}  {sources.lines(one.file)[line - 1].expandtabs()}".rstrip()
            yield from (f"{'':21}{text}" for text in _names(who, f"{_short(one.file)}:{line}", every))
    for hunk in unfit:
        yield f"{hunk.after}: the hunk at line {hunk.new} is of another source than that of {table.kernel}"
    yield f"{run} of {count(code, 'line')} with code {'was' if run == 1 else 'were'} run"


def _short(file: str) -> str:
    """A file as people name it."""
    return next((file.removeprefix(folder) for folder in OURS if file.startswith(folder)), file)


def _said(blocks: Sequence[int], who: Sequence[Ran]) -> str:
    if not blocks:
        return "no code"
    if not who:
        return "NOT RUN"
    return count(len(who), "case") if who[0].case else "loading"


def _names(who: Sequence[Ran], place: str, every: bool) -> Iterator[str]:
    names = list(dict.fromkeys(one.case for one in who if one.case))
    shown = names if every else names[:_SHOWN]
    yield from shown
    if len(shown) < len(names):
        yield f"and {len(names) - len(shown)} more: kvmtest list --covers {place}"
