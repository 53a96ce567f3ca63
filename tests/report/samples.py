# SPDX-License-Identifier: GPL-2.0-only
"""Results made up for tests of reports, friendly and hostile ones, and what writes them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence

from hypothesis import strategies as st

from kvmtest import report
from kvmtest.engine.result import EVENTS, VERDICTS, VIEWS, CaseTime, Host, Result
from kvmtest.report import Run
from kvmtest.report.saved import Saved, write

HOST = Host("6.1.0-1-amd64", "svm", "AuthenticAMD", "EPYC", {"npt": "Y", "kvm.tdp_mmu": "Y"})
LAB = HOST._replace(lab={"emulator": "QEMU 9", "cpu": "max", "kernel_source": "Debian bookworm, linux-image 6.1.1"})
STARTED = "2026-11-22T18:00:00Z"
#: What a file may hold to break out of a format.
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


def made(
    verdict: str,
    item: str = "cr3",
    case: str = "ap,xapic,plant-a",
    reason: str | None = None,
    where: tuple[str, str, str] = ("init", "msi", "host"),
) -> Result:
    """A result as a run has them."""
    said = ("" if verdict in ("pass", "fail") else f"because {verdict}") if reason is None else reason
    values = ("0x5000", "0x0", "0x5000") if verdict not in ("error", "skip") else (None, None, None)
    group = ".".join(where)
    deviation = "03a6e84069d1" if verdict in ("known", "fixed") else None
    return Result(f"{group}.{item}", *where, item, f"{group}/{case}", *values, verdict, said, ("SDM vol. 3",), deviation)


def of_each() -> list[Result]:
    """A test of each verdict, and one that has them all."""
    return [made(v, f"item-{v}") for v in VERDICTS] + [made(v, "all", f"case-{v}") for v in VERDICTS]


def saved(results: Iterable[Result], name: str = "", host: Host = HOST, started: str = STARTED) -> Saved:
    """A run with ``results``."""
    found = tuple(results)
    cases = tuple(CaseTime(case, 0.001) for case in dict.fromkeys(result.case for result in found))
    return Saved(name, host, started, 0.5, cases, found)


def written(name: str, *runs: Saved) -> str:
    """What the format ``name`` makes of ``runs``; fit for a file in UTF-8."""
    out = io.StringIO()
    told: Sequence[Run] = [Run(run.name, run.version, run.accel) for run in runs]
    writer = report.writer(name, out, told)
    for run in runs:
        write(run, writer)
    out.getvalue().encode()
    return out.getvalue()


def counts(results: Iterable[Result]) -> Counter[str]:
    """Results by verdict."""
    return Counter(result.verdict for result in results)


TEXTS = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(HOSTILE)
_NAMES = st.from_regex(r"[a-z0-9-]{1,6}", fullmatch=True)
_ITEMS = st.from_regex(r"[a-z0-9_.-]{1,6}", fullmatch=True)
_ODD = ("0x1|0x2", "RUNNABLE", "0xzz", "0x", "0x" + "f" * 2000)
_VALUES = st.none() | st.integers(0, 1 << 70).map(hex) | st.sampled_from(_ODD) | TEXTS


@st.composite
def results(draw: st.DrawFn) -> Result:
    """Any result that a file may hold."""
    event, trigger, view, item = draw(st.sampled_from(EVENTS)), draw(_NAMES), draw(st.sampled_from(VIEWS)), draw(_ITEMS)
    where = (f"{event}.{trigger}.{view}.{item}", event, trigger, view, item, draw(TEXTS))
    values = (draw(_VALUES), draw(_VALUES), draw(_VALUES))
    cite = tuple(draw(st.lists(TEXTS, max_size=2)))
    return Result(*where, *values, draw(st.sampled_from(VERDICTS)), draw(TEXTS), cite, draw(st.none() | TEXTS))


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    """Any host that a file may name."""
    lab = {"emulator": draw(TEXTS), "cpu": draw(TEXTS), "kernel_source": draw(TEXTS)}
    parameters = draw(st.dictionaries(TEXTS, TEXTS, max_size=2))
    return Host(draw(TEXTS), draw(TEXTS), draw(TEXTS), draw(TEXTS), parameters, draw(st.none() | st.just(lab)))


@st.composite
def saved_runs(draw: st.DrawFn) -> list[Saved]:
    """One run or two, of anything."""
    found = draw(st.lists(st.builds(saved, st.lists(results(), max_size=6), TEXTS, hosts(), TEXTS), min_size=1, max_size=2))
    return [run._replace(version=draw(TEXTS), name=f"{run.name} {i}") for i, run in enumerate(found)]
