"""What travels through an evaluation: a question of a benchmark, a sampled response as it is read and graded, and the
sample with its verdict.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from attnpo.rewards.verdict import Verdict
from attnpo.steps.formats import THINK, Form, ThinkingFormat
from attnpo.steps.response import decode_completion, split_response
from attnpo.steps.spans import token_offsets

AnswerKind = Literal["math", "choice", "code"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One problem of a benchmark, in the one shape all benchmarks are brought into.

    Attributes:
        benchmark: its short name, e.g. "math500".
        id: as in the data set; unique within the benchmark.
        problem: the statement alone, without instructions or choices.
        kind: how its answers are checked.
        reference: the gold answer (a letter for choices); None where there is none to check against.
        choices: of a multiple-choice question, in the order shown.
        level: the group it counts to in a breakdown (a level, a difficulty, a subject); None: no breakdown.
        tests: of a code question, as `attnpo.evaluation.grading.code` reads them.
        extra: what else checking needs (unit, answer type, starter code …), JSON values only.
    """

    benchmark: str
    id: str
    problem: str
    kind: AnswerKind
    reference: str | None
    choices: tuple[str, ...] = ()
    level: str | None = None
    tests: tuple[dict[str, Any], ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sampled response, graded: a line of `samples/BENCHMARK.jsonl`.

    Attributes:
        sample: number of the response to this question, from 0.
        seed: of this response alone.
        text: the whole response, thinking included; tokens counts it with its end token.
        thinking_tokens, answer_tokens: before and after the closing mark; a response without a mark that belongs to
            a model that does not think is all answer.
        truncated: it met the token limit.
        extracted: the answer that was read out of it, for people; None where none was found.
        verdict: None only where the question has no reference or tests to check against.
    """

    benchmark: str
    id: str
    sample: int
    seed: int
    text: str
    prompt_tokens: int
    tokens: int
    thinking_tokens: int
    answer_tokens: int
    truncated: bool
    extracted: str | None
    verdict: Verdict | None
    reference: str | None
    level: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def letter_of(index: int) -> str:
    """A, B, C … for 0, 1, 2 …"""
    return chr(ord("A") + index)


@dataclass(frozen=True)
class Graded:
    """The verdict on a response, and the answer that was read out of it.

    Attributes:
        verdict: None only for a question without a reference or tests.
        extracted: for people to look at; None where no answer was found.
        fired: rules of the verifier that took part (mathematics).
    """

    verdict: Verdict | None
    extracted: str | None
    fired: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Reading:
    """`answer`: the text to be graded, None where the response has none. Thinking: tokens before the closing mark."""

    text: str
    answer: str | None
    thinking_tokens: int
    answer_tokens: int


def read_response(tokenizer: Any, ids: Sequence[int], thinks: bool | None, form: ThinkingFormat = THINK) -> Reading:
    """Read a response by its sampled ids, end token included.

    Args:
        thinks: whether the model thinks; None: it does where the response holds a mark of its format.
        form: how it marks its thinking.
    """
    text = decode_completion(tokenizer, ids, form)
    if thinks is False or (thinks is None and not has_mark(text, form)):
        return Reading(text, text, 0, len(ids))
    whole, starts = token_offsets(tokenizer, ids)  # with end and padding tokens, behind the text
    if thinks:
        form = replace(form, prompt_opens=True)  # without an end it is thinking that was cut off
    parts = split_response(whole, form)
    if parts.answer_start is None:
        return Reading(text, None, len(ids), 0)
    thinking, answer = bisect_left(starts, parts.thinking_end), bisect_left(starts, parts.answer_start)
    return Reading(text, text[parts.answer_start : parts.answer_end], thinking, len(ids) - answer)


def has_mark(text: str, form: Form = THINK) -> bool:
    """Whether a mark of its thinking format stands in a response."""
    return form.of(text).shows_in(text)
