# SPDX-License-Identifier: GPL-2.0-only
"""The guest's own view on a real vCPU: it says what the host set, and what it cannot do costs only its own items."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from kvmtest import guests
from kvmtest.engine import disassemble, guest, host
from kvmtest.engine.machine import Machine, Machines, Target
from kvmtest.engine.plan import Setup
from kvmtest.guests import spine
from kvmtest.scenario import step as s
from kvmtest.state import guest_view
from kvmtest.state.layout import Layout
from tests.cases import by_item, by_view, the
from tests.playing import steps

#: DIV AL. Not UD2: a KVM that emulates real mode gives an invalid opcode to userspace, not to the guest.
FAULTS = bytes.fromhex("f6f0")
#: UD0 with a ModRM byte: no emulator knows it; a CPU raises #UD.
UNKNOWN = bytes.fromhex("0fffc0")


@pytest.fixture
def machine(machines: Machines) -> Iterator[Machine]:
    made = machines.fresh(Setup("full", "intel", mce=True))
    yield made
    made.close()


def _report(machine: Machine, target: Target, vector: int | None = None, mode: str = "xapic") -> guest_view.Report:
    return guest.Reporter(machine, target.vcpu, target.layout, vector, mode).report(2.0)


def _differences(machine: Machine, target: Target, vector: int | None = None, mode: str = "xapic") -> set[str]:
    """The items of which the guest says something else than the host's ioctls just before it runs."""
    before = target.reader.read()
    report = _report(machine, target, vector, mode)
    assert not report.problem and not set(report.values) & set(report.missing)
    assert set(guest_view.items(mode, vector)) <= set(report.values) | set(report.missing)
    assert len(report.values) > 200
    values = {item: before.get(target.layout, item) for item in report.values}
    said = {item: (guest_view.shown(item, values[item], report.narrow), v) for item, v in report.values.items()}
    # Counters go on; KVM makes up PPR anew when the guest reads it, and has no remote read register.
    moving = {"msr.tsc", "lapic.ppr", "lapic.rrd"}
    if host.detect().cpu_vendor == "AuthenticAMD":
        moving |= {"fop", "fip", "fdp"}  # kept while an exception is pending only
    return {item for item, (ours, theirs) in said.items() if ours != theirs and item not in moving}


def test_a_new_vcpu_is_as_the_host_sees_it(machine: Machine) -> None:
    assert not _differences(machine, machine.target("bsp"))


def test_everything_set_by_the_host_is_what_the_guest_says(machine: Machine) -> None:
    """Nothing that it reports is a constant of its own: the plant for a vCPU that waits for a SIPI, then the SIPI."""
    target = machine.target("ap")
    target.plant("sipi", "xapic").write(target.vcpu)
    steps(machine, s.Send("init"), s.Settle())
    target.plant("sipi", "xapic").write(target.vcpu)
    steps(machine, s.Send("sipi", vector=0x9F), s.Settle())
    assert not _differences(machine, target, 0x9F)


def test_real_mode_segments_are_proven_by_what_is_read_through_them(machine: Machine) -> None:
    target = machine.target("bsp")
    sregs = target.vcpu.get_sregs()
    # The first three in RAM, then beyond it, where the host answers.
    bases = {"ds": 0x100, "es": 0x1230, "ss": 0x4560, "fs": 0xF00000, "gs": 0x12345670}
    for name, base in bases.items():
        getattr(sregs, name).selector, getattr(sregs, name).base = base >> 8, base
    sregs.fs.limit, sregs.gs.limit, sregs.es.limit = 0xFFFFF, 0xFFFFFFFF, 0xFFFF
    sregs.fs.g = sregs.gs.g = 1
    sregs.cr2, sregs.cr3 = 0x123456789A, 0x5000
    sregs.gdt.base, sregs.gdt.limit = 0x12345, 0x1FF
    target.vcpu.set_sregs(sregs)
    report = _report(machine, target)
    assert not report.problem
    if "ds.limit" not in report.values:
        pytest.skip(report.missing["ds.limit"])
    assert {name: report.values[f"{name}.base"] for name in bases} == bases
    assert report.values["gs.limit"] == 0xFFFFFFFF and report.values["es.limit"] == 0xFFFF
    assert report.values["fs.limit"] == 0xFFFFF
    assert (report.values["cr2"], report.values["gdt.base"], report.values["gdt.limit"]) == (0x123456789A, 0x12345, 0x1FF)


