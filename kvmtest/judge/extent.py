# SPDX-License-Identifier: GPL-2.0-only
"""The extent of a finding in words: in which of the observations that could have shown it, it shows."""

from __future__ import annotations

from collections.abc import Sequence

from kvmtest.model.record import Observation

__all__ = ("extent",)

_Value = str | int | None

#: The name of a parameter with one value and with several; "" if the value needs no name.
_PARAMS = (
    ("trigger", "trigger", "triggers"),
    ("view", "view", "views"),
    ("vendor", "guests of vendor", "guests of vendors"),
    ("target", "", ""),
    ("irqchip", "irqchip", "irqchips"),
    ("apic_mode", "mode", "modes"),
    ("plant", "plant", "plants"),
    ("state", "", ""),
    ("sequence", "", ""),
    ("how", "", ""),
    ("vcpus", "vCPUs", "vCPUs"),
    ("boot_id", "boot id", "boot ids"),
    ("vector", "vector", "vectors"),
    ("migrated", "migrated", "migrated"),
)
#: The plural of those whose values need no name.
_COUNTED = {"target": "targets", "state": "states", "sequence": "sequences", "how": "variants", "migrated": "migrations"}
#: Values that are named; more are counted.
_MOST = 4


def extent(shown: Sequence[Observation], could: Sequence[Observation]) -> str:
    """Words for ``shown``, of the observations that ``could`` have shown it."""
    if not shown or any(seen.case is None for seen in shown):
        return ""
    parts = []
    views = {seen.view for seen in shown}
    rows = _Rows()
    here = [rows.of(seen) for seen in shown]
    left = [rows.of(seen) for seen in could if seen.view in views or seen.view != "views"]
    for number, (name, one, several) in enumerate(_PARAMS):
        values = list(dict.fromkeys(row[number] for row in here))
        parts.append(_part(name, one, several, values, list(dict.fromkeys(row[number] for row in left))))
        # Do not name what follows from the parameters that are named already.
        left = [row for row in left if row[number] in values]
    words = ", ".join(filter(None, parts))
    if len(shown) == len(left):
        return words or "in every case that judges it"
    return f"{words}; in {len(shown)} of {len(left)} cases" if words else f"in {len(shown)} of {len(left)} cases"


def _part(name: str, one: str, several: str, here: list[_Value], there: list[_Value]) -> str:
    if len(there) == 1:
        return ""
    if len(here) == len(there):
        all_of_them = f"all {len(here)} triggers" if len(here) > 2 else "both triggers"
        everywhere = {"trigger": all_of_them, "view": "host and guest" if "host" in here else ""}
        return everywhere.get(name, "")
    named = [f"{value}" for value in here if value is not None]
    missing = [f"{value}" for value in there if value is not None and value not in here]
    count = f"{len(there)} {_COUNTED.get(name) or several}"
    if missing and (None in here or len(missing) < len(named)):
        return f"not {_listed(missing, one, several)}" if len(missing) <= _MOST else f"{len(here)} of {count}"
    return _listed(named, one, several) if len(named) <= _MOST else f"{len(named)} of {count}"


def _listed(names: list[str], one: str, several: str) -> str:
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{several if len(names) > 1 else one} {listed}".strip()


class _Rows:
    """The values of _PARAMS, found once for each case."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str, str], tuple[_Value, ...]] = {}

    def of(self, seen: Observation) -> tuple[_Value, ...]:
        """The values for one observation, whose trigger and view are two of them."""
        key = (id(seen.case), seen.trigger, seen.view)
        found = self._found.get(key)
        if found is None:
            said = dict(seen.case.params if seen.case else ()) | {"trigger": seen.trigger, "view": seen.view}
            found = self._found[key] = tuple(said.get(name) for name, _, _ in _PARAMS)
        return found
