"""The trainer's reward functions: the user's, plus the length-aware column, and which of them says "right".

TRL calls every function with this process's responses and gathers the results. The length-aware reward compares
the correct responses of a whole group, which may be spread over processes, so its column is filled in afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnpo.credit.advantages import is_correct
from attnpo.data.targets import TARGET_COLUMN
from attnpo.errors import InputError
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.rewards.length import LengthInputs, LengthReward
from attnpo.steps.formats import THINK, ThinkingFormat


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
        length: the length reward.
        max_completion_length: tokens after which a response is cut off.
        correct_name: the function whose value 1 means right, or None for the default rule.
        correct_column: its column, known once TRL has named the functions (`bind`).
    """

    functions: list[Any]
    length: LengthReward
    max_completion_length: int | None
    correct_name: str | None
    correct_column: int = 0

    @classmethod
    def build(cls, reward_funcs: Any, args: Any) -> RewardSetup:
        """From the trainer's arguments."""
        functions = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
        if not functions or functions[0] is None:
            raise InputError("reward_funcs: found none, expected at least one reward function, e.g. AccuracyReward()")
        length = args.make_length_reward()
        if length.name != "none":
            functions.append(LengthColumn())
        return cls(functions, length, args.max_completion_length, args.correct_reward)

    @property
    def has_length(self) -> bool:
        """Whether there is a length column."""
        return isinstance(self.functions[-1], LengthColumn)

    def weights(self, given: list[float] | None) -> list[float] | None:
        """One weight per function for TRL: the user's, and 1 for the length column."""
        return [*given, 1.0] if given is not None and self.has_length else given

    def bind(self, names: list[str], tokenizer: Any, form: ThinkingFormat = THINK) -> None:
        """Find the column that says right or wrong, and let our verifier read the sampled ids by the model's format."""
        wanted = self.correct_name or ("accuracy" if "accuracy" in names else names[0])
        if wanted not in names:
            raise InputError(f"option correct_reward: found {wanted!r}, expected one of {', '.join(names)}")
        self.correct_column = names.index(wanted)
        for function in self.functions:
            if isinstance(function, AccuracyReward) and function.tokenizer is None:
                function.tokenizer = tokenizer
            if isinstance(function, AccuracyReward) and function.form is None:
                function.form = form

    def correct(self, rewards: Float[Tensor, "N K"]) -> Bool[Tensor, " N"]:
        """Which responses are right, by the chosen function."""
        return is_correct(rewards[:, self.correct_column])

    def targets(self, rows: Sequence[Mapping[str, Any]]) -> Float[Tensor, " N"] | None:
        """The length that each prompt asks for; None where the method asks for none.

        Raises:
            InputError: the data set does not say.
        """
        if self.length.instruction is None:
            return None
        if any(row.get(TARGET_COLUMN) is None for row in rows):
            raise InputError(
                f"train_dataset: no column {TARGET_COLUMN!r} with a number of tokens for every problem, which "
                f"length_reward={self.length.name!r} needs; `add_targets` in attnpo.data.targets adds it"
            )
        return torch.tensor([float(row[TARGET_COLUMN]) for row in rows])

    def add_length_reward(
        self,
        rewards: Float[Tensor, "N K"],
        lengths: Int[Tensor, " N"],
        group_size: int,
        *,
        step: int,
        targets: Float[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "N K"]:
        """Fill the length column in, for responses of training at optimiser step `step` (from 1)."""
        if not self.has_length:
            return rewards
        inputs = LengthInputs(
            lengths=lengths.view(-1, group_size),
            correct=self.correct(rewards).view(-1, group_size),
            known=~rewards[:, self.correct_column].isnan().view(-1, group_size),
            targets=None if targets is None else targets.view(-1, group_size)[:, 0],
            step=step,
            max_completion_length=self.max_completion_length,
        )
        return self._with_column(rewards, self.length(inputs).view(-1))

    def without_length_reward(
        self, rewards: Float[Tensor, "N K"], rows: Sequence[Mapping[str, Any]] = ()
    ) -> Float[Tensor, "N K"]:
        """Outside training the column is 0: an evaluation has no groups to compare within."""
        return self._with_column(rewards, torch.zeros(len(rewards))) if self.has_length else rewards

    def _with_column(self, rewards: Float[Tensor, "N K"], column: Float[Tensor, " N"]) -> Float[Tensor, "N K"]:
        judged = ~rewards[:, :-1].isnan().all(dim=1)  # what nobody could judge has no reward at all
        column = torch.where(judged, column.to(rewards), torch.nan)
        return torch.cat([rewards[:, :-1], column[:, None]], dim=1)

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
