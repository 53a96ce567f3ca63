# SPDX-License-Identifier: GPL-2.0-only
"""A kernel tree, headers, and a make that are made up: what `make` was asked for is in its log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ("MAKE", "headers", "programs", "tree")

#: Compiles a file by copying it; one that has "error" in it does not compile.
MAKE = """#!/bin/sh
echo "$@" >>"$MAKE_LOG"
for word; do case "$word" in M=*) kvm=${word#M=};; esac; done
for file in "$kvm"/*.c "$kvm"/*/*.c "$kvm"/../../../virt/kvm/*.c; do
	object=${file%.c}.o
	[ "$object" -nt "$file" ] && continue
	if grep -q error "$file"; then
		echo "$file: In function 'f':"
		echo "$file:1:2: error: $(grep error "$file")"
		exit 2
	fi
	echo "  CC [M]  $object"
	cp "$file" "$object"
done
for name in kvm kvm-amd kvm-intel; do
	printf '\\0license=GPL\\0depends=%s\\0name=%s\\0' "$([ $name = kvm ] || echo kvm)" $name >"$kvm/$name.ko"
	cat "$kvm"/*.o "$kvm"/*/*.o >>"$kvm/$name.ko"
done
"""
_GCC = """#!/bin/sh
case "$*" in *--version*) echo "gcc 12 of the tests";; *min-function*) exit 1;; esac
"""


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the programs of a build first on PATH; the path of make's log."""
    folder.mkdir()
    for name, text in (("make", MAKE), ("gcc", _GCC), ("ld", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("MAKE_LOG", str(folder / "log"))
    (folder / "log").touch()
    return folder / "log"


def headers(folder: Path) -> Path:
    """The folder of a kernel's headers."""
    for name, text in (
        ("build/Makefile", f"include {folder}/common/Makefile\n"),
        ("build/include/config/auto.conf", ""),
        ("common/Makefile", ""),
        ("common/include/linux/kvm_host.h", "struct kvm;\n"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "build"


def tree(folder: Path, version: str = "9.9") -> Path:
    """A kernel tree."""
    major, minor = version.split(".")
    for name, text in (
        ("Makefile", f"VERSION = {major}\nPATCHLEVEL = {minor}\nSUBLEVEL = 3\nEXTRAVERSION = -rc4\n"),
        ("arch/x86/kvm/Makefile", "include $(srctree)/virt/kvm/Makefile.kvm\n"),
        ("arch/x86/kvm/x86.c", "one\ntwo\nthree\n"),
        ("arch/x86/kvm/svm/svm.c", "svm\n"),
        ("arch/x86/kvm/vmx/vmx.c", "vmx\n"),
        ("virt/kvm/kvm_main.c", "main\n"),
        ("virt/kvm/Makefile.kvm", "KVM := 1\n"),
        ("include/linux/kvm_host.h", "struct kvm;\n"),
        ("include/linux/fs.h", "struct file;\n"),
        ("tools/testing/a.c", "a\n"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
