# SPDX-License-Identifier: GPL-2.0-only
"""Coverage beside KVM's source, as pages that open offline: an index with a page for each file, or all of it in one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from html import escape
from importlib import resources
from typing import Any, TextIO

from kvmtest.coverage import text
from kvmtest.coverage.source import OURS, Sources
from kvmtest.coverage.table import Table, bits
from kvmtest.coverage.tally import Counts, Tally
from kvmtest.results.lines import spans

__all__ = ("folder", "page")


def folder(table: Table, sources: Sources, path: str) -> None:
    """Write index.html and a page for each file to the folder ``path``. Raises OSError."""
    made = _Pages(table, sources)
    os.makedirs(path, exist_ok=True)
    for file in made.files:
        with open(os.path.join(path, _page_name(file)), "w", encoding="utf-8") as out:
            body = ['<p><a href="index.html">all files</a></p>', *made.source(file)]
            out.writelines(made.whole(file, body))
    with open(os.path.join(path, "index.html"), "w", encoding="utf-8") as out:
        out.writelines(made.whole(made.title, made.index(lambda file: _page_name(file))))


def page(table: Table, sources: Sources, out: TextIO) -> None:
    """Write all of it as one page."""
    made = _Pages(table, sources)
    body = [*made.index(lambda file: f"#{_id(file)}"), *(line for file in made.files for line in made.source(file))]
    out.writelines(made.whole(made.title, body))


def _page_name(file: str) -> str:
    return f"{_id(file)}.html"


def _id(file: str) -> str:
    return file.replace("/", "_")


class _Pages:
    """The contents of the pages of a ``table``."""

    def __init__(self, table: Table, sources: Sources) -> None:
        self._table = table
        self._sources = sources
        self._tally = Tally(table)
        self._lines: dict[str, dict[int, list[int]]] = {}
        for number in table.loaded:
            for file, line in table.blocks[number].lines:
                self._lines.setdefault(file, {}).setdefault(line, []).append(number)
        self.files = [file for file in sorted(self._lines) if file.startswith(OURS) and sources.lines(file)]
        self.title = f"KVM of {table.kernel}"
        #: The cases that ran a line, as spans for each cell, and their number on the page.
        self._who: dict[str, int] = {}

    def index(self, link: Any) -> Iterator[str]:
        """The tables of modules and files."""
        yield f"<h1>{escape(self.title)}: blocks of its code that cases ran</h1>"
        for line in list(text.head(self._table))[1:]:
            yield f"<p>{escape(line)}</p>"
        yield from self._counts("module", self._tally.modules(), lambda name: escape(name))
        there = set(self.files)

        def name(file: str) -> str:
            return f'<a href="{escape(link(file))}">{escape(file)}</a>' if file in there else escape(file)

        yield from self._counts("file", self._tally.files(), name)

    def _counts(self, what: str, counts: dict[str, Counts], name: Any) -> Iterator[str]:
        several = len(self._table.cells) > 1
        heads = [what, "blocks", *(cell.name for cell in self._table.cells), *(["together"] * several)]
        row = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
        yield f"<h2>By {what}</h2><table><thead><tr>{row}</tr></thead><tbody>"
        for key, one in counts.items():
            cells = [str(one.all), *(text.part(ran, one.all) for ran in (*one.cells, *([one.any] * several)))]
            yield f"<tr><td>{name(key)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        yield "</tbody></table>"

    def source(self, file: str) -> Iterator[str]:
        """The source of ``file``, with the number of cases that ran each line which has code."""
        yield f'<h2 id="{_id(file)}">{escape(file)}</h2><ol class="source">'
        lines = self._lines[file]
        for number, line in enumerate(self._sources.lines(file), 1):
            mark = f'<a href="#{_id(file)}:{number}">{number}</a>'
            kind, count = self._line(lines.get(number))
            yield f'<li id="{_id(file)}:{number}"{kind}>{mark}{count}{escape(line.expandtabs())}</li>'
        yield "</ol>"

    def _line(self, blocks: list[int] | None) -> tuple[str, str]:
        if blocks is None:
            return "", "<i></i>"
        masks = [cell.mask(blocks) for cell in self._table.cells]
        if not any(masks):
            loading = any(block in cell.loading for cell in self._table.cells for block in blocks)
            return (' class="run"', "<i>loading</i>") if loading else (' class="not"', "<i>0</i>")
        data = json.dumps([spans(bits(mask)) for mask in masks], separators=(",", ":"))
        who = self._who.setdefault(data, len(self._who))
        count = sum(mask.bit_count() for mask in masks)
        return ' class="run"', f'<button data-who="{who}" aria-expanded="false" title="which cases">{count}</button>'

    def whole(self, title: str, body: Iterable[str]) -> Iterator[str]:
        """A page, line by line."""
        files = resources.files("kvmtest.coverage") / "page"
        style, script = (files.joinpath(f"coverage.{kind}").read_text("utf-8") for kind in ("css", "js"))
        lines = list(body)
        cells = [{"name": cell.name, "cases": cell.cases} for cell in self._table.cells]
        who = ",".join(self._who)
        self._who.clear()
        data = f'{{"cells":{json.dumps(cells)},"who":[{who}]}}'.replace("<", "\\u003c")
        yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">\n'
        yield f"<title>{escape(title)}</title><style>\n{style}</style></head><body>\n"
        yield from (f"{line}\n" for line in lines)
        yield f'<script type="application/json" id="cases">{data}</script><script>\n{script}</script></body></html>\n'
