"""Alignment and truncation against the textbook: dynamic programming and plain loops."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from attnpo.credit.iop.repairs import align, edit_distance, graft, masks, truncate
from slow_levenshtein import fewest_edits

TOKENS = st.lists(st.integers(0, 4), max_size=14)  # few different ones, so that many alignments compete


@given(TOKENS, TOKENS)
def test_number_of_edits_is_minimal(wrong, repaired) -> None:
    edits = align(wrong, repaired)
    assert len(edits) == fewest_edits(wrong, repaired)
    assert graft(wrong, repaired, edits) == repaired
    longest = max(len(wrong), len(repaired))
    assert edit_distance(wrong, repaired) == (len(edits) / longest if longest else 0)


@given(TOKENS, TOKENS)
def test_ungated_tokens_are_the_same_on_both_sides(wrong, repaired) -> None:
    edits = align(wrong, repaired)
    left, right = masks(edits, len(wrong), len(repaired))
    kept = [token for token, gate in zip(wrong, left, strict=True) if not gate]
    assert kept == [token for token, gate in zip(repaired, right, strict=True) if not gate]
    substitutions = sum(edit.removes and edit.puts for edit in edits)
    assert sum(left) + sum(right) == len(edits) + substitutions
    assert sum(left) - sum(right) == len(wrong) - len(repaired)


@given(TOKENS, TOKENS, st.integers(0, 14))
def test_every_edit_reduces_the_distance_by_one(wrong, repaired, k) -> None:
    edits = align(wrong, repaired)
    k = min(k, len(edits))
    grafted = graft(wrong, repaired, edits[:k])
    assert fewest_edits(wrong, grafted) == k
    assert fewest_edits(grafted, repaired) == len(edits) - k


@given(TOKENS, TOKENS)
def test_reversed_repair_has_as_many_edits(wrong, repaired) -> None:
    """A repair undone is a repair: as many edits, and what is left alone is as long."""
    there, back = align(wrong, repaired), align(repaired, wrong)
    assert len(there) == len(back)


@given(st.lists(st.tuples(TOKENS, TOKENS), max_size=4), st.integers(1, 5), st.integers(0, 20))
def test_batched_truncation_equals_single_truncation(pairs, k, threshold) -> None:
    edits = [align(*pair) for pair in pairs]

    def right(response: list[int]) -> bool:
        return sum(response) % 7 < threshold % 7

    def by_loop(pair, of_pair) -> int:
        for limit in (k, 2 * k):
            if len(of_pair) > limit and right(graft(*pair, of_pair[:limit])):
                return limit
        return len(of_pair)

    expected = [by_loop(pair, of_pair) for pair, of_pair in zip(pairs, edits, strict=True)]
    assert truncate(pairs, edits, k, lambda numbers, responses: [right(r) for r in responses]) == expected
