"""Outcome advantages: one number per response, from the rewards of its group.

Legend: P prompts, G responses per prompt. A reward that is NaN is *missing* (an answer that could not be verified):
it is left out of every mean and std, and its response gets advantage 0. A group in which all rewards are equal gets
exactly 0, without rounding residue, so that it has no gradient.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnpo.errors import InputError

KINDS = ("rloo", "grpo", "dr_grpo")
"""rloo: reward − mean of the *other* rewards of the group. dr_grpo: reward − mean of the group. grpo: that, divided by
(std + 1e-4) with the sample standard deviation (n − 1), TRL's convention."""

STD_EPSILON = 1e-4


def check_group_size(kind: str, responses: int) -> None:
    """Check the advantage and the number of responses per prompt when a run is configured.

    Raises:
        InputError: an unknown kind, or fewer than two responses per prompt (no baseline).
    """
    if kind not in KINDS:
        raise InputError(f"advantage: found {kind!r}, expected one of {', '.join(KINDS)}")
    if responses < 2:
        raise InputError(
            f"num_generations: found {responses}, expected at least 2: the {kind} advantage compares the responses to "
            "the same prompt"
        )


def outcome_advantages(rewards: Float[Tensor, "P G"], kind: str = "rloo") -> Float[Tensor, "P G"]:
    """Advantage of every response (docs/papers.md; :data:`KINDS`).

    Raises:
        InputError: an unknown kind, one response per prompt, or rewards that are not a [P, G] table.
    """
    if rewards.ndim != 2:
        raise InputError(f"rewards: found shape {list(rewards.shape)}, expected [prompts, responses per prompt]")
    check_group_size(kind, rewards.shape[1])
    present = ~rewards.isnan()
    values = torch.where(present, rewards, torch.zeros_like(rewards))
    count = present.sum(dim=1, keepdim=True)
    others = (count - 1).clamp(min=1)
    total = values.sum(dim=1, keepdim=True)
    if kind == "rloo":
        advantages = values - (total - values) / others
    else:
        deviation = torch.where(present, values - total / count.clamp(min=1), torch.zeros_like(values))
        advantages = deviation
        if kind == "grpo":
            std = (deviation.square().sum(dim=1, keepdim=True) / others).sqrt()
            advantages = deviation / (std + STD_EPSILON)
    return torch.where(present & ~all_equal(rewards)[:, None], advantages, torch.zeros_like(advantages))


def groups_without_signal(rewards: Float[Tensor, "P G"]) -> Float[Tensor, ""]:
    """Share of groups with advantage 0: all rewards that are not missing are equal, or at most one is not missing."""
    return all_equal(rewards).float().mean()


def is_correct(accuracy: Float[Tensor, "*rows"]) -> Bool[Tensor, "*rows"]:
    """Which responses are correct: value 1 of the reward function for correctness. A missing value is not correct."""
    return accuracy > 1 - 1e-6


def verdict_of(reward: float | None) -> bool | None:
    """Right or wrong, from one value of the reward function for correctness; None if it is missing (None, NaN)."""
    return None if reward is None or math.isnan(reward) else bool(is_correct(torch.tensor(float(reward))))


def group_accuracy(accuracy: Float[Tensor, "P G"]) -> Float[Tensor, "P"]:
    """p: share of correct responses among those with a verdict (1 is correct; NaN is missing); 0 without any verdict.

    Partial credit from a user's reward function is not correct: the same rule as for rescaling a response.
    """
    present = ~accuracy.isnan()
    correct = (present & is_correct(accuracy)).sum(dim=1)
    return correct / present.sum(dim=1).clamp(min=1)


def all_equal(rewards: Float[Tensor, "P G"]) -> Bool[Tensor, "P"]:
    """Which groups have no two different rewards, missing ones aside."""
    high = rewards.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).amax(dim=1)
    low = rewards.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).amin(dim=1)
    return high <= low
