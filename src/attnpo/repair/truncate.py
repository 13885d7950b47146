"""Adaptive truncation: credit only the first edits of a repair where those alone already make the response right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attnpo.repair.align import Edit, graft

Verify = Callable[[Sequence[int], Sequence[list[int]]], Sequence[bool]]
"""(numbers of the pairs, a response of each) -> whether each response is right."""


def truncate(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], edits: Sequence[Sequence[Edit]], k: int, verify: Verify
) -> list[int]:
    """How many leading edits of every pair (wrong, repaired) are kept: k, else 2k, else all of them.

    IOP, arXiv 2605.05226. One edit is one differing token: a substitution counts once, not once per side. A repair of
    at most k (2k) edits needs no check: all of them make the repair, which has been verified already. All pairs are
    checked together: `verify` is called once for k and once for 2k, and not at all where no repair is longer.
    """
    kept = [len(of_pair) for of_pair in edits]
    unsettled = list(range(len(pairs)))
    for limit in (k, 2 * k):
        unsettled = [i for i in unsettled if len(edits[i]) > limit]
        if not unsettled:
            break
        verdicts = verify(unsettled, [graft(*pairs[i], edits[i][:limit]) for i in unsettled])
        right = {i for i, verdict in zip(unsettled, verdicts, strict=True) if verdict}
        for i in right:
            kept[i] = limit
        unsettled = [i for i in unsettled if i not in right]
    return kept
