"""Step ranking accuracy: how well the attention of a head tells essential from redundant steps (paper section 4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnpo.errors import InputError


@dataclass(frozen=True, eq=False)
class MeanAccuracy:
    """Step ranking accuracy of every head, averaged over `responses`; `excluded` ones had steps of one kind only."""

    accuracy: Float[Tensor, "H"]
    responses: int
    excluded: int


def step_ranking_accuracy(scores: Float[Tensor, "H S"], essential: Bool[Tensor, "S"]) -> Float[Tensor, "H"]:
    """Share of (essential, redundant) step pairs of one response with S(essential) > S(redundant), ties one half.

    scores: S(l,h,s_k) of H heads for S steps. Float64, in [0, 1].
    Raises InputError when the response has no essential or no redundant step, or the shapes do not fit.
    """
    if scores.ndim != 2 or essential.shape != scores.shape[1:]:
        raise InputError(f"scores {tuple(scores.shape)} and labels {tuple(essential.shape)}: expected [H, S] and [S]")
    essential = essential.bool()
    if not has_both_kinds(essential):
        raise InputError(
            f"labels: {int(essential.sum())} of {len(essential)} steps are essential, expected both kinds of step"
        )
    difference = scores[:, essential, None].double() - scores[:, None, ~essential].double()
    return ((difference > 0).double() + 0.5 * (difference == 0).double()).mean(dim=(1, 2))


def mean_step_ranking_accuracy(responses: Iterable[tuple[Tensor, Tensor]]) -> MeanAccuracy:
    """Average over labelled responses, given as (scores [H, S_i], essential [S_i]); those without a pair are excluded.

    Raises InputError when no response has both kinds of step.
    """
    total: Tensor | None = None
    counted = excluded = 0
    for scores, essential in responses:
        if not has_both_kinds(essential):
            excluded += 1
            continue
        accuracy = step_ranking_accuracy(scores, essential)
        total = accuracy if total is None else total + accuracy
        counted += 1
    if total is None:
        raise InputError(f"labels: none of {excluded} responses has both essential and redundant steps")
    return MeanAccuracy(total / counted, counted, excluded)


def has_both_kinds(essential: Tensor) -> bool:
    """Whether at least one step is essential and one redundant."""
    return bool(essential.any()) and not bool(torch.all(essential))
