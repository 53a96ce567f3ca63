# SPDX-License-Identifier: GPL-2.0-only
"""Results as files: what is written is valid and read back; whatever else a file holds is one line, and what is whole counts."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest import schemas
from kvmtest.model.case import Case
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.run import Run
from kvmtest.model.verdict import Verdict
from kvmtest.results.lines import Lines
from kvmtest.results.saved import Loader, SavedError, load
from tests.report.samples import OBSERVATIONS, made, observation, of_each, record, saved, saved_runs
from tests.results.encode import document, lines
from tests.sample import some

_SCHEMA = schemas.load("results")
_DOCUMENT = jsonschema.Draft202012Validator(_SCHEMA)
_LINE = jsonschema.Draft202012Validator({"$ref": "#/$defs/lines", "$defs": _SCHEMA["$defs"]})


def _read(text: str | bytes, notes: list[str] | None = None) -> list[Run]:
    contents = text.encode() if isinstance(text, str) else text
    return Loader([].append if notes is None else notes.append).runs("file", contents)


def _seen(run: Run) -> list[tuple[object, ...]]:
    """Return the observations of a run, without block boundaries."""
    return [
        (one.case, one.prefix, tuple(one.records), None if one.seconds is None else float(f"{one.seconds:.4g}"))
        for one in run.observations
    ]


@given(saved_runs())
def test_what_is_written_is_valid_and_read_back(runs: list[Run]) -> None:
    for written in (lines(*runs), document(*runs)):
        found = _read(written)
        assert [_seen(run) for run in found] == [_seen(run) for run in runs]
        assert [run.head for run in found] == [run.head for run in runs]
        assert [run.totals for run in found] == [run.totals for run in runs]
        assert [(run.duration_s, run.interrupted) for run in found] == [(0.5, False)] * len(runs)
    for line in lines(*runs).splitlines():
        _LINE.validate(json.loads(line))
    _DOCUMENT.validate(json.loads(document(*runs)))


def test_the_schema_refuses_what_is_none() -> None:
    good = [json.loads(line) for line in lines(saved(of_each())).splitlines()]
    kinds = [next(key for key in ("record", "case", "run", "cite", "of", "end") if key in line) for line in good]
    assert set(kinds) == {"record", "case", "run", "cite", "of", "end"}
    for line in good:
        assert not _LINE.is_valid(line | {"more": 1})
    bad: list[dict[str, Any]] = [
        {},
        {"of": 0},
        {"of": None, "same": 1},
        {"of": 0, "same": 0},
        {"case": -1},
        {"record": 0, "item": "cr3", "verdict": "good"},
        {"record": 0, "item": "cr3", "verdict": "pass", "expected": []},
        {"record": 0, "item": "cr3", "verdict": "pass", "mask": "0x1"},
        {"cite": 0},
    ]
    assert not any(_LINE.is_valid(line) for line in bad)
    whole = json.loads(document(saved(of_each())))
    for key in whole:
        assert not _DOCUMENT.is_valid({name: value for name, value in whole.items() if name != key})
    assert not _DOCUMENT.is_valid(whole | {"schema": "kvmtest.results/1"})


def test_lines_that_are_cut_at_any_byte_give_every_whole_line() -> None:
    run = saved(of_each())
    whole = lines(run).encode()
    head = whole.index(b"\n") + 1
    for size in some(range(head, len(whole))):
        notes: list[str] = []
        (found,) = _read(whole[:size], notes)
        complete = whole[:size].count(b"\n")
        # A last line without its end may be whole by chance; nothing that was whole is missing.
        expected = sum(line.startswith(b'{"of"') for line in whole.splitlines()[:complete])
        assert len(found.observations) in (expected, expected + 1)
        assert _seen(found) == _seen(run)[: len(found.observations)]
        torn = whole[:size].splitlines()[-1] not in whole.splitlines()
        assert ("file: the last line is cut short and left out" in notes) == torn
        assert (found.interrupted is None) == any("does not say how the run ended" in note for note in notes)
    for size in range(head - 1):
        with pytest.raises(SavedError):
            _read(whole[:size])


def test_what_a_disk_has_after_a_crash_is_left_out() -> None:
    whole = lines(saved([made("pass")]))
    for tail in ("\0" * 5000, '{"of":0,"eve' + "\0" * 100, "\n\n\0\n", " \r\n"):
        (found,) = _read(whole + tail)
        assert len(found.observations) == 1 and found.interrupted is False
    with pytest.raises(SavedError, match="line 2"):
        _read(whole.replace("\n", "\n{torn\n", 1))


def test_gzipped_also_when_cut(tmp_path: Path) -> None:
    run = saved(of_each())
    path = tmp_path / "r.jsonl.gz"
    packed = gzip.compress(lines(run).encode())
    path.write_bytes(packed)
    assert _seen(load(str(path))[0]) == _seen(run)
    notes: list[str] = []
    path.write_bytes(packed[:-20])
    (found,) = load(str(path), notes.append)
    assert found.observations and _seen(found) == _seen(run)[: len(found.observations)] and notes
    for cut in (packed[:12], b"\x1f\x8b" + bytes(100), packed[:20] + bytes(100)):
        path.write_bytes(cut)
        with pytest.raises(SavedError, match=str(path)) as error:
            load(str(path))
        assert "\n" not in str(error.value)


def test_several_files_share_what_is_the_same() -> None:
    loader = Loader()
    one, two = (loader.runs(name, lines(saved([made("fail"), made("pass", "cr0")])).encode())[0] for name in "ab")
    assert [run.name for run in (one, two)] == ["a", "b"]
    for here, there in zip(one.results, two.results, strict=True):
        assert here.record is there.record and here.of.case is there.of.case and here.of.blocks == there.of.blocks


def test_a_case_that_repeats_costs_few_bytes_and_little_memory() -> None:
    written: list[str] = []
    to = Lines(written.append)
    run = saved([])
    to.begin(run.head)
    seen = observation([record("pass", f"r{i}") for i in range(300)], seconds=0.0123)
    sizes = []
    for _ in range(2000):
        assert seen.case
        to.case(seen.case)
        to.observed([seen])
        sizes.append(len("".join(written)) if len(sizes) in (0, 1) else 0)
    once = len(written)
    per = (len("".join(written)) - sizes[1]) / 1998
    assert per <= 40, per
    tracemalloc.start()
    (found,) = _read("".join(written))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert once and len(found.observations) == 2000 and found.totals[Verdict.PASS] == 600_000
    assert peak < 8 << 20


_HEAD = '{"schema":"kvmtest.results/2","run":0,"tool":{"name":"kvmtest","version":"1"},"host":{"kernel":"6","backend":"svm",' \
    '"cpu_vendor":"x","cpu_model":"x","parameters":{}},"started":"t"}\n'  # fmt: skip
_CASE = '{"case":0,"name":"init.msi/ap"}\n'
_RECORD = '{"record":0,"item":"cr3","verdict":"pass","planted":"0x1","expected":["0x0"],"observed":"0x0"}\n'
_OF = '{"of":0,"event":"init","trigger":"msi","view":"host","records":[0]}\n'
_END = '{"end":0,"duration_s":1,"interrupted":false,"totals":{},"findings":[]}\n'
_WHOLE = _HEAD + _CASE + _RECORD + _OF + _END


def test_the_smallest_file() -> None:
    (run,) = _read(_WHOLE)
    assert [result.id for result in run.results] == ["init.msi.host.cr3"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("results/2", "results/1"),
        ('"run":0', '"runs":0'),
        ('"records":[0]', '"records":[1]'),
        ('"records":[0]', '"records":[[0,1]]'),
        ('"records":[0]', '"records":[[1,0]]'),
        ('"records":[0]', '"records":[[0,0,0]]'),
        ('"records":[0]', '"records":[-1]'),
        ('"records":[0]', '"records":[0.0]'),
        ('"records":[0]', '"records":[true]'),
        ('"records":[0]', '"records":["0"]'),
        ('"records":[0]', '"records":{"0":0}'),
        ('"records":[0]', '"records":[[0,99999999999999999999]]'),
        ('"records":[0]', '"records":[' + "9" * 5000 + "]"),
        ('"of":0', '"of":1'),
        ('"of":0', '"of":-1'),
        ('"of":0', '"of":false'),
        ('"of":0', '"of":"0"'),
        ('"event":"init"', '"event":"INIT"'),
        ('"event":"init"', '"event":[]'),
        ('"view":"host"', '"view":"hosts"'),
        ('"view":"host"', '"view":{}'),
        ('"trigger":"msi"', '"trigger":"a b"'),
        ('"trigger":"msi"', '"trigger":7'),
        ('"item":"cr3"', '"item":"CR3\\n"'),
        ('"item":"cr3"', '"item":null'),
        ('"verdict":"pass"', '"verdict":"good"'),
        ('"verdict":"pass"', '"verdict":["pass"]'),
        ('"planted":"0x1"', '"planted":1'),
        ('"expected":["0x0"]', '"expected":"0x0"'),
        ('"expected":["0x0"]', '"expected":[]'),
        ('"expected":["0x0"]', '"expected":[0]'),
        ('"expected":["0x0"]', '"expected":["0x0"],"mask":"12"'),
        ('"expected":["0x0"]', '"expected":["0x0"],"mask":12'),
        ('"expected":["0x0"]', '"expected":["0x0"],"formula":1'),
        ('"verdict":"pass"', '"verdict":"pass","cite":[0]'),
        ('"verdict":"pass"', '"verdict":"pass","cite":0'),
        ('"verdict":"pass"', '"verdict":"pass","reason":7'),
        ('"verdict":"pass"', '"verdict":"pass","deviation":7'),
        ('"name":"init.msi/ap"', '"name":7'),
        ('"name":"init.msi/ap"', '"name":"x","params":[]'),
        ('"name":"init.msi/ap"', '"name":"x","params":{"a":[]}'),
        ('"name":"init.msi/ap"', '"name":"x","params":{"a":true}'),
        ('"kernel":"6"', '"kernel":6'),
        ('"parameters":{}', '"parameters":{"a":1}'),
        ('"parameters":{}', '"parameters":{},"lab":{}'),
        ('"parameters":{}', '"parameters":{},"lab":[]'),
        ('"started":"t"', '"started":7'),
        ('"version":"1"', '"version":1'),
        ('"duration_s":1', '"duration_s":-1'),
        ('"duration_s":1', '"duration_s":NaN'),
        ('"duration_s":1', '"duration_s":1e400'),
        ('"duration_s":1', '"duration_s":true'),
        ('"interrupted":false', '"interrupted":0'),
        (_HEAD, ""),
        (_OF, '{"of":0,"same":1}\n'),
        (_OF, _OF + '{"of":0,"same":2}\n'),
        (_OF, _OF + '{"of":0,"same":true}\n'),
        (_CASE, "[]\n"),
        (_CASE, "7\n"),
        (_CASE, "[" * 100_000 + "\n"),
    ],
)
def test_a_line_that_lies_is_one_line_that_names_the_file(old: str, new: str) -> None:
    assert _WHOLE.count(old) == 1
    with pytest.raises(SavedError, match="^file: ") as error:
        _read(_WHOLE.replace(old, new))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def _bent(change: Callable[[Any], object]) -> str:
    found = json.loads(document(saved(of_each())))
    change(found)
    return json.dumps(found)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("cites"),
        lambda d: d.pop("cases"),
        lambda d: d.pop("records"),
        lambda d: d.pop("runs"),
        lambda d: d["runs"].clear(),
        lambda d: d["runs"].append(7),
        lambda d: d["cites"].append(7),
        lambda d: d["cases"].append("x"),
        lambda d: d["records"].append([]),
        lambda d: d["runs"][0].pop("results"),
        lambda d: d["runs"][0].pop("host"),
        lambda d: d["runs"][0].update(duration_s="1"),
        lambda d: d["runs"][0]["results"].append({}),
        lambda d: d["runs"][0]["results"].append([]),
        lambda d: d["runs"][0]["results"].append([0, "init", "msi", "host"]),
        lambda d: d["runs"][0]["results"].append([0, "init", "msi", "host", [10**9]]),
        lambda d: d["runs"][0]["results"].append([10**9, "init", "msi", "host", [0]]),
        lambda d: d["runs"][0]["results"].append([0, "init", "msi", "host", [0], "x"]),
    ],
)
def test_a_document_that_lies_is_one_line(change: Callable[[Any], object]) -> None:
    with pytest.raises(SavedError, match="^file: ") as error:
        _read(_bent(change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "contents",
    [b"", b"{}", b"[]", b"null", b"7", b"\xff\xfe", b"\x80" * 100, b"[" * 200_000, b'{"a":' * 200_000, b'"', b"9" * 10_000],
)
def test_what_is_no_results_is_one_line(contents: bytes) -> None:
    with pytest.raises(SavedError, match="^file: ") as error:
        _read(contents)
    assert "\n" not in str(error.value)


def test_spans_that_name_the_same_records_over_and_over_exhaust_nothing() -> None:
    records = "".join(f'{{"record":{i},"item":"r{i}","verdict":"pass"}}\n' for i in range(1000))
    bomb = _OF.replace("[0]", "[" + ",".join(["[0,999]"] * 1000) + "]")
    with pytest.raises(SavedError, match="results"):
        _read(_HEAD + _CASE + records + bomb)


@given(st.binary(max_size=200), st.integers(0, 2**32))
def test_bytes_that_changed_are_read_or_refused_in_one_line(noise: bytes, seed: int) -> None:
    rng = random.Random(seed)
    for written in (lines(saved(of_each())), document(saved(of_each()))):
        contents = bytearray(written.encode())
        for byte in noise[:8]:
            contents[rng.randrange(len(contents))] = byte
        try:
            runs = _read(bytes(contents))
        except SavedError as error:
            assert "\n" not in str(error)
        else:
            assert all(run.totals.total() <= 100 for run in runs)


@given(st.lists(OBSERVATIONS, max_size=4), st.lists(OBSERVATIONS, max_size=4))
def test_records_are_interned_whatever_they_are(a: list[Observation], b: list[Observation]) -> None:
    loader = Loader()
    runs = [run for seen in (a, b) for run in loader.runs("f", lines(saved(seen)).encode())]
    records: dict[Record, Record] = {}
    for run in runs:
        for result in run.results:
            assert records.setdefault(result.record, result.record) is result.record


def test_a_case_that_began_and_showed_nothing_is_kept() -> None:
    """A file cut short by a crash names its case."""
    (run,) = _read(_HEAD + _CASE)
    assert run.cases == (Case("init.msi/ap"),) and not run.observations and run.interrupted is None


def test_a_type_of_line_that_is_not_known_says_nothing() -> None:
    (run,) = _read(_WHOLE.replace(_END, '{"note":"x"}\n' + _END))
    assert len(run.observations) == 1


def test_what_repeats_does_so_within_its_run() -> None:
    run = saved([made("pass"), made("pass")])
    found = _read(lines(run, run))
    assert [_seen(one) for one in found] == [_seen(run)] * 2


def test_blocks_are_written_once() -> None:
    block = Block(tuple(record("pass", f"r{i}") for i in range(100)))
    one = observation([])._replace(blocks=(block,))
    several = [one._replace(case=Case(f"init.msi/{i}")) for i in range(50)]
    assert lines(saved(several)).count('"record":') == 100
    assert document(saved(several)).count('"item":') == 100


@pytest.mark.parametrize("contents", [b"", b"\n", gzip.compress(b"")])
def test_a_file_of_a_run_that_was_killed_before_its_first_line_is_called_empty(contents: bytes, tmp_path: Path) -> None:
    (path := tmp_path / "r.jsonl").write_bytes(contents)
    with pytest.raises(SavedError, match=r"r\.jsonl: empty: "):
        load(str(path))
