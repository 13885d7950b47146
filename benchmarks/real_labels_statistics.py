"""The statistics of `real_labels.py`: rank correlations, pairs of neighbours, halves and intervals over problems."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attnpo.bootstrap import bootstrap_over_problems, number_problems


def neighbour_accuracy(scores: Tensor, redundant: Tensor) -> Tensor | None:
    """Return step ranking accuracy over pairs of a redundant step and the essential one directly before or after it."""
    edges = (redundant[1:] != redundant[:-1]).nonzero().flatten()
    if not len(edges):
        return None
    first, second = scores[:, edges].double(), scores[:, edges + 1].double()
    higher = torch.where(redundant[edges], second - first, first - second)  # essential minus redundant
    return ((higher > 0).double() + 0.5 * (higher == 0).double()).mean(dim=1)


def ranks(values: Tensor) -> Tensor:
    """Return ranks from 0 along the last dimension; equal values share their mean rank."""
    values = values.double()
    first = torch.searchsorted(values.sort().values, values.contiguous())
    last = torch.searchsorted(values.sort().values, values.contiguous(), right=True)
    return (first + last - 1).double() / 2


def rank_correlation(scores: Tensor, labels: Tensor, covariates: Tensor | None = None) -> Tensor:
    """Return Spearman's correlation of each row of scores [K, S] with the labels [S]; with covariates [C, S] the
    partial one: of the residuals of both ranks after least squares on them. Scores without a residual get 0."""
    ones = torch.ones(1, scores.shape[1], dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([ones, covariates.double()] if covariates is not None else [ones]).T).Q

    def rest(values: Tensor) -> Tensor:
        centred = values - values.mean(dim=-1, keepdim=True)
        left = centred - centred @ basis @ basis.T
        norm, whole = left.norm(dim=-1, keepdim=True), centred.norm(dim=-1, keepdim=True)
        return torch.where(norm > 1e-6 * whole, left / norm.clamp(min=1e-300), 0.0)

    return rest(ranks(scores)) @ rest(ranks(labels))


def halves_by_group(groups: Sequence[str]) -> list[Tensor]:
    """Return two masks over the traces: those of every other problem, and the rest. No problem is in both."""
    odd = number_problems(groups) % 2 == 1
    return [~odd, odd]


def interval(values: Tensor, groups: Sequence[str]) -> list[float]:
    """Return the 95 % bootstrap interval of the mean over traces; problems are drawn with all their traces. NaN values
    are ignored."""
    low, high = bootstrap_over_problems(values[:, None], number_problems(groups))
    return [float(low), float(high)]
