"""Responses to repair, their anchors and the chosen repairs, compared with loops written from IOP's description."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attnpo.credit.iop.repairs import ANCHORS, best, choose_anchor, edit_distance, plan_repairs, score
from slow_levenshtein import fewest_edits

TOKENS = st.lists(st.integers(0, 3), max_size=6)
RESPONSES = st.lists(st.tuples(TOKENS, st.sampled_from([True, False, False, None])), min_size=2, max_size=12)


def slow_anchor(wrong: list[int], right: list[tuple[int, list[int]]], rule: str) -> int:
    """The first of the shortest, or of those with the fewest edits to the wrong response."""
    chosen, least = -1, None
    for number, ids in right:
        cost = len(ids) if rule == "shortest" else fewest_edits(wrong, ids)
        if least is None or cost < least:
            chosen, least = number, cost
    return chosen


@given(TOKENS, st.lists(TOKENS, min_size=1, max_size=5), st.sampled_from(ANCHORS))
def test_anchor_equals_the_slow_loop(wrong, right, rule) -> None:
    numbers = list(range(1, len(right) + 1))
    expected = slow_anchor(wrong, list(zip(numbers, right, strict=True)), rule)
    assert choose_anchor(0, numbers, [wrong, *right], rule) == expected


@settings(max_examples=200)
@given(st.integers(2, 4), RESPONSES, st.sampled_from(ANCHORS), st.one_of(st.none(), st.integers(1, 3)))
@example(4, [([1, 1], False), ([2, 2], False), ([1, 0], True), ([2, 0], True)], "nearest", None)
def test_plan_equals_the_slow_loop(size, responses, rule, most) -> None:
    """Of whole groups: anchors are correct responses to the same prompt, and only wrong ones are repaired."""
    responses = responses[: len(responses) // size * size]
    ids, correct = [tokens for tokens, _ in responses], [verdict for _, verdict in responses]
    repairs, fallback, groups, untried = [], [], 0, 0
    for first in range(0, len(ids), size):
        right, wrong = [], []
        for i in range(first, first + size):
            if correct[i] is True:
                right.append((i, ids[i]))
            elif correct[i] is False:
                wrong.append(i)
        if len(right) == 0 or len(wrong) == 0:
            groups += 1
            fallback.extend(range(first, first + size))
            continue
        for tried, i in enumerate(wrong):
            if most is not None and tried >= most:
                untried += 1
            else:
                repairs.append((i, slow_anchor(ids[i], right, rule)))
    plan = plan_repairs(correct, ids, size, anchor=rule, max_repairs=most)
    assert (plan.repairs, plan.fallback, plan.fallback_groups, plan.untried) == (repairs, fallback, groups, untried)


CANDIDATES = st.lists(st.tuples(TOKENS, st.booleans(), st.booleans()), max_size=6)


@given(TOKENS, CANDIDATES, st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_choice_equals_the_slow_loop(wrong, candidates, lambda_edit) -> None:
    """The largest h·(r − λ_edit·d) of those that verify and pass; nothing is worth less than what is refused."""
    scores = [score(right, passed, edit_distance(wrong, ids), lambda_edit) for ids, right, passed in candidates]
    chosen, most = None, -1.0
    for i, (ids, right, passed) in enumerate(candidates):
        h, r = int(passed), int(right)
        longest = max(len(wrong), len(ids))
        d = fewest_edits(wrong, ids) / longest if longest else 0.0
        value = h * (r - lambda_edit * d)
        assert scores[i] == pytest.approx(max(0.0, value) if r else 0.0, abs=1e-12)
        if h and r and value > most + 1e-12:
            chosen, most = i, value
    assert best(scores, [right and passed for _, right, passed in candidates]) == chosen
