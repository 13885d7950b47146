"""Does the final answer stay right without some steps? Sampled again, or by its likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from attnpo.errors import InputError
from attnpo.heads.removal import remaining_text
from attnpo.heads.removal_table import answer_context, generate_answers
from attnpo.labels.hiding import Variant, answer_log_probs
from attnpo.models.fast_rollouts import fast_rollouts
from attnpo.rewards.pool import VerifierPool
from attnpo.rewards.verdict import REWARD_OF
from attnpo.steps.response import thinking_of
from attnpo.traces.prepared import PreparedTrace


@dataclass(frozen=True)
class Candidate:
    """A trace that is going to be shortened: its row with the row's number, and its tokens."""

    number: int
    row: dict[str, Any]
    trace: PreparedTrace

    @property
    def thinking(self) -> str:
        return thinking_of(self.row["response"])

    @property
    def texts(self) -> list[str]:
        """The text of every step, that before the first and behind it up to the next one included."""
        bounds = [0, *(step["start"] for step in self.trace.steps[1:]), len(self.thinking)]
        return [self.thinking[start:end] for start, end in pairwise(bounds)]

    def without(self, removed: Sequence[int]) -> str:
        """The thinking text without some steps."""
        return remaining_text(self.thinking, self.trace.steps, removed)


@dataclass(frozen=True)
class Model:
    """A model with its tokenizer, and how many rows it is given at a time."""

    network: Any
    tokenizer: PreTrainedTokenizerBase
    batch_size: int

    def context(self, one: Candidate, removed: Sequence[int]) -> list[int]:
        """Prompt and what is left of the thinking, up to the closing tag."""
        return answer_context(one.row["problem"], one.row["response"], one.without(removed), self.tokenizer)


def sampled_right(
    model: Model, pool: VerifierPool, cases: Sequence[tuple[Candidate, Sequence[int], int]]
) -> list[tuple[bool, str]]:
    """For (trace, removed steps, tokens of room): whether the greedy answer is right, and its text.

    One that was cut off is not right, though a number in it may happen to be.
    """
    contexts = [model.context(one, removed) for one, removed, _ in cases]
    with fast_rollouts(model.network):
        answers = generate_answers(
            model.network,
            model.tokenizer,
            contexts,
            rooms=[room for _, _, room in cases],
            batch_size=model.batch_size,
        )
    texts = (answer.text if answer.finished else None for answer in answers)
    verdicts = pool.verify(zip(texts, (one.row["reference"] for one, _, _ in cases), strict=True))
    return [(REWARD_OF[verdict] == 1, answer.text) for verdict, answer in zip(verdicts, answers, strict=True)]


def answer_likelihoods(model: Model, cases: Sequence[tuple[Candidate, Sequence[int]]]) -> list[float]:
    """For (trace, removed steps): mean log-probability of the trace's own answer per token, in nats.

    Raises InputError, naming row, for one that is not finite.
    """
    variants = []
    for one, removed in cases:
        assert one.trace.answer is not None
        context, answer = model.context(one, removed), one.trace.ids[slice(*one.trace.answer)]
        variants.append(Variant([*context, *answer], (len(context), len(context) + len(answer)), None))
    order = sorted(range(len(variants)), key=lambda i: len(variants[i].ids), reverse=True)
    found = [0.0] * len(variants)
    for first in range(0, len(order), model.batch_size):
        batch = order[first : first + model.batch_size]
        for i, log_probs in zip(batch, answer_log_probs(model.network, [variants[i] for i in batch]), strict=True):
            found[i] = float(log_probs.mean())
            if not math.isfinite(found[i]):
                raise InputError(
                    f"{cases[i][0].trace.where}: the answer's log-likelihood is {found[i]}, expected a finite number; "
                    "is the model damaged?"
                )
    return found


def leave_one_out(model: Model, traces: Sequence[Candidate]) -> list[list[float]]:
    """For every step of every trace, how much log-likelihood per token the answer loses when the step alone is removed.

    S + 1 forwards of a trace. Unlike `attnpo label --by causal` the step is taken out of the text, as trimming does.
    """
    cases = [(one, removed) for one in traces for removed in [(), *((k,) for k in range(len(one.trace.steps)))]]
    found = iter(answer_likelihoods(model, cases))
    drops = []
    for one in traces:
        whole = next(found)
        drops.append([whole - next(found) for _ in one.trace.steps])
    return drops
