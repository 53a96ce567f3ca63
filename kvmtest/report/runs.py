# SPDX-License-Identifier: GPL-2.0-only
"""Which runs a report is of."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest import __version__

__all__ = ("MATRIX", "ONE", "Run")

#: The schema of a document that holds those of several runs.
MATRIX = "kvmtest.matrix/1"


class Run(NamedTuple):
    """A run: what tells it from the others of the report, the version of kvmtest that ran, and what made its CPU
    (`kvmtest.engine.host.accel`).
    """

    name: str = ""
    version: str = __version__
    accel: str = ""


#: The runs of a report of the one that goes on here.
ONE = (Run(),)
