"""Two models on the same problems: differences, AES and how sure they are.

`Tables` hold, per benchmark, the numbers of its problems [P, 2]: accuracy and mean tokens. Over several benchmarks
the mean is a macro average: every benchmark counts the same. Problems are resampled within their benchmark, and always
for both models at once, so what the problems have in common cancels out.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from attnpo.bootstrap import draw_problems, interval, means_of_draws
from attnpo.evaluation.aes import Weights, aes
from attnpo.evaluation.metrics import DRAWS, Measure, as_measure

Tables = Mapping[str, Float64[Tensor, "P K"]]

EXACT = 14  # problems that differ, up to which all 2^n signs are gone through
FLIPS = 20_000
CHUNK = 1 << 22  # signs held at a time


@dataclass(frozen=True)
class Difference:
    """Mean over problems of model − base, its 95 % interval, and the p value of "there is none"."""

    value: float | None
    low: float | None
    high: float | None
    problems: int
    p: float | None

    def as_json(self) -> dict[str, float | int | None]:
        return asdict(self)


@dataclass(frozen=True)
class Against:
    """A model against the base."""

    accuracy: Difference
    tokens: Difference
    aes: Measure


def against(model: Tables, base: Tables, weights: Weights) -> Against:
    """Compare two tables of the same benchmarks and problems; a number only one of the two has counts for neither."""
    both = {name: torch.where((model[name] + base[name]).isnan(), torch.nan, 0.0) for name in model}
    model = {name: model[name] + both[name] for name in both}
    base = {name: base[name] + both[name] for name in both}
    (mean, draws), (base_mean, base_draws) = resampled(model), resampled(base)
    parts = []
    for column in range(2):
        pairs = [model[name][:, column] - base[name][:, column] for name in model]
        difference = _measure(mean[column] - base_mean[column], draws[:, column] - base_draws[:, column], pairs)
        parts.append(Difference(**asdict(difference), p=sign_flip_p(torch.cat([_share(pair) for pair in pairs]))))
    ours, theirs = torch.vstack([mean, draws]).tolist(), torch.vstack([base_mean, base_draws]).tolist()
    score, *scores = (aes(a, t, base_a, base_t, weights) for (a, t), (base_a, base_t) in zip(ours, theirs, strict=True))
    drawn = torch.tensor(scores, dtype=torch.float64)
    return Against(parts[0], parts[1], _measure(score, drawn, [table[:, 0] for table in model.values()]))


def resampled(tables: Tables) -> tuple[Float64[Tensor, "K"], Float64[Tensor, "D K"]]:
    """The macro average of every column, and of every draw of the bootstrap.

    Each benchmark draws from a seed made of its name: the same for every model, and no two benchmarks alike.
    """
    means = torch.stack([values.nanmean(0) for values in tables.values()])
    draws = [
        means_of_draws(values, draw_problems(len(values), DRAWS, zlib.crc32(name.encode())))
        for name, values in tables.items()
    ]
    return means.mean(0), torch.stack(draws).mean(0)


def macro_average(columns: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Measure]:
    """Every column that all benchmarks have, averaged over them (`columns`: of `metrics.columns`, by benchmark)."""
    shared = [name for name in next(iter(columns.values())) if all(name in found for found in columns.values())]
    table = {
        benchmark: torch.tensor([found[name] for name in shared], dtype=torch.float64).T
        for benchmark, found in columns.items()
    }
    means, draws = resampled(table)
    return {
        name: _measure(means[k], draws[:, k], [values[:, k] for values in table.values()])
        for k, name in enumerate(shared)
    }


def sign_flip_p(differences: Float64[Tensor, "P"], seed: int = 0) -> float | None:
    """Two-sided p value of the sign-flip permutation test: were the two models alike, every sign could be the other.

    With one sample per problem this is McNemar's exact test. Exact up to 14 problems that differ; beyond, from 20,000
    drawn assignments of signs, p = (hits + 1) / (draws + 1). None without a problem.
    """
    known = differences[~differences.isnan()]
    if not len(known):
        return None
    moved = known[known != 0]
    reached = moved.sum().abs() - 1e-9 * moved.abs().sum()  # sums of the same numbers in another order are equal
    if len(moved) <= EXACT:
        bits = torch.arange(2 ** len(moved))[:, None] >> torch.arange(len(moved)) & 1
        return float(((1.0 - 2.0 * bits.double()) @ moved).abs().ge(reached).double().mean())
    generator = torch.Generator().manual_seed(seed)
    hits, left = 0, FLIPS
    while left:  # in parts: a benchmark may have ten thousand problems
        rows = min(left, max(1, CHUNK // len(moved)))
        bits = torch.randint(2, (rows, len(moved)), generator=generator)
        hits += int(((1.0 - 2.0 * bits.double()) @ moved).abs().ge(reached).sum())
        left -= rows
    return (hits + 1) / (FLIPS + 1)


def _share(pair: Float64[Tensor, "P"]) -> Float64[Tensor, "P"]:
    """What each problem adds to its benchmark's mean."""
    return pair / max(1, int((~pair.isnan()).sum()))


def _measure(value: Tensor | float, draws: Tensor, tables: list[Float64[Tensor, "P"]]) -> Measure:
    low, high = interval(draws)
    return as_measure(float(value), float(low), float(high), sum(int((~table.isnan()).sum()) for table in tables))
