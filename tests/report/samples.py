# SPDX-License-Identifier: GPL-2.0-only
"""Runs made up for tests of reports, friendly and hostile ones, and what writes them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence

from hypothesis import strategies as st

from kvmtest import report
from kvmtest.model.case import Case
from kvmtest.model.host import Host, Tool
from kvmtest.model.record import EVENTS, VIEWS, Block, Observation, Record
from kvmtest.model.run import Head, Run
from kvmtest.model.value import Expected, Value
from kvmtest.model.verdict import VERDICTS, Verdict
from kvmtest.report.play import Gatherer, play

HOST = Host("6.1.0-1-amd64", "svm", "AuthenticAMD", "EPYC", {"npt": "Y", "kvm.tdp_mmu": "Y"}, name="amd1", accel="silicon")
LAB = HOST._replace(lab={"emulator": "QEMU 9", "cpu": "max", "kernel_source": "Debian bookworm, linux-image 6.1.1"}, accel="tcg")
STARTED = "2026-11-22T18:00:00Z"
#: Texts that try to break out of a format.
HOSTILE = (
    "\nok 1 - x",
    "KTAP version 1\n1..1\nok 1 x",
    "# SKIP # Subtest: x",
    "SKIP everything",
    "reboot: System halted",
    "\x1b[31mred\x1b]0;title\x07",
    "\x9b31m \x00 \x7f \r\b",
    "</script><script>throw 1</script><!--",
    "<!--<script </script x",
    "]]></failure> & \" ' &lt; {{ 1 }} {% raw %}",
    "\u2028\u2029 \u202e right to left \u200b",
    "\ud800 half a pair \udfff",
    "\ufffe \U0001f600 \U0010ffff",
    "9" * 2000,
    "a b " * 300,
)
Where = tuple[str, str, str]
_WHERE = ("init", "msi", "host")


def record(verdict: str, item: str = "cr3", reason: str | None = None) -> Record:
    """A record as a run has them."""
    found = Verdict(verdict)
    said = ("" if verdict in ("pass", "fail") else f"because {verdict}") if reason is None else reason
    deviation = "03a6e84069d1" if verdict in ("known", "fixed") else None
    if verdict in ("error", "skip"):
        return Record(item, found, reason=said, cite=("SDM vol. 3",), deviation=deviation)
    return Record(item, found, 0x5000, Expected((0,)), 0x5000, said, ("SDM vol. 3",), deviation)


def observation(
    records: Iterable[Record],
    words: str = "ap,intel,xapic,plant-a",
    where: Where = _WHERE,
    seconds: float = 0.001,
    state: str = "",
) -> Observation:
    """Return the observation of a case with only the parameters ``target`` and ``state``."""
    event, trigger, _ = where
    params = (("target", words.partition(",")[0]), *([("state", state)] if state else ()))
    case = Case(f"{event}.{trigger}/{words}", params)
    return Observation(case, *where, (Block(tuple(records)),), seconds)


def made(
    verdict: str,
    item: str = "cr3",
    words: str = "ap,xapic,plant-a",
    reason: str | None = None,
    where: Where = _WHERE,
    state: str = "",
) -> Observation:
    """An observation of one record."""
    return observation([record(verdict, item, reason)], words, where, state=state)


def of_each() -> list[Observation]:
    """A test of each verdict, and one that has them all."""
    return [made(v, f"item-{v}") for v in VERDICTS] + [made(v, "all", f"case-{v}") for v in VERDICTS]


def saved(
    seen: Iterable[Observation], name: str = "", host: Host = HOST, started: str = STARTED, version: str = "0.1.0"
) -> Run:
    """A run that showed ``seen``."""
    found = tuple(seen)
    cases = tuple(dict.fromkeys(one.case for one in found if one.case))
    return Run(Head(Tool(version), host, started, name), cases, found, 0.5)


def written(name: str, *runs: Run) -> str:
    """Return ``runs`` in the format ``name``; it must be valid UTF-8."""
    out = io.StringIO()
    writer = report.writer(name, out, len(runs))
    for run in runs:
        play(run, Gatherer(writer))
    out.getvalue().encode()
    return out.getvalue()


def counts(seen: Iterable[Observation]) -> Counter[Verdict]:
    """Results by verdict."""
    return Counter(record.verdict for one in seen for record in one.records)


TEXTS = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(HOSTILE)
_NAMES = st.from_regex(r"[a-z0-9-]{1,6}", fullmatch=True)
_ITEMS = st.from_regex(r"[a-z0-9_.-]{1,6}", fullmatch=True)
_TEXT_VALUES = st.sampled_from(("0x1|0x2", "RUNNABLE", "0xzz", "0x", "0x" + "g" * 2000)) | TEXTS
_VALUES: st.SearchStrategy[Value] = st.integers(0, 1 << 70) | _TEXT_VALUES
_EXPECTED = st.builds(
    Expected, st.lists(_VALUES, min_size=1, max_size=3).map(tuple), st.none() | st.integers(0, 1 << 64), st.just("") | _NAMES
)
RECORDS = st.builds(
    Record,
    _ITEMS,
    st.sampled_from(VERDICTS),
    st.none() | _VALUES,
    st.none() | _EXPECTED,
    st.none() | _VALUES,
    TEXTS,
    st.lists(TEXTS, max_size=2).map(tuple),
    st.none() | TEXTS,
)
_PARAMS = st.dictionaries(_NAMES, st.integers(0, 300) | TEXTS, max_size=3).map(lambda found: tuple(found.items()))
_CASES = st.builds(Case, TEXTS, _PARAMS)
_BLOCKS = st.lists(st.lists(RECORDS, max_size=3).map(lambda found: Block(tuple(found))), max_size=3).map(tuple)
OBSERVATIONS = st.builds(
    Observation,
    st.none() | _CASES,
    st.sampled_from(EVENTS),
    _NAMES,
    st.sampled_from(VIEWS),
    _BLOCKS,
    st.none() | st.floats(0, 1000),
)


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    """Any host that a file may name."""
    lab = {"emulator": draw(TEXTS), "cpu": draw(TEXTS), "kernel_source": draw(TEXTS)}
    parameters = draw(st.dictionaries(TEXTS, TEXTS, max_size=2))
    facts = [draw(TEXTS) for _ in range(4)]
    return Host(*facts, parameters, draw(st.none() | st.just(lab)), draw(TEXTS), draw(TEXTS))  # type: ignore[misc]


@st.composite
def saved_runs(draw: st.DrawFn) -> list[Run]:
    """One run or two, of anything."""
    made = st.builds(saved, st.lists(OBSERVATIONS, max_size=6), TEXTS, hosts(), TEXTS, TEXTS)
    found = draw(st.lists(made, min_size=1, max_size=2))
    return [run._replace(head=run.head._replace(name=f"{run.name} {i}")) for i, run in enumerate(found)]


def reported(runs: Sequence[Run]) -> list[str]:
    """The names of ``runs``."""
    return [run.name for run in runs]
