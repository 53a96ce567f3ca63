# SPDX-License-Identifier: GPL-2.0-only
"""kvmtest.uapi says what <linux/kvm.h> says.

A C program with one line for each constant, size and offset is compiled against the header; lines that the compiler
refuses name what the header lacks. KVMTEST_UAPI_INCLUDE may name a directory with another kernel's headers, as
`make headers_install` leaves them.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from kvmtest.uapi import kvm as uapi

Values = dict[str, int | str]


def paths(cls: type, prefix: str = "") -> Iterator[tuple[str, type | None]]:
    """C paths of the members under `cls`, with their types; None for a bit field. Anonymous members have no name."""
    anonymous = getattr(cls, "_anonymous_", ())
    for name, kind, *bits in cls._fields_:
        path = prefix if name in anonymous else f"{prefix}{name}"
        if name not in anonymous:
            yield path, None if bits else kind
        inner, suffix = kind, ""
        while issubclass(inner, ctypes.Array) and inner._length_:
            inner, suffix = inner._type_, suffix + "[0]"
        if issubclass(inner, ctypes.Structure | ctypes.Union):
            yield from paths(inner, path if name in anonymous else f"{path}{suffix}.")


def member(obj: object, path: str) -> tuple[object, str]:
    """The object that holds the last name of `path`, and that name."""
    *holders, last = re.findall(r"\w+", path)
    for step in holders:
        obj = obj[int(step)] if step.isdigit() else getattr(obj, step)  # type: ignore[index]
    return obj, last


def offset(cls: type, path: str) -> int:
    """offsetof() of `path` in `cls`."""
    at = 0
    for step in re.findall(r"\w+", path):
        if step.isdigit():
            cls = cls._type_
        else:
            descriptor = getattr(cls, step)
            at += descriptor.offset
            cls = kind_of(cls, step)
    return at


def kind_of(cls: type, name: str) -> type:
    """The type of member `name`, also where it is in an anonymous member."""
    for field, kind, *_ in cls._fields_:
        if field == name:
            return kind
    for field, kind, *_ in cls._fields_:
        if field in getattr(cls, "_anonymous_", ()):
            try:
                return kind_of(kind, name)
            except KeyError:
                pass
    raise KeyError(name)


def described(module: ModuleType | SimpleNamespace) -> tuple[Values, dict[str, str]]:
    """Return the values in `module` by name, and for each the C expression (or statement, after "!") that prints the header's."""
    ours: Values = {}
    code: dict[str, str] = {}
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        if isinstance(value, int) and name.isupper():
            ours[name] = value
            code[name] = f"(unsigned long long)({name})"
        elif isinstance(value, type) and issubclass(value, ctypes.Structure) and name.startswith("kvm_"):
            ours[f"sizeof {name}"] = ctypes.sizeof(value)
            code[f"sizeof {name}"] = f"sizeof(struct {name})"
            for path, kind in paths(value):
                key = f"{name}.{path}"
                if kind is None:
                    instance = value()
                    holder, last = member(instance, path)
                    setattr(holder, last, -1)
                    ours[key] = bytes(instance).hex()
                    code[key] = f"!struct {name} s; memset(&s, 0, sizeof s); s.{path} = ~0; dump(&s, sizeof s);"
                elif issubclass(kind, ctypes.Array) and not kind._length_:
                    ours[key] = offset(value, path)
                    code[key] = f"offsetof(struct {name}, {path})"
                else:
                    ours[key] = f"{offset(value, path)}+{ctypes.sizeof(kind)}"
                    code[key] = (
                        f'!printf("%zu+%zu\\n", offsetof(struct {name}, {path}), sizeof(((struct {name} *)0)->{path}));'
                    )
    return ours, code


