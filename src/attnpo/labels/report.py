"""The consensus of votes, the agreement of judges, and lines of text with the expected cost and the outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from attnpo.judges.client import Question, Tally, estimated_tokens
from attnpo.judges.config import Judge
from attnpo.judges.questions import Votes, answer_length

RULES = ("unanimous", "majority")


def consensus(votes: Sequence[bool], rule: str, quorum: int) -> bool | None:
    """Return the label of one step from the votes of the judges that gave a valid answer; None without a consensus.

    unanimous: all agree; majority: more than half agree. Fewer than `quorum` votes (at least 1) are no consensus.
    """
    assert rule in RULES
    assert quorum >= 1
    if len(votes) < quorum:
        return None
    essential = sum(votes)
    if rule == "majority":
        return None if 2 * essential == len(votes) else 2 * essential > len(votes)
    return bool(essential) if essential in (0, len(votes)) else None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two judges over the steps that both judged."""

    judges: tuple[str, str]
    steps: int
    share: float | None  # of those steps with the same vote; None without steps
    kappa: float | None  # Cohen's kappa; None where it is not defined


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> float | None:
    """Return (observed - expected) / (1 - expected) agreement; expected: of two that vote by chance, each with its own
    share of "essential" (Cohen, 1960). None without votes, or if both gave one and the same vote on every step."""
    if not first:
        return None
    total = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / total
    p, q = sum(first) / total, sum(second) / total
    expected = p * q + (1 - p) * (1 - q)
    return None if expected == 1 else (observed - expected) / (1 - expected)


def pairwise_agreement(names: Sequence[str], traces: Sequence[Mapping[str, Votes]]) -> list[Agreement]:
    """Return the agreement of every pair of judges; `traces` has per trace the votes of the judges that answered."""
    found = []
    for pair in combinations(names, 2):
        shared = [(votes[pair[0]], votes[pair[1]]) for votes in traces if pair[0] in votes and pair[1] in votes]
        first = [vote for votes, _ in shared for vote in votes]
        second = [vote for _, votes in shared for vote in votes]
        same = sum(a == b for a, b in zip(first, second, strict=True))
        share = same / len(first) if first else None
        found.append(Agreement(pair, len(first), share, cohen_kappa(first, second)))
    return found


@dataclass
class JudgeReport:
    """The outcome of one run. `traces`: how many were "labelled" or not, by reason."""

    traces: Counter[str] = field(default_factory=Counter)
    essential: int = 0
    redundant: int = 0
    undecided: int = 0  # steps of judged traces without a consensus
    judges: list[Judge] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    agreements: list[Agreement] = field(default_factory=list)

    def count_steps(self, steps: Iterable[Mapping[str, Any]]) -> None:
        """Add the labels of one judged trace."""
        labels = Counter(step["essential"] for step in steps)
        self.essential += labels[True]
        self.redundant += labels[False]
        self.undecided += labels[None]
        self.traces["labelled" if labels[True] or labels[False] else "no step with a consensus"] += 1

    def lines(self) -> list[str]:
        """Return agreement figures, and answers, failures, tokens and cost per judge."""
        total = self.essential + self.redundant + self.undecided
        lines = []
        if total:
            decided = self.essential + self.redundant
            lines.append(
                f"steps: {decided} of {total} with a consensus ({decided / total:.1%}), "
                f"{self.essential} essential, {self.redundant} redundant"
            )
        lines += [_agreement_line(agreement) for agreement in self.agreements if total]
        lines += [_tally_line(judge, self.tallies[judge.name]) for judge in self.judges if total]
        costs = [_spent(judge, self.tallies[judge.name]) for judge in self.judges]
        if total and len(costs) > 1 and any(cost is not None for cost in costs):
            priced = "" if None not in costs else " (of the judges with prices)"
            lines.append(f"cost of all judges: {sum(cost for cost in costs if cost is not None):.4f}{priced}")
        return lines


def estimate(questions: Sequence[tuple[Judge, Sequence[Question]]], tallies: Mapping[str, Tally]) -> str:
    """Return the expected requests, tokens and cost, without repeated requests and thinking tokens of judges."""
    lines, total, unpriced = [], 0.0, False
    for judge, todo in questions:
        tokens_in = sum(estimated_tokens(len(question.prompt)) for question in todo)
        tokens_out = sum(estimated_tokens(answer_length(question.steps)) for question in todo)
        cost = judge.cost(tokens_in, tokens_out)
        if cost is None:
            unpriced = unpriced or bool(todo)
        else:
            total += cost
        price = "no prices given" if cost is None else f"cost about {cost:.4f}"
        lines.append(
            f"judge {judge.name}: {len(todo)} requests ({tallies[judge.name].cached} more answered in the cache), "
            f"about {tokens_in:,} tokens in and {tokens_out:,} out, {price}"
        )
    requests = sum(len(todo) for _, todo in questions)
    if len(questions) > 1:
        lines.append(f"all judges: {requests} requests, cost about {total:.4f}{' and unknown' if unpriced else ''}")
    lines.append("(characters / 4; judges that think before they answer, and repeated requests, cost more)")
    return "\n".join(lines)


def _agreement_line(agreement: Agreement) -> str:
    pair = " and ".join(agreement.judges)
    if agreement.share is None:
        return f"{pair}: no step that both judged"
    kappa = "not defined (both always voted the same)" if agreement.kappa is None else f"{agreement.kappa:.3f}"
    return f"{pair}: agree on {agreement.share:.1%} of {agreement.steps} steps, Cohen's kappa {kappa}"


def _spent(judge: Judge, tally: Tally) -> float | None:
    return judge.cost(tally.tokens_in, tally.tokens_out)


def _tally_line(judge: Judge, tally: Tally) -> str:
    failed = sum(tally.failures.values())
    parts = [f"{tally.votes} answers", f"{tally.cached} from the cache", f"{tally.invalid} invalid answers"]
    if failed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in tally.failures.items())
        parts.append(f"{failed} questions without a vote ({reasons}; the last error: {tally.last_error})")
    estimated = " (partly estimated)" if tally.estimated else ""
    parts.append(f"{tally.tokens_in:,} tokens in and {tally.tokens_out:,} out{estimated}")
    if (cost := _spent(judge, tally)) is not None:
        parts.append(f"cost {cost:.4f}")
    return f"judge {judge.name}: {', '.join(parts)}"
