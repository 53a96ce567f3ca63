# SPDX-License-Identifier: GPL-2.0-only
"""One result for what was seen several times: on each of many vCPUs, or after each of several ways to do it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvmtest.engine.result import Result

__all__ = ("Worst", "ranges")

#: Verdicts, the worst first: what was tried nowhere or not everywhere is no pass.
_ORDER = ("error", "fail", "known", "fixed", "skip", "info", "pass")

Label = int | str


def ranges(labels: list[Label]) -> str:
    """``labels`` in few words: ids that follow each other as ``first-last``."""
    parts: list[str] = []
    i = 0
    while i < len(labels):
        first = last = labels[i]
        while isinstance(last, int) and i + 1 < len(labels) and labels[i + 1] == last + 1:
            last += 1
            i += 1
        parts.append(f"{first}" if first == last else f"{first}-{last}")
        i += 1
    return ", ".join(parts)


class Worst:
    """Gathers the results of one item after the other under labels; ``what`` says what a label names, in the plural."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._labels: list[Label] = []
        # For each item its results, each with how many labels were there before it: it holds for those up to the next one.
        self._seen: dict[str, list[tuple[Result, int]]] = {}

    def add(self, label: Label, results: Mapping[str, Result], judged: Iterable[str]) -> None:
        """What was seen under ``label``, by item; those not in ``judged`` are as under the last label."""
        for item in judged if self._labels else results:
            self._seen.setdefault(item, []).append((results[item], len(self._labels)))
        self._labels.append(label)

    def results(self) -> list[Result]:
        """For each item the first result of the worst verdict; its reason names where that was seen, unless everywhere."""
        return [self._merged(seen) for seen in self._seen.values()]

    def _merged(self, seen: list[tuple[Result, int]]) -> Result:
        first = min((result for result, _ in seen), key=lambda result: _ORDER.index(result.verdict))
        if all(result.verdict == first.verdict for result, _ in seen):
            return first
        where: list[Label] = []
        ends = [start for _, start in seen[1:]] + [len(self._labels)]
        for (result, start), end in zip(seen, ends, strict=True):
            if result.verdict == first.verdict:
                where += self._labels[start:end]
        reason = f"{self._what} {ranges(where)} of {len(self._labels)}"
        return first._replace(reason=f"{reason}: {first.reason}" if first.reason else reason)
