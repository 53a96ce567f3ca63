# SPDX-License-Identifier: GPL-2.0-only
"""Known departures of KVM from the manuals: the value, where, in which kernels, and why.

A deviation explains one exact value: any other wrong value stays a ``fail``. What was fixed comes from the catalogue of
commits; what is admitted and what is open stands here, one line each.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvmtest.spec.commits import ENTRIES
from kvmtest.spec.commits.entry import KEPT, Version, version
from kvmtest.spec.deviations.admitted import ADMITTED
from kvmtest.spec.deviations.deviation import FOREVER, KINDS, Deviation, has
from kvmtest.spec.deviations.open import OPEN
from kvmtest.spec.logged import LOGGED

__all__ = ("CASES", "CASES_OF", "DEVIATIONS", "FOREVER", "KEPT", "KINDS", "Deviation", "has", "listed")


def _fixed() -> Iterator[Deviation]:
    for entry in ENTRIES:
        for sign in entry.signs:
            if sign.old is None or not sign.known:
                continue
            names = sign.ids if sign.check else sign.items
            backends = sign.backends or entry.backends
            where = (backends, sign.target, sign.vendor, sign.view, (0, 0), version(entry.release), sign.case)
            more = (entry.backports, sign.sometimes, "", sign.without)
            why = f"fixed in {entry.release}: {entry.what}"
            for name in names:
                yield Deviation(name, sign.event, sign.old, entry.commit, why, "fixed", *where, *more)


def _logged() -> Iterator[Deviation]:
    for one in LOGGED:
        where = ("fixed", one.backend, "", "", "", (0, 0), one.until, one.case)
        yield from (Deviation(id, "none", one.said, one.commit, one.why, *where) for id in one.ids)


DEVIATIONS: tuple[Deviation, ...] = (*ADMITTED, *_fixed(), *_logged(), *OPEN)

#: The parts of cases' names by which deviations distinguish cases.
CASES = tuple(dict.fromkeys(d.case for d in DEVIATIONS if d.case))

#: The same of each item that has any.
CASES_OF = {d.item: tuple(dict.fromkeys(o.case for o in DEVIATIONS if o.case and o.item == d.item)) for d in DEVIATIONS if d.case}

_BY_ITEM: dict[tuple[str, str], tuple[Deviation, ...]] = {}
for _d in DEVIATIONS:
    _BY_ITEM[_d.item, _d.event] = (*_BY_ITEM.get((_d.item, _d.event), ()), _d)


def listed(
    item: str, event: str, backend: str, kernel: Version, vendor: str = "", target: str = "", view: str = "", case: str = "",
    mode: str = "",
) -> list[Deviation]:  # fmt: skip
    """The deviations of ``item`` (or the check of this id) after ``event`` on this backend and kernel, in this case.

    Those of later kernels come last, as what a distribution may have brought to this one.
    """
    of_item = _BY_ITEM.get((item, event))
    if not of_item:
        return []
    found = [d for d in of_item if d.where(vendor, target, view, case, mode)]
    brought = (d.brought(backend, kernel) for d in found)
    return [*(d for d in found if d.names(backend, kernel)), *(d for d in brought if d)]
