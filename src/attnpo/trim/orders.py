"""The order in which steps are removed, which stay because a later step uses their result, and how many can go."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from attnpo.heads.removal import ranking
from attnpo.steps.answers import final_answer, stated_values, states_answer, used_values

Check = Callable[[list[tuple[int, int]]], list[bool]]
"""(trace, number of removed steps) pairs -> whether the answer stays right; one call is one batch."""

SHORTEST_VALUE = 2
"""Characters of a number that counts as a value: those of one digit stand everywhere, for anything."""


def lowest_first(scores: Sequence[float]) -> list[int]:
    """The steps from the lowest score to the highest; of equal ones, the later first."""
    return ranking(scores)[::-1]


def random_order(steps: int, seed: int, name: str | int) -> list[int]:
    """Any order; `name`: what it is drawn from beside the seed, so that a trace loses the same steps in any file."""
    return random.Random(f"{seed} {name}").sample(range(steps), steps)


def last_first(steps: int) -> list[int]:
    return list(range(steps))[::-1]


def behind_first_answer(texts: Sequence[str], answer: str) -> list[int]:
    """The steps behind the first one that states the final answer, last first; none where no step states it.

    answer: the text behind the closing tag.
    """
    wanted = final_answer(answer)
    if wanted is None:
        return []
    found = next((k for k, text in enumerate(texts) if states_answer(text, wanted)), len(texts))
    return list(range(found + 1, len(texts)))[::-1]


def kept_for_values(texts: Sequence[str], removed: Sequence[int], problem: str) -> set[int]:
    """The steps among those to be removed that have to stay, or a value that a remaining step uses comes from nowhere.

    A value is a number of two characters or more that a step gives as its result (`stated_values`) and the problem does
    not give. Where all earlier steps that state a value used later would go, the one stays that goes last in the order
    of `removed`; what that one uses is looked for in turn. Numbers are compared as they are written.
    """
    given = used_values(problem) | stated_values(problem)
    stated, used = [stated_values(text) for text in texts], [used_values(text) for text in texts]
    late = {step: place for place, step in enumerate(removed)}
    kept: set[int] = set()
    for step in reversed(range(len(texts))):
        if step in late and step not in kept:
            continue
        for value in used[step]:
            if len(value) < SHORTEST_VALUE or value in given:
                continue
            sources = [k for k in range(step) if value in stated[k]]
            if sources and all(k in late and k not in kept for k in sources):
                kept.add(max(sources, key=lambda k: late[k]))
    return kept


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
