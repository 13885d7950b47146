"""Steps after the first one that states the right answer are redundant: process supervision without a model.

From no paper: a cheap baseline for AttnPO, in AttnPO's form. With f the first step that states the final answer of a
correct response,

    γ_k = keep   if A > 0 and k > f     (attenuate redundant steps)
    γ_k = 0      if A < 0 and k ≤ f     (protect essential steps)
    γ_k = 1      otherwise

and a token of step k gets γ_k·A; the closing tag and the final answer keep A. A response in which no step states the
answer is not changed. steps/answers.py defines what counts as stating it. The rule cannot distinguish detours before f
from needed steps.

On labelled traces of the built-in task f is the step that finds the answer in 95 % of traces and an earlier one in 5 %;
94 % of the steps after it are redundant, and they are 40 % of the redundant ones (benchmarks/first_answer.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnpo.checks import check_flag, check_number
from attnpo.credit.attnpo import spread_to_tokens
from attnpo.credit.base import CreditInputs, CreditResult, register_credit
from attnpo.errors import InputError
from attnpo.steps.answers import PLACES, final_answer, states_answer
from attnpo.steps.spans import LocatedSteps


@register_credit("first_correct")
@dataclass(frozen=True)
class FirstCorrectCredit:
    """Rescaling of the steps before and after the first right answer.

    Attributes:
        keep: scale of a redundant step of a response with A > 0, in [0, 1].
        positive: attenuate redundant steps of responses with A > 0.
        negative: protect essential steps of responses with A < 0.
        place: where in a step the answer must be, one of `PLACES` (steps/answers.py).

    Raises:
        InputError: an option out of range; the message names it.
    """

    keep: float = 0.0
    positive: bool = True
    negative: bool = True
    place: str = "result"
    name: ClassVar[str]
    signals: ClassVar[frozenset[str]] = frozenset({"states_answer"})

    def __post_init__(self) -> None:
        check_number("keep", self.keep, low=0, high=1)
        check_flag("positive", self.positive)
        check_flag("negative", self.negative)
        if self.place not in PLACES:
            raise InputError(f"place: found {self.place!r}, expected one of {', '.join(PLACES)}")

    def __call__(self, inputs: CreditInputs) -> CreditResult:
        states = inputs.signals["states_answer"].bool() & inputs.rescalable.bool()[:, None]
        scales = first_answer_scales(states, inputs.num_steps, inputs.advantages, self)
        tokens = spread_to_tokens(inputs.advantages, scales, inputs.step_ids, inputs.completion_mask)
        return CreditResult(advantages=tokens, scales=scales)


def first_answer_scales(
    states: Bool[Tensor, "B S"],
    num_steps: Int[Tensor, "B"],
    advantages: Float[Tensor, "B"],
    options: FirstCorrectCredit,
) -> Float[Tensor, "B S"]:
    """γ of every step. `states`: which steps state the answer. 1 in rows where none does, and beyond a row's steps.

    Example:
        >>> states, both = torch.tensor([[False, True, False, True]]).expand(2, 4), torch.tensor([4, 4])
        >>> first_answer_scales(states, both, torch.tensor([0.3, -0.3]), FirstCorrectCredit(keep=0.2))
        tensor([[1.0000, 1.0000, 0.2000, 0.2000],
                [0.0000, 0.0000, 1.0000, 1.0000]])
    """
    real = torch.arange(states.shape[1], device=states.device) < num_steps[:, None]
    states = states & real
    found = states.any(dim=1, keepdim=True) & real
    redundant = found & (states.long().cumsum(dim=1) - states.long() > 0)  # stated before this step
    scales = torch.ones(states.shape, dtype=advantages.dtype, device=states.device)
    if options.positive:
        scales = scales.masked_fill(redundant & (advantages > 0)[:, None], options.keep)
    if options.negative:
        scales = scales.masked_fill(found & ~redundant & (advantages < 0)[:, None], 0.0)
    return scales


def stated_answers(
    located: Sequence[LocatedSteps], correct: Sequence[bool], width: int, place: str
) -> Bool[Tensor, "B {width}"]:
    """The signal `states_answer`: which steps state the response's own answer; all false for wrong responses."""
    states = torch.zeros(len(located), width, dtype=torch.bool)
    for row, response, right in zip(states, located, correct, strict=True):
        if right:
            found = steps_with_answer(response, place)
            row[: len(found)] = torch.tensor(found, dtype=torch.bool)
    return states


def steps_with_answer(located: LocatedSteps, place: str) -> list[bool]:
    """For every step whether it states the response's final answer; all false without an answer to search for."""
    parts = located.parts
    answer = None if parts.answer_start is None else final_answer(located.text[parts.answer_start :])
    if answer is None:
        return [False] * len(located.steps)
    return [states_answer(text, answer, place) for text in located.step_texts]
