"""Bootstrap intervals of means over traces. Problems are resampled: responses to one problem are not independent."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

LEVEL = 0.95
CHUNK = 1024
"""Columns per chunk: `draws` means of each are held in memory, and `torch.nanquantile` takes 2²⁴ numbers at most."""


def bootstrap_over_problems(
    values: Float[Tensor, "N K"], groups: Int64[Tensor, "N"], draws: int = 2000, seed: int = 0
) -> tuple[Float64[Tensor, "K"], Float64[Tensor, "K"]]:
    """(low, high) ends of the 95 % interval of the mean of each column over N traces.

    groups: the problem of each trace, from 0 without gaps (`number_problems`). Each draw takes as many problems as
    there are, with replacement, each with all its traces; all columns use the same draws. NaN values do not count; a
    draw of NaN values only is left out, and a column of NaN values only gets NaN.
    """
    count = int(groups.max()) + 1
    drawn = draw_problems(count, draws, seed)
    found = []
    for part in values.double().split(CHUNK, dim=1):
        zeros = torch.zeros(count, part.shape[1], dtype=torch.float64)
        sums = zeros.index_add(0, groups, part.nan_to_num(0.0))
        sizes = zeros.index_add(0, groups, (~part.isnan()).double())
        found.append(torch.stack(interval((drawn @ sums) / (drawn @ sizes))))
    low, high = torch.cat(found, dim=1)
    return low, high


def interval(draws: Float64[Tensor, "draws *K"]) -> tuple[Float64[Tensor, "*K"], Float64[Tensor, "*K"]]:
    """(low, high) ends of the 95 % interval of a statistic, from its value in each draw; NaN draws are left out."""
    tail = (1 - LEVEL) / 2
    low, high = torch.nanquantile(draws, torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
    return low, high


def means_of_draws(values: Float64[Tensor, "P K"], drawn: Float64[Tensor, "draws P"]) -> Float64[Tensor, "draws K"]:
    """Mean of each column over the problems of each draw (`draw_problems`); NaN values do not count."""
    return (drawn @ values.nan_to_num(0.0)) / (drawn @ (~values.isnan()).double())


def draw_problems(count: int, draws: int, seed: int) -> Float64[Tensor, "draws count"]:
    """How often each draw takes each of `count` problems: one matrix product replaces `draws` tables."""
    picks = torch.randint(count, (draws, count), generator=torch.Generator().manual_seed(seed))
    drawn = torch.zeros(draws, count, dtype=torch.float64)
    return drawn.scatter_add_(1, picks, drawn.new_ones(1, 1).expand_as(drawn))


def number_problems(problems: Sequence[Hashable]) -> Int64[Tensor, "N"]:
    """The problem of each trace as a number from 0, in order of appearance."""
    numbers = {problem: number for number, problem in enumerate(dict.fromkeys(problems))}
    return torch.tensor([numbers[problem] for problem in problems], dtype=torch.int64)
