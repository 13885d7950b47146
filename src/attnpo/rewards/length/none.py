"""No length reward: plain RLOO, GRPO, Dr. GRPO."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnpo.rewards.length.base import LengthInputs, LengthReward, register_length_reward


@register_length_reward("none")
@dataclass(frozen=True)
class NoLengthReward(LengthReward):
    """0 everywhere."""

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        return torch.zeros(inputs.lengths.shape, device=inputs.lengths.device)
