# SPDX-License-Identifier: GPL-2.0-only
"""The macros of MSRs: names of C, one for each, and the kernel's where its headers are here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kvmtest.emit.msr_names import macro
from kvmtest.x86 import msr


def test_each_is_a_name_of_its_own() -> None:
    names = [macro(one.index) for one in msr.MSRS]
    assert len(set(names)) == len(names)
    assert not [name for name in names if not re.fullmatch(r"(MSR_|HV_X64_MSR_)\w+", name)]


@pytest.mark.parametrize(
    ("index", "name"),
    [(0x10, "MSR_IA32_TSC"), (0xC0000080, "MSR_EFER"), (0x277, "MSR_IA32_CR_PAT"), (0x12345, "MSR_12345")],
)
def test_names(index: int, name: str) -> None:
    assert macro(index) == name


def test_a_name_that_the_kernel_has_is_of_the_same_msr() -> None:
    headers = sorted(Path("/usr/src").glob("linux-headers-*-common/arch/x86/include/asm/msr-index.h"))
    if not headers:
        pytest.skip("no kernel's headers are here: apt-get install linux-headers-amd64")
    theirs = dict(re.findall(r"^#define\s+(\w+)\s+(0x[0-9a-fA-F]+)\b", headers[-1].read_text(), re.MULTILINE))
    ours = {macro(one.index): one.index for one in msr.MSRS}
    shared = ours.keys() & theirs.keys()
    assert len(shared) > 90
    assert {name: hex(ours[name]) for name in shared if ours[name] != int(theirs[name], 16)} == {}
