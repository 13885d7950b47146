"""Kimi k1.5's length reward (arXiv 2501.12599, section 2.3.3).

λ = 0.5 − (len − min) / (max − min), with the shortest and longest of *all* responses of the group; a right response
gets weight·λ, a wrong one weight·min(0, λ). If all have the same length, λ = 0. So short right responses gain up to
weight/2, long ones lose as much, and long wrong ones lose too. A right response keeps at least 1 − weight/2, a wrong
one has at most 0: with weight < 2 a wrong one never ranks above a right one.

The paper warms the penalty up, "standard policy optimization without length penalty, followed by a constant length
penalty": the first `warmup_steps` steps have none. Neither their number nor the weight is published. The default
weight, 0.4, is that of LASER's comparison (github.com/hkust-nlp/Laser); by default there is no warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnpo.checks import check_number, check_whole
from attnpo.errors import InputError
from attnpo.rewards.length.base import LengthInputs, LengthReward, register_length_reward


@register_length_reward("kimi")
@dataclass(frozen=True)
class Kimi(LengthReward):
    """weight·λ for right responses, weight·min(0, λ) for wrong ones, from step `warmup_steps` + 1 on."""

    weight: float = 0.4
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        check_number("weight", self.weight, low=0)
        if self.weight >= 2:
            raise InputError(
                f"weight: found {self.weight}, expected less than 2 (from there on the longest right answer, "
                "1 − weight/2, is worth no more than a wrong one)"
            )
        check_whole("warmup_steps", self.warmup_steps, low=0)

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        lengths = inputs.lengths.float()
        if inputs.step <= self.warmup_steps:
            return torch.zeros_like(lengths)
        shortest = torch.where(inputs.known, lengths, torch.inf).amin(dim=1, keepdim=True)
        longest = torch.where(inputs.known, lengths, -torch.inf).amax(dim=1, keepdim=True)
        spread = longest > shortest
        share = (lengths - shortest) / torch.where(spread, longest - shortest, 1.0)
        merit = torch.where(spread, 0.5 - share, 0.0)
        return self.weight * torch.where(inputs.right, merit, merit.clamp(max=0))

    def metrics(self, step: int) -> dict[str, float]:
        return {"length_reward/weight": self.weight if step > self.warmup_steps else 0.0}
