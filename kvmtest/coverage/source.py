# SPDX-License-Identifier: GPL-2.0-only
"""The source that KVM's modules were built from, line by line."""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ("OURS", "Sources")

#: The folders of KVM's own source in the kernel's tree.
OURS = ("arch/x86/kvm/", "virt/kvm/", "virt/lib/")


class Sources:
    """Files by their names in the kernel's tree; ``folders`` are copies or parts of it, and the first that has a file counts."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = tuple(folders)
        self._lines: dict[str, list[str]] = {}

    def path(self, file: str) -> str:
        """Return the path of ``file``; "" if it does not exist."""
        for folder in self._folders:
            path = os.path.join(folder, file)
            if os.path.isfile(path):
                return os.path.abspath(path)
        return ""

    def lines(self, file: str) -> list[str]:
        """The lines of ``file``; none where it is not here."""
        if file not in self._lines:
            self._lines[file] = []
            if path := self.path(file):
                with open(path, encoding="utf-8", errors="replace") as opened:
                    self._lines[file] = opened.read().split("\n")
        return self._lines[file]

    def line(self, file: str, number: int) -> str:
        """The line of that ``number``, from 1 on, without the blanks around it; "" where it is not here."""
        lines = self.lines(file)
        return lines[number - 1].strip() if 0 < number <= len(lines) else ""
