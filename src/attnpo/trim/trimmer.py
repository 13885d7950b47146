"""The options of trimming, and the trimmer: ranks the steps of traces, removes them by bisection, verifies answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnpo.attention.heads import Head
from attnpo.errors import InputError
from attnpo.heads.removal import LEAST_ROOM
from attnpo.rewards.pool import VerifierPool
from attnpo.steps.formats import AUTO, format_of_rows
from attnpo.steps.lexicon import load_lexicon
from attnpo.steps.response import answer_of
from attnpo.traces.prepared import PreparedTrace
from attnpo.traces.scores import score_prepared
from attnpo.trim.orders import (
    after_first_answer,
    kept_for_values,
    last_first,
    lowest_first,
    most_removable,
    random_order,
)
from attnpo.trim.verify import Candidate, Model, answer_likelihoods, leave_one_out, sampled_right

ATTENTION, RANDOM, POSITION, LIKELIHOOD, FIRST_ANSWER = "attention", "random", "position", "likelihood", "first_answer"
RANKINGS = (ATTENTION, RANDOM, POSITION, LIKELIHOOD, FIRST_ANSWER)
SAMPLE, NONE = "sample", "none"
VERIFICATIONS = (SAMPLE, LIKELIHOOD, NONE)
TEXT, CONVERSATION = "text", "conversation"
FORMATS = (TEXT, CONVERSATION)

TOLERANCE = 0.1
"""Largest accepted loss of the answer, in nats per token."""
KEEP = 0.5
"""Smallest share of the steps that stays by default: a model trained on more trimming learns to leave out checks."""

OWN_FAILS = "unchanged: the answer sampled from all of its steps is not right"
ONE_STEP = "unchanged: no step may be removed"
NOTHING_AFTER = "unchanged: there is no step after the first one that states the answer, or none states it"


@dataclass(frozen=True)
class Options:
    """Options of trimming; InputError names one that is out of range.

    ranking: the order in which steps are removed (`attnpo.trim.orders`). verify: how the answer is verified.
    tolerance: of verify likelihood, nats per answer token. keep, least: the share and the number of steps that stay.
    values: whether a step stays if a later step uses its value. shortest: number of traces written per problem.
    preference: pairs of short and long instead of examples. format: of prompt and completion. max_traces: trim the
    first so many rows that have the fields of a trace, right or not.
    max_length: tokens of a trace; None: what the model allows. max_answer: tokens of a sampled answer; None: twice
    those of the trace's own, at least `LEAST_ROOM`. seed: of the random ranking. thinking_format: of the traces.
    """

    ranking: str = ATTENTION
    verify: str = SAMPLE
    tolerance: float = TOLERANCE
    keep: float = KEEP
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
    thinking_format: str = AUTO
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
        if self.verify == NONE and self.keep == 0 and self.least == 1 and self.ranking != FIRST_ANSWER:
            raise InputError(
                "--verify none: nothing limits how many steps are removed; expected --keep, a share of the steps above "
                "0 (as --keep 0.3), or --least, a number of steps above 1"
            )
        load_lexicon(self.lexicon)
        format_of_rows(self.thinking_format)

    def most_removed(self, steps: int) -> int:
        """Return how many of these steps may be removed: --keep is rounded up, so that at least that share stays."""
        return max(0, steps - max(self.least, math.ceil(round(self.keep * steps, 9))))

    def room(self, trace: PreparedTrace) -> int:
        """Return the number of tokens that a sampled answer of a trace may have."""
        return self.max_answer or max(LEAST_ROOM, 2 * trace.answer_tokens)


def _expect(name: str, found: Any, fine: bool, expected: str) -> None:
    if not fine:
        raise InputError(f"--{name.replace('_', '-')}: found {found!r}, expected {expected}")


@dataclass(frozen=True)
class Trimmed:
    """The result of trimming one trace.

    Attributes:
        removed: the removed steps; kept_for_values: steps that would have been removed but stayed for their value.
        scores: the scores of the ranking; None for a ranking without scores.
        reason: why no more steps were removed, in words.
        answer: sampled from the remaining steps; None if none was.
        drop: log-likelihood per token that the answer has lost, in nats; None if it was not measured.
        checks: number of verified answers.
    """

    removed: list[int]
    kept_for_values: list[int]
    scores: list[float] | None
    reason: str
    answer: str | None = None
    drop: float | None = None
    checks: int = 0


@dataclass
class _Case:
    """The state of one trace: the order in which its steps are removed, and the checks' results by number of steps.

    kept: of the first so many steps of the order, those that stay for their value.
    """

    one: Candidate
    order: list[int]
    scores: list[float] | None
    kept: dict[int, set[int]] = field(default_factory=dict)
    answers: dict[int, str] = field(default_factory=dict)
    likelihoods: dict[int, float] = field(default_factory=dict)
    checks: int = 0


@dataclass(frozen=True)
class Trimmer:
    """Shortens traces of one model. `heads`: for the attention ranking only."""

    model: Model
    heads: Sequence[Head]
    pool: VerifierPool
    options: Options

    def trim(self, traces: Sequence[Candidate], progress: Callable[[int], None] = lambda done: None) -> list[Trimmed]:
        """Trim the traces and return the results in order. progress: called with the number of traces done."""
        cases = self._cases(traces)
        most = [min(len(case.order), self.options.most_removed(len(case.one.trace.steps))) for case in cases]
        counts = most_removable(most, lambda pairs: self._check(cases, pairs), progress)
        return [self._result(case, limit, count) for case, limit, count in zip(cases, most, counts, strict=True)]

    def _cases(self, traces: Sequence[Candidate]) -> list[_Case]:
        ranking = self.options.ranking
        if ranking == ATTENTION:
            prepared = [one.trace for one in traces]
            scored = score_prepared(self.model.network, prepared, self.heads, self.model.batch_size)
            scores = [found or [] for found in scored]
        elif ranking == LIKELIHOOD:
            scores = leave_one_out(self.model, traces)
        else:
            return [_Case(one, self._order(one), None) for one in traces]
        return [_Case(one, lowest_first(found), found) for one, found in zip(traces, scores, strict=True)]

    def _order(self, one: Candidate) -> list[int]:
        steps = len(one.trace.steps)
        if self.options.ranking == RANDOM:
            return random_order(steps, self.options.seed, one.number)
        if self.options.ranking == FIRST_ANSWER:
            return after_first_answer(one.texts, answer_of(one.row["response"], one.trace.form) or "")
        return last_first(steps)

    def _removed(self, case: _Case, count: int) -> list[int]:
        """Return the first `count` steps of the order except those that stay for their value."""
        first = case.order[:count]
        if count not in case.kept:
            values = self.options.values and count > 0
            case.kept[count] = kept_for_values(case.one.texts, first, case.one.row["problem"]) if values else set()
        return sorted(set(first) - case.kept[count])

    def _check(self, cases: Sequence[_Case], pairs: list[tuple[int, int]]) -> list[bool]:
        if self.options.verify == NONE:
            return [True] * len(pairs)
        chosen = [(cases[i], count, self._removed(cases[i], count)) for i, count in pairs]
        for case, _, _ in chosen:
            case.checks += 1
        if self.options.verify == SAMPLE:
            found = sampled_right(
                self.model,
                self.pool,
                [(case.one, removed, self.options.room(case.one.trace)) for case, _, removed in chosen],
            )
            for (case, count, _), (_, text) in zip(chosen, found, strict=True):
                case.answers[count] = text
            return [right for right, _ in found]
        likelihoods = answer_likelihoods(self.model, [(case.one, removed) for case, _, removed in chosen])
        for (case, count, _), value in zip(chosen, likelihoods, strict=True):
            case.likelihoods[count] = value
        return [case.likelihoods[0] - case.likelihoods[count] <= self.options.tolerance for case, count, _ in chosen]

    def _result(self, case: _Case, limit: int, count: int | None) -> Trimmed:
        found = count or 0
        removed = self._removed(case, found)
        return Trimmed(
            removed=removed,
            kept_for_values=sorted(case.kept[found]),
            scores=case.scores,
            reason=self._reason(case, limit, count, len(removed)),
            answer=case.answers.get(found),
            drop=case.likelihoods[0] - case.likelihoods[found] if case.likelihoods else None,
            checks=case.checks,
        )

    def _reason(self, case: _Case, limit: int, count: int | None, removed: int) -> str:
        if count is None:
            return OWN_FAILS
        if limit == 0:
            return NOTHING_AFTER if self.options.ranking == FIRST_ANSWER and not case.order else ONE_STEP
        steps = len(case.one.trace.steps)
        end = "all that may be removed" if count == limit else f"with one more {self._failure}"
        if removed == 0:
            return (
                "unchanged: without the first step in the order " + self._failure
                if count == 0
                else ("unchanged: every step that may be removed stays for its value")
            )
        return f"{removed} of {steps} steps removed: {end}"

    @property
    def _failure(self) -> str:
        if self.options.verify == SAMPLE:
            return "the answer is not right"
        return f"the answer loses more than {self.options.tolerance:g} nats per token"
