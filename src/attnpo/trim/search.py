"""Bisection on how many steps may go, of many traces at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Check = Callable[[list[tuple[int, int]]], list[bool]]
"""(trace, number of removed steps) pairs -> whether the answer stays right; one call is one batch."""


def most_removable(
    most: Sequence[int], check: Check, progress: Callable[[int], None] = lambda done: None
) -> list[int | None]:
    """For each trace a number of steps, up to `most`, that passes the check while one more does not.

    None: not even the whole trace passes. That is the largest such number where fewer removed steps always pass when
    more do; otherwise it is one of several, and the number found has passed itself in any case. First the whole trace
    and the most are tried: log2(most) + 2 checks of a trace. progress: told how many traces are done.
    """
    found: list[int | None] = [None] * len(most)
    for i, passed in _checked(check, [(i, 0) for i in range(len(most))]):
        found[i] = 0 if passed else None
    fails = [count + 1 for count in most]
    active = [i for i, low in enumerate(found) if low is not None and most[i] > 0]
    progress(len(most) - len(active))
    middle = list(most)
    while active:
        for i, passed in _checked(check, [(i, middle[i]) for i in active]):
            if passed:
                found[i] = middle[i]
            else:
                fails[i] = middle[i]
            middle[i] = ((found[i] or 0) + fails[i]) // 2
        active = [i for i in active if fails[i] - (found[i] or 0) > 1]
        progress(len(most) - len(active))
    return found


def _checked(check: Check, pairs: list[tuple[int, int]]) -> list[tuple[int, bool]]:
    return [(i, passed) for (i, _), passed in zip(pairs, check(pairs), strict=True)] if pairs else []
