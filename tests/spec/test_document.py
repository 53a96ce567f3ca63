# SPDX-License-Identifier: GPL-2.0-only
"""The rules as data: valid, complete, cited."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kvmtest import schemas, spec
from kvmtest.spec.uncovered import NOT_HOST_READABLE
from kvmtest.x86 import msr, xsave
from kvmtest.x86.lapic import LAPIC

ROWS = range(1, 130)
FORMULAS = set("CPUID.1:EAX mp_state APIC_BASE APIC_ID LDR SIPI.CS SIPI.BASE GP_COUNTERS APIC_VERSION TSC>= TSC-small".split())
KINDS = {"value", "unchanged", "masked", "formula", "one-of", "undefined"}


def test_document_is_valid() -> None:
    jsonschema.Draft202012Validator(schemas.load("spec")).validate(spec.document())


def test_document_has_each_item_event_and_vendor_once() -> None:
    records: Any = spec.document()["rules"]
    seen: dict[tuple[str, str], list[str]] = {}
    for record in records:
        seen.setdefault((record["item"], record["event"]), []).append(record["vendor"])
    assert set(seen) == {(item, event) for item in spec.ENTRIES for event in spec.EVENTS}
    assert all(vendors in (["any"], ["intel", "amd"]) for vendors in seen.values())


def test_document_integers_are_hex() -> None:
    records: Any = spec.document()["rules"]
    for record in records:
        texts = [record.get("unchanged"), record.get("ignore"), *record.get("values", [])]
        texts += [record.get("value")] if record["rule"] != "formula" else []
        for text in texts:
            assert text is None or text == hex(int(text, 16)), record


def test_every_row_is_covered_or_explained() -> None:
    covered = {row for entry in spec.ENTRIES.values() for row in entry.rows}
    assert covered <= set(ROWS)
    assert set(NOT_HOST_READABLE) <= set(ROWS)
    assert covered | set(NOT_HOST_READABLE) == set(ROWS)
    assert not covered & set(NOT_HOST_READABLE)
    assert all(NOT_HOST_READABLE.values())


@pytest.mark.parametrize("event", spec.EVENTS)
@pytest.mark.parametrize("vendor", spec.VENDORS)
def test_every_rule_is_cited_and_well_formed(event: str, vendor: str) -> None:
    for item, entry in spec.ENTRIES.items():
        rule = entry.rule(event, vendor)
        assert item == entry.item
        assert rule.kind in KINDS, item
        assert rule.cite, item
        assert all(rule.cite), item
        assert (rule.value is not None) == (rule.kind in {"value", "masked", "formula"}), item
        assert bool(rule.values) == (rule.kind == "one-of"), item
        if rule.kind == "formula":
            assert rule.value in FORMULAS, item
        if rule.kind == "undefined":
            assert rule.note, item
        if rule.kind == "masked":
            assert isinstance(rule.value, int)
            assert not rule.unchanged & rule.ignore, item
            assert not rule.value & (rule.unchanged | rule.ignore), item


def test_every_named_register_has_rules() -> None:
    names = [f"lapic.{reg.name}" for reg in LAPIC] + [f"msr.{reg.name}" for reg in msr.MSRS]
    names += [reg.name for component in (*xsave.LEGACY, *xsave.COMPONENTS) for reg in component.registers]
    assert set(names) <= set(spec.ENTRIES)


def test_catch_all_rules_say_so() -> None:
    for item, vendor in (("msr.0xdead", "intel"), ("msr.power_ctl", "intel"), ("msr.0xc001beef", "amd")):
        entry = spec.lookup(item)
        assert entry.rule("init", vendor).kind == "unchanged"
        assert entry.rule("reset", vendor).kind == "undefined"
        assert any("catch-all" in cite for cite in entry.rule("init", vendor).cite)


@pytest.mark.parametrize("item", ["msr.smi_count", "msr.tsx_ctrl", "msr.feat_ctl", "msr.0xdead", "msr.fixed_ctr0"])
def test_nothing_is_said_of_a_register_that_only_intel_has(item: str) -> None:
    assert spec.rule_for(item, "init", "amd", "svm").kind == "undefined"


@pytest.mark.parametrize("item", ["msr.virt_spec_ctrl", "msr.hwcr", "msr.vm_cr", "msr.perf_ctl0", "msr.0xc001beef"])
def test_nothing_is_said_of_a_register_that_only_amd_has(item: str) -> None:
    assert spec.rule_for(item, "init", "intel", "vmx").kind == "undefined"


def test_importing_the_rules_is_cheap() -> None:
    code = "import sys, kvmtest.spec; print(*sys.modules)"
    root = {"PYTHONPATH": str(Path(spec.__file__).parents[2])}
    out = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=root)
    assert not {"dataclasses", "pathlib", "inspect", "json"} & set(out.stdout.split())
