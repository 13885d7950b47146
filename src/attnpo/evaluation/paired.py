"""The common problems of several evaluations, and paired tests of models on them.

Shapes: P problems, K columns (accuracy and mean tokens), D draws of the bootstrap.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from attnpo.bootstrap import draw_problems, interval, means_of_draws
from attnpo.errors import InputError
from attnpo.evaluation.aes import Weights, aes
from attnpo.evaluation.folder import Evaluation
from attnpo.evaluation.metrics import DRAWS, Measure, as_measure, by_problem, columns
from attnpo.evaluation.samples import Sample

Shared = dict[str, dict[str, list[Sample]]]
"""Benchmark → run → its samples of the problems that all these runs have."""


def shared_problems(runs: Sequence[Evaluation], notices: list[str]) -> Shared:
    """The samples to compare; a message about everything left out is added to `notices`.

    Raises:
        InputError: no common problem, or two references for one problem.
    """
    shared: Shared = {}
    for benchmark in dict.fromkeys(name for run in runs for name in run.samples):
        having = [run for run in runs if benchmark in run.samples]
        if len(having) < 2:
            notices.append(f"{benchmark}: only {having[0].name} has it; left out.")
            continue
        asked = {run.name: {sample.id for sample in run.samples[benchmark]} for run in having}
        group, common = _largest_group(asked)
        if len(group) < 2:
            notices.append(f"{benchmark}: no problem that two of its runs have; left out.")
            continue
        odd = [name for name in asked if name not in group]
        if odd:
            notices.append(f"{benchmark}: {', '.join(odd)} left out: no problem in common with {', '.join(group)}.")
        having = [run for run in having if run.name in group]
        ids = [asked[run.name] for run in having]
        if any(found != common for found in ids):
            counts = ", ".join(f"{len(found)} of {run.name}" for run, found in zip(having, ids, strict=True))
            notices.append(f"{benchmark}: compared on the {len(common)} problems that all have ({counts}).")
        shared[benchmark] = {
            run.name: [sample for sample in run.samples[benchmark] if sample.id in common] for run in having
        }
        _check_references(benchmark, shared[benchmark])
    if not shared:
        raise InputError(" ".join(["nothing to compare: the runs have no problem in common.", *notices]))
    return shared


def _largest_group(asked: Mapping[str, set[str]]) -> tuple[list[str], set[str]]:
    """The largest group of runs found with common problems, and these problems; of equal groups the first.

    Starting from each run in turn, the others are added in their order as long as a common problem remains.
    """
    best: tuple[list[str], set[str]] = ([], set())
    for start, ids in asked.items():
        group, common = [start], ids
        for name, other in asked.items():
            if name != start and common & other:
                group.append(name)
                common = common & other
        if len(group) > len(best[0]):
            best = group, common
    return best


def problem_table(samples: Sequence[Sample]) -> Float64[Tensor, "P 2"]:
    """Accuracy and mean tokens of every problem, float64 [P, 2], in the order of the problems' ids."""
    found = columns(by_problem(samples), ())
    return torch.tensor([found["accuracy"], found["tokens"]], dtype=torch.float64).T


def _check_references(benchmark: str, samples: Mapping[str, Sequence[Sample]]) -> None:
    seen: dict[str, tuple[str, str | None]] = {}
    for name, part in samples.items():
        for sample in part:
            first, reference = seen.setdefault(sample.id, (name, sample.reference))
            if reference != sample.reference:
                raise InputError(
                    f"{benchmark}, problem {sample.id!r}: reference {reference!r} in {first} and {sample.reference!r} "
                    f"in {name}; expected the same problems"
                )


Tables = Mapping[str, Float64[Tensor, "P K"]]

EXACT = 14  # up to this number n of differing problems, all 2^n assignments of signs are enumerated
FLIPS = 20_000
CHUNK = 1 << 22  # signs in memory at a time


@dataclass(frozen=True)
class Difference:
    """Mean over problems of model − base, its 95 % interval, and the p value of no difference."""

    value: float | None
    low: float | None
    high: float | None
    problems: int
    p: float | None

    def as_json(self) -> dict[str, float | int | None]:
        return asdict(self)


@dataclass(frozen=True)
class Against:
    """A model compared with the base."""

    accuracy: Difference
    tokens: Difference
    aes: Measure


def against(model: Tables, base: Tables, weights: Weights) -> Against:
    """Compare two tables of the same benchmarks and problems; a number that only one has is left out of both."""
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
    """The macro average of every column, and the same for every draw of the bootstrap.

    The seed of each benchmark's draws is made from its name: equal for all models, different between benchmarks.
    """
    means = torch.stack([values.nanmean(0) for values in tables.values()])
    draws = [
        means_of_draws(values, draw_problems(len(values), DRAWS, zlib.crc32(name.encode())))
        for name, values in tables.items()
    ]
    return means.mean(0), torch.stack(draws).mean(0)


def macro_average(columns: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Measure]:
    """The mean over the benchmarks of every column that all have (`columns`: `metrics.columns` by benchmark)."""
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
    """Two-sided p value of the sign-flip permutation test: without a difference between the models, either sign of each
    problem's difference is equally likely.

    With one sample per problem this is McNemar's exact test. Exact up to 14 problems that differ; with more, from
    20,000 drawn assignments of signs, p = (hits + 1) / (draws + 1). None without a problem.
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
    while left:  # in chunks: a benchmark may have ten thousand problems
        rows = min(left, max(1, CHUNK // len(moved)))
        bits = torch.randint(2, (rows, len(moved)), generator=generator)
        hits += int(((1.0 - 2.0 * bits.double()) @ moved).abs().ge(reached).sum())
        left -= rows
    return (hits + 1) / (FLIPS + 1)


def _share(pair: Float64[Tensor, "P"]) -> Float64[Tensor, "P"]:
    """The contribution of each problem to its benchmark's mean."""
    return pair / max(1, int((~pair.isnan()).sum()))


def _measure(value: Tensor | float, draws: Tensor, tables: list[Float64[Tensor, "P"]]) -> Measure:
    low, high = interval(draws)
    return as_measure(float(value), float(low), float(high), sum(int((~table.isnan()).sum()) for table in tables))
