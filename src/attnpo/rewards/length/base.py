"""The interface between the trainer and length rewards: inputs, result, and registration by name.

A method is a class with its options as fields; most define only :meth:`LengthReward.term`::

    @register_length_reward("mine")
    @dataclass(frozen=True)
    class MyReward(LengthReward):
        weight: float = 0.1

        def term(self, inputs: LengthInputs) -> Tensor:
            return torch.where(inputs.correct, -self.weight * (inputs.lengths > 100), 0.0)

Legend: P prompts, G responses per prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnpo.errors import InputError
from attnpo.registry import Registry


@dataclass(frozen=True, kw_only=True)
class LengthInputs:
    """The inputs of a length reward: P groups of G responses.

    Raises:
        InputError: tables of different shapes.
    """

    lengths: Int[Tensor, "P G"]
    """Response tokens; the prompt is not counted."""
    correct: Bool[Tensor, "P G"]
    known: Bool[Tensor, "P G"]
    """Whether there is a verdict. Responses without one are left out of every statistic and get 0."""
    targets: Float[Tensor, "P"] | None = None
    """The target length in each prompt; None: prompts have none."""
    step: int = 1
    """Optimiser step, counted from 1."""
    max_completion_length: int | None = None

    def __post_init__(self) -> None:
        shape = list(self.lengths.shape)
        if self.lengths.ndim != 2:
            raise InputError(f"lengths: found shape {shape}, expected [prompts, responses per prompt]")
        for name in ("correct", "known"):
            found = list(getattr(self, name).shape)
            if found != shape:
                raise InputError(f"lengths {shape} and {name} {found}: expected two tables of one shape")
        if self.targets is not None and list(self.targets.shape) != shape[:1]:
            raise InputError(f"targets: found shape {list(self.targets.shape)}, expected one per prompt, {shape[:1]}")

    @property
    def right(self) -> Bool[Tensor, "P G"]:
        """Correct, with a verdict."""
        return self.correct & self.known


class LengthReward:
    """A length reward. One instance serves a whole run; most have no state."""

    name: ClassVar[str]
    instruction: ClassVar[str | None] = None
    """The sentence that the method adds to every prompt: a text containing {target}. None: prompts are not changed."""

    def __call__(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        """The term to add to an accuracy of 1 or 0; exactly 0 where there is no verdict."""
        return torch.where(inputs.known, self.term(inputs), 0.0)

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        """The term before masking; its value does not matter where there is no verdict. Defined by every method."""
        raise NotImplementedError

    def check_run(self, max_completion_length: int | None) -> None:
        """Raise InputError, naming an option of the method, if the options cannot work in such a run."""

    def metrics(self, step: int) -> dict[str, float]:
        """The method's own metrics for metrics.jsonl."""
        return {}

    def state(self) -> dict[str, Any]:
        """The state to save in a checkpoint, as JSON."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""


_REWARDS: Registry[LengthReward] = Registry(
    "length_reward",
    [
        f"attnpo.rewards.length.{name}"
        for name in ("kimi", "l1", "laser", "overlong", "shorterbetter", "thinkprune", "tlmre")
    ],
)
register_length_reward = _REWARDS.register
length_reward_names, length_reward_options, get_length_reward = _REWARDS.names, _REWARDS.options, _REWARDS.make


@register_length_reward("none")
@dataclass(frozen=True)
class NoLengthReward(LengthReward):
    """No length reward: plain RLOO, GRPO, Dr. GRPO."""

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        return torch.zeros(inputs.lengths.shape, device=inputs.lengths.device)
