# SPDX-License-Identifier: GPL-2.0-only
"""The run skips what doctor says is missing; each ``no`` says what would change that."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kvmtest import guests
from kvmtest.cli import main
from kvmtest.engine import doctor, host, native, plan
from kvmtest.engine.machine import Machines
from kvmtest.kvm import CpuidEntry, Kvm
from kvmtest.model.host import Host
from kvmtest.scenario.needs import NEEDS, Need
from kvmtest.state import inside
from kvmtest.uapi import kvm as uapi
from kvmtest.x86 import xsave
from tests.cases import ran


def test_a_plant_that_kvm_refuses_is_explained(kvm: Kvm) -> None:
    found = {f.what: f for f in doctor.examine("/dev/kvm")}
    machines = Machines(kvm, host.detect())
    for name in inside.GUEST_PLANTS:
        case = next(c for c in plan.plan(full=True) if (c.trigger, c.plant, c.state) == ("msi", name, ""))
        skipped = {r.verdict for r in ran(case, machines)} == {"skip"}
        said = found[f"planting by guest code, {name.removeprefix('guest-')} mode"]
        assert (said.state == "no") == skipped
        assert not skipped or f"plant-{name}" in said.advice
    machines.close()


def test_guest_code_that_cannot_run_is_explained(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(plant: object, vcpu: object) -> None:
        raise inside.GuestStopped("made up")

    monkeypatch.setattr(inside.GuestPlant, "write", stop)
    advice = [f.advice for f in doctor.examine("/dev/kvm") if f.what.startswith("planting")]
    assert len(advice) == 3 and all("made up" in text for text in advice)


_AMD = Host("6.1", "svm", "AuthenticAMD", "EPYC", {"nested": "0"})


class _Lacking:
    """A KVM with the capabilities ``there`` alone."""

    def __init__(self, *there: int) -> None:
        self._there = there

    def check_extension(self, cap: int) -> int:
        return int(cap in self._there)

    def supported_cpuid(self) -> list[CpuidEntry]:
        return []

    def msr_index_list(self) -> list[int]:
        return []


def test_each_no_says_what_would_change_it(kvm: Kvm) -> None:
    found = list(doctor.examine("/dev/kvm"))
    # Those of this KVM, and of one that has nothing.
    refused = [f for f in [*found, *doctor._kvm(_Lacking(), _AMD)] if f.state == "no"]
    assert {name for name, *_ in doctor._OPTIONAL} <= {f.what for f in refused}
    assert all(f.advice and f.enable.startswith(("to enable: ", "nothing to enable: ")) for f in refused)
    assert not [f for f in found if f.state == "ok" and f.enable]


@pytest.mark.parametrize("lacking", [True, False])
def test_the_last_line_says_how_much_is_usable(lacking: bool, kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    if lacking:
        monkeypatch.setattr(guests, "__file__", "/nonexistent/__init__.py")
    *_, last = doctor.examine("/dev/kvm")
    assert last.what.endswith("next: kvmtest run") and last.what.startswith("usable: ")
    items, reported = (int(words.split()[0]) for words in last.what.removeprefix("usable: ").split(", "))
    assert items > 400 and (reported == 0 if lacking else reported > 100)


@pytest.mark.parametrize("kind", ["bin", "sym"])
@pytest.mark.parametrize("gone", guests.IMAGES)
def test_each_guest_that_is_missing_is_named(gone: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (f"{guest}.{part}" for guest in guests.IMAGES for part in ("bin", "sym")):
        shutil.copy(Path(guests.__file__).with_name(name), tmp_path)
    file = tmp_path / f"{gone}.{kind}"
    monkeypatch.setattr(guests, "__file__", str(tmp_path / "__init__.py"))
    assert guests.missing() == []
    file.unlink()
    said = next(f for f in doctor._tools() if f.what == "guest images")
    assert (said.state, said.advice, said.enable) == ("no", f"skipped: cases that need {gone}", "to enable: make guests")
    file.write_bytes(b"cut short")
    assert guests.missing() == [gone]


@pytest.mark.parametrize("there", [True, False])
def test_it_says_whether_c_code_issues_ioctls(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: there or None)
    said = next(f for f in doctor._tools() if f.what == "runner.so")
    assert said.state == ("ok" if there else "no")


def test_the_guests_are_those_that_have_a_source() -> None:
    sources = Path(__file__).parents[2] / "guests"
    assert sorted(path.stem for path in sources.glob("*.S")) == sorted(guests.IMAGES)


def test_nesting_is_reported_by_cpuid_and_names_the_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "flags", lambda: frozenset(("svm",)))
    both, none = _Lacking(uapi.KVM_CAP_NESTED_STATE), _Lacking()
    svm, without = [CpuidEntry(0x80000001, 0, 0, 0, 0, 4, 0)], [CpuidEntry(1, 0, 0, 0, 0, 4, 0)]
    nested, cells = doctor._nesting(both, svm, _AMD)
    assert nested == doctor.Finding("ok", "nested virtualization")
    assert cells.state == "ok" and cells.what.endswith("kvmtest lab run --accel kvm, backend svm")
    # kvm_amd has the capability with nested=0, too.
    nested, cells = doctor._nesting(both, without, _AMD)
    assert nested.enable == cells.enable == "to enable: load kvm_amd with nested=1"
    assert (nested.state, cells.state) == ("no", "no") and "--accel kvm" in cells.advice
    assert all("4.20" in one.enable for one in doctor._nesting(none, svm, _AMD))
    pvm = _AMD._replace(backend="pvm", parameters={})
    for one in doctor._nesting(none, without, pvm):
        assert one.enable == "nothing to enable: kvm_pvm has no parameter nested"
    monkeypatch.setattr(host, "flags", lambda: frozenset())
    assert all(one.enable.endswith("nested=1, on a CPU that has it") for one in doctor._nesting(both, without, _AMD))


def test_each_need_that_is_not_met_is_named(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(kvm, host.detect())
    met = {found.what.partition(":")[0] for found in doctor._needs(machines)}
    monkeypatch.setattr(Need, "met", lambda need, facts: False)
    unmet = {found.what.partition(":")[0]: found for found in doctor._needs(machines)}
    machines.close()
    assert unmet.keys() == NEEDS.keys() > met
    assert all(NEEDS[name][0].why in found.what and found.state == "no" for name, found in unmet.items())
    assert not [found.what for found in unmet.values() if found.advice == "skipped: 0 cases"]


def test_smm_needs_a_kernel_that_has_it() -> None:
    assert doctor._smm(_Lacking(uapi.KVM_CAP_X86_SMM), _AMD).state == "ok"
    assert doctor._smm(_Lacking(), _AMD).enable == "to enable: a kernel with CONFIG_KVM_SMM=y"
    assert "kvm_intel.unrestricted_guest=1" in doctor._smm(_Lacking(), _AMD._replace(backend="vmx")).enable


def test_what_the_cpu_has_not_is_reported_from_what_kvm_does_not_offer() -> None:
    assert {component.bit for component in xsave.COMPONENTS} == doctor._COMPONENT_FLAGS.keys()
    offered = [CpuidEntry(0xD, 0, 0, 0b111, 0, 0, 0), CpuidEntry(0xD, 2, 0, 256, 576, 0, 0)]
    _, absent, withheld = doctor._components(offered, frozenset(("avx", "ospke")))
    assert absent.what.endswith("BNDREGS BNDCSR opmask ZMM_Hi256 Hi16_ZMM TILECFG TILEDATA APX")
    assert absent.enable.startswith("nothing to enable") and withheld.enable.startswith("to enable")
    assert withheld.what.endswith(": PKRU")


def test_without_kvm_it_says_what_else_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "/nonexistent"]) == 3
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("bad  KVM: /nonexistent: no such device") and first.endswith("nested virtualization")
    assert "kvmtest lab run" in last