def in_header(ours: Values, code: dict[str, str], folder: Path) -> Values:
    """Return the header's value of each name in `code`; names that it lacks are left out."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    include = os.environ.get("KVMTEST_UAPI_INCLUDE")
    flags = ["-x", "c", "-std=gnu11", "-w", "-fmax-errors=0", *([f"-I{include}"] if include else [])]
    probe = subprocess.run(
        [compiler, *flags, "-fsyntax-only", "-"], input="#include <linux/kvm.h>\n", capture_output=True, text=True
    )
    if probe.returncode:
        pytest.skip(f"<linux/kvm.h> does not compile: {probe.stderr.strip().splitlines()[0]}")
    head = [
        "#include <linux/kvm.h>", "#include <stddef.h>", "#include <stdio.h>", "#include <string.h>",
        "static void dump(const void *p, size_t n)",
        '{ for (size_t i = 0; i < n; i++) printf("%02x", ((const unsigned char *)p)[i]); puts(""); }',
        "int main(void) {",
    ]  # fmt: skip
    names = list(code)
    source, binary = folder / "header.c", folder / "header"
    while True:
        lines = list(head)
        for name in names:
            text = code[name]
            body = text[1:] if text.startswith("!") else f'printf("%llu\\n", (unsigned long long)({text}));'
            lines.append(f'{{ printf("{name} = "); {body} }}')
        source.write_text("\n".join([*lines, "return 0; }"]) + "\n")
        done = subprocess.run([compiler, *flags, str(source), "-o", str(binary)], capture_output=True, text=True)
        if not done.returncode:
            break
        refused = {int(n) for n in re.findall(r"header\.c:(\d+):\d+: error", done.stderr)}
        lacking = {names[n - len(head) - 1] for n in refused if n > len(head)}
        assert lacking, done.stderr
        names = [name for name in names if name not in lacking]
    output = subprocess.run([str(binary)], capture_output=True, text=True, check=True).stdout
    found: Values = {}
    for line in output.splitlines():
        name, value = line.split(" = ")
        found[name] = value if isinstance(ours[name], str) else int(value)
    return found


def differences(ours: Values, header: Values) -> list[str]:
    """One line for each name that both have and that is not the same."""
    return [f"{name}: {ours[name]} here, {header[name]} in the header" for name in header if ours[name] != header[name]]


def test_all_names_agree_with_the_header(tmp_path: Path) -> None:
    ours, code = described(uapi)
    header = in_header(ours, code, tmp_path)
    lacking = sorted(set(ours) - set(header))
    print(f"{len(header)} compared; not in this header: {', '.join(lacking) or 'none'}")
    assert not differences(ours, header)
    # Linux 6.1's header has all but what came later; far fewer means that the comparison is broken.
    assert len(header) >= 1400, f"only {len(header)} compared; not in this header: {lacking}"
    assert len(lacking) <= 80, f"not in this header: {lacking}"
    kinds = [name for name in header if name.startswith("sizeof ")]
    assert len(kinds) >= 55, kinds
    wanted = {"KVM_GET_SREGS2", "sizeof kvm_run", "kvm_run.io.data_offset", "kvm_vcpu_events.smi.latched_init"}
    assert wanted <= set(header)


def test_a_wrong_offset_size_number_and_bit_is_found(tmp_path: Path) -> None:
    class kvm_regs(ctypes.Structure):
        _fields_ = [*uapi.kvm_regs._fields_[:4], ("rdi", ctypes.c_uint64), ("rsi", ctypes.c_uint64)]

    class fields(ctypes.Structure):
        _fields_ = [("vector", ctypes.c_uint8), ("mask", ctypes.c_uint8, 1)]

    class redirtbl(ctypes.Union):
        _fields_ = [("bits", ctypes.c_uint64), ("fields", fields)]

    class kvm_ioapic_state(ctypes.Structure):
        _fields_ = [*uapi.kvm_ioapic_state._fields_[:-1], ("redirtbl", redirtbl * uapi.KVM_IOAPIC_NUM_PINS)]

    wrong = SimpleNamespace(
        KVM_GET_REGS=1, kvm_regs=kvm_regs, kvm_ioapic_state=kvm_ioapic_state, KVM_NONE=3, KVM_NMI=0xAE9A
    )
    ours, code = described(wrong)
    header = in_header(ours, code, tmp_path)
    found = [line.split(":")[0] for line in differences(ours, header)]
    assert found == [
        "KVM_GET_REGS", "sizeof kvm_regs", "kvm_regs.rdi", "kvm_regs.rsi", "kvm_ioapic_state.redirtbl[0].fields",
        "kvm_ioapic_state.redirtbl[0].fields.mask",
    ]  # fmt: skip
    assert set(ours) - set(header) == {"KVM_NONE"}


def test_names_are_the_headers_and_nothing_hides_another() -> None:
    from kvmtest.uapi import caps, consts, ioctls, irq, run, structs

    seen: dict[str, str] = {}
    for module in (caps, consts, ioctls, irq, run, structs):
        for name, value in vars(module).items():
            if name.startswith(("KVM_", "kvm_")):
                assert seen.setdefault(name, repr(value)) == repr(value)
                assert getattr(uapi, name) is value
    assert len(seen) > 400


def test_ioctl_numbers_are_unique() -> None:
    from kvmtest.uapi import ioctls

    numbers = [value for name, value in vars(ioctls).items() if name.startswith("KVM_") and isinstance(value, int)]
    assert len(numbers) == len(set(numbers))


def test_one_reg_ids() -> None:
    assert uapi.KVM_X86_REG_MSR(0x277) == 0x2030000200000277
    assert uapi.KVM_X86_REG_KVM(uapi.KVM_REG_GUEST_SSP) == 0x2030000300000000
