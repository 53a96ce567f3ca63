# SPDX-License-Identifier: GPL-2.0-only
"""Planting by guest code: what it writes arrives, what it cannot write is not a plant."""

from __future__ import annotations

import pytest

from kvmtest import guests
from kvmtest.engine.machine import Target
from kvmtest.guests import planter
from kvmtest.state import inside

#: Written by an instruction of its own each, in every mode and on every CPU.
WRITTEN = ("dr0", "dr7", "cr0", "cr2", "cr3", "cr4", "gdt.base", "gdt.limit", "idt.base", "idt.limit", "ldt.selector", "ldt.base")
WRITTEN += ("tr.selector", "tr.base", "es.selector", "es.base", "fs.selector", "rax", "rbx", "rsp", "msr.star", "msr.pat", "xcr0")
WRITTEN += ("xmm0", "mxcsr", "fcw", "lapic.svr", "lapic.lvt_timer")


def _write(target: Target, name: str, apic_mode: str = "xapic") -> inside.GuestPlant:
    plant = target.plant(name, apic_mode)
    assert isinstance(plant, inside.GuestPlant)
    try:
        plant.write(target.vcpu)
    except inside.PlantRefused as error:
        pytest.skip(str(error))
    return plant


@pytest.mark.parametrize("name", inside.GUEST_PLANTS)
@pytest.mark.parametrize("who", ["bsp", "ap"])
def test_what_the_code_writes_is_what_the_host_reads(targets: dict[str, Target], who: str, name: str) -> None:
    target = targets[who]
    plant = _write(target, name)
    seen = target.reader.read()
    written = [item for item in WRITTEN if item in plant.asked]
    assert len(written) >= 25
    assert {i: seen.get(target.layout, i) for i in written} == {i: plant.asked[i] for i in written}
    assert any(plant.asked[i] != target.baseline.get(target.layout, i) for i in written)


def test_x2apic_registers_are_written_by_msr(targets: dict[str, Target]) -> None:
    target = targets["ap"]
    plant = _write(target, "guest-long", "x2apic")
    seen = target.reader.read()
    assert seen.get(target.layout, "lapic.svr") == plant.asked["lapic.svr"] != 0xFF
    assert "lapic.ldr" not in plant.asked


@pytest.mark.parametrize(
    ("code", "says"),
    [(b"\xeb\xfe", "no exit within"), (b"\xe6\x10", "stopped: KVM_EXIT_IO"), (b"\xf4", "no exit within")],
)
def test_code_that_does_not_come_to_its_end_is_reported(
    code: bytes, says: str, targets: dict[str, Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that spins, that leaves by another port, that halts."""
    image = bytearray(guests.load("planter"))
    at = planter.long
    image[at : at + len(code)] = code
    monkeypatch.setattr(guests, "load", lambda name: bytes(image))
    monkeypatch.setattr(inside, "_TIMEOUT_S", 0.05)
    target = targets["ap"]
    with pytest.raises(inside.GuestStopped, match=says):
        target.plant("guest-long", "xapic").write(target.vcpu)
