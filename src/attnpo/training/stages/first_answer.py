"""Which steps state the final answer of their response, by their text: no verifier and no forward takes part.

Signal `states_answer` [N, S]: for correct responses; false throughout for the others.
"""

from __future__ import annotations

import torch

from attnpo.credit.first_correct import FirstCorrectCredit
from attnpo.steps.answers import final_answer, states_answer
from attnpo.steps.spans import LocatedSteps
from attnpo.training.batch import STAGE_SIGNAL, GenerationBatch
from attnpo.training.policy import Policy
from attnpo.training.stages.base import Batch


class FirstAnswer:
    """Looks for each response's own final answer in its steps."""

    def __init__(self, method: FirstCorrectCredit, policy: Policy) -> None:
        self.place, self.tools = method.place, policy

    def __call__(self, batch: Batch, rollouts: GenerationBatch) -> Batch:
        states = torch.zeros(batch["step_lengths"].shape, dtype=torch.bool)
        correct = batch["correct"].tolist()
        for row, located, right in zip(states, rollouts.located, correct, strict=True):
            if right:
                found = steps_with_answer(located, self.place)
                row[: len(found)] = torch.tensor(found, dtype=torch.bool)
        batch[f"{STAGE_SIGNAL}states_answer"] = states.to(self.tools.device)
        self.tools.note("first_answer/found", states.any(dim=1).sum().item() / max(1, sum(correct)))
        return batch


def steps_with_answer(located: LocatedSteps, place: str) -> list[bool]:
    """For every step whether it states the response's final answer; none does where there is no answer to look for."""
    parts = located.parts
    answer = None if parts.answer_start is None else final_answer(located.text[parts.answer_start :])
    if answer is None:
        return [False] * len(located.steps)
    return [states_answer(text, answer, place) for text in located.step_texts]
