"""The answers of the removal test as tables: accuracy of every arm, and differences between arms, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from attnpo.bootstrap import bootstrap_over_problems, number_problems
from attnpo.evidence.answering import Answer
from attnpo.evidence.removal import (
    ARMS,
    EVERYTHING,
    HIGHEST,
    LAST,
    LOWEST,
    NOTHING,
    RANDOM,
    RANDOM_HIGHEST,
    RANDOM_LOWEST,
    Removal,
)
from attnpo.rewards.verdict import REWARD_OF, Verdict
from attnpo.tables import Table

COLUMNS = (
    *("arm", "share", "steps removed", "tokens removed", "essential removed", "cut off"),
    *("accuracy", "low", "high", "traces"),
)
PAIRS = (
    *((HIGHEST, LOWEST), (LOWEST, RANDOM), (HIGHEST, RANDOM), (HIGHEST, LAST)),
    *((RANDOM_HIGHEST, RANDOM_LOWEST), (RANDOM_HIGHEST, LAST), (HIGHEST, RANDOM_HIGHEST), (LOWEST, RANDOM_LOWEST)),
)
DIFFERENCES = ("difference", "share", "accuracy", "low", "high", "traces")


@dataclass(frozen=True)
class Reanswer:
    """One answer of the test. tokens: share of the steps' tokens taken out; essential: of the essential steps."""

    removal: Removal
    tokens: float
    essential: float | None
    answer: Answer
    verdict: Verdict

    @property
    def right(self) -> float | None:
        """1 or 0; None where the verifier failed, which is not a wrong answer."""
        return REWARD_OF[self.verdict]


FIGURES: tuple[Callable[[Reanswer], float | None], ...] = (
    lambda one: len(one.removal.removed),
    lambda one: one.tokens,
    lambda one: one.essential,
    lambda one: not one.answer.finished,
)
"""The columns between the share and the accuracy."""


def accuracy_table(answers: Sequence[Reanswer], problems: Sequence[str]) -> Table:
    """One row per arm and share; problems: of each trace, by its place."""
    kinds = _by_kind(answers)
    right = [trace_means(chosen, lambda one: one.right, len(problems)) for chosen in kinds.values()]
    rows = []
    for ((arm, share), chosen), estimate in zip(kinds.items(), _estimates(right, problems), strict=True):
        figures = [_mean(trace_means(chosen, figure, len(problems))) for figure in FIGURES]
        rows.append((arm, share, *figures, *estimate))
    return Table(COLUMNS, rows)


def difference_table(answers: Sequence[Reanswer], problems: Sequence[str]) -> Table:
    """Paired differences of accuracy between arms: the same traces on both sides."""
    of = {kind: trace_means(chosen, lambda one: one.right, len(problems)) for kind, chosen in _by_kind(answers).items()}
    compared = [
        (first, second, share)
        for first, second in PAIRS
        for share in dict.fromkeys(share for arm, share in of if arm == first)
        if (second, share) in of
    ]
    values = [of[first, share] - of[second, share] for first, second, share in compared]
    rows = [
        (f"{first} − {second}", share, *estimate)
        for (first, second, share), estimate in zip(compared, _estimates(values, problems), strict=True)
    ]
    return Table(DIFFERENCES, rows)


def trace_means(
    answers: Sequence[Reanswer], figure: Callable[[Reanswer], float | None], traces: int
) -> Float64[Tensor, "N"]:
    """Mean of a figure over the answers of each trace (one per seed); not a number where there is none."""
    sums, counts = torch.zeros(2, traces, dtype=torch.float64)
    for one in answers:
        if (value := figure(one)) is not None:
            sums[one.removal.trace] += value
            counts[one.removal.trace] += 1
    return sums / counts


def _by_kind(answers: Sequence[Reanswer]) -> dict[tuple[str, float], list[Reanswer]]:
    """The answers of each arm and share, in the order in which they are shown."""
    found: dict[tuple[str, float], list[Reanswer]] = {}
    for one in answers:
        found.setdefault((one.removal.arm, one.removal.share), []).append(one)
    order = (NOTHING, *ARMS, EVERYTHING)
    return {kind: found[kind] for kind in sorted(found, key=lambda kind: (order.index(kind[0]), kind[1]))}


def _estimates(values: Sequence[Float64[Tensor, "N"]], problems: Sequence[str]) -> list[tuple[float | None, ...]]:
    """Mean, low, high and number of traces of each."""
    if not values:
        return []
    ends = bootstrap_over_problems(torch.stack([*values], dim=1), number_problems(problems))
    low, high = ([_known(value) for value in end.tolist()] for end in ends)
    traces = [int((~torch.isnan(one)).sum()) for one in values]
    return list(zip(map(_mean, values), low, high, traces, strict=True))


def _mean(values: Float64[Tensor, "N"]) -> float | None:
    return _known(float(values.nanmean()))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
