# SPDX-License-Identifier: GPL-2.0-only
"""KVM's modules of a Debian kernel, built from its source with lines of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


def build(release: str, folder: Path, edit: Callable[[Path], None]) -> Path:
    """The folder with KVM's modules for ``release``, built after ``edit`` of arch/x86/kvm; skips where something is missing."""
    headers = Path(f"/usr/src/linux-headers-{release}")
    version = ".".join(release.split(".")[:2])
    source = Path(f"/usr/src/linux-source-{version}.tar.xz")
    missing = [f"linux-headers-{release}"] * (not headers.exists()) + [f"linux-source-{version}"] * (not source.exists())
    missing += [name for name in ("gcc", "make") if not shutil.which(name)]
    if missing:
        pytest.skip(f"an own build needs: apt-get install {' '.join(missing)}")
    tree = folder / "tree"
    tree.mkdir()
    parts = [f"linux-source-{version}/{part}" for part in ("arch/x86/kvm", "virt")]
    subprocess.run(["tar", "-C", tree, "--strip-components=1", "-xf", source, *parts], check=True, timeout=300)
    kvm = tree / "arch/x86/kvm"
    edit(kvm)
    # Below include/trace trace.h is looked for at ../../arch/x86/kvm; the kernel's own headers have none there.
    (tree / "include/trace").mkdir(parents=True)
    makefile = (kvm / "Makefile").read_text()
    makefile = re.sub(r"include \$\(srctree\)/virt", f"include {tree}/virt", makefile)
    flags = f"-I {kvm} -I {tree}/include/trace -Wno-misleading-indentation -Wno-dangling-else"
    (kvm / "Makefile").write_text(f"ccflags-y += {flags}\n{makefile}")
    jobs = f"-j{min(2, len(os.sched_getaffinity(0)))}"
    command = ["make", "-C", headers, f"M={kvm}", jobs, "CONFIG_KVM_INTEL=n", "modules"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return kvm


def change(file: Path, line: str, instead: str) -> None:
    """Replace the one ``line`` of ``file``, which ends with a newline."""
    lines = file.read_text().splitlines(keepends=True)
    assert lines.count(line) == 1, (file.name, line, lines.count(line))
    file.write_text("".join(instead if one == line else one for one in lines))