def test_x2apic_registers_are_read_as_msrs(machine: Machine) -> None:
    target = machine.target("bsp")
    target.plant("a", "x2apic").write(target.vcpu)
    steps(machine, s.Send("init", "latched"), target="bsp")
    assert not _differences(machine, target, mode="x2apic")


def test_a_disabled_local_apic_is_not_read(machine: Machine) -> None:
    target = machine.target("bsp")
    target.plant("a", "disabled").write(target.vcpu)
    steps(machine, s.Send("init", "latched"), target="bsp")
    report = _report(machine, target, mode="disabled")
    assert not report.problem and "lapic.svr" not in report.values
    assert not any(item.startswith("lapic.") for item in guest_view.items("disabled"))


@pytest.mark.parametrize("setup", [Setup("none", "amd"), Setup("split", "amd"), Setup("full", ""), Setup("none", "")])
def test_other_kinds_of_vcpu_are_reported_too(setup: Setup, machines: Machines) -> None:
    made = machines.fresh(setup)
    target = made.target("bsp")
    before = target.reader.read()
    report = _report(made, target)
    assert not report.problem
    assert ("lapic.svr" in report.values) == (setup.irqchip != "none")
    assert ("cpuid.1.ecx" in report.values) == bool(setup.vendor)
    for item in ("rax", "cr0", "idt.limit", "dr6", "fcw", "ds.base", "tr.selector"):
        assert report.values[item] == before.get(target.layout, item), item
    made.close()


def _patched(monkeypatch: pytest.MonkeyPatch, after: bytes, code: bytes) -> None:
    """The spine guest with ``code`` over what follows the only occurrence of ``after``."""
    image = guests.load("spine")
    assert image.count(after) == 1
    at = image.index(after) + len(after)
    patched = image[:at] + code + image[at + len(code) :]
    monkeypatch.setattr(guests, "load", lambda name: patched)


def _step_start(step: str) -> bytes:
    """MOVW $status, %ss:STATUS of a 16-bit step."""
    status = spine.status(step)
    return b"\x36\xc7\x06\x04\x00" + status.to_bytes(2, "little") + b"\x36\xc7\x06\x00\x00"


