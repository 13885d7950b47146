"""The verdict on one response, and the accuracy reward of each verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict


class Verdict(StrEnum):
    """The outcome of verifying one response."""

    RIGHT = "right"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """No closing tag, a blank final answer, or a final answer without anything readable as an answer."""
    UNVERIFIABLE = "unverifiable"
    """The reference cannot be read, the comparison raised, or the worker died (out of memory, a crash)."""
    TIMED_OUT = "timed_out"
    """The verifier did not finish in time."""
    JUDGED_RIGHT = "judged_right"
    JUDGED_WRONG = "judged_wrong"
    """A language model's verdict where the rules found unverifiable (:class:`attnpo.judges.client.AnswerJudge`)."""


class Rules(TypedDict, total=False):
    """Declarations of a benchmark for one reference, and rules that the comparison leaves out.

    Attributes:
        tolerance: largest absolute difference.
        measured: the reference was computed from data and rounded; half a unit of its last digit is allowed.
        unit: the unit of the reference, as the data set writes it; an answer may name it.
        off: names of rules not to apply (``attnpo benchmarks check`` counts what each one changes).
    """

    tolerance: float
    measured: bool
    unit: str
    off: list[str]


@dataclass(frozen=True)
class Judgement:
    """A verdict, and the answer that was extracted from the response; None if there was none.

    Attributes:
        fired: the rules that changed a text or decided the comparison.
    """

    verdict: Verdict
    extracted: str | None
    fired: tuple[str, ...] = ()


REWARD_OF: dict[Verdict, float | None] = {
    Verdict.RIGHT: 1.0,
    Verdict.WRONG: 0.0,
    Verdict.NO_ANSWER: 0.0,
    Verdict.UNVERIFIABLE: None,
    Verdict.TIMED_OUT: None,
    Verdict.JUDGED_RIGHT: 1.0,
    Verdict.JUDGED_WRONG: 0.0,
}
"""Accuracy reward of a verdict. None is a missing reward: a failure of the verifier is not a wrong answer, so the
response gets advantage 0 and is left out of its group's baseline. Without a reward nothing is reinforced, so the model
does not learn answers that break the verifier."""
