# SPDX-License-Identifier: GPL-2.0-only
"""The image boots in each emulator, in each form, with one processor and with many, and each of them reports its whole state."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from kvmtest import cli
from kvmtest.observer.log import Log, parse

pytestmark = pytest.mark.program
_QEMU = ("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max")
_LOADED = ("multiboot", "pvh", "iso")
_FORMS = ("bios", *_LOADED)
_NIGHTLY = pytest.mark.nightly


def _needs(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"no {program}")


def _booted(folder: Path, form: str, cpus: int, command: tuple[str, ...], *options: str) -> Log:
    """The log of a machine that ended well, and found each processor."""
    _needs(command[0], *(("grub-mkrescue", "xorriso") if form == "iso" else ()))
    log, saved = folder / "log", folder / "saved.json"
    resets = () if form in _LOADED else ("--resets", "cf9")
    words = ["vmm", "--form", form, "--cpus", str(cpus), *resets, *options, "--log", os.fspath(log)]
    status = cli.main([*words, "--report", f"json={saved}", "--format", "ktap", *command])
    parsed = parse(log.read_bytes())
    if form in _LOADED and cpus == 1:
        assert status == 3
        return parsed
    assert status in (0, 1)
    records = json.loads(saved.read_text())["records"]
    assert not [record for record in records if record["item"] == "runs" or record["verdict"] == "error"]
    assert {"cr3", "idt.limit", "msr.pat"} <= {record["item"] for record in records if record["verdict"] == "pass"}
    return parsed


def _complete(log: Log, cpus: int, boots: int) -> None:
    assert log.ended and [boot.number for boot in log.boots] == [*range(1, boots + 1)]
    for boot in log.boots:
        assert boot.lost == [] and boot.loaded == (boots == 1)
        looks = [(look.apic_id, look.round) for look in boot.looks if look.kind == "read"]
        assert looks == [(0, 1), *((cpu, number) for cpu in range(1, cpus) for number in (1, 2))]


@pytest.mark.parametrize(
    ("form", "cpus"),
    [
        *(pytest.param("bios", cpus) for cpus in (1, 2, 8)),
        *(pytest.param("multiboot", cpus) for cpus in (1, 2, 8)),
        *(pytest.param(form, 2) for form in ("pvh", "iso")),
        *(pytest.param(form, cpus, marks=_NIGHTLY) for form in ("pvh", "iso") for cpus in (1, 8)),
        *(pytest.param(form, 64, marks=_NIGHTLY) for form in _FORMS),
    ],
)
def test_qemu_boots_it(form: str, cpus: int, tmp_path: Path) -> None:
    _complete(_booted(tmp_path, form, cpus, _QEMU), cpus, 1 if form in _LOADED else 2)


@pytest.mark.parametrize("cpus", [1, pytest.param(2, marks=_NIGHTLY)])
@pytest.mark.parametrize("form", ["bios", pytest.param("iso", marks=_NIGHTLY)])
def test_bochs_boots_it(form: str, cpus: int, tmp_path: Path) -> None:
    _complete(_booted(tmp_path, form, cpus, ("bochs",)), cpus, 1 if form in _LOADED else 2)


@pytest.mark.usefixtures("kvm")
@pytest.mark.parametrize(("form", "cpus", "boots"), [("bios", 1, 2), ("multiboot", 2, 1)])
def test_qemu_on_kvm_boots_it(form: str, cpus: int, boots: int, tmp_path: Path) -> None:
    """A KVM with shadow paging forgets a translation when its table changes: no processor may clear those of one that runs."""
    # Without IA32_ARCH_CAPABILITIES and XSAVE for a KVM that emulates what it cannot run.
    command = ("qemu-system-x86_64", "-accel", "kvm", "-cpu", "host,arch-capabilities=off")
    _needs(command[0])
    _complete(_booted(tmp_path, form, cpus, command, "--without-xsave"), cpus, boots)


@pytest.mark.usefixtures("kvm")
@pytest.mark.parametrize("vmm", ["firecracker", "cloud-hypervisor"])
def test_a_vmm_on_kvm_boots_it(vmm: str, tmp_path: Path) -> None:
    _complete(_booted(tmp_path, "pvh", 2, (vmm,), "--without-xsave"), 2, 1)
