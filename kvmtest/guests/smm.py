# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of guests/smm.S, by its names."""

from __future__ import annotations

from kvmtest.guests import PAGE, load, symbol, symbols

__all__ = ("NAME", "handler", "page")

NAME = "smm"


def __getattr__(name: str) -> int:
    return symbol(NAME, name)


def page() -> bytes:
    """The code for CODE, or for the page of any SIPI vector."""
    return load(NAME)[:PAGE]


def handler() -> bytes:
    """The SMI handler, for ENTRY in SMRAM."""
    of = symbols(NAME)
    return page()[of["AT_HANDLER"] : of["AT_HANDLER"] + of["HANDLER_SIZE"]]
