# SPDX-License-Identifier: GPL-2.0-only
"""Real kernels in real emulators. Not part of the default run, as they take minutes: make test-lab."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kvmtest.engine.plan import plan, select
from kvmtest.lab import kernels
from kvmtest.lab.cell import Cell
from kvmtest.lab.error import LabError
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.start import Cpu
from kvmtest.lab.steps import Begin, Remark, Spec, Step, Times
from kvmtest.model.record import Result
from tests.lab.builds import build, change

pytestmark = pytest.mark.lab

_SELECTORS = (
    "reset.create.host.rdx",
    "init.latched.host.rdx",
    "init.latched.host.cr[023]",
    "init.latched.host.[gi]dt.base",
    "sipi.msi.guest.cs.base",
)
Run = Callable[..., dict[str, set[str]]]


def _kernel(which: str) -> Kernel:
    try:
        return kernels.find(which)
    except LabError as error:
        pytest.skip(str(error))


def _results(steps: list[Step]) -> list[Result]:
    return [result for step in steps if isinstance(step, list) for one in step for result in one.results]


@pytest.fixture
def run() -> Run:
    """Runs a cell: its verdicts by id."""

    def verdicts(
        backend: str, which: str, selectors: tuple[str, ...] = _SELECTORS, own_modules: str = "", warns: str = "",
        parameters: str = "", cpu: Cpu | None = None,
    ) -> dict[str, set[str]]:  # fmt: skip
        of_modules = {"kvm_amd": parameters} if parameters else {}
        spec = Spec(backend, _kernel(which), selectors, own_modules=own_modules, parameters=of_modules, cpu=cpu or Cpu())
        cell = Cell(spec)
        try:
            cell.emulator.check()
        except LabError as error:
            pytest.skip(str(error))
        steps = list(cell.steps())
        begin = next(step for step in steps if isinstance(step, Begin))
        assert begin.host.kernel == spec.kernel.release and begin.host.backend == backend
        assert isinstance(steps[-1], Times)
        found: dict[str, set[str]] = {}
        results = _results(steps)
        for result in results:
            found.setdefault(result.id, set()).add(result.verdict)
        said = [result for result in results if result.trigger == "lab"]
        unlisted = [r for r in said if r.verdict != "known"]
        assert [(r.id, r.verdict) for r in unlisted] == ([("none.lab.kernel.log", "fail")] if warns else [])
        assert all(warns in r.reason and "Call Trace" in r.reason and r.case.startswith("init.latched/") for r in unlisted)
        assert "error" not in set().union(*found.values())
        return found

    return verdicts


@pytest.mark.smoke
@pytest.mark.parametrize("backend", ["svm", "vmx"])
def test_bookworm_clears_what_it_should(backend: str, run: Run) -> None:
    found = run(backend, "bookworm")
    for name in ("init.latched.host.rdx", "init.latched.host.cr2", "init.latched.host.cr3"):
        assert found[name] <= {"pass", "skip"} and "pass" in found[name], name
    assert "fail" not in found["reset.create.host.rdx"]
    assert found["sipi.msi.guest.cs.base"] == {"pass"}


#: Of an Intel vCPU: RESET, INIT with each plant and with what guest code planted, SIPI.
_OF_NEW_CPUS = (
    "reset.create/bsp,full-irqchip,intel",
    "init.latched/*,intel,xapic,plant-?",
    "init.msi/*,intel,x2apic,plant-?",
    "init.msi/*,intel,xapic,plant-?",
    "init.self/*,intel,x2apic,plant-guest-long*",
    "init.msi/*,intel,xapic,plant-guest-long,*",
    "sipi.msi/ap,intel,xapic,plant-sipi,vector-01",
)


@pytest.mark.smoke
def test_a_cpu_with_cet_and_avx_512(run: Run) -> None:
    assert len(select(plan(), _OF_NEW_CPUS)) <= 30
    found = run("vmx", "sid", _OF_NEW_CPUS, cpu=Cpu("tigerlake"))
    assert not [id for id, verdicts in found.items() if "fail" in verdicts]
    for item in ("msr.s_cet", "msr.int_ssp_tab", "zmm0_hi256", "zmm31", "k7", "pkru"):
        assert "pass" in found[f"init.msi.host.{item}"], item
    for item in ("zmm31", "k7"):
        assert "pass" in found[f"init.msi.guest.{item}"], item


@pytest.mark.parametrize("which", ["5.10", pytest.param("bookworm", marks=pytest.mark.smoke), "trixie", "sid"])
def test_a_saved_boot_gives_what_a_boot_gives(which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Spec("svm", _kernel(which), _SELECTORS)
    try:
        Cell(spec).emulator.check()
    except LabError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    booted, saving, restored = (list(Cell(s).steps()) for s in (spec._replace(fresh_boot=True), spec, spec))
    assert not [step for step in (*saving, *restored) if isinstance(step, Remark)]
    results = [[(r.id, r.case, r.verdict) for r in _results(steps)] for steps in (booted, saving, restored)]
    assert results[0] == results[1] == results[2]
    facts = [next(step.host for step in steps if isinstance(step, Begin)) for steps in (booted, saving, restored)]
    assert facts[0].parameters == facts[1].parameters == facts[2].parameters


@pytest.mark.parametrize(
    ("backend", "wrong"),
    [
        ("svm", ("reset.create.host.rdx", "init.latched.host.cr3", "init.latched.host.gdt.base", "init.latched.host.idt.base")),
        ("vmx", ("init.latched.host.rdx", "init.latched.host.cr3", "init.latched.host.cr0")),
    ],
)
def test_what_5_10_leaves(backend: str, wrong: tuple[str, ...], run: Run) -> None:
    found = run(backend, "5.10")
    for name in wrong:
        assert found[name] & {"fail", "known"}, name


@pytest.mark.parametrize(
    ("which", "vgif", "fails"),
    [
        # Without vGIF KVM sees the STGI, and since v6.1 what is pending then.
        ("5.10", 0, {"init.msi.guest.runs"}),
        ("bookworm", 0, set[str]()),
        ("bookworm", 1, {"init.msi.guest.runs"}),
    ],
)
def test_a_hypervisor_in_the_guest_shows_init_with_gif_clear(which: str, vgif: int, fails: set[str], run: Run) -> None:
    selectors = ("init.msi/*,at-*", "init.msi/*,in-svm-l2*", "init.msi/*,after-rsm")
    found = run("svm", which, selectors, parameters=f"nested=1 vgif={vgif}")
    behaviours = {f"init.msi.guest.{item}" for item in ("runs", "exits", "pending", "delivered")}
    assert {id for id in behaviours if found.get(id, set()) & {"fail", "known"}} == fails
    for id in ("init.msi.guest.exits", "init.msi.guest.pending"):
        # What no manual says is recorded.
        assert "pass" in found[id] <= {"pass", "info"}, id
    assert "pass" in found["init.msi.guest.runs"] and "fail" not in found["init.msi.host.nested.flags"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "fails"),
    [("5.10", {"none.vm-exit.guest.ldt.selector", "init.msi.guest.runs"}), ("bookworm", {"sipi.msi.guest.runs"})],
)
def test_a_hypervisor_in_the_guest_shows_init_in_vmx_operation(which: str, fails: set[str], run: Run) -> None:
    found = run("vmx", which, ("*/*-vmx-*",))
    behaviours = (".runs", ".exits", ".pending", ".delivered", ".guest.ldt.selector")
    assert {id for id, verdicts in found.items() if id.endswith(behaviours) and verdicts & {"fail", "known"}} == fails
    for id in ("init.msi.guest.exits", "sipi.msi.guest.exits"):
        # A CPU may have no wait-for-SIPI, and KVM has no monitor trap flag for nested guests.
        assert "pass" in found[id] <= {"pass", "skip"}, id
    assert found["init.msi.guest.pending"] == {"pass"}


@pytest.mark.slow
def test_an_own_build_with_one_line_broken_is_caught_by_name(run: Run) -> None:
    """kvm.ko as bookworm's, but that kvm_vcpu_reset() warns of an INIT instead of clearing CR2."""
    kernel = _kernel("bookworm")
    line, instead = "\tvcpu->arch.cr2 = 0;\n", "\tWARN_ON_ONCE(init_event);\n"
    own = build(kernel, lambda kvm: change(kvm / "x86.c", line, instead))
    selectors = ("init.latched.host.cr2", "init.latched.host.cr3")
    found = run("svm", "bookworm", selectors, own_modules=str(own), warns="kvm_vcpu_reset")
    assert "fail" in found["init.latched.host.cr2"]
    assert found["init.latched.host.cr3"] <= {"pass", "skip"} and "pass" in found["init.latched.host.cr3"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["svm", "vmx"])
def test_a_kvm_ko_that_oopses_as_it_is_loaded_ends_the_cell(backend: str) -> None:
    kernel = _kernel("bookworm")
    own = build(kernel, lambda kvm: change(kvm / "x86.c", "\tkvm_mmu_x86_module_init();\n", "\tBUG();\n"))
    cell = Cell(Spec(backend, kernel, _SELECTORS, own_modules=str(own)))
    try:
        cell.emulator.check()
    except LabError as error:
        pytest.skip(str(error))
    # Then, where init is process 1, a panic may follow.
    log, *_, error = _results(list(cell.steps()))
    assert (log.id, log.verdict, log.case) == ("none.lab.kernel.log", "fail", "")
    assert log.reason.startswith("loading kvm.ko: ") and "kernel BUG at " in log.reason and "kvm_x86_init" in log.reason
    assert (error.id, error.verdict) == ("none.lab.kernel.boot", "error")
    assert "its kernel oopsed: kernel BUG at " in error.reason
