# SPDX-License-Identifier: GPL-2.0-only
"""Coverage as text, as pages and as a tracefile."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from kvmtest.coverage import html, lcov, text
from kvmtest.coverage.patch import hunks, patched
from kvmtest.coverage.source import Sources
from kvmtest.coverage.tally import REST, Counts, Tally
from tests.coverage.made import FILE, source, table

_HEAD = f"--- a/{FILE}\n+++ b/{FILE}\n"
_DIFF = f"{_HEAD}@@ -9,3 +9 @@\n-\t\treset(x);\n-\telse\n-\t\twait(x);\n+1\n@@ -17 +15 @@\n-\twait(0);\n+2\n"


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources([str(source(tmp_path))])


def test_counts_by_whatever() -> None:
    tally = Tally(table())
    assert tally.modules() == {"kvm": Counts(5, (4, 3), 4)}
    assert tally.files() == {FILE: Counts(5, (4, 3), 4)}
    assert tally.functions()[FILE, "accept"] == Counts(3, (3, 2), 3)
    assert tally.missed(range(5)) == [4]


def test_a_module_that_a_cell_had_not_loaded_is_no_zero() -> None:
    made = table()
    blocks = [block._replace(module="kvm_intel", file="include/linux/x.h") for block in made.blocks]
    made = made._replace(blocks=[*made.blocks, *blocks])
    made.cells[1].add("init.msi/ap,intel", (5,))
    tally = Tally(made)
    assert tally.modules()["kvm_intel"] == Counts(5, (None, 1), 1)
    assert tally.files()[REST] == Counts(5, (None, 1), 1)
    row = next(line for line in text.overview(made) if line.startswith("kvm_intel"))
    assert row.split() == ["kvm_intel", "5", "-", "1", "20.0", "%", "1", "20.0", "%"]


def test_the_overview_has_a_column_a_cell_and_one_for_all() -> None:
    assert list(text.head(table())) == [
        "KVM of 6.1.0-9: blocks of its code that cases ran",
        "  6.1/svm: 3 cases, 2026-11-29T00:00:00Z",
        "  6.1/vmx: 1 case, ",
    ]
    head, kvm, *_ = text.overview(table())
    assert head.split() == ["blocks", "6.1/svm", "6.1/vmx", "together"]
    assert kvm.split() == ["kvm", "5", "4", "80.0", "%", "3", "60.0", "%", "4", "80.0", "%"]
    alone = table()._replace(cells=table().cells[:1])
    assert next(text.overview(alone)).split() == ["blocks", "6.1/svm"]


def test_a_terminal_without_room_for_each_cell_gets_all_together() -> None:
    wide, fits, narrow = (list(text.overview(table(), room)) for room in (90, 73, 72))
    assert wide == list(text.overview(table())) and max(map(len, wide)) <= 90
    assert [line.split() for line in fits] == [line.split() for line in wide] and max(map(len, fits)) == 73
    assert narrow[0].split()[:2] == ["blocks", "together"] and narrow[1].split() == ["kvm", "5", "4", "80.0", "%"]
    assert max(map(len, narrow)) <= 80 and {len(line) for line in narrow if line and "-o" not in line} == {57}
    alone = table()._replace(cells=table().cells[:1])
    assert list(text.overview(alone, 20)) == list(text.overview(alone))


def test_what_nothing_ran_is_shown_with_its_source(sources: Sources) -> None:
    made = table()
    assert list(text.missed(made, range(5), sources)) == [f"{FILE}:16  unused()  {{"]
    made = made._replace(cells=made.cells[1:])
    assert f"{FILE}:11  accept()  wait(x);" in list(text.missed(made, range(5), sources))
    # An inlined function is reported with where it is.
    made.cells[0].ran.pop(3)
    assert f"{FILE}:4  ready(), in accept()  return x + 1;" in list(text.missed(made, range(5), sources))


def test_a_patch_is_reported_line_by_line(sources: Sources) -> None:
    lines = list(text.diff(table(), *patched(hunks(_DIFF), sources), sources, every=False))
    reported = [line.split() for line in lines]
    assert lines[0] == f"{FILE}, lines that the patch would change:"
    assert reported[1] == ["9", "3", "cases", "reset(x);"] and reported[2:4] == [["init.msi/ap,intel"], ["init.msi/bsp,intel"]]
    assert ["10", "no", "code", "else"] in reported and ["11", "1", "case", "wait(x);"] in reported
    assert ["17", "NOT", "RUN", "wait(0);"] in reported
    assert lines[-1] == "2 of 3 lines with code were run"


def test_many_cases_of_a_line_are_a_command_to_list_them(sources: Sources) -> None:
    made = table()
    for number in range(9):
        made.cells[0].add(f"init.msi/{number}", (1,))
    lines = list(text.diff(made, *patched(hunks(_DIFF), sources), sources, every=False))
    assert any(line.endswith("and 8 more: kvmtest list --covers lapic.c:9") for line in lines)
    every = list(text.diff(made, *patched(hunks(_DIFF), sources), sources, every=True))
    assert sum("init.msi/" in line for line in every) == 11 and not any("more:" in line for line in every)


def test_a_tracefile_is_one_by_its_grammar(sources: Sources) -> None:
    out = io.StringIO()
    lcov.write(table(), sources, out)
    lines = out.getvalue().splitlines()
    grammar = r"TN:\w+|SF:/.+|FN:\d+,\w+|FNDA:\d+,\w+|(FNF|FNH|LF|LH):\d+|DA:\d+,\d+|end_of_record"
    assert all(re.fullmatch(grammar, line) for line in lines)
    assert lines[0] == "TN:kvmtest" and lines[1] == f"SF:{sources.path(FILE)}" and lines[-1] == "end_of_record"
    counts = dict(line.removeprefix("DA:").split(",") for line in lines if line.startswith("DA:"))
    # The count is the number of cases, in any cell.
    assert (counts["8"], counts["9"], counts["11"], counts["17"]) == ("4", "3", "1", "0") and "10" not in counts
    assert f"LF:{len(counts)}" in lines and f"LH:{sum(count != '0' for count in counts.values())}" in lines
    assert "FNDA:0,unused" in lines and "FNDA:4,accept" in lines and "FNF:3" in lines and "FNH:2" in lines


def test_files_whose_source_is_not_here_are_left_out(tmp_path: Path) -> None:
    out = io.StringIO()
    lcov.write(table(), Sources([str(tmp_path)]), out)
    assert out.getvalue() == ""


def _reported(page: str) -> dict[str, list[object]]:
    found = re.search(r'<script type="application/json" id="cases">(.*)</script><script>', page)
    assert found
    reported: dict[str, list[object]] = json.loads(found[1])
    return reported


def test_a_page_shows_the_source_with_who_ran_it(sources: Sources) -> None:
    out = io.StringIO()
    html.page(table(), sources, out)
    page = out.getvalue()
    ident = FILE.replace("/", "_")
    (nine,) = re.findall(rf'<li id="{ident}:9" class="run">.*data-who="(\d+)".*>3</button> {{16}}reset\(x\);</li>', page)
    assert _reported(page)["who"][int(nine)] == [[[0, 1]], [0]]
    assert f'<li id="{ident}:17" class="not">' in page and f'<li id="{ident}:10"><a' in page
    assert "#include &quot;lapic.h&quot;" in page
    assert f'<a href="#{ident}">{FILE}</a>' in page and "<td>4  80.0 %</td>" in page


def test_a_folder_has_an_index_and_a_page_a_file(sources: Sources, tmp_path: Path) -> None:
    html.folder(table(), sources, str(tmp_path / "out"))
    name = FILE.replace("/", "_") + ".html"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([name, "index.html"])
    assert f'<a href="{name}">' in (tmp_path / "out/index.html").read_text()
    page = (tmp_path / "out" / name).read_text()
    assert "http://" not in page and "https://" not in page and len(_reported(page)["who"]) == 3


def test_a_name_that_would_be_a_tag_stays_text(sources: Sources) -> None:
    made = table()
    made.cells[0].add("</script><b>", (0,))
    out = io.StringIO()
    html.page(made, sources, out)
    assert "<b>" not in out.getvalue() and "</script><b" not in out.getvalue()
