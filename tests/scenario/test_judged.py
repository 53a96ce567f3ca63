# SPDX-License-Identifier: GPL-2.0-only
"""Results of scenarios from made-up evidence: words of guests, KVM_RUN that fails, expectations that do not end the scenario."""

from __future__ import annotations

from errno import EINVAL

import pytest

from kvmtest.engine.runner import matches, play
from kvmtest.guests import l1, svm
from kvmtest.judge.cache import Cache
from kvmtest.judge.evidence import Basis, Ended, Exited, Look, Played
from kvmtest.judge.item import Context
from kvmtest.judge.scenario import played
from kvmtest.kvm import Exit, KvmError
from kvmtest.model.case import Case
from kvmtest.model.host import Host
from kvmtest.scenario import memory
from kvmtest.scenario import program as p
from kvmtest.scenario import step as s
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.uapi.kvm import KVM_EXIT_IO, KVM_EXIT_IO_OUT, KVM_RUN

HOST = Host("6.1.0", "svm", "AuthenticAMD", "test", {})
EXIT, LEFT, VALUE, FAULT = 0xF9, 0xF6, 0xF5, 0xFE


def _judged(
    *steps: s.Step, evidence: tuple[tuple[int, object], ...], undefined: str = "", bases: tuple[Basis, ...] = ()
) -> dict[str, tuple[str, object]]:
    scenario = s.Scenario("init", "msi", "made-up", steps, ("a manual",), undefined=undefined)
    look = Look(Case("init.msi/made-up"), "init", "msi", "host", "amd", "ap", (), scenario)
    seen = played(Cache(), look, HOST, bases, Played(evidence))
    return {record.item: (str(record.verdict), record.observed) for one in seen for record in one.records}


def _out(port: int, value: int) -> Exited:
    return Exited("out", port, value, "an OUT")


@pytest.mark.parametrize(
    ("seen", "judged"),
    [
        (_out(EXIT, 0x63), ("pass", 0x63)),
        (_out(EXIT, 0x7F), ("fail", 0x7F)),
        # The value of another word is not an exit's reason.
        (_out(LEFT, 0x63), ("fail", "L1 after STGI, turns 0x63")),
        (_out(FAULT, 30 << 24 | 1), ("fail", "exception 30, error code or RIP 0x1")),
        (Exited("errno", EINVAL, None, "KVM_RUN: EINVAL"), ("fail", "KVM_RUN: EINVAL")),
    ],
)
def test_an_exit_to_l1(seen: Exited, judged: tuple[str, object]) -> None:
    steps = (s.Load("svm"), s.Expect(s.Word("EXIT", 0x63), "exits"))
    assert _judged(*steps, evidence=((1, seen),)) == {"exits": judged}


def test_a_word_means_what_the_scenario_says() -> None:
    expect = s.Expect(s.Word("FAULT", 30 << 24 | 1, "#SX"))
    assert _judged(s.Load("svm"), expect, evidence=((1, _out(FAULT, 30 << 24 | 1)),)) == {"runs": ("pass", "#SX")}
    evidence = ((1, _out(FAULT, 13 << 24)),)
    assert _judged(s.Load("svm"), expect, evidence=evidence) == {"runs": ("fail", "exception 13, error code or RIP 0x0")}


def test_a_word_counts_in_the_bits_of_its_mask() -> None:
    expect = s.Expect(s.Word("FAULT", 30 << 24, "#SX", mask=0xFF << 24))
    evidence = ((1, _out(FAULT, 30 << 24 | 0x1444)),)
    assert _judged(s.Load("svm"), expect, evidence=evidence) == {"runs": ("pass", "#SX")}
    evidence = ((1, _out(FAULT, 13 << 24)),)
    assert _judged(s.Load("svm"), expect, evidence=evidence) == {"runs": ("fail", "exception 13, error code or RIP 0x0")}


_IN_PAGE = s.Word("VALUE", 0x1000, "RIP in {:#x}", mask=~0xFFF)
WORDS = s.Words((s.Word("EXIT", 3, "reason {}"), s.Word("VALUE"), _IN_PAGE, s.Word("LEFT", 9)))


@pytest.mark.parametrize(
    ("seen", "judged"),
    [
        ((_out(EXIT, 3), _out(VALUE, 7), _out(VALUE, 0x1ABC), _out(LEFT, 9)), ("pass", "reason 3, RIP in 0x1000, LEFT 0x9")),
        ((_out(EXIT, 3), _out(VALUE, 7), _out(VALUE, 0x1ABC), _out(LEFT, 8)), ("fail", "reason 3, RIP in 0x1000, LEFT 0x8")),
        ((_out(EXIT, 3), _out(VALUE, 7), _out(VALUE, 0x2ABC)), ("fail", "reason 3, RIP in 0x2000")),
        ((_out(EXIT, 2),), ("fail", "reason 2")),
        ((_out(EXIT, 3), _out(LEFT, 7)), ("fail", "reason 3, L1 after STGI, turns 0x7")),
        ((Exited("quiet", 0, None, "no exit"),), ("fail", "executes nothing")),
    ],
)
def test_several_words(seen: tuple[Exited, ...], judged: tuple[str, object]) -> None:
    evidence = tuple((1, one) for one in seen)
    assert _judged(s.Load("svm"), s.Expect(WORDS, "exits"), evidence=evidence) == {"exits": judged}


