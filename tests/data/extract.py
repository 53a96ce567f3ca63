# SPDX-License-Identifier: GPL-2.0-only
"""Makes cells.json: of each cell of matrices the few results that say something of a commit or a deviation.

    python -m tests.data.extract MATRIX.json... > tests/data/cells.json

The matrices are those of ``kvmtest lab matrix --backend svm,vmx --kernel 5.10,6.1,6.12,7.2 --format json`` with nesting on. A
cell of a later file takes the place of an earlier one's.
"""

from __future__ import annotations

import json
import sys

from kvmtest.checks import CHECKS
from kvmtest.engine.host import kernel_version
from kvmtest.engine.result import VERDICTS, Result
from kvmtest.report.runs import MATRIX
from kvmtest.report.saved import Saved, load
from kvmtest.spec.commits import ENTRIES
from kvmtest.spec.deviations import DEVIATIONS

_TOLD = frozenset(id for entry in ENTRIES for sign in entry.signs if sign.old is not None for id in sign.ids)
_CHECKS = frozenset(check.name for check in CHECKS.values())
_LISTED = frozenset(d.item for d in DEVIATIONS if d.item.count(".") > 2)
#: The values of deviations that are not "as planted".
_VALUES = frozenset((d.item, f"{d.observed:#x}") for d in DEVIATIONS if isinstance(d.observed, int))


def _kept(run: Saved) -> list[Result]:
    """The first result of each item and deviation: of known ones, and of those that a commit is told by."""
    first: dict[tuple[str | None, ...], Result] = {}
    for r in run.results:
        told = r.verdict in ("pass", "fail", "fixed", "info") and r.id in _TOLD
        if r.id in _LISTED and r.verdict != "skip":
            first.setdefault((r.id,), r)
        elif r.verdict == "known":
            value = r.observed if (r.item, r.observed) in _VALUES else "as planted"
            # A view counts only where it is neither the host's nor the guest's.
            first.setdefault((r.event, r.item, value, r.deviation, "views" if r.view == "views" else ""), r)
        elif told:
            first.setdefault((r.event, r.trigger if r.item in _CHECKS else "", r.item, r.verdict), r)
    return list(first.values())


def main(paths: list[str]) -> None:
    """Write the document to standard output."""
    runs = {run.name: run for path in paths for run in load(path)}
    cells = []
    for name, run in sorted(runs.items(), key=lambda one: (one[1].host.backend, kernel_version(one[1].host.kernel))):
        results = [r._replace(cite=(), reason="said" if r.reason else "")._asdict() for r in _kept(run)]
        host = {key: value for key, value in run.host._asdict().items() if value is not None} | {"parameters": {}}
        totals = {verdict: sum(r["verdict"] == verdict for r in results) for verdict in VERDICTS}
        head = {"schema": "kvmtest.results/1", "tool": {"name": "kvmtest", "version": run.version}, "host": host}
        document = head | {"started": run.started, "duration_s": run.duration_s, "results": results, "totals": totals}
        cells.append({"cell": name, "failed": "", "document": document})
    sys.stdout.write(json.dumps({"schema": MATRIX, "cells": cells}, separators=(",", ":")).replace('{"id"', '\n{"id"') + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
