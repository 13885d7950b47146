"""The order in which steps are removed, which stay because a later step uses their result, and how many can go."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from attnpo.heads.removal import ranking
from attnpo.steps.answers import final_answer, stated_values, states_answer, used_values

Check = Callable[[list[tuple[int, int]]], list[bool]]
"""(trace, number of removed steps) pairs -> whether each answer stays right; one call is one batch."""

SHORTEST_VALUE = 2
"""Fewest characters of a number that counts as a value: single digits occur everywhere with many meanings."""


def lowest_first(scores: Sequence[float]) -> list[int]:
    """Return the steps from the lowest score to the highest; of equal ones, the later first."""
    return ranking(scores)[::-1]


def random_order(steps: int, seed: int, name: str | int) -> list[int]:
    """Return a random order, which depends on `seed` and `name` (the number of the trace's row) only."""
    return random.Random(f"{seed} {name}").sample(range(steps), steps)


def last_first(steps: int) -> list[int]:
    return list(range(steps))[::-1]


def after_first_answer(texts: Sequence[str], answer: str) -> list[int]:
    """Return the steps after the first one that states the final answer, last first; none if no step states it.

    answer: the text after the closing tag.
    """
    wanted = final_answer(answer)
    if wanted is None:
        return []
    found = next((k for k, text in enumerate(texts) if states_answer(text, wanted)), len(texts))
    return list(range(found + 1, len(texts)))[::-1]


def kept_for_values(texts: Sequence[str], removed: Sequence[int], problem: str) -> set[int]:
    """Return the steps of `removed` that must stay because a remaining step uses a value that only they state.

    A value is a number of two characters or more that a step states as its result (`stated_values`) and that is not in
    the problem. If all earlier steps that state a value used later would be removed, the one that is last in the order
    of `removed` stays; the values that it uses are then treated in the same way. Numbers are compared as text.
    """
    given = used_values(problem) | stated_values(problem)
    results, used = [stated_values(text) for text in texts], [used_values(text) for text in texts]
    late = {step: place for place, step in enumerate(removed)}
    kept: set[int] = set()
    for step in reversed(range(len(texts))):
        if step in late and step not in kept:
            continue
        for value in used[step]:
            if len(value) < SHORTEST_VALUE or value in given:
                continue
            sources = [k for k in range(step) if value in results[k]]
            if sources and all(k in late and k not in kept for k in sources):
                kept.add(max(sources, key=lambda k: late[k]))
    return kept


def most_removable(
    most: Sequence[int], check: Check, progress: Callable[[int], None] = lambda done: None
) -> list[int | None]:
    """Find by bisection, for each trace, a number of steps up to `most` that passes the check while one more does not.

    None: not even the complete trace passes. The result is the largest passing number if fewer removed steps always
    pass when more do; otherwise it is one of several, but it has passed itself in any case. The complete trace and
    `most` are tried first: log2(most) + 2 checks of a trace. progress: called with the number of traces done.
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
