# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers in C: each kind of op compiles without a warning; what they say is in their text."""

from __future__ import annotations

import shutil
import subprocess
import typing
from pathlib import Path

import pytest

from kvmtest.emit import c
from kvmtest.emit.repro import Check, Leaf, Repro
from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi
from tests.emit.compiled import built
from tests.emit.made import OPS, VM, msr_check, repro

_FAIL = p.Otherwise("fail", "")
_ALL = (1 << 64) - 1
_REGS, _MP, _XSAVE = (
    p.Ioctl(1, request, name)
    for request, name in ((uapi.KVM_GET_REGS, "regs1"), (uapi.KVM_GET_MP_STATE, "mp_state1"), (uapi.KVM_GET_XSAVE, "xsave1"))
)
_RAX, _ST0 = p.Place("regs1", 0, 8, "rax"), p.Place("xsave1", 32, 10, "st0")
_HEAD = ["rax after INIT: expected 0x0."]
#: Ops that a reproducer never has: they are resolved before, or prevent one.
_HIDDEN = (p.Look, p.Install, p.Report, p.Do, p.Alike)


def _checked(*checks: Check, ops: tuple[p.Op, ...] = ()) -> Repro:
    return repro(*ops)._replace(checks=checks)


def test_there_is_one_of_each_kind() -> None:
    kinds = set(typing.get_args(p.Op)) - set(_HIDDEN)
    assert {type(op) for op in (*OPS, *VM)} == kinds


def test_a_cpuid_that_is_given_again_ends_a_program_by_the_answer() -> None:
    again = next(op for op in VM if isinstance(op, p.Cpuid))._replace(result="result")
    text = c.source(repro(again, p.Compare(p.Place("result", 0, 8, "result"), (0,), _FAIL)), _HEAD)
    assert "result = try_ioctl(vcpu1, KVM_SET_CPUID2, &cpuid);" in text and "return result != 0;" in text


def test_all_kinds_at_once_compile(tmp_path: Path) -> None:
    built(c.source(repro(*OPS)._replace(checks=msr_check(1).checks), _HEAD), tmp_path)


def test_a_new_vm_is_made_as_the_first_was_and_has_its_memory(tmp_path: Path) -> None:
    read = p.Ioctl(1, uapi.KVM_GET_MSRS, "msr_174")
    text = c.source(repro(p.Write(0x100, b"\x01"), p.Rebuild(), read)._replace(checks=msr_check(1).checks), _HEAD)
    built(text, tmp_path)
    before, _, after = text.partition("/* From here on a new VM, with the memory of the one that was. */\n")
    assert "vm = kvm_ioctl(kvm, KVM_CREATE_VM, 0);\n" in before and "keep_memory(vm, 1, 0x0, 0x10000, mem1);\n" in after
    for made in ("KVM_CREATE_VM, 0", "KVM_CREATE_IRQCHIP, 0", "KVM_CREATE_VCPU, 1", "KVM_SET_CPUID2, &cpuid"):
        assert before.count(made) == after.count(made) == 1


def test_what_nobody_looks_at_has_no_variable(tmp_path: Path) -> None:
    get = p.Ioctl(1, uapi.KVM_GET_MSRS, "msr_174")
    text = c.source(repro(get, p.Put(p.Place("msr_174", 16, 8), 1), _REGS, p.Compare(_RAX, (1,), _FAIL)), _HEAD)
    built(text, tmp_path)
    assert "\tget_msr(vcpu1, MSR_IA32_SYSENTER_CS);\n" in text and "sysenter_cs =" not in text


def test_what_kvm_may_refuse_ends_nothing(tmp_path: Path) -> None:
    """KVM_SIGNAL_MSI has an error for a message that reaches nobody."""
    text = c.source(repro(p.Ioctl(p.VM, uapi.KVM_SIGNAL_MSI, "msi", "result"), _REGS, p.Compare(_RAX, (1,), _FAIL)), _HEAD)
    built(text, tmp_path)
    assert "\tioctl(vm, KVM_SIGNAL_MSI, &msi);\n" in text


