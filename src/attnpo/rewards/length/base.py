"""The seam between the trainer and length rewards: what a method reads, what it returns, how it is found by name.

A method is a class whose options are fields; :meth:`LengthReward.term` is all that most of them define::

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
    """What a length reward may read about P groups of G responses.

    Raises:
        InputError: tables of different shapes.
    """

    lengths: Int[Tensor, "P G"]
    """Response tokens; the prompt is not counted."""
    correct: Bool[Tensor, "P G"]
    known: Bool[Tensor, "P G"]
    """There is a verdict. Responses without one stay out of every statistic and get 0."""
    targets: Float[Tensor, "P"] | None = None
    """The length each prompt asks for; None: prompts ask for none."""
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
        """Correct, and known to be."""
        return self.correct & self.known


class LengthReward:
    """A length reward. One instance serves a whole run; most have no state."""

    name: ClassVar[str]
    instruction: ClassVar[str | None] = None
    """What the method writes into every prompt: a text containing {target}. None: it leaves prompts alone."""

    def __call__(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        """The term to add to an accuracy of 1 or 0; exactly 0 where there is no verdict."""
        return torch.where(inputs.known, self.term(inputs), 0.0)

    def term(self, inputs: LengthInputs) -> Float[Tensor, "P G"]:
        """The same, with anything where there is no verdict; to be defined by every method."""
        raise NotImplementedError

    def check_run(self, max_completion_length: int | None) -> None:
        """Raises InputError, naming an option of the method, where these options cannot work in such a run."""

    def metrics(self, step: int) -> dict[str, float]:
        """Numbers of the method's own worth a line in metrics.jsonl."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep, as JSON."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up the state of a checkpoint."""


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
