"""Check whether the final answer stays right without some steps, by sampling it again or by its likelihood."""

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
    """A trace to be shortened: its row with the row's number, and its tokens."""

    number: int
    row: dict[str, Any]
    trace: PreparedTrace

    @property
    def thinking(self) -> str:
        return thinking_of(self.row["response"], self.trace.form)

    @property
    def texts(self) -> list[str]:
        """The text of every step, including the text before the first and up to the next one."""
        bounds = [0, *(step["start"] for step in self.trace.steps[1:]), len(self.thinking)]
        return [self.thinking[start:end] for start, end in pairwise(bounds)]

    def without(self, removed: Sequence[int]) -> str:
        """Return the thinking text without some steps."""
        return remaining_text(self.thinking, self.trace.steps, removed)


@dataclass(frozen=True)
class Model:
    """A model with its tokenizer and batch size."""

    network: Any
    tokenizer: PreTrainedTokenizerBase
    batch_size: int

    def context(self, one: Candidate, removed: Sequence[int]) -> list[int]:
        """Return the tokens of prompt and remaining thinking, up to the closing tag."""
        row = one.row
        return answer_context(row["problem"], row["response"], one.without(removed), self.tokenizer, one.trace.form)


def sampled_right(
    model: Model, pool: VerifierPool, cases: Sequence[tuple[Candidate, Sequence[int], int]]
) -> list[tuple[bool, str]]:
    """Return for (trace, removed steps, tokens of room) whether the greedy answer is right, and its text.

    A truncated answer is not right, though a number in it may happen to be.
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
    """Return for (trace, removed steps) the mean log-probability of the trace's own answer per token, in nats.

    Raises InputError, naming the row, for one that is not finite.
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
    """Return for every step of every trace the answer's loss of log-likelihood per token if only that step is removed.

    S + 1 forwards per trace. Unlike in `attnpo label --by causal`, the step is removed from the text, as in trimming.
    """
    cases = [(one, removed) for one in traces for removed in [(), *((k,) for k in range(len(one.trace.steps)))]]
    found = iter(answer_likelihoods(model, cases))
    drops = []
    for one in traces:
        complete = next(found)
        drops.append([complete - next(found) for _ in one.trace.steps])
    return drops
