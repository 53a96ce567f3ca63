# SPDX-License-Identifier: GPL-2.0-only
"""Judge what an observer reports by the rules: each that it can see fails where its log shows something else."""

from __future__ import annotations

import io
import json

import pytest

from kvmtest.model.record import Observation
from kvmtest.model.run import Run
from kvmtest.model.verdict import Verdict
from kvmtest.observer.judge import judged, machine
from kvmtest.observer.log import Log, parse
from kvmtest.report.json import Json
from kvmtest.report.play import Gatherer, play
from kvmtest.schemas import load
from tests.observer import made

#: By which look of which boot an observation of another processor was made; those of the boot processor are in test_each_item.py.
_LOOKS = {
    "reset.power-on/ap,{},cpu1,boot1": (0, 1),
    "init.icr-xapic/ap,{},cpu1,boot1,round1": (0, 1),
    "init.icr-xapic/ap,{},cpu1,boot1,round2": (0, 3),
    "sipi.icr-xapic/ap,{},cpu1,boot1,round2": (0, 3),
    "reset.cf9/ap,{},cpu1,boot2": (1, 1),
}
#: Two items that are one register, or what the judgement of others depends on: changed alone.
_ALONE = ("apic_base", "msr.apic_base", "efer", "msr.efer")


def _run(log: Log) -> Run:
    return judged(log, machine(log), "2026-01-01T00:00:00Z")


def _of(run: Run, case: str) -> Observation:
    return next(seen for seen in run.observations if seen.case and seen.case.name == case)


@pytest.mark.parametrize(("name", "vendor"), [("qemu-tcg", "amd"), ("bochs", "intel")])
@pytest.mark.parametrize("pattern", _LOOKS)
def test_each_rule_fails_where_the_log_shows_something_else(pattern: str, name: str, vendor: str) -> None:
    case, recorded = pattern.format(vendor), made.recorded(name)
    good = [record for record in _of(_run(recorded), case).records if record.verdict is Verdict.PASS]
    assert good
    for names in ([r.item for r in good if r.item not in _ALONE], *([r.item] for r in good if r.item in _ALONE)):
        values = {record.item: made.another(record) for record in good if record.item in names}
        log = made.changed(recorded, *_LOOKS[pattern], values)
        after = {record.item: record.verdict for record in _of(_run(log), case).records}
        assert [item for item in names if after[item] is not Verdict.FAIL] == []


def test_the_number_of_rules_that_are_seen() -> None:
    seen = {record.item for one in _run(made.recorded()).observations for record in one.records if record.verdict.judged}
    assert (
        len(seen) > 160
        and {"rax", "rip", "cs.base", "ds.base", "cr0", "dr6", "fcw", "mxcsr", "xmm5", "lapic.svr", "msr.pat"} <= seen
    )


def test_no_deviation_of_kvm_explains_what_is_no_kvm() -> None:
    assert {result.verdict for result in _run(made.recorded()).results} == {
        Verdict.PASS,
        Verdict.FAIL,
        Verdict.SKIP,
        Verdict.INFO,
    }


def test_a_cpu_that_reads_any_msr_as_0_shows_nothing_of_those_that_it_may_not_have() -> None:
    power_on = {record.item: record for record in _of(_run(made.recorded()), "reset.power-on/bsp,amd,cpu0,boot1").records}
    assert power_on["msr.tsc_ratio"].verdict is Verdict.SKIP and "as 0" in power_on["msr.tsc_ratio"].reason


def test_the_machine_is_reported_by_its_cpuid() -> None:
    host = machine(made.recorded(), name="box")
    assert (host.backend, host.cpu_vendor, host.accel, host.name) == ("none", "AuthenticAMD", "tcg", "box")
    assert host.title == "no KVM in QEMU (TCG): QEMU TCG CPU version 2.5+"


def test_a_boot_that_never_comes_is_a_failure_of_the_event() -> None:
    log = parse(made.RECORDED[: made.RECORDED.index(b"KVMTEST", 1)], cut=True)
    last = [result for result in _run(log).results if result.verdict.unexpected][-1]
    assert (last.id, last.verdict, last.observed) == ("reset.cf9.guest.runs", Verdict.FAIL, "nothing")


@pytest.mark.parametrize("method", ["port-64h", "triple-fault"])
def test_a_way_that_is_reset_or_init_by_chipset_is_judged_as_what_it_was(method: str) -> None:
    first, second = made.recorded().boots
    for look, event in ((second.looks[0], "reset"), (second.looks[-1], "init")):
        again = second._replace(looks=[look._replace(method=method), *second.looks[1:]])
        seen = _run(made.recorded()._replace(boots=[first._replace(sent=[method]), again])).observations
        found = {one.event for one in seen if one.trigger == method}
        assert found == {event}
        assert any(one.trigger == method and one.case and one.case.get("target") == "ap" for one in seen) == (
            event == "reset"
        )


def test_a_processor_that_never_comes_is_a_failure() -> None:
    run = judged(made.recorded(), machine(made.recorded()), "2026-01-01T00:00:00Z", cpus=3)
    absent = [result for result in run.results if result.item == "runs"]
    assert {(result.verdict, result.observed, result.expected) for result in absent} == {(Verdict.FAIL, "0x2", "0x3")}


def test_what_is_lost_is_an_error() -> None:
    boots = [boot._replace(lost=[1]) for boot in made.recorded().boots]
    run = _run(made.recorded()._replace(boots=boots))
    assert [r.verdict for r in run.results if r.item == "runs"] == [Verdict.ERROR, Verdict.ERROR]


def test_its_results_are_results() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    out = io.StringIO()
    play(_run(made.recorded()), Gatherer(Json(out, 1)))
    jsonschema.validate(json.loads(out.getvalue()), load("results"))
