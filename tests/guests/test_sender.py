# SPDX-License-Identifier: GPL-2.0-only
"""The sender guest: its entries, and that what it fails to do is told."""

from __future__ import annotations

import pytest

from kvmtest import guests
from kvmtest.engine import host
from kvmtest.engine.error import TriggerError
from kvmtest.engine.machine import Machines
from kvmtest.engine.plan import Setup
from kvmtest.kvm import Kvm
from kvmtest.triggers import sender


def test_each_mode_has_its_entry() -> None:
    image = guests.load("sender")
    assert image[guests.symbol("sender", "xapic") :].startswith(b"\x89\x15" + (0xFEE00310).to_bytes(4, "little"))
    assert image[guests.symbol("sender", "x2apic") :].startswith(b"\xb9" + (0x830).to_bytes(4, "little"))


@pytest.mark.parametrize(
    ("code", "says"), [(b"\xeb\xfe", "no exit within"), (b"\xe6\x10", "did not write its ICR"), (b"\xf4", "no exit within")]
)
def test_a_sender_that_sends_nothing_is_an_error(
    code: bytes, says: str, kvm: Kvm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that spins, one that leaves by another port, one that halts."""
    monkeypatch.setattr(guests, "load", lambda name: code.ljust(0x1000, b"\xf4"))
    monkeypatch.setattr(sender, "_TIMEOUT_S", 0.05)
    machines = Machines(kvm, host.detect())
    vcpu = machines.kept(Setup("full", "intel")).target("ap").vcpu
    with pytest.raises(TriggerError, match=says):
        sender.send(vcpu, 0x4500, x2apic=False)
    machines.close()