@pytest.mark.parametrize(
    ("values", "one", "judged"),
    [
        ((0, 1, 1, 0), False, ("pass", "vCPUs 1, 2")),
        ((0, 1, 0, 0), False, ("fail", "vCPU 1")),
        ((0, 1, 1, 1), False, ("fail", "vCPUs 1, 2, 3")),
        ((0, 0, 0, 0), False, ("fail", "no vCPU")),
        ((0, 0, 1, 0), True, ("pass", "vCPU 2")),
        ((0, 1, 1, 0), True, ("fail", "vCPUs 1, 2")),
        ((0, 0, 0, 1), True, ("fail", "vCPU 3")),
    ],
)
def test_who_got_a_message(values: tuple[int, ...], one: bool, judged: tuple[str, object]) -> None:
    expect = s.Expect(s.Reached("events.smi_latched_init", 1, (1, 2), (0, 1, 2, 3), 1, one))
    assert _judged(expect, evidence=tuple((0, value) for value in values)) == {"delivered": judged}


def test_a_program_that_ended_before_all_were_looked_at_says_so() -> None:
    expect = s.Expect(s.Reached("events.smi_latched_init", 1, (1,), (0, 1)))
    look = Look(Case("init.msi/made-up"), "init", "msi", "host", "amd", "ap", (), s.Scenario("init", "msi", "x", (expect,), ()))
    (seen,) = played(Cache(), look, HOST, (), Played(((0, 0),), Ended(0, "error", "EIO")))
    assert [(str(record.verdict), record.reason) for record in seen.records] == [("error", "EIO")]


@pytest.mark.parametrize(
    ("seen", "judged"),
    [
        (Exited("errno", EINVAL, None, "KVM_RUN: EINVAL"), ("pass", "KVM_RUN: EINVAL")),
        (Exited("quiet", 0, None, "no exit"), ("fail", "executes nothing")),
    ],
)
def test_a_kvm_run_that_fails(seen: Exited, judged: tuple[str, object]) -> None:
    assert _judged(s.Expect(s.Fails(EINVAL)), evidence=((0, seen),)) == {"runs": judged}
    assert matches(seen, p.Came("errno", EINVAL)) == (judged[0] == "pass")


@pytest.mark.parametrize(
    ("seen", "judged"),
    [
        (Exited("quiet", 0, None, "no exit"), ("pass", "makes no VM exit")),
        (_out(EXIT, 4), ("fail", "a VM exit to L1, reason 0x4")),
    ],
)
def test_a_silence_is_what_the_scenario_says_of_it(seen: Exited, judged: tuple[str, object]) -> None:
    steps = (s.Load("vmx"), s.Expect(s.Quiet("makes no VM exit"), "exits"))
    assert _judged(*steps, evidence=((1, seen),)) == {"exits": judged}


def test_an_expectation_that_ends_nothing_is_judged_all_the_same() -> None:
    evidence = ((0, 2), (1, 1))
    then = s.Expect(s.Is("mp_state", 0))
    ends = s.Expect(s.Is("efer", 0))
    assert _judged(ends, then, evidence=evidence) == {"efer": ("fail", 2)}
    assert _judged(ends._replace(ends=False), then, evidence=evidence) == {"efer": ("fail", 2), "mp_state": ("fail", 1)}


class _Vcpu:
    id, fd = 0, -1

    def run(self, timeout_s: float) -> Exit:
        raise KvmError(EINVAL, KVM_RUN, "vcpu 0")


class _Target:
    vcpu = _Vcpu()


class _Vm:
    memory = ()


class _Machine:
    vm = _Vm()
    targets = (_Target(),)


def _played(verdict: str) -> Played:
    enter = p.Enter(0, p.Came("quiet"), p.Otherwise(verdict, ""))
    return play(p.Program({}, ((0, enter), (1, enter))), _Machine(), 1.0)  # type: ignore[arg-type]


def test_the_runner_reports_that_kvm_run_failed_where_something_is_expected() -> None:
    assert [value.text for _, value in _played("fail").evidence] == ["KVM_RUN: EINVAL"]
    assert [number for number, _ in _played("").evidence] == [0, 1]
    seen = _played("error")
    assert seen.end and (seen.end.verdict, seen.evidence) == ("error", ())


