"""Metrics of one model on one benchmark: means over problems, with 95 % intervals from resampled problems.

Every number is first formed per problem and then averaged, so a problem counts once however often it was sampled.
NaN in a column means that the problem has no such number (no graded sample, too few for pass@k); it is left out of the
mean, and `Measure.problems` is the number of the others.

`behaviour` has counts of phrases and steps in the thinking text, without intervals: they describe the sampled
responses.

Shapes: N samples, P problems, K columns, D draws of the bootstrap.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median_high

import torch
from jaxtyping import Float64
from torch import Tensor

from attnpo.bootstrap import LEVEL, bootstrap_over_problems, draw_problems, interval
from attnpo.evaluation.samples import Sample
from attnpo.rewards.verdict import REWARD_OF
from attnpo.steps.formats import BY_MARKS, Form
from attnpo.steps.lexicon import PHRASE_KINDS, phrase_counts
from attnpo.steps.response import thinking_of
from attnpo.steps.segment import segment_steps

BUDGETS = (2048, 4096, 8192, 16384, 32768)
KS = (1, 2, 4, 8, 16, 32, 64, 128)
DRAWS = 2000
_SHARES = ("accuracy", "truncated", "pass@", "budget@")
_CHUNK = 1 << 22  # numbers held at a time while medians are resampled

Problem = list[Sample]
"""All samples of one problem."""


@dataclass(frozen=True)
class Measure:
    """A mean over `problems` problems with its 95 % interval; None with too few problems for a value or an interval."""

    value: float | None
    low: float | None
    high: float | None
    problems: int

    def as_json(self) -> dict[str, float | int | None]:
        return asdict(self)


def by_problem(samples: Sequence[Sample]) -> list[Problem]:
    """Samples grouped by problem, in an order that does not depend on the order in which they were written."""
    problems: dict[str, Problem] = {}
    for sample in sorted(samples, key=lambda sample: (sample.id, sample.sample)):
        problems.setdefault(sample.id, []).append(sample)
    return list(problems.values())


def is_right(sample: Sample) -> bool | None:
    """Whether the answer is right; None if that is not known (no verdict, or the verifier failed)."""
    reward = None if sample.verdict is None else REWARD_OF[sample.verdict]
    return None if reward is None else reward > 0


def graded(samples: Sequence[Sample]) -> list[bool]:
    """Whether each sample is right, for those of which it is known."""
    return [right for sample in samples if (right := is_right(sample)) is not None]


def accuracy(problem: Problem, budget: float = math.inf) -> float:
    """Share of right samples among the graded ones, NaN if there are none; a response of more than `budget` tokens
    counts as wrong.
    """
    rights = [right and sample.tokens <= budget for sample in problem if (right := is_right(sample)) is not None]
    return fmean(rights) if rights else math.nan


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the probability that at least one of `k` samples is right; `c` of `n` samples are right.

    1 − C(n − c, k) / C(n, k), as a product of factors below 1, so that no binomial gets large.
    Source: Chen et al. 2021 (arXiv 2107.03374). Needs 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    assert 0 <= c <= n
    assert 1 <= k <= n
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def problem_pass_at_k(problem: Problem, k: int) -> float:
    """pass@k of one problem; NaN if fewer than `k` of its samples were graded."""
    rights = graded(problem)
    return pass_at_k(len(rights), sum(rights), k) if len(rights) >= k else math.nan


def reached_ks(problems: Sequence[Problem]) -> list[int]:
    """The k for which at least half of the problems with a graded sample have enough of them."""
    counts = [count for problem in problems if (count := len(graded(problem)))]
    return [k for k in KS if counts and k <= median_high(counts)]


def known_budgets(problems: Sequence[Problem], budgets: Sequence[int]) -> list[int]:
    """The budgets for which every response is known: none was cut off before it reached them."""
    cut = min((sample.tokens for problem in problems for sample in problem if sample.truncated), default=math.inf)
    return [budget for budget in sorted(set(budgets)) if budget <= cut]


def columns(problems: Sequence[Problem], budgets: Sequence[int] = BUDGETS) -> dict[str, list[float]]:
    """Per problem: accuracy, the mean tokens and their parts, share truncated, `pass@k` and `budget@tokens`."""
    found = {"accuracy": [accuracy(problem) for problem in problems]}
    for name in ("tokens", "thinking_tokens", "answer_tokens", "truncated"):
        found[name] = [fmean(getattr(sample, name) for sample in problem) for problem in problems]
    for k in reached_ks(problems):
        found[f"pass@{k}"] = [problem_pass_at_k(problem, k) for problem in problems]
    for budget in known_budgets(problems, budgets):
        found[f"budget@{budget}"] = [accuracy(problem, budget) for problem in problems]
    return found


def measure(table: dict[str, list[float]], seed: int = 0) -> dict[str, Measure]:
    """Mean and interval of every column [P]; all columns see the same draws of problems."""
    values = torch.tensor(list(table.values()), dtype=torch.float64).T
    low, high = bootstrap_over_problems(values, torch.arange(len(values)), DRAWS, seed)
    means, counts = values.nanmean(0), (~values.isnan()).sum(0)
    rows = zip(table, means.tolist(), low.tolist(), high.tolist(), counts.tolist(), strict=True)
    found = {name: as_measure(*numbers) for name, *numbers in rows}
    return {name: widen(value) if name.startswith(_SHARES) else value for name, value in found.items()}


def widen(share: Measure) -> Measure:
    """Give a share of 0 or 1 the exact binomial interval over its P problems: resampling equal values has no spread.

    All right: from 0.025^(1/P) to 1; all wrong: from 0 to 1 − 0.025^(1/P). Source: Clopper & Pearson 1934.
    """
    if share.low is None or share.value not in (0, 1):
        return share
    bound = (0.5 * (1 - LEVEL)) ** (1 / share.problems)
    return replace(share, low=bound) if share.value else replace(share, high=1 - bound)


def as_measure(value: float, low: float, high: float, problems: int) -> Measure:
    """A Measure of plain numbers: no value without a problem, no interval with one problem only."""
    if not problems or math.isnan(value):
        return Measure(None, None, None, problems)
    if problems < 2 or math.isnan(low):
        return Measure(value, None, None, problems)
    return Measure(value, min(low, value), max(high, value), problems)


def median_tokens(problems: Sequence[Problem], seed: int = 0) -> Measure:
    """The median length over all responses, in tokens; its interval resamples problems with all their responses."""
    groups = torch.tensor([number for number, problem in enumerate(problems) for _ in problem])
    tokens = torch.tensor([float(sample.tokens) for problem in problems for sample in problem]).double()
    once = torch.ones(1, len(problems), dtype=torch.float64)
    drawn = draw_problems(len(problems), DRAWS, seed).split(max(1, _CHUNK // len(tokens)))
    low, high = interval(torch.cat([_weighted_medians(tokens, part[:, groups]) for part in drawn]))
    value = _weighted_medians(tokens, once[:, groups])
    return as_measure(float(value), float(low), float(high), len(problems))


def _weighted_medians(values: Float64[Tensor, "N"], weights: Float64[Tensor, "D N"]) -> Float64[Tensor, "D"]:
    """The median of `values` for each row of `weights`, which has the number of times each value is counted."""
    order = values.argsort()
    reached = weights[:, order].cumsum(1)
    half = reached[:, -1:] / 2
    lower, upper = (reached < half).sum(1), (reached <= half).sum(1)
    return (values[order][lower] + values[order][upper]) / 2


def behaviour(samples: Sequence[Sample], lexicon: str = "paper", form: Form = BY_MARKS) -> dict[str, float | None]:
    """Triggers of each phrase list per 1,000 thinking tokens, over all samples; mean number of steps per response.

    The frequencies are None without thinking tokens. Raises InputError for an unknown lexicon.
    """
    counts: Counter[str] = Counter()
    steps = []
    for sample in samples:
        # A response of a model that does not think has no closing mark either: only thinking_tokens decides.
        thinking = thinking_of(sample.text, form) if sample.thinking_tokens else ""
        counts.update(phrase_counts(thinking, lexicon))
        steps.append(len(segment_steps(thinking, lexicon)))
    tokens = sum(sample.thinking_tokens for sample in samples)
    frequencies = {f"{kind}_per_1k": 1000 * counts[kind] / tokens if tokens else None for kind in PHRASE_KINDS}
    return {**frequencies, "steps": fmean(steps) if steps else None}
