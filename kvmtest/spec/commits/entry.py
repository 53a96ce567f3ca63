# SPDX-License-Identifier: GPL-2.0-only
"""Types of the catalogue of KVM's commits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from kvmtest.model.select import braces

__all__ = ("BACKENDS", "KEPT", "LESS", "Entry", "Sign", "Version", "check", "commit", "items", "kept", "meant", "version")

Version = tuple[int, int]

#: As the old value of a sign: whatever was planted is still there; `kept` is that with more bits set.
KEPT = "=planted"
#: The old value of a counter that is less than the planted value.
LESS = "<planted"
#: Backends by the words of a path; a path without any of them is every backend's.
BACKENDS = {"VMX": "vmx", "nVMX": "vmx", "TDX": "vmx", "SVM": "svm", "nSVM": "svm"}

_RELEASE = re.compile(r"v(\d+)\.(\d+)")


def kept(bits: int) -> str:
    """The old value of what is still there with ``bits`` set besides."""
    return f"{KEPT}|{bits:#x}"


def meant(value: int | str, planted: int | None) -> int | str | None:
    """The value that KEPT or LESS, or another ``value``, stands for where ``planted`` was there before."""
    if value == LESS or planted is None and str(value).startswith(KEPT):
        return planted
    if not isinstance(value, str) or not value.startswith(KEPT):
        return value
    return (planted or 0) | int(value.partition("|")[2] or "0", 16)


class Sign(NamedTuple):
    """The results that show a commit: without it, ``items`` had the value ``old`` after ``event``.

    ``old`` is a number, KEPT or `kept`, LESS, the exact text of a check, or None if it fails without the commit and no such kernel was seen:
    then another value than the manuals' proves nothing. Any trigger and view of the event shows it; ``triggers`` and ``views`` are
    those that ``kvmtest run --commit`` selects. ``backends`` ("" is any), ``target`` (``bsp`` or ``ap``), ``vendor`` (the guest's
    CPUID vendor), ``view`` and ``case`` (a part of the case's name) limit the results that show it. ``known`` is set if it is a
    deviation of the kernels without the commit, which requires that one of the lab's kernels shows it. ``new`` is the value with
    the commit, if that is not the manuals' value, or is recorded and not judged. ``sometimes`` is set if kernels without the commit
    do not always show the old value. ``without`` is a module parameter that has to be off.
    """

    event: str
    triggers: tuple[str, ...]
    views: tuple[str, ...]
    items: tuple[str, ...]
    old: int | str | None
    backends: str = ""
    target: str = ""
    vendor: str = ""
    view: str = ""
    case: str = ""
    known: bool = True
    check: bool = False
    new: int | str | None = None
    sometimes: bool = False
    without: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """The result ids to run."""
        event = {"vmm-reset": "reset", "migrate": "none"}.get(self.event, self.event)
        return tuple(f"{event}.{t}.{v}.{item}" for item in self.items for t in self.triggers for v in self.views)

    @property
    def selectors(self) -> tuple[str, ...]:
        """The selectors of the results, in the cases that show it."""
        return tuple(f"{id}/*{self.case}*" for id in self.ids) if self.case else self.ids


def items(
    event: str,
    names: str,
    old: int | str | None,
    triggers: str = "latched msi",
    views: str = "host",
    backends: str = "",
    target: str = "",
    vendor: str = "",
    view: str = "",
    case: str = "",
    known: bool = True,
    new: int | None = None,
    sometimes: bool = False,
) -> Sign:
    """The sign that items show; ``names``, ``triggers`` and ``views`` are separated by spaces."""
    asked = (tuple(triggers.split()), tuple(views.split()), tuple(names.split()))
    return Sign(event, *asked, old, backends, target, vendor, view, case, known, new=new, sometimes=sometimes)


def check(
    id: str,
    old: int | str | None = None,
    backends: str = "",
    vendor: str = "",
    known: bool = True,
    new: int | str | None = None,
    case: str = "",
    sometimes: bool = False,
    without: str = "",
) -> Sign:
    """The sign that the behaviour ``id`` shows in cases whose names have ``case``: it was ``old`` before the commit.

    The trigger in it may be several, ``{a,b}``. ``new`` is what it is with the commit, where it is not judged.
    """
    event, trigger, view, name = id.split(".", 3)
    known = known and new is None
    asked = (tuple(braces(trigger)), (view,), (name,))
    where = (backends, "", vendor, "", case)
    return Sign(event, *asked, old, *where, known, check=True, new=new, sometimes=sometimes, without=without)


class Entry(NamedTuple):
    """One commit.

    ``commit`` is the upstream id in 12 digits, "" where nothing was merged under this subject; ``also`` those that belong to
    it. ``subject`` is without its prefix "KVM: ". ``release`` is the first one that has it, or "". ``path`` says whose code it
    is: ``common``, ``VMX``, ``nSVM``, ... ``what`` it changes is a sentence. Either ``signs`` show it, or ``hidden`` says why
    nothing outside of the kernel can; with both the signs show what it is about, which is the same without it. ``place`` is its number in the series: ``v1#14``, ``v2``. ``before`` and ``after`` are what
    is seen without and with it. ``backports`` are older stable kernels that have it too, in some of their releases.
    ``unverified`` says what of the entry rests on memory or a list's word alone.
    """

    commit: str
    subject: str
    release: str
    path: str
    what: str
    signs: tuple[Sign, ...] = ()
    hidden: str = ""
    place: str = ""
    before: str = ""
    after: str = ""
    also: tuple[str, ...] = ()
    backports: tuple[Version, ...] = ()
    unverified: str = ""

    @property
    def key(self) -> str:
        """The name of the entry: its commit, or without one its place."""
        return self.commit or self.place

    @property
    def ids(self) -> tuple[str, ...]:
        """The result ids that show it."""
        return tuple(dict.fromkeys(id for sign in self.signs for id in sign.ids))

    @property
    def backends(self) -> str:
        """The backends whose code it changes, "" for all."""
        return " ".join(BACKENDS[word] for word in self.path.split() if word in BACKENDS)

    def names(self) -> Iterable[str]:
        """All names of the entry."""
        return filter(None, (self.commit, *self.also))


def commit(
    id: str,
    release: str,
    subject: str,
    path: str,
    what: str,
    *signs: Sign,
    hidden: str = "",
    place: str = "",
    before: str = "",
    after: str = "",
    also: str = "",
    backports: tuple[Version, ...] = (),
    unverified: str = "",
) -> Entry:
    """An entry; ``also`` is separated by spaces."""
    others = tuple(also.split())
    return Entry(id, subject, release, path, what, signs, hidden, place, before, after, others, backports, unverified)


def version(release: str) -> Version:
    """``v5.15`` as numbers. Raises ValueError."""
    found = _RELEASE.match(release)
    if not found:
        raise ValueError(f"{release!r} is not a release")
    return int(found[1]), int(found[2])
