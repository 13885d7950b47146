"""Mathematical answers: what the verifier must know about a question beyond its reference."""

from __future__ import annotations

from collections.abc import Sequence

from attnpo.evaluation.records import Question
from attnpo.rewards.verdict import Rules


def rules_of(question: Question, off: Sequence[str] = ()) -> Rules:
    """How close a number must come to the reference: exactly, unless the question says otherwise in `extra`."""
    extra, rules = question.extra, Rules()
    if extra.get("unit"):
        rules["unit"] = extra["unit"]
    if extra.get("tolerance"):
        rules["tolerance"] = extra["tolerance"]
    if extra.get("measured"):
        rules["measured"] = True
    if off:
        rules["off"] = list(off)
    return rules
