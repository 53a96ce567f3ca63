# SPDX-License-Identifier: GPL-2.0-only
"""Opinions that contradict a rule, each looked up in the source of the emulator: the function that does it, and who is wrong."""

from __future__ import annotations

import re
from typing import NamedTuple

from kvmtest.spec.opinions import Opinion

__all__ = ("CONTRADICTIONS", "Contradiction", "why")


class Contradiction(NamedTuple):
    """The reason why an emulator, by the beginning of its name, shows other values of ``items``, a pattern, after ``event``."""

    who: str
    event: str
    items: str
    why: str


CONTRADICTIONS = (
    Contradiction(
        "QEMU", "init", r"cr0",
        "QEMU is wrong: do_cpu_init() calls cpu_reset(), where x86_cpu_reset() (since 8.0 x86_cpu_reset_hold()) sets CR0 to "
        "60000010H; INIT must leave CD and NW as they were",
    ),
    Contradiction(
        "QEMU", "init", r"msr\.mtrr_.*",
        "QEMU is wrong: do_cpu_init() keeps what lies from start_init_save to end_init_save in CPUX86State; mtrr_deftype, "
        "mtrr_fixed and mtrr_var do not, and x86_cpu_reset() zeroes them, for the reason that the manual gives for RESET",
    ),
    Contradiction(
        "QEMU", "reset", r"f[ct]w",
        "QEMU is wrong: x86_cpu_reset() sets what FNINIT sets, FCW 37FH and all registers empty",
    ),
    Contradiction(
        "QEMU", "reset", r"msr\.mc(g|\d+)_ctl",
        "QEMU is wrong: mce_init() sets all ones, as firmware would, once at realize; mcg_ctl and mce_banks come after "
        "end_reset_fields, so that x86_cpu_reset() leaves them, and what the guest wrote stays",
    ),
    Contradiction(
        "QEMU", "reset", r"cpuid\.d1\.ebx",
        "QEMU is wrong: cpu_x86_cpuid() reports the size of all components that the CPU has, not of those that XCR0 and "
        "IA32_XSS enable",
    ),
    Contradiction(
        "Bochs", "init", r"cr0",
        "Bochs is wrong: BX_CPU_C::reset() sets CR0 to 60000010H at RESET and INIT alike",
    ),
    Contradiction(
        "Bochs", "init", r"msr\.(star|sfmask|kernel_gs_base)",
        "Bochs is wrong: BX_CPU_C::reset() sets these three at INIT, too; LSTAR, CSTAR and TSC_AUX beside them at RESET only",
    ),
    Contradiction(
        "Bochs 3", "init", r"msr\.vm_hsave_pa",
        "Bochs is wrong: BX_CPU_C::reset() sets it to 0 at RESET and INIT alike",
    ),
    Contradiction(
        "Bochs 3", "(reset|init)", r"cr2",
        "Bochs is wrong: since 3.0 an else in BX_CPU_C::reset(), for a CPU without an x87, stands before #else; where Bochs is "
        "built with the x87 its body is the next statement, cr2 = 0, which a CPU that has one never reaches",
    ),
    Contradiction(
        "Bochs", "(reset|init)", r"rdx",
        "Bochs is wrong: BX_CPU_C::reset() zeroes all general registers; the line that writes get_cpu_version_information() to "
        "EDX after that is a comment since CPUID became configurable in 2011",
    ),
)  # fmt: skip


def why(opinion: Opinion) -> str:
    """Return the cause of a departure; "" if it was not looked up."""
    return next((one.why for one in CONTRADICTIONS if _of(one, opinion)), "")


def _of(one: Contradiction, opinion: Opinion) -> bool:
    return (
        opinion.who.startswith(one.who)
        and re.fullmatch(one.event, opinion.event) is not None
        and re.fullmatch(one.items, opinion.item) is not None
    )
