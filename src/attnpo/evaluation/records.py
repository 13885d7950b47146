"""What travels through an evaluation: a question of a benchmark, and one sampled response to it with its verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from attnpo.rewards.verdict import Verdict

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
        thinking_tokens, answer_tokens: before and after the closing tag; a response without a tag that belongs to a
            model that does not think is all answer.
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
