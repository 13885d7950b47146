"""From single votes to labels, and how far judges agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from attnpo.labels.judge_prompt import Votes

RULES = ("unanimous", "majority")


def consensus(votes: Sequence[bool], rule: str, quorum: int) -> bool | None:
    """The label of one step from the votes of the judges that gave a valid answer; None without a consensus.

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
    """Of two judges, over the steps that both judged."""

    judges: tuple[str, str]
    steps: int
    share: float | None  # of those steps: same vote; None without steps
    kappa: float | None  # Cohen's kappa; None where it is not defined


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> float | None:
    """(observed - expected) / (1 - expected) agreement; expected: of two who vote by chance, each with its own share
    of "essential" (Cohen, 1960). None without votes, or where both always gave the same one word."""
    if not first:
        return None
    total = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / total
    p, q = sum(first) / total, sum(second) / total
    expected = p * q + (1 - p) * (1 - q)
    return None if expected == 1 else (observed - expected) / (1 - expected)


def pairwise_agreement(names: Sequence[str], traces: Sequence[Mapping[str, Votes]]) -> list[Agreement]:
    """Every pair of judges; `traces` has per trace the votes of the judges that answered."""
    found = []
    for pair in combinations(names, 2):
        shared = [(votes[pair[0]], votes[pair[1]]) for votes in traces if pair[0] in votes and pair[1] in votes]
        first = [vote for votes, _ in shared for vote in votes]
        second = [vote for _, votes in shared for vote in votes]
        same = sum(a == b for a, b in zip(first, second, strict=True))
        share = same / len(first) if first else None
        found.append(Agreement(pair, len(first), share, cohen_kappa(first, second)))
    return found
