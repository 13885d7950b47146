"""Which steps of a trace are taken out, and the thinking text that is left: the choices of the removal test."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

NOTHING, EVERYTHING = "nothing", "everything"
HIGHEST, LOWEST, LAST, RANDOM = "highest", "lowest", "last", "random"
RANDOM_HIGHEST, RANDOM_LOWEST = "highest, random heads", "lowest, random heads"
ARMS = (HIGHEST, LOWEST, LAST, RANDOM, RANDOM_HIGHEST, RANDOM_LOWEST)
"""The arms that take out a share of the steps; the other two are the ends that all of them start and end at.

LAST is a control: a final answer often needs the last result above all, so heads that just look at what is near do well
against random steps. So are the highest and lowest of random heads, which are there on request."""


@dataclass(frozen=True)
class Removal:
    """The steps taken out of one trace. `trace`: its place among those used.

    seed: of the random arm; in the arms of random heads, which set of them; else None.
    """

    trace: int
    arm: str
    share: float
    seed: int | None
    removed: tuple[int, ...]


def plan_removals(
    place: int,
    scores: Sequence[float],
    shares: Iterable[float],
    seeds: int,
    name: str | int,
    controls: Sequence[Sequence[float]] = (),
) -> list[Removal]:
    """Everything that is taken out of one trace of at least two steps, one removal at a time.

    name: what the random arm is drawn from beside its seed (the row number), so that a trace loses the same steps
    whichever other traces are in the test. Of a trace, the random steps of a smaller share are among those of a larger.
    controls: the scores by each set of random heads.
    """
    steps, ranked = len(scores), ranking(scores)
    shuffled = [random.Random(f"{seed} {name}").sample(range(steps), steps) for seed in range(seeds)]
    plan = [Removal(place, NOTHING, 0.0, None, ())]
    for share in shares:
        count = removed_count(steps, share)
        plan += _both_ends(place, (HIGHEST, LOWEST), share, None, ranked, count)
        plan.append(Removal(place, LAST, share, None, tuple(range(steps - count, steps))))
        plan += [
            Removal(place, RANDOM, share, seed, tuple(sorted(order[:count]))) for seed, order in enumerate(shuffled)
        ]
        for heads, control in enumerate(controls):
            plan += _both_ends(place, (RANDOM_HIGHEST, RANDOM_LOWEST), share, heads, ranking(control), count)
    return [*plan, Removal(place, EVERYTHING, 1.0, None, tuple(range(steps)))]


def _both_ends(
    place: int, arms: tuple[str, str], share: float, seed: int | None, ranked: Sequence[int], count: int
) -> list[Removal]:
    """The first and the last `count` of the ranked steps."""
    return [
        Removal(place, arm, share, seed, tuple(sorted(steps)))
        for arm, steps in zip(arms, (ranked[:count], ranked[-count:]), strict=True)
    ]


def ranking(scores: Sequence[float]) -> list[int]:
    """The steps from the highest score to the lowest; of equal ones, the earlier first."""
    return sorted(range(len(scores)), key=lambda step: (-scores[step], step))


def removed_count(steps: int, share: float) -> int:
    """How many of at least two steps a share is: to the nearest whole number, a half down; never none or all.

    A half goes down so that up to one half the highest- and the lowest-scored steps are different ones. The product is
    rounded first: 0.29 · 50 is 14.499… as a float.
    """
    assert steps >= 2
    return min(max(1, math.ceil(round(steps * share, 9) - 0.5)), steps - 1)


def remaining_text(thinking: str, steps: Sequence[Mapping[str, Any]], removed: Iterable[int]) -> str:
    """The thinking text without some of its steps, which cover it (`attnpo.steps.trace_steps.check_tiling`).

    White space belongs to the step it follows, so what stands between two kept neighbours stays. That around the whole
    text is no step's: the model expects it behind the opening and before the closing tag, whichever steps are gone.
    """
    gone = set(removed)
    bounds = [step["start"] for step in steps] + [len(thinking)]
    bounds[0] = 0
    pieces = (thinking[start:end] for start, end in pairwise(bounds))
    kept = "".join(piece for index, piece in enumerate(pieces) if index not in gone)
    behind = thinking.lstrip()
    before = thinking[: len(thinking) - len(behind)]
    return before + kept.strip() + behind[len(behind.rstrip()) :]


def removed_share(spans: Sequence[tuple[int, int]], removed: Iterable[int]) -> float:
    """The share of the steps' tokens that is taken out with some of them."""
    sizes = [end - start for start, end in spans]
    return sum(sizes[step] for step in removed) / sum(sizes)


def removed_essential(labels: Sequence[bool | None], removed: Iterable[int]) -> float | None:
    """The share of the essential steps that is taken out; None where no step is labelled essential."""
    essential = labels.count(True)
    return sum(labels[step] is True for step in removed) / essential if essential else None
