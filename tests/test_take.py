# SPDX-License-Identifier: GPL-2.0-only
"""The case that a snapshot is of, and snapshots of this machine's KVM."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from kvmtest import schemas, take
from kvmtest.cli import main
from kvmtest.engine.plan import plan
from kvmtest.kvm import Kvm
from kvmtest.scenario.triggers import TRIGGERS
from kvmtest.take import Criteria, NoCase
from tests.sample import some

pytestmark = pytest.mark.usefixtures("steps_anew")

_SCHEMA = schemas.load("snapshot")


@pytest.mark.parametrize(
    ("criteria", "name"),
    [
        (Criteria("init"), "init.msi.host/ap,amd,xapic,plant-a"),
        (Criteria("reset"), "reset.create.host/bsp,full-irqchip,amd"),
        (Criteria("reset", view="guest"), "reset.create.guest/bsp,full-irqchip,amd"),
        (Criteria("sipi"), "sipi.msi.host/ap,amd,xapic,plant-sipi,vector-00"),
        (Criteria("shutdown"), "shutdown.triple-fault.host/bsp,amd,xapic,plant-guest-long,at-triple-fault"),
        (Criteria("init", "icr-x2apic", plant="c", vendor="intel"), "init.icr-x2apic.host/ap,intel,x2apic,plant-c"),
        (Criteria("init", mode="disabled", target="bsp"), "init.latched.host/bsp,amd,disabled,plant-a"),
        (Criteria("init", state="in-hlt", view="guest"), "init.msi.guest/ap,amd,xapic,plant-guest-long,in-hlt"),
        (Criteria("init", plant="none"), "init.msi.host/ap,amd,xapic,plant-new"),
    ],
)
def test_what_is_left_open_is_usual(criteria: Criteria, name: str) -> None:
    case = take.choose(criteria, "amd")
    assert f"{case.prefix}/{case.words}" == name


@pytest.mark.parametrize(
    ("criteria", "says"),
    [
        (Criteria("init", "create"), "--trigger create: there is .*msi"),
        (Criteria("sipi", target="bsp"), "--target bsp: there is ap"),
        (Criteria("init", "icr-x2apic", mode="xapic"), "--mode xapic: there is x2apic"),
        (Criteria("reset", plant="a"), "--plant a: there is none"),
        (Criteria("reset", "vmm-reset"), "--trigger vmm-reset"),
        (Criteria("init", "broadcast", "host"), "--view host: there is guest"),
    ],
)
def test_what_is_not_says_what_is(criteria: Criteria, says: str) -> None:
    with pytest.raises(NoCase, match=says):
        take.choose(criteria, "amd")


def test_a_case_by_its_name() -> None:
    cases = take.candidates()
    for case in some(cases[:: len(cases) // 20]):
        assert take.named(f"{case.prefix}/{case.words}") == case
        assert take.named(case.name)._replace(view=case.view, setup=case.setup) == case
    by_both = "init.msi/ap,amd,xapic,plant-a"
    assert [case.view for case in cases if case.name == by_both] == ["host", "guest"] and take.named(by_both).view == "host"
    assert take.named("init.broadcast/ap,intel,8-vcpus,xapic,plant-a").view == "guest"
    # The rest: scenarios of the catalogue, broadcasts to many, orders of ioctls, and triggers that are not events.
    for case in set(plan(full=True)) - set(cases):
        many = case.prefix == "init.broadcast.host" or case.trigger == "vmm-reset"
        assert case.sequence or many or case.event in ("none", "nmi")
    with pytest.raises(NoCase, match="one state of one vCPU"):
        take.named(next(case.name for case in plan() if case.sequence))
    with pytest.raises(NoCase, match="no case is called"):
        take.named("init.msi.host/x")


@pytest.mark.parametrize("options", [["--event", "init"], ["--event", "reset", "--view", "guest"], ["--event", "sipi"]])
def test_a_real_one_is_valid_and_does_not_differ_from_the_next(options: list[str], kvm: Kvm, tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert main(["snapshot", *options, "-o", one]) == 0
    assert main(["snapshot", *options, "-o", two]) == 0
    document = json.loads(Path(one).read_text())
    jsonschema.validate(document, _SCHEMA)
    assert document["items"]["cr0"]["value"].startswith("0x")
    assert main(["diff", one, two]) == 0


def test_two_events_differ_in_bits_by_name(kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert main(["snapshot", "--event", "init", "-o", one]) == 0
    assert main(["snapshot", "--event", "reset", "--target", "ap", "-o", two]) == 0
    capsys.readouterr()
    assert main(["diff", one, two]) == 1
    shown = capsys.readouterr()
    assert "  event: init -> reset" in shown.out and "PG|AM|WP" in shown.out
    assert "items differ" in shown.err
    assert main(["diff", one, two, "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "kvmtest.diff/1" and document["kind"] == "snapshot"
    assert {change["item"] for change in document["changes"]} >= {"mp_state", "cr0"}


def test_standard_output_and_text(kvm: Kvm, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", "--event", "reset", "-o", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "kvmtest.snapshot/1"
    assert main(["snapshot", "--event", "reset", "--format", "text"]) == 0
    assert "cr0 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--event", "init", "--trigger", "nonsense"], 2),
        (["--case", "nonsense"], 2),
        (["--case", "init.msi.host/ap,intel,xapic,plant-a", "--mode", "xapic"], 2),
        (["--event", "init", "--device", "/nonexistent"], 3),
    ],
)
def test_one_line_and_the_status(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", *arguments]) == status
    error = capsys.readouterr().err
    assert error.startswith("kvmtest: ") and error.count("\n") == 1


def test_an_event_that_does_not_happen_is_1(
    kvm: Kvm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TRIGGERS, "msi", TRIGGERS["msi"]._replace(steps=lambda send, to: ()))
    assert main(["snapshot", "--event", "init"]) == 1
    assert "left no trace" in capsys.readouterr().err
