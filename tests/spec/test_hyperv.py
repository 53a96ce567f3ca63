# SPDX-License-Identifier: GPL-2.0-only
"""Hyper-V's MSRs: what a new virtual processor has is judged, what INIT does is recorded."""

from __future__ import annotations

import pytest

from kvmtest.spec import SYNTHETIC, hyperv, rule_for


@pytest.mark.parametrize("entry", hyperv.RULES, ids=[entry.item for entry in hyperv.RULES])
def test_creation_alone_is_judged(entry: hyperv.Entry) -> None:
    assert entry.item in SYNTHETIC
    created = rule_for(entry.item, "reset", "intel", "vmx")
    assert (created.kind, created.value) == ("value", 0x10000 if "sint" in entry.item else 0)
    for event in ("init", "sipi", "shutdown"):
        assert rule_for(entry.item, event, "amd", "svm").kind == "undefined"