def test_the_vmcb_is_one_that_vmrun_takes() -> None:
    page = memory.image("vmcb", (0x1500, 0x80010033, 0x620, 3, 31))
    assert len(page) == 0x1000
    words = {at: int.from_bytes(page[at : at + 4], "little") for at in (0x00C, 0x010, 0x058, 0x4D0, 0x548, 0x558)}
    assert words == {0x00C: 1 << 3 | 1 << 31, 0x010: 1, 0x058: 1, 0x4D0: 0x1500, 0x548: 0x620, 0x558: 0x80010033}
    assert int.from_bytes(page[0x578:0x580], "little") == l1.CODE + svm.AT_NESTED
    assert page[0x410:0x420] == bytes.fromhex("08009b0affffffff") + bytes(8)


LAYOUT = Layout((0x480, 0x481), {}, {})
SIZES = {s: max(LAYOUT.fields[i].offset + LAYOUT.fields[i].size for i in items) for s, items in LAYOUT.by_section.items()}
ZERO = s.Expect(s.Zero(("msr.vmx_basic", "msr.vmx_pinbased_ctls", "msr.vmx_misc")))


def _state(**values: int) -> Snapshot:
    """All 0, but for ``values`` of MSRs and registers."""
    sections = {name: bytearray(size) for name, size in SIZES.items()}
    for name, value in values.items():
        field = LAYOUT.fields.get(name) or LAYOUT.fields[f"msr.{name}"]
        field.put(sections[field.section], value)
    return Snapshot({name: bytes(contents) for name, contents in sections.items()}, {})


def _compared(*steps: s.Step, evidence: tuple[tuple[int, object], ...]) -> dict[str, tuple[str, object]]:
    basis = Basis(Context("init.msi.host", "", HOST, "amd", False, 1), LAYOUT, None, None)
    return _judged(*steps, evidence=evidence, bases=(basis,))


def test_each_item_that_has_to_be_0_has_a_record() -> None:
    basic, pinbased, misc = (f"msr.vmx_{name}" for name in ("basic", "pinbased_ctls", "misc"))
    assert _compared(ZERO, evidence=((0, _state()),)) == {misc: ("skip", None), basic: ("pass", 0), pinbased: ("pass", 0)}
    then = s.Expect(s.Is("mp_state", 0))
    seen = _compared(ZERO, then, evidence=((0, _state(vmx_pinbased_ctls=0x16)), (1, 0)))
    assert seen == {misc: ("skip", None), basic: ("pass", 0), pinbased: ("fail", 0x16)}
    lost = Snapshot({name: data for name, data in _state().sections.items() if name != "msrs"}, {})
    assert {verdict for verdict, _ in _compared(ZERO, evidence=((0, lost),)).values()} == {"skip", "error"}


def test_each_vcpu_is_compared_with_itself() -> None:
    steps = (s.Observe("other"), s.Observe(), s.Expect(s.Same(), who="other"))
    one, two = _state(rax=1), _state(rax=2)
    assert _compared(*steps, evidence=((0, one), (1, two), (2, one))) == {"delivered": ("pass", "nothing changed")}
    assert _compared(*steps, evidence=((0, one), (1, two), (2, two))) == {"delivered": ("fail", "rax changed")}


def test_the_runner_passes_the_words_that_may_come_first() -> None:
    class Talks(_Vcpu):
        def __init__(self, *ports: int) -> None:
            self.ports = list(ports)

        def run(self, timeout_s: float) -> Exit:
            exit_ = Exit(KVM_EXIT_IO)
            exit_.direction, exit_.port, exit_.data = KVM_EXIT_IO_OUT, self.ports.pop(0), bytes(4)
            return exit_

    for ports, verdict in (((VALUE, VALUE, LEFT), None), ((VALUE, FAULT), "fail"), ((FAULT, LEFT), "fail")):
        machine = type("Machine", (), {"vm": _Vm(), "targets": (type("Target", (), {"vcpu": Talks(*ports)})(),)})()
        enter = p.Enter(0, p.Came("out", LEFT, past=(VALUE,)), p.Otherwise("fail", ""))
        end = play(p.Program({}, ((0, enter),)), machine, 1.0).end
        assert (end and end.verdict) == verdict


def test_another_word_than_the_one_that_has_a_meaning_is_said_as_it_is() -> None:
    words = s.Words((s.Word("EXIT", 3, says="reason {}"), s.Word("VALUE", 1, says="value {}")))
    evidence = ((1, _out(EXIT, 3)), (1, _out(LEFT, 7)))
    judged = _judged(s.Load("svm"), s.Expect(words, "exits"), evidence=evidence)
    assert judged == {"exits": ("fail", "reason 3, L1 after STGI, turns 0x7")}
