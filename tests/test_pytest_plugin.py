# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin as other projects' runs see it: fixtures, the failing message, skips, and silence where it is not used."""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from kvmtest.kvm import Kvm

pytest_plugins = ["pytester"]

STATE = """
    import pytest
    from kvmtest.kvm import CpuidEntry
    from kvmtest.testing import assert_state, saved_state
    from kvmtest.uapi.kvm import kvm_regs

    CPUID = [CpuidEntry(0, ebx=0x756E6547, edx=0x49656E69, ecx=0x6C65746E), CpuidEntry(1, eax=0x506E3, edx=0x200)]

    def state(**regs):
        return saved_state(regs=bytes(kvm_regs(**{"rdx": 0x506E3, "rip": 0xFFF0, "rflags": 2} | regs)), cpuid=CPUID)
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Another project, with kvmtest's plugin as its entry point loads it."""
    if "kvmtest" not in entry_points(group="pytest11").names:
        pytest.skip("kvmtest is not installed with its entry points (make setup)")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p kvmtest.pytest_plugin -p no:cacheprovider")
    return pytester


def test_the_entry_point_is_the_plugin() -> None:
    points = [point for point in entry_points(group="pytest11") if point.name == "kvmtest"]
    if not points:
        pytest.skip("kvmtest is not installed with its entry points (make setup)")
    assert points[0].value == "kvmtest.pytest_plugin"


def test_a_good_state_passes_and_says_what_was_not_judged(project: pytest.Pytester) -> None:
    project.makepyfile(STATE + """
    def test_reset():
        assert_state(state(), "reset", backend="vmx")
    """)
    result = project.runpytest_subprocess("-rP", "--junit-xml=out.xml")
    result.assert_outcomes(passed=1)
    head = "saved vCPU after RESET: * as the manuals say, 0 not, * not judged"
    left_out = "*not judged: *KVM_GET_SREGS was not given"
    result.stdout.fnmatch_lines(["*vCPU state*", head, left_out, "*vCPU states*", f"*test_reset: {head}"])
    assert "not judged" in (project.path / "out.xml").read_text()


def test_the_failing_message_is_the_reports(project: pytest.Pytester) -> None:
    project.makepyfile(STATE + """
    def test_reset():
        assert_state(state(rbx=0x1234, rflags=0x202), "reset", backend="vmx")
    """)
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        '>       assert_state(state(rbx=0x1234, rflags=0x202), "reset", backend="vmx")',
        "E       *StateMismatch: saved vCPU after RESET: * as the manuals say, 2 not, * not judged",
        "E       FAIL  reset.external.host.rbx",
        "E             planted   -",
        "E             expected  0x0",
        "E             observed  0x1234",
        "E             cases     bsp,intel",
        "E             cite      SDM vol. 3, IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT;",
        "E                       APM vol. 2, Initial Processor State",
        "E       FAIL  reset.external.host.rflags",
        "E             expected  0x2  fixed1",
        "E             observed  0x202  IF|fixed1",
        "E             differs   IF",
        "E         not judged: *",
        "test_the_failing_message_is_the_reports.py:*: StateMismatch",
    ])  # fmt: skip


def test_fixtures_run_a_guest_and_judge_its_vcpu(kvm: Kvm, project: pytest.Pytester) -> None:
    project.makepyfile("""
    import pytest
    from kvmtest.kvm import Kvm
    from kvmtest.testing import StateMismatch, assert_state, read_state
    from kvmtest.uapi.kvm import KVM_CAP_IRQCHIP

    def test_kvm(kvm):
        assert isinstance(kvm, Kvm) and kvm.check_extension(KVM_CAP_IRQCHIP)

    def test_guest(guest, vcpu):
        guest(b"\\xbb\\x34\\x12\\xe6\\x10\\xf4", gpa=0x1000)  # mov $0x1234, %bx; out %al, $0x10; hlt
        exit = vcpu.run()
        assert exit.name == "KVM_EXIT_IO"
        with pytest.raises(StateMismatch, match="rbx"):
            assert_state(vcpu.fd, "reset", ignore=["msr.tsc"])

    def test_unchanged(vm, vcpu):
        assert_state(vcpu, "none", before=read_state(vcpu), ignore=["mp_state"])
    """)
    project.runpytest_subprocess("-x").assert_outcomes(passed=3)


def test_without_kvm_tests_are_skipped_with_the_reason(project: pytest.Pytester) -> None:
    project.makeconftest("""
    from kvmtest.engine import doctor

    def refuse(path):
        raise doctor.Unusable("/dev/kvm: no such device: load kvm_intel or kvm_amd")

    doctor.open_kvm = refuse
    """)
    project.makepyfile("def test_guest(guest): assert False\ndef test_vcpu(vcpu): assert False\n")
    result = project.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*/dev/kvm: no such device: load kvm_intel or kvm_amd"])


def test_a_projects_own_fixtures_come_first(project: pytest.Pytester) -> None:
    project.makeconftest("import pytest\n@pytest.fixture\ndef vm():\n    return 'ours'\n")
    project.makepyfile("def test_vm(vm): assert vm == 'ours'\n")
    project.runpytest_subprocess().assert_outcomes(passed=1)


def test_a_run_that_does_not_use_it_loads_nothing_and_prints_nothing(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the entry point loads it.
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")
    project.makepyfile("""
    import sys

    def test_loaded():
        ours = {name for name in sys.modules if name.startswith("kvmtest")}
        assert ours == {"kvmtest", "kvmtest.pytest_plugin"}, ours
    """)
    result = project.runpytest_subprocess("-W", "error")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["plugins: *kvmtest-*"])
    result.stdout.no_fnmatch_line("*vCPU*")


def test_fixtures_are_documented(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("--fixtures")
    for name in ("kvm", "vm", "vcpu", "guest"):
        result.stdout.re_match_lines([rf"{name} -- .*pytest_plugin\.py", "    [A-Z].*"])


def test_results_come_back_from_the_workers_of_xdist(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    monkeypatch.setenv("PYTEST_ADDOPTS", os.environ["PYTEST_ADDOPTS"] + " -p xdist")
    project.makepyfile(STATE + """
    @pytest.mark.parametrize("n", range(4))
    def test_reset(n):
        assert_state(state(), "reset", backend="vmx")
    """)
    result = project.runpytest_subprocess("-n", "2")
    result.assert_outcomes(passed=4)
    assert sum("saved vCPU after RESET" in line for line in result.outlines) == 4


def test_the_library_works_without_pytest(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pytest'] = None; import kvmtest.testing; kvmtest.testing.saved_state()"
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0
