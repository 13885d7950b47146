"""The answers of the removal test as tables: accuracy of every arm, and differences between arms, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from attnpo.evidence.answering import Answer
from attnpo.evidence.output import Table
from attnpo.evidence.removal import ARMS, EVERYTHING, HIGHEST, LAST, LOWEST, NOTHING, RANDOM, Removal
from attnpo.rewards.verdict import REWARD_OF, Verdict

COLUMNS = (
    *("arm", "share", "steps removed", "tokens removed", "essential removed", "cut off"),
    *("accuracy", "low", "high", "traces"),
)
PAIRS = ((HIGHEST, LOWEST), (LOWEST, RANDOM), (HIGHEST, RANDOM), (HIGHEST, LAST))
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
    groups = problem_groups(problems)
    rows = []
    for arm, share in _kinds(answers):
        chosen = [one for one in answers if (one.removal.arm, one.removal.share) == (arm, share)]
        right = trace_means(chosen, lambda one: one.right, len(problems))
        figures = [_mean(trace_means(chosen, figure, len(problems))) for figure in FIGURES]
        rows.append((arm, share, *figures, *_estimate(right, groups)))
    return Table(COLUMNS, rows)


def difference_table(answers: Sequence[Reanswer], problems: Sequence[str]) -> Table:
    """Paired differences of accuracy between arms: the same traces on both sides."""
    groups = problem_groups(problems)
    of = {
        kind: trace_means(
            [one for one in answers if (one.removal.arm, one.removal.share) == kind],
            lambda one: one.right,
            len(problems),
        )
        for kind in _kinds(answers)
    }
    rows = [
        (f"{first} − {second}", share, *_estimate(of[first, share] - of[second, share], groups))
        for first, second in PAIRS
        for share in dict.fromkeys(share for arm, share in of if arm == first)
        if (second, share) in of
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


def problem_groups(problems: Sequence[str]) -> Int64[Tensor, "N"]:
    """The problem of each trace as a number from 0, in order of appearance."""
    numbers = {problem: number for number, problem in enumerate(dict.fromkeys(problems))}
    return torch.tensor([numbers[problem] for problem in problems])


def bootstrap_interval(
    values: Float[Tensor, "N"], groups: Int64[Tensor, "N"], draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean of the values that are numbers; problems are drawn, each with all its traces."""
    count = int(groups.max()) + 1
    known = ~torch.isnan(values)
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, groups[known], values[known].double())
    sizes = torch.bincount(groups[known], minlength=count).double()
    picks = torch.randint(count, (draws, count), generator=torch.Generator().manual_seed(seed))
    means = sums[picks].sum(dim=1) / sizes[picks].sum(dim=1)
    # A draw of problems without any value has no mean.
    low, high = torch.nanquantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _kinds(answers: Sequence[Reanswer]) -> list[tuple[str, float]]:
    """The pairs of arm and share there are, in the order in which they are shown."""
    order = (NOTHING, *ARMS, EVERYTHING)
    kinds = {(one.removal.arm, one.removal.share) for one in answers}
    return sorted(kinds, key=lambda kind: (order.index(kind[0]), kind[1]))


def _estimate(values: Float64[Tensor, "N"], groups: Int64[Tensor, "N"]) -> tuple[float | None, ...]:
    """Mean, low, high and number of traces."""
    traces = int((~torch.isnan(values)).sum())
    return (_mean(values), *(bootstrap_interval(values, groups) if traces else (None, None)), traces)


def _mean(values: Float64[Tensor, "N"]) -> float | None:
    mean = float(values.nanmean())
    return None if math.isnan(mean) else mean
