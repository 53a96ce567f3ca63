# SPDX-License-Identifier: GPL-2.0-only
"""Instructions in words, by objdump, where that is installed."""

from __future__ import annotations

__all__ = ("listing",)


def listing(code: bytes, machine: str, *options: str, timeout_s: float) -> list[str]:
    """The lines that objdump prints of ``code``; none where it is not there, or fails.

    It reads a file that has no name: whatever ends this process leaves nothing behind.
    """
    # Slow to import, and seldom needed.
    import os
    import shutil
    import subprocess

    tool = shutil.which("objdump")
    if not tool:
        return []
    try:
        with open(os.memfd_create("code"), "wb", buffering=0) as file:
            file.write(code)
            command = [tool, "-D", "-b", "binary", "-m", machine, "-w", *options, f"/proc/self/fd/{file.fileno()}"]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, check=True, pass_fds=(file.fileno(),)
            )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
