# SPDX-License-Identifier: GPL-2.0-only
"""The beginning of scenarios with a hypervisor in the VM: KVM_SET_SREGS puts it into 64-bit mode."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.uapi.kvm import KVM_MP_STATE_RUNNABLE, KVM_STATE_NESTED_GUEST_MODE

__all__ = ("CR0", "CR4", "EFER", "EFER_SVME", "IN_L2", "TURNS", "enter", "in_l2", "svm")

#: PG WP NE ET MP PE; OSXMMEXCPT OSFXSR PAE; LMA LME.
CR0, CR4, EFER = 0x80010033, 0x620, 0x500
EFER_SVME = 1 << 12
#: Turns of the guest's loops: enough for ticks of the host's timer to come in between.
TURNS = 2000000

_Items = tuple[tuple[str, int | str], ...]


def _segment(name: str, selector: int | str = 0, **fields: int | str) -> _Items:
    names = ("base", "limit", "type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable")
    return ((f"{name}.selector", selector), *((f"{name}.{field}", fields.get(field, 0)) for field in names))


def _flat(name: str, selector: int | str, **fields: int | str) -> _Items:
    return _segment(name, selector, limit=0xFFFFFFFF, present=1, s=1, g=1, **fields)


_SEGMENTS: _Items = (
    *_flat("cs", "CODE64", type=0xB, l=1),
    *(item for name in ("ds", "es", "fs", "gs", "ss") for item in _flat(name, "DATA32", type=3, db=1)),
    *_segment("tr", "TSS64", base="TSS", limit="TSS_LIMIT", type=0xB, present=1),
    *_segment("ldt", unusable=1),
    ("gdt.base", "CODE+AT_GDT"), ("gdt.limit", "GDT_LIMIT"),
    ("idt.base", "CODE+AT_IDT"), ("idt.limit", "IDT_LIMIT"),
)  # fmt: skip


def enter(guest: str, words: tuple[tuple[str, int | str], ...], efer: int = 0) -> tuple[s.Step, ...]:
    """Load the hypervisor ``guest`` with its ``words``, and put the target before its beginning in 64-bit mode, with ``efer``.

    What KVM keeps is not compared: the guest's next word says that it runs.
    """
    control: _Items = (("cr0", CR0), ("cr3", "PAGE_TABLES"), ("cr4", CR4), ("efer", EFER | efer))
    regs: _Items = (("rip", "CODE+AT_ENTRY"), ("rsp", "STACK"), ("rflags", 2))
    return (
        s.Load(guest, words),
        s.Set((*_SEGMENTS, *control, *regs, ("mp_state", KVM_MP_STATE_RUNNABLE)), check=False),
    )


def in_l2(value: int = 1) -> s.Condition:
    """By KVM_GET_NESTED_STATE the vCPU runs L2, or with 0 does not."""
    return s.Is("nested.flags", KVM_STATE_NESTED_GUEST_MODE * value, KVM_STATE_NESTED_GUEST_MODE)


IN_L2 = s.Require(in_l2(), "KVM_GET_NESTED_STATE shows no nested guest while it runs")


def svm(topic: str, *intercepts: int, nested: str = "NESTED_SPIN") -> tuple[s.Step, ...]:
    """To the hypervisor's READY. Its VMCB has these ``intercepts``, its nested guest does what ``nested`` names."""
    words = (("TOPIC", topic), ("ARG_NESTED", nested), ("ARG_TURNS", TURNS))
    vmcb = s.Poke("VMCB", s.Image("vmcb", (EFER | EFER_SVME, CR0, CR4, *intercepts)))
    return (*enter("svm", words, EFER_SVME), vmcb, s.Until(s.Word("READY")))
