"""What became of one response: decided in one place, kept apart from the reward made of it."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """The outcome of verifying one response."""

    RIGHT = "right"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """No closing tag, a blank final answer, or nothing in it that can be read as an answer."""
    UNVERIFIABLE = "unverifiable"
    """The reference cannot be read, the comparison raised, or the worker died (out of memory, a crash)."""
    TIMED_OUT = "timed_out"
    """The verifier did not come to an end in time."""


REWARD_OF: dict[Verdict, float | None] = {
    Verdict.RIGHT: 1.0,
    Verdict.WRONG: 0.0,
    Verdict.NO_ANSWER: 0.0,
    Verdict.UNVERIFIABLE: None,
    Verdict.TIMED_OUT: None,
}
"""Accuracy reward of a verdict. None is a missing reward: a failure of the verifier is not a wrong answer, so the
response gets advantage 0 and stays out of its group's baseline. Nothing is reinforced without a reward, so answers that
break the verifier are not learnt."""
