# SPDX-License-Identifier: GPL-2.0-only
"""A reproducer as one C file: <linux/kvm.h> and libc only, KTAP for output, exit status 0, 1 or 4 as kselftest has it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kvmtest.emit.helpers import HELPERS, INCLUDES
from kvmtest.emit.repro import Check, Repro
from kvmtest.emit.running import Running
from kvmtest.emit.several import Several
from kvmtest.emit.variables import number, words
from kvmtest.report.show import printable
from kvmtest.scenario import program as p
from kvmtest.x86 import xsave

__all__ = ("File", "narrow", "source")

_WIDTH = 80
_WORD = 8


def source(repro: Repro, head: list[str]) -> str:
    """The C file of ``repro``; ``head`` are the lines of its first comment."""
    return File(repro).file(head)


class File(Running):
    """The whole of it."""

    def checks(self) -> None:
        """Append the comparison of the last read with the expected values."""
        checks = narrow(self.repro.checks)
        if len(checks) == 1:
            (check,) = checks
            size = _size(check)
            self.end(check.item, self.observed(check), self.literals(check), "%#llx" if size == 8 else "%#x")
            return
        self.declared.setdefault("failed", "int failed = 0")
        self.say("")
        self.join_all()
        for i, check in enumerate(checks, 1):
            self.say(f'failed |= {self.use("report")}({i}, "{check.item}", {self.observed(check)}, {self.expected(check)});')
        self.say("return failed;")

    def observed(self, check: Check) -> str:
        """Return the C expression for the value that a check tests."""
        if isinstance(check.place, Several):
            return self.several(check.place)
        name = self.value(check.place)
        if check.ahead:
            name = f"{name} - {check.ahead}"
        if check.component is not None:
            area = self.names[check.place.buffer]
            there = f"{self.use('field')}(&{area}, {xsave.XSTATE_BV_OFFSET}, 8)"
            name = f"{there} >> {check.component} & 1 ? {name} : {number(check.init)}"
        size = _size(check)
        if check.mask & (1 << 8 * size) - 1 == (1 << 8 * size) - 1:
            return name
        return f"({name}) & {number(check.mask)}" if " " in name else f"{name} & {number(check.mask)}"

    def several(self, place: Several) -> str:
        """Return the variable with a bit for each vCPU that satisfies it."""
        self.declared.setdefault("reached", "__u64 reached = 0")
        for id, one in place.of:
            self.say(f"if ({self.holds(self.value(one.place), one)})", f"\treached |= 1ULL << {id};")
        return "reached"

    def literals(self, check: Check) -> list[str]:
        """Return the C literals of the values that a check accepts."""
        place, values = check.place, [value & check.mask for value in check.values]
        return [self.literal(place, value) if isinstance(place, p.Place) else number(value) for value in values]

    def expected(self, check: Check) -> str:
        """Return a C expression for a single expected value: the observed one if it is accepted, else the first accepted one."""
        first, *rest = self.literals(check)
        for other in rest:
            first = f"{self._grouped(check)} == {other} ? {other} : {first}"
        return first

    def _grouped(self, check: Check) -> str:
        observed = self.observed(check)
        return f"({observed})" if " " in observed else observed

    def begin(self) -> None:
        """Append the beginning of main(), up to its first ioctl on the VM."""
        count = max(1, len(narrow(self.repro.checks)))
        self.say(
            f'printf("KTAP version 1\\n1..{count}\\n");',
            'kvm = need(open("/dev/kvm", O_RDWR), "/dev/kvm");',
            "vm = kvm_ioctl(kvm, KVM_CREATE_VM, 0);",
        )
        self.declared |= {"kvm": "int kvm", "vm": "int vm"}

    def over(self) -> None:
        """Append the end of main()."""

    def define(self, name: str, value: str) -> str:
        """A macro."""
        return f"#define {name}\t{value}"

    def includes(self, text: str) -> list[str]:
        """The headers of libc that ``text``, that of main(), and the helpers need."""
        found = {one for name in self.used for one in INCLUDES.get(name, ())} - {"linux/kvm.h"}
        found |= {"string.h"} if re.search(r"\bmem(cpy|set|cmp)\b", text) else set()
        found |= {"unistd.h"} if "usleep(" in text else set()
        found |= {"errno.h"} if re.search(r"-E[A-Z]+\b", text) else set()
        return sorted(found)

    def preamble(self, text: str) -> list[str]:
        """The lines between the head and the macros."""
        headers = sorted({"fcntl.h", *self.includes(text)})
        wide = ["#define _GNU_SOURCE"] if "join" in self.used else []
        return [*wide, *(f"#include <{name}>" for name in headers), "#include <linux/kvm.h>", ""]

    def file(self, head: list[str]) -> str:
        """The whole file."""
        self.begin()
        begin, self.lines = self.lines, []
        vm, body = ([op for _, op in program.ops] for program in (self.repro.vm, self.repro.body))
        for op in vm:
            self.op(op, False)
        self.say("")
        for op in body:
            self.op(op, not self.repro.checks and op is body[-1])
        if self.repro.checks:
            self.checks()
        self.over()
        if not any(re.search(r"\bvm\b", line) for line in self.lines):
            # Another VM is all that there is.
            begin = [line for line in begin if not line.startswith("vm = ")]
            self.declared.pop("vm", None)
        self._unused(begin)
        main = [*_declarations(self.declared), "", *begin, *self.lines]
        text = "\n".join(main)
        parts = ["// SPDX-License-Identifier: GPL-2.0-only", "/*", *(f" * {_remark(line)}".rstrip() for line in head), " */"]
        parts += self.preamble(text)
        parts += [self.define(name, value) for name, value in self.defines.items()] + ([""] if self.defines else [])
        parts += [f"{text}" for text in self.arrays]
        helpers = [HELPERS[name] for name in HELPERS if name in self.used and _called(name, text)]
        for one, after in zip(helpers, [*helpers[1:], ""], strict=False):
            parts.append(one.rstrip("\n") if one.startswith("#define") and after.startswith("#define") else one)
        parts += ["int main(void)", "{", *(_wrapped(f"\t{line}" if line else "") for line in main), "}", ""]
        return "\n".join(parts)


    def _unused(self, begin: list[str]) -> None:
        """Leave out variables that hold what nobody looks at; ``begin`` are the lines before the others."""
        for name in [name for name, text in self.declared.items() if re.fullmatch(rf"(__u64|__u32|int) {name}", text)]:
            assigned = re.compile(rf"(\t*){name} = (.*)")
            if all(not re.search(rf"\b{name}\b", line) or assigned.fullmatch(line) for line in (*begin, *self.lines)):
                # A call does something besides.
                lines = [assigned.sub(r"\1\2", line) for line in self.lines]
                self.lines = [new for old, new in zip(self.lines, lines, strict=True) if new == old or "(" in new]
                del self.declared[name]


def narrow(checks: Iterable[Check]) -> list[Check]:
    """Of checks of more than C has a type for one for each part, which is called by its bits."""
    found: list[Check] = []
    for check in checks:
        if not isinstance(check.place, p.Place) or check.place.size <= 8:
            found.append(check)
            continue
        for at, place in words(check.place):
            bits = (1 << 8 * place.size) - 1
            values = dict.fromkeys(value >> at & bits for value in check.values)
            item = f"{check.item}[{at + 8 * place.size - 1}:{at}]"
            mask, init = check.mask >> at & bits, check.init >> at & bits
            found.append(check._replace(item=item, place=place, values=(*values,), mask=mask, init=init))
    return found


def _remark(line: str) -> str:
    """A line of a comment. What a KVM says of itself is in it, and is to stay in it."""
    return printable(line).replace("*/", "* /")


def _size(check: Check) -> int:
    """The bytes of what a check looks at."""
    if isinstance(check.place, p.Place):
        return check.place.size
    return 8 if isinstance(check.place, Several) else 4


def _called(name: str, text: str) -> bool:
    """Return True if main(), with this ``text``, calls the helper ``name``, directly or through another helper."""
    if re.search(rf"\b{name}\(", text) or name == "need":
        return True
    return any(other != name and re.search(rf"\b{name}\(", HELPERS[other]) and _called(other, text) for other in HELPERS)


def _declarations(declared: dict[str, str]) -> list[str]:
    """Long ones first, as the kernel has them."""
    texts = sorted(declared.values(), key=lambda text: (not text.startswith("static"), "\n" not in text, -len(text)))
    ints = [text.removeprefix("int ") for text in texts if re.fullmatch(r"int \w+", text)]
    rest = [text for text in texts if not re.fullmatch(r"int \w+", text)]
    lines = [line for text in rest for line in f"{text};".split("\n")]
    return [_undo(line) for line in lines] + ([f"int {', '.join(ints)};"] if ints else [])


def _undo(line: str) -> str:
    """A line of a declaration without the tab that main() gives it."""
    return line.removeprefix("\t")


def _broken(text: str) -> tuple[str, str]:
    """``text`` up to its last comma or logical operator outside of strings, and the rest; all of it where there is none."""
    found = None
    for one in re.finditer(r'"(?:[^"\\]|\\.)*"|(,|&&|\|\||\?|:)(?= |$)', text):
        found = one.end() if one[1] else found
    return (text[:found], text[found:]) if found and found > len(text) // 3 else (text, "")


def _wrapped(line: str) -> str:
    """A statement of more than one line where it is too long: broken after commas and operators."""
    if len(line.expandtabs(8)) <= _WIDTH or '"' in line and line.strip().startswith(('skip("',)):
        return line
    indent = re.match(r"\t*", line)[0]  # type: ignore[index]
    opening = line.find("(")
    column = len(line[: opening + 1].expandtabs(8)) if opening > 0 else len(indent) * 8 + 8
    pad = "\t" * (column // 8) + " " * (column % 8)
    lines: list[str] = []
    current = ""
    for word in re.findall(r"\s*(?:\"(?:[^\"\\]|\\.)*\"|\S)+", line.strip()):
        start = indent if not lines else pad
        if current and len((start + current + word).expandtabs(8)) > _WIDTH:
            # After a comma or an operator rather than within what these join.
            done, rest = _broken(current)
            lines.append(start + done)
            current = (rest + word).strip()
        else:
            current += word
    lines.append((indent if not lines else pad) + current)
    return "\n".join(lines)
