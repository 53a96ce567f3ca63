# SPDX-License-Identifier: GPL-2.0-only
"""A run compared with an earlier one: what is new, gone, the same, and what cannot be determined."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.compare import changes
from kvmtest.compare.baseline import Comparison, PairError, against, compare
from kvmtest.model.case import Case
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.run import Run
from kvmtest.model.value import Expected
from kvmtest.model.verdict import VERDICTS, Verdict
from tests.report.samples import HOST, OBSERVATIONS, saved

INIT = ("init", "msi", "host")
LOG = ("none", "lab", "kernel")


def _record(item: str, verdict: str, observed: int | str | None = 1, reason: str = "why", planted: int = 1) -> Record:
    if verdict in ("skip", "error"):
        return Record(item, Verdict(verdict), reason=reason)
    return Record(
        item,
        Verdict(verdict),
        planted,
        Expected((0,)),
        observed,
        reason,
        ("SDM",),
        "03a6e84069d1" if verdict == "known" else None,
    )


def _seen(*records: Record, words: str = "ap,x", where: tuple[str, str, str] = INIT) -> Observation:
    event, trigger, _ = where
    return Observation(Case(f"{event}.{trigger}/{words}", (("target", "ap"),)), *where, (Block(records),))


def _run(*seen: Observation, name: str = "a.json", kernel: str = "6.1.0", host: str = "amd1") -> Run:
    return saved(seen, name, HOST._replace(kernel=kernel, name=host))


def _compare(before: Sequence[Record], now: Sequence[Record], strict: bool = False) -> Comparison:
    return compare(_run(_seen(*before)), _run(_seen(*now)), strict)


def _counts(found: Comparison) -> dict[str, int]:
    lists = {name: getattr(found, name) for name in Comparison._fields if name not in ("old", "run")}
    return {name: len(part) for name, part in lists.items() if part}


def _text(found: Comparison | list[Comparison]) -> str:
    return "\n".join(changes.lines(found if isinstance(found, list) else [found]))


@pytest.mark.parametrize(
    ("before", "now", "what"),
    [
        ("pass", "fail", "new"),
        ("skip", "fail", "new"),
        ("info", "error", "new"),
        ("known", "fail", "new"),
        # A result that could not be determined before may fail for the first time, and the other way round.
        ("error", "fail", "new"),
        ("fail", "error", "new"),
        ("pass", "known", "new_known"),
        ("fail", "pass", "gone"),
        ("known", "fixed", "gone"),
        ("error", "info", "gone"),
        ("fail", "fail", "same"),
        ("error", "error", "same"),
        ("known", "known", "same"),
        ("fail", "known", "same"),
        # A skip does not mean that it is fixed.
        ("fail", "skip", "undetermined"),
        ("pass", "skip", "untried"),
        ("fixed", "skip", "untried"),
        ("info", "skip", ""),
        ("pass", "info", ""),
        ("info", "info", ""),
    ],
)
def test_what_became_of_it(before: str, now: str, what: str) -> None:
    found = _compare([_record("cr2", before)], [_record("cr2", now)])
    assert _counts(found) == ({what: 1} if what else {})
    assert found.failed == (what == "new")


def test_strict_makes_a_new_known_a_failure() -> None:
    assert _counts(_compare([_record("cr2", "pass")], [_record("cr2", "known")], strict=True)) == {"new": 1}
    assert _counts(_compare([_record("cr2", "fail")], [_record("cr2", "known")], strict=True)) == {"same": 1}


def test_an_undefined_value_that_changed_is_reported_apart_and_fails_nothing() -> None:
    before, now = (
        [_record("cr2", "info", 1), _record("msr.tsc", "info", 1)],
        [_record("cr2", "info", 2), _record("msr.tsc", "info", 2)],
    )
    found = _compare(before, now)
    assert _counts(found) == {"info": 1} and not found.failed
    text = _text(found)
    assert "cr2 after INIT: 0x1 -> 0x2" in text and "kvmtest run init.msi.host.cr2/ap,x" in text and "tsc" not in text


def test_undefined_values_that_changed_in_the_same_places_are_one_entry() -> None:
    names = ("cr2", "dr0", "dr1", "dr2", "dr3")
    found = _compare([_record(name, "info", 1) for name in names], [_record(name, "info", 2) for name in names])
    text = _text(found)
    assert "cr2 after INIT: 0x1 -> 0x2" in text and "so do dr0, dr1, dr2, dr3" in text and "dr0 after" not in text
    alone = _compare([_record("cr2", "info"), _record("dr0", "info")], [_record("cr2", "info", 2), _record("dr0", "info")])
    assert "so do" not in _text(alone)


def test_what_each_boot_measures_anew_is_no_change() -> None:
    before, now = ([_record("msr.hv_tsc_frequency", "info", hz), _record("cr2", "info", hz)] for hz in (0x9ABE26A8, 0x9ABE22C0))
    found = _compare(before, now)
    assert [change.either.item for change in found.info] == ["cr2"] and not found.failed


def test_a_case_that_one_only_has_is_said() -> None:
    x, y = _seen(_record("cr2", "pass")), _seen(_record("cr2", "fail"), words="ap,y")
    found = compare(_run(x), _run(x, y))
    assert len(found.new) == 1 and found.only_now == ["init.msi/ap,y"]
    found = compare(_run(x, y), _run(x))
    assert not found.gone and found.only_then == ["init.msi/ap,y"]
    assert "Cases in the old results only: 1, e.g. init.msi/ap,y" in _text(found)


def test_a_departure_whose_record_is_missing_is_not_gone() -> None:
    old = [_record("cr2", "fail"), _record("cr0", "pass")]
    assert _counts(_compare(old, [_record("cr0", "pass")])) == {"undetermined": 1}
    # The case ran, and ended before this view's turn.
    guest = _seen(_record("cr2", "fail"), where=("init", "msi", "guest"))
    host = _seen(_record("cr2", "pass"))
    assert _counts(compare(_run(host, guest), _run(host))) == {"undetermined": 1}


def test_of_a_case_that_ran_several_times_the_worst_counts() -> None:
    good, bad = _seen(_record("cr2", "pass")), _seen(_record("cr2", "fail"))
    assert _counts(compare(_run(good, good), _run(good, bad, good))) == {"new": 1}
    assert _counts(compare(_run(good, bad), _run(bad))) == {"same": 1}
    assert _counts(compare(_run(bad, good), _run(good, good))) == {"gone": 1}


def test_what_was_not_determined_in_time_stands_apart_and_fails() -> None:
    """A host that is too busy for a second try is rare; a vCPU that lost its INIT shows nothing else."""
    late = _record("runs", "error", reason="out of time: KVM_RUN: no exit within 1 s (vcpu 1, at 0:fff0)")
    good = _record("runs", "pass")
    before = _run(_seen(good), _seen(good, words="ap,y"))
    found = compare(before, _run(_seen(late), _seen(good, words="ap,y")))
    assert _counts(found) == {"late": 1} and found.failed and not found.new
    assert "the host was too busy" in _text(found) and "init.msi.host.runs/ap,x" in _text(found)
    # Another error is none.
    other = _record("runs", "error", reason="KVM_RUN: EFAULT")
    assert _counts(compare(before, _run(_seen(other), _seen(good, words="ap,y")))) == {"new": 1}


def test_selectors_leave_out_of_both_but_never_what_a_kernel_logs() -> None:
    old = _run(_seen(_record("cr0", "fail")), _seen(_record("cr2", "fail"), words="ap,other"))
    now = _run(_seen(_record("cr0", "fail"), _record("cr4", "fail")))
    found = compare(old, now, selectors=("cr0",))
    assert _counts(found) == {"same": 1}
    assert _counts(compare(old, now)) == {"same": 1, "new": 1, "only_then": 1}
    log = _seen(_record("log", "fail", None, "WARNING: at x86.c:1"), where=LOG)
    assert _counts(compare(_run(), _run(log), selectors=("cr0",)))["new"] == 1


def _log(reason: str = "", verdict: str = "fail", words: str = "x") -> Run:
    return _run(_seen(Record("log", Verdict(verdict), reason=reason), words=words, where=LOG))


def test_a_kernels_log_by_what_it_says_not_where() -> None:
    warn = "WARNING: CPU: 0 PID: 71 at x86.c:12032 kvm_vcpu_reset+0x1b/0x5d0\nCall Trace:"
    again = warn.replace("71", "99").replace("0x1b", "0x2c")
    quiet = _log(verdict="pass")
    # Which case ran when the kernel spoke is chance.
    found = compare(_log(warn), _log(again, words="y"))
    assert len(found.same) == 1 and not found.failed and not found.gone
    assert _counts(compare(_log(warn), _log("kernel BUG at mmu.c:1"))) == {"new": 1, "gone": 1}
    assert _counts(compare(quiet, _log(warn))) == {"new": 1}
    assert _counts(compare(_log(warn), quiet)) == {"gone": 1}
    assert _counts(compare(_log(warn), _run())) == {"undetermined": 1}
    assert _counts(compare(quiet, quiet)) == {}


def test_what_is_new_is_a_finding_with_what_was_before_and_the_command() -> None:
    triggers, words = ("msi", "latched", "irqfd"), [f"ap,c{i}" for i in range(20)]

    def run(record: Record, **more: str) -> Run:
        other = _record("cr0", "known")
        return _run(*(_seen(record, other, words=w, where=("init", t, "host")) for t in triggers for w in words), **more)

    found = compare(
        run(_record("cr2", "pass", 0, planted=5)), run(_record("cr2", "fail", 5, planted=5), kernel="6.12.0", name="b")
    )
    assert _counts(found) == {"new": 60, "same": 60}
    text = _text(found)
    assert "Against a.json, results that depart from the manuals: 60 new, 0 gone, 60 the same" in text
    assert "  kernel: 6.1.0 -> 6.12.0" in text
    assert "New (1 finding, 60 results):\nFAIL  cr2 keeps the planted value after INIT\n" in text
    assert "      before    pass, observed 0x0\n" in text
    assert "      where     " in text and "kvmtest run init.msi.host.cr2/ap,c0" in text
    # A departure that was there before is not new.
    assert "cr0" not in text and "The same: 60 known" in text
    gone = _text(compare(found.run, found.old))
    assert "Gone (1 finding, 60 results):\nFAIL  cr2 keeps" in gone and "      now       pass, observed 0x0\n" in gone


def test_what_was_judged_and_is_not_now_is_a_list_of_its_own() -> None:
    verdicts = {"cr2": "pass", "cr3": "known", "cr4": "pass", "cr0": "pass", "dr7": "skip"}
    then = [_record(item, verdict) for item, verdict in verdicts.items()]
    now = [_record(item, "skip", reason=f"no {item}") for item in ("cr2", "cr3", "cr4")] + [_record("cr0", "pass")]
    found = _compare(then, now)
    text = _text(found)
    assert "Judged before and not now (3 results, then 1 known, 2 pass):\n  1 result of cr2: no cr2\n" in text
    assert "  1 result of cr3: no cr3\n" in text and "  1 result of cr4: no cr4\n" in text
    assert "kvmtest run init.msi.host.cr2/ap,x" in text and not found.failed and "dr7" not in text and "cr0" not in text
    # It is said of all items that have a reason in common at once.
    named = [f"dr{i}" for i in range(6)]
    many = _text(_compare([_record(i, "pass") for i in named], [_record(i, "skip", reason="no nesting") for i in named]))
    assert "(6 results, then 6 pass):\n  6 results of dr0, dr1, dr2 and 3 more items: no nesting\n" in many
    host, guest = _seen(_record("cr2", "pass")), _seen(_record("cr2", "pass"), where=("init", "msi", "guest"))
    assert "  1 result of cr2: the case ended before it\n" in _text(compare(_run(host, guest), _run(host)))
    assert "Judged before" not in _text(compare(_run(host), _run(host, guest)))


def test_another_wrong_value_is_shown_and_not_new() -> None:
    found = _compare([_record("cr2", "fail", 5)], [_record("cr2", "fail", 7)])
    assert not found.failed and "The same, with another value (1 finding, 1 result):" in _text(found)
    same = _text(_compare([_record("msr.tsc", "fail", 5)], [_record("msr.tsc", "fail", 7)]))
    assert "another value" not in same


def test_many_findings_are_counted() -> None:
    now = [_record(f"x{i}", "fail", f"text {i}") for i in range(40)]
    text = _text(_compare([], now))
    assert text.count("\nFAIL ") == 30 and "      and 10 more" in text


def test_a_file_speaks_to_no_terminal() -> None:
    evil = "0x1\x1b[31m"
    found = compare(_run(_seen(_record("a", "pass", evil)), name=evil), _run(_seen(_record("a", "fail", evil, evil))))
    assert "\\x1b" in _text(found) and "\x1b" not in _text(found)


def test_runs_are_compared_by_name_or_by_their_hosts() -> None:
    good, bad = _seen(_record("cr2", "pass")), _seen(_record("cr2", "fail"))
    # One with one, whatever they are called.
    (one,) = against([_run(good, name="a")], [_run(bad, name="b")])
    assert one.failed
    old = [_run(good, name="6.1/svm"), _run(good, name="6.1/vmx"), _run(bad, name="gone")]
    found = against(old, [_run(good, name="6.1/svm"), _run(bad, name="6.1/vmx"), _run(bad, name="more")])
    # A run without an old counterpart is new as a whole.
    assert [one.failed for one in found] == [False, True, False, True]
    text = _text(found)
    assert (
        "6.1/vmx: Against 6.1/vmx" in text
        and "gone is in the old results only" in text
        and "more is in the new results only" in text
    )
    hosts = [_run(good, name=f"old-{n}.json", host=n) for n in "ab"], [_run(bad, name=f"new-{n}.json", host=n) for n in "ba"]
    paired = [(one.old.host.name, one.run.host.name) for one in against(*hosts) if one.old and one.run]
    assert paired == [("a", "a"), ("b", "b")]
    with pytest.raises(PairError, match="no run of x has the name") as error:
        against([_run(good, name="a", host=""), _run(good, name="b", host="")], [_run(good, name="x", host="")])
    assert "\n" not in str(error.value)


_RECORDS = st.lists(
    st.builds(_record, st.sampled_from(["cr0", "cr2"]), st.sampled_from(VERDICTS), st.integers(0, 2)),
    unique_by=lambda record: record.item,
)
_OBSERVATIONS = st.lists(
    st.builds(
        lambda records, words, view: _seen(*records, words=words, where=("init", "msi", view)),
        _RECORDS,
        st.sampled_from("xy"),
        st.sampled_from(["host", "guest"]),
    ),
    unique_by=lambda seen: (seen.case, seen.view),
)


@given(_OBSERVATIONS, _OBSERVATIONS)
def test_every_departure_is_counted_once(old: list[Observation], now: list[Observation]) -> None:
    found = compare(_run(*old), _run(*now))
    of_now = [change.now for part in (found.new, found.new_known, found.late, found.same) for change in part]
    departs = [result for seen in now for result in seen.results if result.verdict.departs]
    assert Counter(of_now) == Counter(departs)
    ran = {seen.case for seen in now}
    then = [result for seen in old if seen.case in ran for result in seen.results if result.verdict.departs]
    of_then = [c.before for part in (found.gone, found.same, found.undetermined, found.new) for c in part if c.before]
    assert set(then) == {result for result in of_then if result.verdict.departs}
    back = compare(_run(*now), _run(*now))
    assert not back.new and not back.gone and not back.undetermined and not back.info


@given(st.lists(OBSERVATIONS, max_size=5), st.lists(OBSERVATIONS, max_size=5), st.booleans())
def test_whatever_files_hold_it_is_printable(old: list[Observation], now: list[Observation], strict: bool) -> None:
    found = compare(_run(*old), _run(*now), strict)
    for line in changes.lines([found]):
        assert line.isprintable()
    assert not compare(found.run, found.run, strict).failed


def test_a_comparison_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _compare([_record("cr0", "pass")], [_record("cr0", "fail", 0x11, planted=0x80050033)])
    for wide in (60, 80, 132):
        monkeypatch.setattr(changes, "columns", lambda wide=wide: wide)
        lines = list(changes.lines([found]))
        assert max(len(line) for line in lines if not line.startswith(("      again", "      explain"))) <= wide
        assert ("                observed 0x11 (ET|PE)" in lines) == (wide < 132)


def test_comparing_needs_neither_kvm_nor_the_engine() -> None:
    code = """if True:
        import sys
        import kvmtest.compare.baseline, kvmtest.compare.changes, kvmtest.compare.files, kvmtest.compare.show, kvmtest.series
        bad = ("kvmtest.kvm", "kvmtest.engine", "kvmtest.uapi")
        loaded = [name for name in sys.modules if name.startswith(bad)]
        assert "kvmtest.judge.findings" in sys.modules and not loaded, loaded
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
