# SPDX-License-Identifier: GPL-2.0-only
"""What doctor says of guest code is what the run then skips."""

from __future__ import annotations

import pytest

from kvmtest.engine import doctor, host, plan
from kvmtest.engine.machine import Machines
from kvmtest.engine.run import run_case
from kvmtest.kvm import Kvm
from kvmtest.state import inside


def test_a_plant_that_kvm_refuses_is_explained(kvm: Kvm) -> None:
    found = {f.what: f for f in doctor.examine("/dev/kvm")}
    machines = Machines(kvm, host.detect())
    for name in inside.GUEST_PLANTS:
        case = next(c for c in plan.plan() if (c.trigger, c.plant, c.state) == ("msi", name, ""))
        skipped = {r.verdict for r in run_case(case, machines)} == {"skip"}
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
