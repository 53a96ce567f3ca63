# SPDX-License-Identifier: GPL-2.0-only
"""Lines of a kernel's log that report a fault of the kernel itself. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ("death", "incidents", "is_stall", "stripped")

#: The first line of each kind: lib/bug.c and kernel/panic.c (WARN, BUG), arch/x86/kernel/dumpstack.c (Oops, and the names of the
#: exceptions in arch/x86/kernel/traps.c), mm/kasan/report.c, lib/ubsan.c, kernel/kcsan/report.c, kernel/locking/lockdep.c.
#: Not: "unhandled wrmsr", "kvm_intel: VMX not supported" and other remarks about what a guest or the CPU does.
_BEGINS = re.compile(
    r"WARNING: |kernel BUG at |BUG: |Oops\b|general protection fault|double fault|stack segment|divide error|invalid opcode"
    r"|UBSAN: |Kernel panic|\[ BUG|DEBUG_LOCKS_WARN_ON|=+ BUG|refcount_t: |list_(?:add|del) corruption"
)
#: Lines about a CPU or a thread that makes no progress: kernel/watchdog.c and watchdog_hld.c, kernel/hung_task.c,
#: kernel/rcu/tree_stall.h and tree_exp.h. A kernel whose emulator does not run, as this machine is busy, logs the same.
_STALLS = re.compile(
    r"(?:NMI )?watchdog: .*(?:soft lockup|hard LOCKUP)|INFO: task .+ blocked for more than "
    r"|rcu: INFO: \w+ (?:self-)?detected |rcu: \w+ kthread (?:starved|timer wakeup)"
)
#: Lines that say that the kernel ends, or at least a thread: kernel/panic.c; lib/bug.c; arch/x86/mm/fault.c
#: (show_fault_oops); and what arch/x86/kernel/dumpstack.c (die_header) makes of the name of any other exception.
_DEADLY = re.compile(
    r"Kernel panic|kernel BUG at |BUG: (?:unable to handle|kernel NULL pointer)|Oops\b|general protection fault"
    r"|.*: [0-9a-f]{4} \[#\d+\]"
)
_CUT = "------------[ cut here ]------------"
_ENDS = re.compile(r"---\[ end (?:trace|Kernel panic)")
_CONSOLE = re.compile(r"^(?:<\d+>)?\[ *\d+\.\d+(?:\]\[ *[TC]\d+)?\] ?")
#: A report with its registers and its call trace has about forty.
_LONGEST = 60


def stripped(line: str) -> str:
    """A console's line without its time stamp."""
    return _CONSOLE.sub("", line.rstrip("\r\n"))


def death(line: str) -> str:
    """Return how the kernel ended, if this line says that it, or a thread of it, did; else ""."""
    return f"its kernel {'panicked' if line.startswith('Kernel panic') else 'oopsed'}: {line}" if _DEADLY.match(line) else ""


def is_stall(line: str) -> bool:
    """Return True if an incident with this first line is a stall."""
    return _STALLS.match(line) is not None


def incidents(lines: Iterable[str]) -> list[list[str]]:
    """The lines of each WARN, BUG, Oops, KASAN report, panic or stall, the most informative one first."""
    found: list[list[str]] = []
    current: list[str] | None = None
    for line in lines:
        if line == _CUT:
            current = None
        elif current is None and (_BEGINS.match(line) or _STALLS.match(line)):
            current = [line]
            found.append(current)
        elif current is not None:
            if len(current) < _LONGEST:
                current.append(line)
            if _ENDS.match(line):
                current = None
    return found
