"""L1, or LCPO: the prompt sets a length, and the reward measures how well it is met (arXiv 2503.04697, equations 1, 2).

    l1_exact   r = 1[right] − α·|target − len|                         "Think for 512 tokens."
    l1_max     r = 1[right] · clip(α·(target − len) + δ, 0, 1)         "Think for maximum 512 tokens."

α = 0.0003, δ = 0.5; a problem's target is drawn once, uniformly from low … high (100 … 4000). Here they are terms added
to an accuracy of 1 or 0.

l1_exact ranks a short wrong answer above a long right one if the right one misses the target by more than 1/α = 3,333
tokens more than the wrong one does. That is the paper's reward, which weighs the length as much as the answer. With
l1_max this cannot happen: a wrong answer gets 0, a right one at least 0.

Differences: for L1-Max the paper continues from a trained L1-Exact and mixes exact and maximum prompts; here every
prompt has the maximum (start from a model trained with l1_exact for the paper's order). Its code (a copy of it:
github.com/troy12x/deepscaler) has α = 1/3000 for the exact and 1/1000 for the maximum reward; the defaults are the
paper's 0.0003 for both, of which only that of the exact one could be checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from attnpo.checks import check_number, check_whole
from attnpo.errors import InputError
from attnpo.rewards.length.base import LengthInputs, LengthReward, register_length_reward

STEEPEST = 0.01  # per token: 100 tokens off the target cost as much as a wrong answer


@dataclass(frozen=True)
class TargetReward(LengthReward):
    """The common part of both: a target in the prompt, drawn from low … high."""

    alpha: float = 0.0003
    low: int = 100
    high: int = 4000

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= STEEPEST:
            raise InputError(
                f"alpha: found {self.alpha!r}, expected a number in [0, {STEEPEST}]: L1's α is a price per token, "
                "0.0003 in the paper"
            )
        check_whole("low", self.low, low=1)
        check_whole("high", self.high, low=1)
        if self.high < self.low:
            raise InputError(f"high: found {self.high}, expected at least low, {self.low}")

    def check_run(self, max_completion_length: int | None) -> None:
        if max_completion_length is not None and self.high > max_completion_length:
            raise InputError(
                f"high: found {self.high}, expected at most max_completion_length, {max_completion_length}: a response "
                "is cut off there, so a longer target cannot be met"
            )

    def _off_target(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        """target − len, in tokens."""
        if inputs.targets is None:
            raise InputError(f"length_reward: {self.name} needs a target length for every problem, found none")
        return inputs.targets.float()[:, None] - inputs.lengths


@register_length_reward("l1_exact")
@dataclass(frozen=True)
class L1Exact(TargetReward):
    """−α·|target − len|, for right and wrong responses."""

    instruction: ClassVar[str | None] = "Think for {target} tokens."

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        return -self.alpha * self._off_target(inputs).abs()


@register_length_reward("l1_max")
@dataclass(frozen=True)
class L1Max(TargetReward):
    """clip(α·(target − len) + δ, 0, 1) − 1 for right responses, 0 for wrong ones."""

    instruction: ClassVar[str | None] = "Think for maximum {target} tokens."
    delta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("delta", self.delta, low=0, high=1)

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        worth = (self.alpha * self._off_target(inputs) + self.delta).clamp(0, 1)
        return torch.where(inputs.right, worth - 1, 0.0)
