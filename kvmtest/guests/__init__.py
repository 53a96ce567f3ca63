# SPDX-License-Identifier: GPL-2.0-only
"""The built guests, and the numbers of their sources.

The sources are in ``guests/`` of the repository; ``make guests`` builds them into this folder, and a wheel ships them. A module
here that is named after a guest has the ``.set`` constants and the labels of its source as attributes, labels as offsets in the
image: ``behaviour.PORT_READY``. They are read at the first use; importing a module needs no built guest.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

__all__ = ("IMAGES", "PAGE", "ROM_GPA", "ROM_SIZE", "GuestMissing", "items", "labels", "load", "missing", "symbol", "symbols")

#: All guests: the sources in ``guests/``.
IMAGES = ("access", "behaviour", "planter", "sender", "smm", "spine", "stress", "svm", "vmx")
#: The address of the ROM: its last 16 bytes are at the reset vector, FFFFFFF0.
ROM_GPA = 0xFFFF0000
ROM_SIZE = 0x10000
#: The part of an image that is copied to VV000 for SIPI vector VV.
PAGE = 0x1000


class GuestMissing(FileNotFoundError):
    """A guest image, or the list of its symbols, that has not been built."""


def load(name: str) -> bytes:
    """The ROM image of guest ``name``, for a copy at `ROM_GPA`. Raises GuestMissing."""
    return _image(name, __file__)


def symbols(name: str) -> Mapping[str, int]:
    """The symbols of guest ``name``: constants, and offsets in its image. Raises GuestMissing."""
    return _symbols(name, __file__)


def labels(name: str) -> Mapping[str, int]:
    """The labels of guest ``name``, as offsets in its image. Raises GuestMissing."""
    return _labels(name, __file__)


def symbol(guest: str, name: str) -> int:
    """One symbol of a guest, for a module's ``__getattr__``. Raises GuestMissing, AttributeError where its source has none."""
    if not name.startswith("__"):  # the import system and others ask any module for these
        found = symbols(guest).get(name)
        if found is not None:
            return found
    raise AttributeError(f"guests/{guest}.S has no symbol '{name}'")


def items(guest: str, prefix: str) -> dict[str, int]:
    """The numbers of items whose names follow ``prefix`` in a guest's symbols: CS_BASE is ``cs.base``. Raises GuestMissing."""
    named = {name.removeprefix(prefix): value for name, value in symbols(guest).items() if name.startswith(prefix)}
    return {name.lower().replace("_", "."): value for name, value in named.items()}


def missing() -> list[str]:
    """The guests that cannot be loaded now, even if they were loaded before."""
    found = []
    for name in IMAGES:
        try:
            _read_image(name, __file__)
            _read_symbols(name, __file__)
        except GuestMissing:
            found.append(name)
    return found


def _read(name: str, beside: str, kind: str) -> tuple[bytes, str]:
    """The content of a guest's file in the folder of file ``beside``, and its path."""
    path = os.path.join(os.path.dirname(os.path.abspath(beside)), f"{name}.{kind}")
    try:
        with open(path, "rb") as file:
            return file.read(), path
    except FileNotFoundError:
        raise GuestMissing(f"the guest '{name}' has not been built: run 'make guests' (looked for {path})") from None


def _read_image(name: str, beside: str) -> bytes:
    image, path = _read(name, beside, "bin")
    if len(image) != ROM_SIZE:
        raise GuestMissing(f"{path} is {len(image)} bytes instead of {ROM_SIZE}: run 'make clean guests'")
    return image


def _read_symbols(name: str, beside: str) -> dict[str, int]:
    """Read what `nm -P` printed: name, type and value in a line, and sometimes a size."""
    printed, path = _read(name, beside, "sym")
    try:
        found = {row[0]: int(row[2], 16) for row in map(str.split, printed.decode("ascii").splitlines())}
    except (IndexError, ValueError):
        found = {}
    if not found:
        raise GuestMissing(f"{path} is not a list of symbols: run 'make clean guests'")
    return found


def _read_labels(name: str, beside: str) -> dict[str, int]:
    printed, _ = _read(name, beside, "sym")
    rows = [row.split() for row in printed.decode("ascii").splitlines()]
    return {row[0]: int(row[2], 16) for row in rows if row[1] in "tT"}


_image = functools.cache(_read_image)
_symbols = functools.cache(_read_symbols)
_labels = functools.cache(_read_labels)
