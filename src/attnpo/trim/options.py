"""What `attnpo trim` is told, checked before anything is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from attnpo.errors import InputError
from attnpo.heads.removal import LEAST_ROOM
from attnpo.steps.lexicon import load_lexicon
from attnpo.traces.prepared import PreparedTrace

ATTENTION, RANDOM, POSITION, LIKELIHOOD, FIRST_ANSWER = "attention", "random", "position", "likelihood", "first_answer"
RANKINGS = (ATTENTION, RANDOM, POSITION, LIKELIHOOD, FIRST_ANSWER)
SAMPLE, NONE = "sample", "none"
VERIFICATIONS = (SAMPLE, LIKELIHOOD, NONE)
TEXT, CONVERSATION = "text", "conversation"
FORMATS = (TEXT, CONVERSATION)

TOLERANCE = 0.1
"""Nats per token that the answer may lose."""


@dataclass(frozen=True)
class Options:
    """Options of trimming; InputError names one that is out of range.

    ranking: what goes first (`attnpo.trim.orders`). verify: how it is seen that the answer stays right.
    tolerance: of verify likelihood, nats per answer token. keep, least: the share and the number of steps that stay.
    values: whether a step stays whose stated value a later step uses. shortest: traces of a problem that are written.
    preference: pairs of short and long instead of examples. format: of prompt and completion.
    max_length: tokens of a trace; None: what the model allows. max_answer: tokens of a sampled answer; None: twice
    those of the trace's own, at least `LEAST_ROOM`. seed: of the random ranking.
    """

    ranking: str = ATTENTION
    verify: str = SAMPLE
    tolerance: float = TOLERANCE
    keep: float = 0.0
    least: int = 1
    values: bool = True
    shortest: int | None = None
    preference: bool = False
    format: str = TEXT
    max_traces: int | None = None
    batch_size: int = 32
    max_length: int | None = None
    max_answer: int | None = None
    lexicon: str = "paper"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("ranking", RANKINGS), ("verify", VERIFICATIONS), ("format", FORMATS)):
            _expect(name, getattr(self, name), getattr(self, name) in known, f"one of {', '.join(known)}")
        _expect("tolerance", self.tolerance, 0 <= self.tolerance < math.inf, "nats per token, at least 0")
        _expect("keep", self.keep, 0 <= self.keep <= 1, "a share of the steps, from 0 to 1")
        _expect("least", self.least, self.least >= 1, "at least 1")
        for name in ("shortest", "max_traces", "batch_size", "max_length", "max_answer"):
            value = getattr(self, name)
            _expect(name, value, value is None or value >= 1, "at least 1")
        if self.verify == NONE and self.keep == 0 and self.ranking != FIRST_ANSWER:
            raise InputError(
                "--verify none: nothing says how much may go; expected --keep, a share of the steps above 0 (as "
                "--keep 0.3)"
            )
        load_lexicon(self.lexicon)

    def most_removed(self, steps: int) -> int:
        """How many of so many steps may go: --keep is rounded up, so that at least that share stays."""
        return max(0, steps - max(self.least, math.ceil(round(self.keep * steps, 9))))

    def room(self, trace: PreparedTrace) -> int:
        """How many tokens a sampled answer of a trace may have."""
        return self.max_answer or max(LEAST_ROOM, 2 * trace.answer_tokens)


def _expect(name: str, found: Any, fine: bool, expected: str) -> None:
    if not fine:
        raise InputError(f"--{name.replace('_', '-')}: found {found!r}, expected {expected}")
