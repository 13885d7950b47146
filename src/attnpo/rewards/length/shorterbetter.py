"""ShorterBetter: the target is the length of the shortest right response of the group (arXiv 2504.21370, section 3).

r = α·1[right] − β·|SOL − len| for every response; SOL, the sample optimal length, is the length of the shortest right
response of the group, or the mean length of the group if none is right. α = 2, β = 0.001 (also in the released code,
github.com/JingyangYi/ShorterBetter). As a term added to an accuracy of 1 it is (α − 1)·1[right] − β·|SOL − len|.

A short wrong answer can rank above a long right one: with these α and β, if the right one exceeds SOL by more than
α/β = 2,000 tokens more than the wrong one differs from it. That is the paper's reward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnpo.checks import check_number
from attnpo.rewards.length.base import LengthInputs, LengthReward, register_length_reward


@register_length_reward("shorterbetter")
@dataclass(frozen=True)
class ShorterBetter(LengthReward):
    """(α − 1)·1[right] − β·|SOL − len|."""

    alpha: float = 2.0
    beta: float = 0.001

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low=0)
        check_number("beta", self.beta, low=0)

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        off = (inputs.lengths - sample_optimal_length(inputs)).abs()
        return (self.alpha - 1) * inputs.right.float() - self.beta * off


def sample_optimal_length(inputs: LengthInputs) -> Float[Tensor, "P 1"]:
    """Tokens of the shortest right response of each group; without one, the mean length of responses with a verdict."""
    lengths = inputs.lengths.float()
    shortest = torch.where(inputs.right, lengths, torch.inf).amin(dim=1, keepdim=True)
    count = inputs.known.sum(dim=1, keepdim=True).clamp(min=1)
    mean = torch.where(inputs.known, lengths, 0.0).sum(dim=1, keepdim=True) / count
    return torch.where(shortest.isinf(), mean, shortest)
