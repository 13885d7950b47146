"""ThinkPrune: answers beyond a token limit count as wrong, and the limit is tightened (arXiv 2504.01296, section 3).

A right response of more tokens than the limit of the stage loses its 1 and so counts as a wrong one, not less. Each
limit holds for `steps` optimiser steps, the last one to the end. The paper's iterated schedule is 4k → 3k → 2k.

Differences: the paper stops sampling at the limit, with one run per stage, each continuing from a checkpoint chosen on
held-out problems. Here one run samples up to max_completion_length throughout, and `steps` is the length of a stage;
the default, 180, is the checkpoint from which the released script starts its second stage (as copied in
github.com/furkanhanilci/MitigatingOverThinkingLLMs; the paper's own numbers of steps could not be checked). Only the
reward changes: for the records, the accuracy and the credit method the answer is still right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from attnpo.checks import check_whole
from attnpo.errors import InputError
from attnpo.rewards.length.base import LengthInputs, LengthReward, register_length_reward


@register_length_reward("thinkprune")
@dataclass(frozen=True)
class ThinkPrune(LengthReward):
    """−1 for right responses over the limit of the step, 0 for all others."""

    limits: Sequence[int] = (4000, 3000, 2000)
    steps: int = 180

    def __post_init__(self) -> None:
        if not isinstance(self.limits, (list, tuple)) or not self.limits:
            raise InputError(f"limits: found {self.limits!r}, expected a list of token limits, e.g. [4000, 3000, 2000]")
        for limit in self.limits:
            check_whole("limits", limit, low=1)
        if any(later >= earlier for earlier, later in pairwise(self.limits)):
            raise InputError(f"limits: found {list(self.limits)}, expected each to be smaller than the one before")
        check_whole("steps", self.steps, low=1)

    def check_run(self, max_completion_length: int | None) -> None:
        if max_completion_length is not None and self.limits[0] > max_completion_length:
            raise InputError(
                f"limits: found {self.limits[0]}, expected at most max_completion_length, {max_completion_length}: no "
                "response gets longer, so that stage would prune nothing"
            )

    def limit(self, step: int) -> int:
        """Tokens allowed at this optimiser step (from 1)."""
        return self.limits[min((step - 1) // self.steps, len(self.limits) - 1)]

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        return -(inputs.right & (inputs.lengths > self.limit(inputs.step))).to(torch.float32)

    def metrics(self, step: int) -> dict[str, float]:
        return {"length_reward/limit": float(self.limit(step))}