def test_where_there_is_another_vm_alone_it_is_the_only_one(tmp_path: Path) -> None:
    asked = (p.Ioctl(p.NEW_VM, uapi.KVM_SET_BOOT_CPU_ID, 1, "result"), p.Compare(p.Place("result", 0, 8), (0,), _FAIL))
    text = c.source(repro(*asked)._replace(vm=p.Program({}, ())), _HEAD)
    built(text, tmp_path)
    assert text.count("KVM_CREATE_VM") == 1


#: Ends of a program: by its checks, or by its last op.
_ENDS = {
    "compare": repro(_REGS, p.Compare(_RAX, (1,), _FAIL)),
    "compare-masked": repro(_REGS, p.Compare(_RAX, (1,), _FAIL, 0xFF)),
    "compare-several": repro(_REGS, p.Compare(_RAX, (1, 2), _FAIL)),
    "compare-unlike": repro(_REGS, p.Compare(_RAX._replace(size=4), (1, 2), _FAIL, unlike=True)),
    "compare-wide": repro(_XSAVE, p.Compare(_ST0, (1 << 79,), _FAIL)),
    "match": repro(p.Match(0x100, bytes(range(40)), _FAIL)),
    "match-one": repro(p.Match(0x100, b"\xf4" * 40, _FAIL)),
    "enter": repro(p.Enter(1, p.Came("out", 0x10, 7), _FAIL)),
    "join": repro(p.Start(1), p.Join(1, p.Came("quiet"), _FAIL)),
    "poll": repro(p.Poll((p.Peek(p.Place("word", 0, 8), 0),), p.Compare(p.Place("word", 0, 8, "word"), (1,), _FAIL), 1)),
    "check": msr_check(1),
    "check-masked": _checked(Check("rax", _RAX, (1, 2), 0xFF), ops=(_REGS,)),
    "check-narrow": _checked(Check("mp_state", p.Place("mp_state1", 0, 4), (1,), 0xFFFFFFFF), ops=(_MP,)),
    "check-of-xsave": _checked(Check("st0", _ST0, (1 << 79,), (1 << 80) - 1, 0, 0), ops=(_XSAVE,)),
    "checks": _checked(
        Check("rax", _RAX, (1,), _ALL), Check("rip", p.Place("regs1", 128, 8), (1, 3), 0xFF, ahead=3), ops=(_REGS,)
    ),
    "check-of-cpuid": _checked(Check("cpuid", Leaf("cpuid1", 1, 0, "edx"), (1,), 1 << 9))._replace(
        body=p.Program({"cpuid1": p.Buffer("kvm_cpuid2", bytes(8))}, ((0, p.Ioctl(1, uapi.KVM_GET_CPUID2, "cpuid1")),))
    ),
}


@pytest.mark.parametrize("name", _ENDS)
def test_each_end_compiles(name: str, tmp_path: Path) -> None:
    built(c.source(_ENDS[name], _HEAD), tmp_path)


def test_a_register_of_80_bits_is_two_results() -> None:
    text = c.source(_ENDS["check-of-xsave"], _HEAD)
    assert "1..2\\n" in text and '"st0[63:0]"' in text and '"st0[79:64]"' in text and "0x8000" in text


def test_msrs_of_one_number_have_each_its_own_value() -> None:
    """An MSR that KVM has to refuse is written after another value of the same MSR was read and written."""
    made = repro(
        p.Ioctl(1, uapi.KVM_GET_MSRS, "msr_174"),
        p.Ioctl(1, uapi.KVM_SET_MSRS, "set_msr_174"),
        p.Ioctl(1, uapi.KVM_SET_MSRS, "set_msr_174"),
        p.Ioctl(1, uapi.KVM_SET_MSRS, "set_msr_174", "result"),
        p.Compare(p.Place("result", 0, 8), (0,), _FAIL),
    )
    text = " ".join(c.source(made, _HEAD).split())
    assert text.count("set_msr(vcpu1, MSR_IA32_SYSENTER_CS, 0x5a);") == 2
    assert "sysenter_cs = 0x5a; result = msr_ioctl(vcpu1, KVM_SET_MSRS, MSR_IA32_SYSENTER_CS, &sysenter_cs);" in text


