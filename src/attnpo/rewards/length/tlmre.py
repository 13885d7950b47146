"""TLMRE: a reward that prefers the shorter of two correct responses (Arora & Zanette, arXiv 2502.04463).

For a correct response of the group, r = 1 − α·sigmoid((len − mean) / (std + eps)), with mean and population standard
deviation over the lengths (tokens) of the *correct* responses to the same prompt; 0 for a wrong one. The sigmoid is at
most 1, so every correct response earns at least 1 − α > 0: a short wrong answer never ranks above a long right one.

Edge cases: one correct response, or correct ones of equal length, have deviation 0 and earn exactly 1 − α/2. eps only
keeps the division defined; compared with a std of lengths (at least 0.01 for integer lengths) it does not matter.

Legend: P prompts, G responses per prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnpo.errors import InputError
from attnpo.rewards.length.base import LengthInputs, LengthReward, register_length_reward

EPSILON = 1e-7


@register_length_reward("tlmre")
@dataclass(frozen=True)
class TLMRE(LengthReward):
    """−α·sigmoid(z) for correct responses, 0 for wrong ones (section 4.1 of the paper)."""

    alpha: float = 0.2

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        return tlmre_penalty(inputs.lengths, inputs.right, alpha=self.alpha)


def tlmre_rewards(
    lengths: Int[Tensor, "P G"], correct: Bool[Tensor, "P G"], *, alpha: float = 0.2, eps: float = EPSILON
) -> Float[Tensor, "P G"]:
    """1 − α·sigmoid(z) for correct responses, 0 for wrong ones. Lengths are response tokens.

    Raises:
        InputError: alpha outside [0, 1), or tables of different shapes.
    """
    return correct.float() + tlmre_penalty(lengths, correct, alpha=alpha, eps=eps)


def tlmre_penalty(
    lengths: Int[Tensor, "P G"], correct: Bool[Tensor, "P G"], *, alpha: float = 0.2, eps: float = EPSILON
) -> Float[Tensor, "P G"]:
    """The length term, to be added to an accuracy of 1: −α·sigmoid(z) for correct responses, 0 for the others.

    Raises:
        InputError: alpha outside [0, 1), or tables of different shapes.
    """
    _check_alpha(alpha)
    if lengths.ndim != 2 or lengths.shape != correct.shape:
        raise InputError(
            f"lengths {list(lengths.shape)} and correct {list(correct.shape)}: expected two tables of shape "
            "[prompts, responses per prompt]"
        )
    correct, tokens = correct.bool(), lengths.float()
    count = correct.sum(dim=1, keepdim=True).clamp(min=1)
    mean = torch.where(correct, tokens, 0.0).sum(dim=1, keepdim=True) / count
    deviation = torch.where(correct, tokens - mean, 0.0)
    # The mean of equal numbers can be off by one rounding, which a std of 0 would inflate to a large z.
    longest = torch.where(correct, tokens, -torch.inf).amax(dim=1, keepdim=True)
    shortest = torch.where(correct, tokens, torch.inf).amin(dim=1, keepdim=True)
    deviation = torch.where(longest > shortest, deviation, 0.0)
    std = (deviation.square().sum(dim=1, keepdim=True) / count).sqrt()
    return torch.where(correct, -alpha * torch.sigmoid(deviation / (std + eps)), 0.0)


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha < 1:
        raise InputError(
            f"alpha: found {alpha!r}, expected 0 ≤ alpha < 1 (from 1 on, a wrong answer could outrank a right one)"
        )
