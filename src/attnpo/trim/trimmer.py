"""Some traces shortened together: ranked, cut by bisection, verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from attnpo.attention.heads import Head
from attnpo.rewards.pool import VerifierPool
from attnpo.steps.response import answer_of
from attnpo.traces.scores import score_prepared
from attnpo.trim.examples import Trimmed
from attnpo.trim.options import ATTENTION, FIRST_ANSWER, LIKELIHOOD, NONE, RANDOM, SAMPLE, Options
from attnpo.trim.orders import behind_first_answer, kept_for_values, last_first, lowest_first, random_order
from attnpo.trim.search import most_removable
from attnpo.trim.verify import Candidate, Model, answer_likelihoods, leave_one_out, sampled_right

WHOLE_FAILS = "whole: the answer sampled from all of its steps is not right"
ONE_STEP = "whole: no step may go"
NOTHING_BEHIND = "whole: nothing stands behind the first step that states the answer, or none does"


@dataclass
class _Case:
    """A trace on its way: in which order its steps go, and what the checks found by number of steps.

    kept: by number of steps whose turn has come, those of them that stay for their value.
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
    """Shortens traces of one model. `heads`: those that rank; not needed by other rankings than attention."""

    model: Model
    heads: Sequence[Head]
    pool: VerifierPool
    options: Options

    def trim(self, traces: Sequence[Candidate], progress: Callable[[int], None] = lambda done: None) -> list[Trimmed]:
        """What is taken out of each trace, in order. progress: told how many traces are done."""
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
            return behind_first_answer(one.texts, answer_of(one.row["response"]) or "")
        return last_first(steps)

    def _removed(self, case: _Case, count: int) -> list[int]:
        """The first `count` steps of the order but for those that stay."""
        turn = case.order[:count]
        if count not in case.kept:
            values = self.options.values and count > 0
            case.kept[count] = kept_for_values(case.one.texts, turn, case.one.row["problem"]) if values else set()
        return sorted(set(turn) - case.kept[count])

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
            return WHOLE_FAILS
        if limit == 0:
            return NOTHING_BEHIND if self.options.ranking == FIRST_ANSWER and not case.order else ONE_STEP
        steps = len(case.one.trace.steps)
        end = "all that may go" if count == limit else f"with one more {self._failure}"
        if removed == 0:
            return (
                "whole: without the first step that would go " + self._failure
                if count == 0
                else ("whole: every step that may go stays for its value")
            )
        return f"{removed} of {steps} steps removed: {end}"

    @property
    def _failure(self) -> str:
        if self.options.verify == SAMPLE:
            return "the answer is not right"
        return f"the answer loses more than {self.options.tolerance:g} nats per token"
