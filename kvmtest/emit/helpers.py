# SPDX-License-Identifier: GPL-2.0-only
"""The functions of helpers.c, with which reproducers begin."""

from __future__ import annotations

import os
import re

__all__ = ("HELPERS", "INCLUDES", "NEEDS")


def _read() -> list[tuple[str, str, str]]:
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "helpers.c"), encoding="utf-8") as file:
        return re.findall(r"^/// (\w+)(?:: (.*))?\n\n((?:(?!/// ).*\n)+)", file.read(), re.MULTILINE)


#: The text of each, in the order in which they may call each other.
HELPERS = {name: text.strip("\n") + "\n" for name, _, text in _read()}
#: The headers of libc that each needs.
INCLUDES = {name: tuple(headers.split()) for name, headers, _ in _read()}
#: The others that each calls.
NEEDS = {
    name: tuple(other for other in HELPERS if other != name and re.search(rf"\b{other}\(", text))
    for name, text in HELPERS.items()
}
