# SPDX-License-Identifier: GPL-2.0-only
"""Each ioctl of a run, refused: what needed it is an error or a skip that names ioctl and errno, and nothing else is otherwise.

Always, once, and each n-th time; on the real /dev/kvm, issued by the C code and by Python. `python -m tests.engine.refusing FILE`
writes the table of it.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.engine import native
from kvmtest.engine.doctor import Unusable, open_kvm
from kvmtest.engine.plan import Case, plan
from kvmtest.kvm import Kvm
from kvmtest.kvm import ioctl as calls
from tests.cases import CASES
from tests.engine.refusing import CHOSEN, ERRORS, NUMBERS, TIMES, Product, Refusal, Refusing, departures

pytestmark = pytest.mark.kvm


#: So many calls of an ioctl are refused one by one.
_FIRST = 12
#: What writes a plant.
_WRITES = ("SREGS", "REGS", "LAPIC", "MSRS", "DEBUGREGS", "XSAVE", "XCRS", "VCPU_EVENTS")
_PLANTED = [case for case in CHOSEN if "plant-" in case.words and case.setup.vcpus == 2]


# The command

_ONE = "init.msi.host.cr3/ap,intel,xapic,plant-a"


@pytest.mark.parametrize(
    ("name", "error", "status"),
    [
        ("KVM_GET_API_VERSION", errno.EINVAL, 3),
        *((name, error, 3) for name in ("KVM_CHECK_EXTENSION", "KVM_CREATE_VM") for error in (errno.EINVAL, errno.ENOMEM)),
        *((name, error, 1) for name in ("KVM_GET_SUPPORTED_CPUID", "KVM_CREATE_VCPU") for error in (errno.EINVAL, errno.ENOMEM)),
        *((name, errno.ENOMEM, 1) for name in ("KVM_SET_SREGS", "KVM_GET_MP_STATE")),
        *((name, errno.EINVAL, 1) for name in ("KVM_GET_VCPU_MMAP_SIZE", "KVM_SIGNAL_MSI")),
        ("KVM_CREATE_VCPU", errno.EINTR, 1),
    ],
)
def test_the_command_ends_in_order(
    name: str,
    error: int,
    status: int,
    kvm: Kvm,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Refusing(monkeypatch).start(Refusal(NUMBERS[name], error, every=1))
    out = tmp_path / "r.json"
    assert main(["run", _ONE, "--format", "json", "-o", str(out)]) == status
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if status == 3:
        assert name in said and errno.errorcode[error] in said and len(said.splitlines()) == 1
    else:
        results = json.loads(out.read_text())["records"]
        (record,) = (one for one in results if one["item"] == "cr3")
        assert record["verdict"] == "error" and name in record["reason"] and errno.errorcode[error] in record["reason"]


# Cases

_RESET = "bsp,full-irqchip,intel,xapic,plant-a"


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    try:
        open_kvm("/dev/kvm").close()
    except Unusable as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        # Nothing is learnt from an ioctl that is called in vain a thousand times.
        patch.setattr(calls, "INTERRUPTED", 5)
        patch.setattr(native, "INTERRUPTED", 5)
        yield Product(Refusing(patch))


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_what_needed_a_refused_ioctl_says_so_and_nothing_else_is_otherwise(error: int, time: str, product: Product) -> None:
    """Of each ioctl one case, and one that comes after it."""
    tried = {refusal.request: found for refusal, found in product.some(error, time)}
    assert not {found for found in tried.values() if found}, [found for found in tried.values() if found][:5]
    assert len(tried) > 50


@pytest.mark.parametrize(
    ("name", "time", "words"),
    [
        # A plant of guest code that has nothing to begin with.
        ("KVM_SET_SREGS", "always", "bsp,amd,xapic,plant-guest-long,guest-debug,migrated-before-qemu"),
        # MSRs that are planted as items of struct kvm_sregs.
        ("KVM_SET_SREGS", "always", "ap,intel,xapic,plant-a"),
        # A guest that cannot run where the vCPU was not written back, a timer that goes on, a bit of CR4.
        *((name, time, _RESET) for name in ("KVM_SET_SREGS", "KVM_SET_LAPIC") for time in ("each", "once")),
        # A guest that does not run, which is no matter of time.
        ("KVM_SET_MP_STATE", "once", _RESET),
        # An XSAVE state that KVM_SET_FPU needs.
        *((name, "always", "ap,intel,alone-over-a") for name in ("KVM_SET_XSAVE", "KVM_GET_XSAVE2")),
    ],
)
def test_what_a_plant_and_a_reset_lack_is_named(name: str, time: str, words: str, product: Product) -> None:
    for case in (case for case in CHOSEN if case.words == words and case.setup.vcpus == 2):
        for issued in (True, False):
            _, found = product.tried(NUMBERS[name], errno.EINVAL, time, case, native=issued)
            assert not found, found


@pytest.mark.parametrize("mode", ["disabled", "x2apic"])
def test_a_mode_of_the_local_apic_that_kvm_refuses_is_not_that_of_a_case(mode: str, product: Product) -> None:
    case, refusal = CASES[f"init.latched.host/bsp,intel,{mode},plant-a"], Refusal(NUMBERS["KVM_SET_SREGS"], errno.EINVAL, every=1)
    seen = product.shown([case], refusal)
    assert departures(product.quiet(case), seen, refusal) == []
    assert {result.verdict for result in seen.values()} == {"skip"}


@pytest.mark.parametrize("case", _PLANTED, ids=lambda case: case.name)
def test_each_single_call_that_is_refused(case: Case, product: Product) -> None:
    """Of those that write a plant, of which some undo what others have tried."""
    quiet, count = product.quiet(case), product.calls(case, native=True)
    for name in (f"KVM_SET_{what}" for what in _WRITES):
        for call in range(min(_FIRST, count[NUMBERS[name]])):
            refusal = Refusal(NUMBERS[name], errno.EINVAL, after=call)
            assert departures(quiet, product.shown([case], refusal), refusal) == [], (name, call)


@pytest.mark.nightly
@pytest.mark.parametrize("issued", ["natively", "in Python"])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_the_same_of_all_that_issue_it(error: int, issued: str, product: Product) -> None:
    for time in TIMES:
        for refusal, found in product.every(error, time, native=issued == "natively"):
            assert not found, (refusal, found)


@pytest.mark.nightly
def test_the_chosen_cases_issue_each_ioctl_of_the_plan(product: Product) -> None:
    product.shown([case for case in plan() if "stress" not in case.name], None)
    used = set(product.refusing.calls)
    assert used - product.used == set()


def test_a_refusal_is_seen_whoever_issues_the_ioctl(product: Product) -> None:
    """The others rest on it."""
    (case,) = (case for case in CHOSEN if case.words == "ap,intel,xapic,plant-a" and case.trigger == "msi")
    for issued in (True, False):
        quiet = product.quiet(case)
        seen = product.shown([case], Refusal(NUMBERS["KVM_GET_DEBUGREGS"], errno.ENOMEM, every=1), native=issued)
        changed = [result for key, result in seen.items() if result.verdict != quiet.get(key)]
        assert product.refusing.refused and len(changed) > 100
        assert all("KVM_GET_DEBUGREGS: Cannot allocate memory [ENOMEM]" in result.reason for result in changed)


def test_a_verdict_that_changes_without_a_word_is_reported(product: Product) -> None:
    quiet = product.quiet(CHOSEN[3])
    refusal = Refusal(NUMBERS["KVM_GET_REGS"], errno.EINVAL, every=1)
    seen = product.shown([CHOSEN[3]], None)
    assert departures(quiet, seen, refusal) == []
    (first, *_) = (key for key, verdict in quiet.items() if verdict == "pass")
    (found,) = departures({**quiet, first: "fail"}, seen, refusal)
    assert found.startswith(f"{first[0]}/{first[1]}: fail -> pass")
    (found,) = departures({**quiet, ("init.msi.host.none", first[1]): "pass"}, seen, refusal)
    assert found.endswith("not there")