def test_memory_that_is_there_is_not_given_again() -> None:
    text = c.source(repro(p.Region(1, 0, 0x10000), p.Region(1, 0x9000, 0x1000), p.Region(2, 0x10000, 0x1000)), _HEAD)
    assert text.count("\tadd_memory(vm, ") == 2


def test_of_memory_that_is_logged_kvm_is_reported_so() -> None:
    text = c.source(repro(p.Region(10, 0x100000, 0x1000, True)), _HEAD)
    assert "add_logged_memory(vm, 10, 0x100000, 0x1000);" in text and ".flags = KVM_MEM_LOG_DIRTY_PAGES" in text


def test_an_interrupt_controller_is_named_before_it_is_read() -> None:
    for number, name in enumerate(("KVM_IRQCHIP_PIC_MASTER", "KVM_IRQCHIP_PIC_SLAVE", "KVM_IRQCHIP_IOAPIC")):
        chip = p.Buffer("kvm_irqchip", bytes(uapi.kvm_irqchip(number)))
        made = repro(p.Ioctl(p.VM, uapi.KVM_GET_IRQCHIP, "chip"), p.Put(p.Place("chip", 8 + 2, 1), 0xFF))
        made.body.buffers["chip"] = chip
        text = c.source(_checked()._replace(body=made.body, checks=(Check("imr", p.Place("chip", 10, 1), (0xFF,), 0xFF),)), _HEAD)
        assert f"struct kvm_irqchip chip = {{ .chip_id = {name} }};" in text
        assert "chip.chip.pic.imr = 0xff;" in text


def test_a_page_of_the_local_apic_is_written_by_its_bytes() -> None:
    """C has it as chars, which take no value beyond 127."""
    text = c.source(repro(p.Ioctl(1, uapi.KVM_SET_LAPIC, "whole_lapic")), _HEAD)
    assert ".regs[APIC_ID] = 0x55" in text and ".regs[APIC_ID + 3] = (char)0x80" in text and "#define APIC_ID\t0x20" in text


def test_it_has_names_and_only_what_it_uses() -> None:
    text = c.source(msr_check(0x5A), _HEAD)
    assert text.startswith("// SPDX-License-Identifier: GPL-2.0-only\n/*\n * rax after INIT: expected 0x0.\n */\n")
    assert "#define MSR_IA32_SYSENTER_CS\t0x174\n" in text
    assert "get_msr(int vcpu" in text and "add_memory" not in text and "enter(" not in text and "<pthread.h>" not in text
    assert all(len(line.expandtabs(8)) <= 100 for line in text.splitlines())


def test_what_is_no_op_is_refused() -> None:
    with pytest.raises(TypeError, match="no op"):
        c.source(repro(p.Look(1)), _HEAD)


def _clean(checkpatch: Path, tmp_path: Path) -> None:
    perl = shutil.which("perl")
    assert perl
    for name, made in {"all": repro(*OPS)._replace(checks=msr_check(1).checks), **_ENDS}.items():
        (tmp_path / f"{name}.c").write_text(c.source(made, _HEAD))
    command = [perl, str(checkpatch), "--no-tree", "--no-summary", "--terse", "-f", *map(str, sorted(tmp_path.glob("*.c")))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=checkpatch.parent, check=False)
    said = [line for line in done.stdout.splitlines() if "CamelCase" not in line and "has no obvious style problems" not in line]
    assert said == [], done.stdout


def test_checkpatch_has_nothing_to_say(checkpatch: Path, tmp_path: Path) -> None:
    _clean(checkpatch, tmp_path)


@pytest.mark.nightly
def test_checkpatch_of_the_kernels_source_has_nothing_to_say(unpacked: Path, tmp_path: Path) -> None:
    _clean(unpacked, tmp_path)
