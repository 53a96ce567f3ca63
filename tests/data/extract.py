# SPDX-License-Identifier: GPL-2.0-only
"""Makes cells.json: of each cell of matrices the few records that say something of a commit or a deviation.

    python -m tests.data.extract MATRIX.json... > tests/data/cells.json

The matrices are those of ``kvmtest lab matrix --backend svm,vmx --kernel 5.10,6.1,6.12,7.2 --format json`` with nesting on. A
cell of a later file takes the place of an earlier one's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from kvmtest.model.record import Block, Observation
from kvmtest.model.run import Run, counted
from kvmtest.model.verdict import Verdict
from kvmtest.results.document import Document
from kvmtest.results.lines import end_fields
from kvmtest.results.saved import Loader
from kvmtest.spec.commits import ENTRIES
from kvmtest.spec.deviations import DEVIATIONS

_SIGNS = [sign for entry in ENTRIES for sign in entry.signs if sign.old is not None]
_SHOWN = frozenset(id for sign in _SIGNS for id in sign.ids if not sign.check)
#: Behaviours that show something: id, and the part of the case's name; and those parts by the id.
_BEHAVIOURS = {(id, sign.case) for sign in _SIGNS if sign.check for id in sign.ids}
_BEHAVIOURS |= {(d.item, d.case) for d in DEVIATIONS if d.item.count(".") > 2}
_PARTS = {id: [case for other, case in sorted(_BEHAVIOURS) if other == id] for id, _ in _BEHAVIOURS}
#: The values of deviations that are not "as planted".
_VALUES = frozenset((d.item, d.observed) for d in DEVIATIONS if isinstance(d.observed, int))


def _kept(run: Run) -> Iterator[Observation]:
    """The first record of each item and deviation: of known ones, and of those that show a commit."""
    seen: set[tuple[object, ...]] = set()
    for one in run.observations:
        records = []
        for r in one.results:
            reported = r.verdict.judged or r.verdict is Verdict.INFO
            key: tuple[object, ...] = ()
            parts = tuple(part for part in _PARTS.get(r.id, ()) if part in (r.case or ""))
            if parts and r.verdict is not Verdict.SKIP:
                key = (r.id, parts, r.verdict)
            elif r.verdict is Verdict.KNOWN:
                value = r.record.observed if (r.item, r.record.observed) in _VALUES else "as planted"
                # A view counts only where it is neither the host's nor the guest's.
                key = (r.event, r.item, value, r.deviation, "views" if r.view == "views" else "")
            elif reported and r.id in _SHOWN:
                key = (r.event, "", r.item, r.verdict)
            if key and key not in seen:
                seen.add(key)
                records.append(r.record._replace(cite=(), reason="said" if r.reason else ""))
        if records:
            yield one._replace(blocks=(Block(tuple(records)),), seconds=None)


def write(runs: Iterable[Run], out: TextIO) -> None:
    """Write what is kept of ``runs``, the backends one after the other."""
    made = Document()
    for run in sorted({run.name: run for run in runs}.values(), key=lambda run: (run.host.backend, run.host.version)):
        kept = list(_kept(run))
        made.begin(run.head._replace(host=run.host._replace(parameters={})))
        made.observed(kept)
        made.end(end_fields(run.duration_s, False, counted(kept)))
    made.write(out)


if __name__ == "__main__":
    loader = Loader()
    write((run for path in sys.argv[1:] for run in loader.load(path)), sys.stdout)
