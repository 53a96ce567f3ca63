# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations
from typing import NamedTuple
class Kernel(NamedTuple):
    name: str
    release: str
    image: str
    modules: str
    source: str
