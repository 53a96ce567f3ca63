# SPDX-License-Identifier: GPL-2.0-only
"""Scenario files: every case of the plan comes back as it was, and what is wrong with a file is one line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest import schemas
from kvmtest.engine import plan
from kvmtest.scenario import file
from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue import SCENARIOS
from kvmtest.scenario.check import ScenarioError
from kvmtest.scenario.setup import Setup
from kvmtest.uapi.kvm import KVM_CAP_X86_SMM, KVM_EXIT_SHUTDOWN, KVM_SIGNAL_MSI, KVM_SMI, kvm_msi
from tests.sample import some

_ALONE = {alone: case.name for case in plan.plan() if (alone := case.alone)}
#: Steps that no case of the plan has.
_MORE = s.Scenario(
    "none", "mine", "some-steps",
    (
        s.Load("smm", (("TOPIC", 3),)), s.Poke(0x600, b"\0\xff"), s.Poke("COUNT", "smm.TOPIC_WAIT"), s.Call(KVM_SMI, who=10),
        s.Call(KVM_SIGNAL_MSI, bytes(kvm_msi(data=0x500)), "vm", keep=True, kind="kvm_msi"), s.Expect(s.Answer(-22)),
        s.Set((("mp_state", 3), ("rip", 1 << 63)), "other", "why"), s.Until(s.Is("mp_state", 3, 7)),
        s.Expect(s.Exit(KVM_EXIT_SHUTDOWN)),
    ),
    ("a manual",), setup=Setup("split", caps=((KVM_CAP_X86_SMM, 0x11),), ids=(0, 10)), undefined="who knows", vendors=("amd",),
)  # fmt: skip


def plain(scenario: s.Scenario) -> dict[str, Any]:
    """Return the contents of a file with this scenario."""
    data: dict[str, Any] = json.loads(json.dumps(file.dump(scenario)))
    return data


def test_every_case_of_the_plan_comes_back_and_is_valid() -> None:
    validator = jsonschema.Draft202012Validator(schemas.load("scenario"))
    assert len(_ALONE) > 100
    for scenario in (*some([*_ALONE, *SCENARIOS.values()]), _MORE):
        if scenario.sequence:
            data = plain(scenario)
            validator.validate(data)
            assert file.loads(data) == scenario


def test_the_case_of_a_file_is_what_its_case_was() -> None:
    for case in some(plan.plan()):
        if case.alone:
            (made,) = plan.of_file(case.alone)
            assert (made.setup, made.target, made.event, made.trigger) == (case.setup, case.target, case.event, case.trigger)
            if not case.sequence:
                assert (made.apic_mode or "xapic", made.vector) == (case.apic_mode or "xapic", case.vector), case.name
            assert made.scenario and case.scenario and made.scenario.steps == case.scenario.steps
            assert plan.Case.unpacked(made.packed) == made


def test_numbers_of_the_header_are_names_and_bytes_hexadecimal() -> None:
    steps = plain(_MORE)["steps"]
    assert [steps[3]["request"], steps[4]["request"]] == ["KVM_SMI", "KVM_SIGNAL_MSI"]
    assert steps[5]["condition"] == {"kind": "answer", "value": "EINVAL"}
    assert steps[6]["items"] == {"mp_state": "KVM_MP_STATE_HALTED", "rip": "0x8000000000000000"}
    assert steps[7]["condition"] == {"kind": "is", "item": "mp_state", "value": "KVM_MP_STATE_HALTED", "mask": 7}
    assert steps[8]["condition"]["reason"] == "KVM_EXIT_SHUTDOWN" and steps[1]["value"] == {"hex": "00ff"}
    assert plain(_MORE)["setup"] == {"irqchip": "split", "caps": {"KVM_CAP_X86_SMM": "0x11"}, "ids": [0, 10]}


def test_the_schema_is_that_of_the_vocabulary() -> None:
    path = Path(__file__).parents[2] / "docs" / "schema.py"
    spec = importlib.util.spec_from_file_location("schema", path)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.PATH.read_text("utf-8") == made.text(), "run python docs/schema.py"


def _with(**fields: Any) -> dict[str, Any]:
    return plain(_MORE) | fields


def _step(**fields: Any) -> dict[str, Any]:
    return _with(steps=[fields, {"step": "observe"}])


_WRONG: list[tuple[Any, str]] = [
    ([], "no kvmtest.scenario/1"),
    (_with(schema="kvmtest.scenario/2"), "no kvmtest.scenario/1"),
    (_with(colour="red"), "the scenario: there is no 'colour' here"),
    (_with(steps={}), "the scenario, steps: a list of at most 1000 is expected, not {}"),
    (_with(steps=[]), "no step observes or expects anything"),
    (_with(steps=[{"step": "observe"}] * 1001), "a list of at most 1000"),
    (_with(sequence="../x"), "the scenario, sequence: small letters"),
    (_with(event="boom"), "the scenario, event: no 'boom'; there are reset"),
    (_with(vendors=["amd", "amd"]), "each vendor once"),
    (_with(needs=["luck"]), "the scenario, needs: no 'luck'"),
    (_with(target="ap", setup={"vcpus": 1}), "no AP to be the target"),
    (_with(setup={"vcpus": 100000}), "at most 288 vCPUs"),
    (_with(setup={"boot_id": 7}), "there is no such BSP"),
    (_with(setup={"denied": [1 << 32]}), "the set-up, denied: 16 indexes"),
    (_with(setup={"caps": {"KVM_CAP_LUCK": 1}}), "the scenario, setup, caps: a number or a name as KVM_CAP_"),
    (_step(step="jump"), "the scenario, steps 1: no step \"jump\"; there are set, "),
    (_step(step="call"), "steps 1 (call): 'request' is missing"),
    (_step(step="call", request="KVM_LUCK"), "steps 1 (call), request: a number or a name as KVM_"),
    (_step(step="call", request="KVM_SET_USER_MEMORY_REGION", who="vm"), "no scenario may call KVM_SET_USER_MEMORY_REGION"),
    (_step(step="call", request="KVM_SET_REGS", arg="0x1000"), "works on a structure of 144 bytes, not on a number"),
    (_step(step="call", request="KVM_SET_REGS", arg={"hex": "00"}), "works on 144 bytes, not on 1"),
    (_step(step="call", request="KVM_GET_MSRS", arg={"hex": "ff" * 8 + "00" * 16}), "not on 24"),
    (_step(step="call", request="KVM_NMI", who=7), "there is no vCPU 7"),
    (_with(steps=[{"step": "start"}] * 2 + [{"step": "observe"}]), "step 2 (start) cannot be done: vCPU 10 is in KVM_RUN"),
    (_step(step="start", who=7), "there is no vCPU 7"),
    (_step(step="set", items={"cr9": 1}), "step 1 (set) cannot be done: 'cr9'"),
    (_step(step="set", items={"cr0": []}), "steps 1 (set), items 'cr0': a number or a text"),
    (_step(step="set", items={"cr0": 1 << 256}), "a number or a text"),
    (_step(step="send", event="init", by="pigeon"), "step 1 (send): no 'pigeon'"),
    (_step(step="send", event="nmi", by="latched"), "step 1 (send) by latched: no 'nmi'; there are init"),
    (_step(step="load", guest="../../x"), "step 1 (load): no '../../x'"),
    (_step(step="plant", name="z"), "step 1 (plant): no 'z'"),
    (_step(step="plant", apic_mode="z"), "step 1 (plant): no 'z'"),
    (_step(step="until", condition={"kind": "word", "name": "NOPE"}), "step 1 (until) cannot be done: no guest is loaded"),
    (_step(step="until", condition={"kind": "luck"}), "condition: no kind \"luck\""),
    (_step(step="start", who="me"), "step 1 (start): no 'me'"),
    (_step(step="give", data={"hex": "0"}), "pairs of hexadecimal digits"),
    (_step(step="do", name="os.system", expected={}), "step 1 (do): no 'os.system'; there are arrivals"),
    (_step(step="do", name="arrivals", expected={"runs": 0}), "step 1 (do): no 'runs'; there are lost, doubled, astray"),
    (_step(step="resume", end="loop"), "step 1 (resume) cannot be done"),
    (_step(step="expect", condition={"kind": "same"}), "step 1 (expect): nothing was observed before"),
    (_step(step="guest"), "step 1 (guest): no step loads the guest that reports"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "says"), _WRONG, ids=[says for _, says in _WRONG])
def test_what_is_wrong_is_one_line(data: Any, says: str) -> None:
    with pytest.raises(ScenarioError) as error:
        file.loads(data)
    assert says in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "too deeply nested"),
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b"1" * 10_000, "digits"),
        (b" " * (1 << 20) + b"{}", "longer than 1 MB"),
    ],
)
def test_a_file_that_is_none_is_one_line_with_its_path(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ScenarioError) as error:
        file.load(str(path))
    assert says in str(error.value) and str(error.value).startswith(f"{path}: ")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(["target", "vm", "cr0", "KVM_NMI", "0x5"]),
    lambda of: st.lists(of, max_size=3) | st.dictionaries(st.sampled_from(["hex", "kind", "item", "value", "x"]), of, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_one_field_changed_gives_a_scenario_or_a_line(data: st.DataObject) -> None:
    """Nothing but ScenarioError, whatever stands in a field; and what is accepted can be written and read again."""
    scenario = data.draw(st.sampled_from([_MORE, SCENARIOS["init.msi/after-rsm"]]))
    changed: Any = plain(scenario)
    at = data.draw(st.sampled_from([changed, *changed["steps"]]))
    at[data.draw(st.sampled_from(sorted(at)))] = data.draw(_JSON)
    try:
        made = file.loads(changed)
    except ScenarioError as error:
        assert "\n" not in str(error)
    else:
        assert file.loads(plain(made)) == made
