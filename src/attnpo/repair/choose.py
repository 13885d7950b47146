"""Which wrong responses are repaired with which anchor, what a candidate is worth, and which one is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rapidfuzz.distance import Levenshtein

from attnpo.errors import InputError

ANCHORS = ("shortest", "nearest")


@dataclass(frozen=True)
class Plan:
    """What to do with the responses of whole groups, all by their number in the batch.

    Attributes:
        repairs: (wrong response, its anchor).
        fallback: responses of groups without a correct or without a wrong one.
        fallback_groups: how many groups these are.
        untried: wrong responses beyond `max_repairs`.
    """

    repairs: list[tuple[int, int]] = field(default_factory=list)
    fallback: list[int] = field(default_factory=list)
    fallback_groups: int = 0
    untried: int = 0


def plan_repairs(
    correct: Sequence[bool | None],
    ids: Sequence[Sequence[int]],
    group_size: int,
    *,
    anchor: str = "shortest",
    max_repairs: int | None = None,
) -> Plan:
    """Anchors and wrong responses of every group of `group_size` responses in a row.

    `correct` is None where nobody could judge: such a response is neither repaired nor an anchor. Ties between anchors
    go to the first.
    """
    repairs: list[tuple[int, int]] = []
    fallback: list[int] = []
    groups = untried = 0
    for first in range(0, len(correct), group_size):
        group = range(first, first + group_size)
        right = [i for i in group if correct[i]]
        wrong = [i for i in group if correct[i] is False]
        if not right or not wrong:
            fallback += group
            groups += 1
            continue
        tried = wrong[:max_repairs]
        untried += len(wrong) - len(tried)
        repairs += [(i, choose_anchor(i, right, ids, anchor)) for i in tried]
    return Plan(repairs, fallback, groups, untried)


def choose_anchor(wrong: int, right: Sequence[int], ids: Sequence[Sequence[int]], rule: str) -> int:
    """The correct response that a repair may look at."""
    if rule == "shortest":
        return min(right, key=lambda i: len(ids[i]))
    if rule == "nearest":
        return min(right, key=lambda i: Levenshtein.distance(ids[wrong], ids[i]))
    raise InputError(f"anchor: found {rule!r}, expected {' or '.join(ANCHORS)}")


def edit_distance(wrong: Sequence[int], repaired: Sequence[int]) -> float:
    """Edits between two lists of token ids, divided by the length of the longer one: from 0 to 1."""
    return Levenshtein.normalized_distance(wrong, repaired)


def score(right: bool, passed: bool, distance: float, lambda_edit: float) -> float:
    """h·(r − λ_edit·d) of a candidate (IOP, arXiv 2605.05226), r ∈ {0, 1}, h ∈ {0, 1} the audit.

    Choice: a candidate that is wrong scores 0, not −λ_edit·d. Such candidates are never taken, and as a reward of the
    repair mode a negative score would rank them below a pasted answer, which scores 0.

    >>> score(True, True, 0.2, 0.5), score(True, False, 0.2, 0.5), score(False, True, 0.2, 0.5)
    (0.9, 0.0, 0.0)
    """
    return 1 - lambda_edit * distance if right and passed else 0.0


def best(scores: Sequence[float], usable: Sequence[bool]) -> int | None:
    """The number of the usable candidate that scores highest, the first of equals; None: there is none."""
    numbers = [i for i, ok in enumerate(usable) if ok]
    return max(numbers, key=lambda i: scores[i], default=None)
