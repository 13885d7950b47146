"""The trainer's reward functions: the user's, plus the length-aware column, and which of them says "right".

TRL calls every function with this process's responses and gathers the results. The length-aware reward compares
the correct responses of a whole group, which may be spread over processes, so its column is filled in afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnpo.credit.advantages import is_correct
from attnpo.errors import InputError
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.rewards.length import LENGTH_PENALTIES


class LengthColumn:
    """Holds the place of the length-aware reward among TRL's reward functions."""

    __name__ = "length"

    def __call__(self, completions: list[Any], **kwargs: Any) -> list[None]:
        return [None] * len(completions)


@dataclass
class RewardSetup:
    """Reward functions in TRL's order.

    Attributes:
        functions: what TRL gets; the last one is `LengthColumn` where a length reward is on.
        length_reward, alpha: the length-aware reward and its weight.
        correct_name: the function whose value 1 means right, or None for the default rule.
        correct_column: its column, known once TRL has named the functions (`bind`).
    """

    functions: list[Any]
    length_reward: str
    alpha: float
    correct_name: str | None
    correct_column: int = 0

    @classmethod
    def build(cls, reward_funcs: Any, args: Any) -> RewardSetup:
        """From the trainer's arguments."""
        functions = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
        if not functions or functions[0] is None:
            raise InputError("reward_funcs: found none, expected at least one reward function, e.g. AccuracyReward()")
        if args.length_reward != "none":
            functions.append(LengthColumn())
        return cls(functions, args.length_reward, args.length_alpha, args.correct_reward)

    def weights(self, given: list[float] | None) -> list[float] | None:
        """One weight per function for TRL: the user's, and 1 for the length column."""
        return given if given is None or self.length_reward == "none" else [*given, 1.0]

    def bind(self, names: list[str], tokenizer: Any) -> None:
        """Find the column that says right or wrong, and let our verifier read the sampled ids."""
        wanted = self.correct_name or ("accuracy" if "accuracy" in names else names[0])
        if wanted not in names:
            raise InputError(f"option correct_reward: found {wanted!r}, expected one of {', '.join(names)}")
        self.correct_column = names.index(wanted)
        for function in self.functions:
            if isinstance(function, AccuracyReward) and function.tokenizer is None:
                function.tokenizer = tokenizer

    def correct(self, rewards: Float[Tensor, "N K"]) -> Bool[Tensor, " N"]:
        """Which responses are right, by the chosen function."""
        return is_correct(rewards[:, self.correct_column])

    def add_length_reward(
        self, rewards: Float[Tensor, "N K"], lengths: Int[Tensor, " N"], group_size: int, *, training: bool
    ) -> Float[Tensor, "N K"]:
        """Fill the length column in. Outside training it stays 0: an evaluation has no groups to compare within."""
        if self.length_reward == "none":
            return rewards
        rewards = rewards.clone()
        rewards[:, -1] = 0.0
        if training:
            right = self.correct(rewards).view(-1, group_size)
            penalty = LENGTH_PENALTIES[self.length_reward]
            rewards[:, -1] = penalty(lengths.view(-1, group_size), right, alpha=self.alpha).view(-1)
        rewards[torch.isnan(rewards[:, :-1]).all(dim=1), -1] = torch.nan  # what nobody could judge has no reward at all
        return rewards

    def total(self, rewards: Float[Tensor, "N K"], weights: Float[Tensor, " K"]) -> Float[Tensor, " N"]:
        """Weighted sum; NaN for a response that no function of the user's could judge."""
        total = (rewards * weights).nansum(dim=1)
        return torch.where(torch.isnan(rewards).all(dim=1), torch.nan, total)

    def last_verdicts(self, n: int) -> list[str | None]:
        """The verifier's verdicts on the last batch, or None where another kind of reward decides."""
        function = self.functions[self.correct_column]
        if isinstance(function, AccuracyReward):
            return [verdict.value for verdict in function.last_verdicts]
        return [None] * n