@pytest.mark.parametrize(
    ("code", "says"), [(UNKNOWN, ("KVM_EXIT_INTERNAL_ERROR", "exception 6")), (b"\xb0\0" + FAULTS, ("exception 0",))]
)
def test_a_step_that_fails_costs_its_items_only(
    code: bytes, says: tuple[str, ...], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = set(_report(machine, machine.target("bsp")).values)
    other = machine.target("ap")
    start = _step_start("DEBUG")
    at = guests.load("spine").index(start) + len(start)
    resume = guests.load("spine")[at : at + 2]
    _patched(monkeypatch, start + resume, code)
    other.vcpu.set_mp_state(0)
    report = _report(machine, other)
    lost = set(spine.STEP_ITEMS["DEBUG"])
    assert not report.problem and whole - set(report.values) == lost
    assert all(report.missing[item].startswith(says) for item in lost)


def _spins_at(monkeypatch: pytest.MonkeyPatch, found: bytes, after: int) -> None:
    """The spine guest with JMP to itself ``after`` bytes after the first place of ``found``."""
    image = bytearray(guests.load("spine"))
    at = image.index(found) + after
    image[at : at + 2] = b"\xeb\xfe"
    monkeypatch.setattr(guests, "load", lambda name: bytes(image))


def _begins(step: str) -> bytes:
    """Return the instruction that stores the number of ``step``, in 16-, 32- or 64-bit code."""
    status = spine.status(step)
    where = (spine.DATA + spine.STATUS).to_bytes(4, "little")
    stores = (_step_start(step)[:7], *(head + where + status.to_bytes(4, "little") for head in (b"\xc7\x05", b"\xc7\x04\x25")))
    image = guests.load("spine")
    return next(store for store in stores if store in image)


@pytest.mark.parametrize("step", [step for step in spine.STEP_ITEMS if step != "TABLES"])
def test_a_guest_that_is_stopped_in_a_step_reports_nothing_of_that_or_of_what_follows(
    step: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = machine.target("bsp")
    _spins_at(monkeypatch, begins := _begins(step), len(begins))
    report = guest.Reporter(machine, target.vcpu, target.layout).report(0.05)
    assert "no exit within" in report.problem
    steps = list(spine.STEP_ITEMS)
    later = {item for name in steps[steps.index(step) :] for item in spine.STEP_ITEMS[name]}
    if steps.index(step) <= steps.index("LIMITLESS"):
        # It is not known yet if there are limits at all.
        later |= {item for item in guest_view.ITEMS if item.endswith(".limit") and item not in ("gdt.limit", "idt.limit")}
    else:
        later -= {"tr.selector"}
    if steps.index(step) <= steps.index("FXSAVE"):
        later |= {"xmm0", "mxcsr"}
    assert not later & set(report.values) and "r16" not in report.values and "ymm0_hi128" not in report.values
    if steps.index(step) < steps.index("XSETBV"):
        assert not any("did not last" in why for why in report.missing.values())
    assert steps.index(step) > steps.index("WIDE") or set(spine.WIDE) <= report.narrow
    assert all(value >> 32 == 0 for item, value in report.values.items() if item in report.narrow)


@pytest.mark.parametrize("limit", ["cs", "es", "gs"])
def test_a_limit_is_reported_by_the_exception_that_ends_it_and_not_by_a_time_out(
    limit: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest spins after the first offset that could be read: what it has stored is not a limit."""
    status = spine.status(f"{limit.upper()}_LIMIT")
    done = b"\x36\xc6\x06" + status.to_bytes(2, "little") + b"\x01"
    _spins_at(monkeypatch, done, len(done))
    case = the("init.msi.guest/bsp,intel,xapic,plant-a")
    results = by_item(case, machines, 0.1)
    reported = results[f"{limit}.limit"]
    assert (reported.verdict, reported.observed) == ("error", None) and f"in step {limit.upper()}_LIMIT" in reported.reason
    assert {results[f"{seg}.limit"].verdict for seg in ("cs", "ds", "es", "ss", "fs", "gs")} == {"error"}
    assert results["rax"].verdict == "pass"


def test_limits_are_not_judged_where_it_is_not_known_whether_there_are_any(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DIV AL in the step that is to read beyond a limit: another exception than the limit's."""
    begins = _begins("LIMITLESS")
    resume = 10  # bytes of the store of RESUME
    image = bytearray(guests.load("spine"))
    at = image.index(begins) + len(begins) + resume
    image[at : at + 4] = b"\xb0\0" + FAULTS
    monkeypatch.setattr(guests, "load", lambda name: bytes(image))
    report = _report(machine, machine.target("bsp"))
    assert "es.limit" not in report.values and "limits are enforced here is not known" in report.missing["es.limit"]


def test_a_guest_that_stores_zeros_fails(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A register that was cleared into DR6's slot: XOR EAX, EAX over MOV EAX, DR6."""
    image = guests.load("spine")
    patched = image.replace(bytes.fromhex("0f21f0"), bytes.fromhex("6631c0"), 1)
    assert patched != image
    monkeypatch.setattr(guests, "load", lambda name: patched)
    results = by_view(the("init.msi.guest/bsp,intel,xapic,plant-a"), machines)
    for view in ("guest", "views"):
        dr6 = results[view, "dr6"]
        assert dr6.verdict == "fail" and dr6.observed == "0x0"


def test_smsw_must_agree_with_cr0(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """XOR AX, AX and a NOP over SMSW AX."""
    image = guests.load("spine")
    patched = image.replace(bytes.fromhex("0f01e0"), bytes.fromhex("31c090"), 1)
    assert patched != image
    monkeypatch.setattr(guests, "load", lambda name: patched)
    report = _report(machine, machine.target("bsp"))
    assert "SMSW read 0x0" in report.problem and "cr0" not in report.values


def test_an_exception_before_there_are_handlers_ends_it_with_its_place(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = bytearray(guests.load("spine"))
    image[spine.reset_vector : spine.reset_vector + 2] = FAULTS
    monkeypatch.setattr(guests, "load", lambda name: bytes(image))
    report = _report(machine, machine.target("bsp"))
    assert not report.values and report.problem.startswith("an exception at CS:IP f000:fff0")


def test_wrong_place_is_seen(machine: Machine) -> None:
    """CS.base below 1 MiB at the reset vector: the guest runs just as well, and says where it is."""
    machine.vm.add_memory(5, 0xF0000, guests.ROM_SIZE).write(0xF0000, spine.placed(guests.load("spine"), 0xF0000))
    target = machine.target("bsp")
    sregs = target.vcpu.get_sregs()
    sregs.cs.base = 0xF0000
    target.vcpu.set_sregs(sregs)
    assert _report(machine, target).values["cs.base"] == 0xF0000


def test_no_vector_may_point_into_the_guests_memory(machine: Machine) -> None:
    with pytest.raises(ValueError, match="second part"):
        _report(machine, machine.target("ap"), 0x20)


@pytest.mark.parametrize("vector", [0x00, 0x01, 0x10, 0x9F, 0xFF])
def test_each_sipi_vector_begins_in_its_page(vector: int, machine: Machine) -> None:
    ap = machine.target("ap")
    steps(machine, s.Send("init"), s.Settle(), s.Send("sipi", vector=vector))
    report = _report(machine, ap, vector)
    assert not report.problem
    where = (report.values["rip"], report.values["cs.selector"], report.values["cs.base"], report.values["cs.limit"])
    assert where == (0, vector << 8, vector << 12, 0xFFFF)


def test_items_of_a_sipi_after_init_leave_its_place_out() -> None:
    there = set(guest_view.items("xapic")) - set(guest_view.items("xapic", 0x10, "init"))
    assert there == {"rip", "cs.selector", "cs.base"}


def test_limits_are_reported_by_the_largest_offset_that_can_be_read() -> None:
    shown = [guest_view.shown("ds.limit", limit) for limit in (0, 0xFFFE, 0xFFFF, 0x10000, 0x12345, 0xFFFFF, 0xFFFFFFFF)]
    assert shown == [0, 0, 0xFFFF, 0x10000, 0x10000, 0xFFFFF, 0xFFFFFFFF]
    assert guest_view.shown("idt.limit", 0x1234) == 0x1234


def test_what_xsave_stored_is_decoded_with_the_layouts_offsets() -> None:
    class Ram:
        def __init__(self) -> None:
            self.bytes = bytearray(0xA0000)

        def read(self, gpa: int, length: int) -> bytes:
            return bytes(self.bytes[gpa : gpa + length])

        def read_int(self, gpa: int, length: int = 8) -> int:
            return int.from_bytes(self.read(gpa, length), "little")

    ram = Ram()
    run = guest.Reporter.__new__(guest.Reporter)
    run.ram, run.layout, run.failures = ram, Layout((), {2: 576, 9: 2688}, {}), {}  # type: ignore[assignment]
    for step in ("XSAVE", "FXSAVE"):
        ram.bytes[spine.DATA + spine.status(step)] = 1
    for at, value in ((512, 0x206), (160 + 15 * 16, 0x55), (576, 0x77), (2688, 0x1234)):
        ram.bytes[spine.XSAVE + at : spine.XSAVE + at + 4] = value.to_bytes(4, "little")
    for at in (spine.XCR0_WANTED, spine.XCR0_USED):
        ram.bytes[spine.DATA + at : spine.DATA + at + 2] = (0x207).to_bytes(2, "little")
    values: dict[str, int] = {}
    missing: dict[str, str] = {}
    run._vectors(values, missing)
    assert (values["xmm15"], values["ymm0_hi128"], values["pkru"], values["fcw"]) == (0x55, 0x77, 0x1234, 0x37F)
    assert "k0" not in values and not missing
    ram.bytes[spine.DATA + spine.XCR0_USED : spine.DATA + spine.XCR0_USED + 2] = (0x3).to_bytes(2, "little")
    values.clear()
    run._vectors(values, missing)
    assert values["xmm15"] == 0x55 and "XCR0 was 0x3" in missing["ymm0_hi128"] and "pkru" not in values


def test_an_instruction_is_named_where_a_disassembler_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert disassemble.disassemble(bytes.fromhex("0f01d0"), 64) == ("xgetbv" if shutil.which("objdump") else "")
    disassemble.disassemble.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    assert disassemble.disassemble(bytes.fromhex("0f01d0"), 64) == ""
    disassemble.disassemble.cache_clear()


def test_without_a_file_to_write_to_no_instruction_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("os.memfd_create", refuse)
    disassemble.disassemble.cache_clear()
    assert disassemble.disassemble(bytes.fromhex("0f01d0"), 64) == ""
    disassemble.disassemble.cache_clear()
