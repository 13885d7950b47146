"""Finds the steps that state the final answer of their response, by their text, without a verifier or a forward.

Signal `states_answer` [N, S], for correct responses; false for the others.
"""

from __future__ import annotations

from attnpo.credit.first_correct import FirstCorrectCredit, stated_answers
from attnpo.training.batch import STAGE_SIGNAL, GenerationBatch
from attnpo.training.policy import Policy
from attnpo.training.stages.base import Batch


class FirstAnswer:
    """Searches the steps of each response for its own final answer."""

    def __init__(self, method: FirstCorrectCredit, policy: Policy) -> None:
        self.place, self.tools = method.place, policy

    def __call__(self, batch: Batch, rollouts: GenerationBatch) -> Batch:
        correct = batch["correct"].tolist()
        states = stated_answers(rollouts.located, correct, batch["step_lengths"].shape[1], self.place)
        batch[f"{STAGE_SIGNAL}states_answer"] = states.to(self.tools.device)
        self.tools.note("first_answer/found", states.any(dim=1).sum().item() / max(1, sum(correct)))
        return batch
