# SPDX-License-Identifier: GPL-2.0-only
"""Lines of a kernel's log that report a fault of the kernel itself. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ("death", "incidents", "is_stall", "place", "stripped")

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
#: The function of a WARN, after its line of the source; since v6.17 with "at" between them.
_WARNED = re.compile(r"WARNING: (?:CPU: \d+ PID: \d+ )?(?:at )?(?:\S+:\d+ )?(?:at )?(\w+)[\w.]*\+0x")
#: Where the kernel was at the exception that it did not survive.
_RIP = re.compile(r"RIP: 0010:(\w+)[\w.]*\+0x")
#: How the kernel ends because of an oops: arch/x86/kernel/dumpstack.c, kernel/exit.c.
_AFTERMATH = re.compile(r"Kernel panic - not syncing: (?:Attempted to kill init!|Fatal exception)")
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


def place(incident: list[str]) -> str:
    """``WARNING in FUNCTION()`` or ``Oops in FUNCTION()``, where the lines of ``incident`` name it; else ""."""
    first = incident[0] if incident else ""
    if found := _WARNED.match(first):
        return f"WARNING in {found[1]}()"
    rips = map(_RIP.match, incident if death(first) else ())
    return next((f"Oops in {found[1]}()" for found in rips if found), "")


def incidents(lines: Iterable[str]) -> list[list[str]]:
    """The lines of each WARN, BUG, Oops, KASAN report, panic or stall, the most informative one first.

    A panic because of an oops belongs to that.
    """
    found: list[list[str]] = []
    current: list[str] | None = None
    for line in lines:
        if current is None and found and death(found[-1][0]) and _AFTERMATH.match(line):
            current = found[-1]
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
