"""Levenshtein's distance by dynamic programming: the slow reference of what rapidfuzz computes."""

from __future__ import annotations

from collections.abc import Sequence


def fewest_edits(a: Sequence[int], b: Sequence[int]) -> int:
    """Insertions, deletions and substitutions that turn `a` into `b`, at the least."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]
