"""Edits between a wrong response and its repair, and how many of them are kept."""

from __future__ import annotations

import pytest

from attnpo.credit.iop.repairs import align, graft, masks, truncate

# wrong, repaired, differing tokens of the wrong side, of the repaired side, edits
GOLDENS = {
    "first token": ([1, 2, 3], [9, 2, 3], [0], [0], 1),
    "last token": ([1, 2, 3], [1, 2, 9], [2], [2], 1),
    "first and last": ([1, 2, 3, 4], [8, 2, 3, 9], [0, 3], [0, 3], 2),
    "identical": ([1, 2, 3], [1, 2, 3], [], [], 0),
    "insertion in the middle": ([1, 2, 3], [1, 2, 7, 8, 3], [], [2, 3], 2),
    "insertion at both ends": ([1, 2], [7, 1, 2, 8], [], [0, 3], 2),
    "deletion": ([1, 7, 8, 2], [1, 2], [1, 2], [], 2),
    "shorter by a substitution and a deletion": ([1, 2, 3, 4], [1, 9, 4], [1, 2], [1], 2),
    "nothing in common": ([1, 2], [3, 4], [0, 1], [0, 1], 2),
    "from nothing": ([], [3, 4], [], [0, 1], 2),
    "to nothing": ([1, 2], [], [0, 1], [], 2),
    "both empty": ([], [], [], [], 0),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens(name) -> None:
    wrong, repaired, removed, put, count = GOLDENS[name]
    edits = align(wrong, repaired)
    assert len(edits) == count
    assert graft(wrong, repaired, edits) == repaired
    left, right = masks(edits, len(wrong), len(repaired))
    assert [i for i, gate in enumerate(left) if gate] == removed
    assert [i for i, gate in enumerate(right) if gate] == put


def test_the_first_edits_alone() -> None:
    wrong, repaired = [1, 2, 3, 4, 5], [1, 9, 3, 4, 6, 7]
    edits = align(wrong, repaired)
    assert len(edits) == 3
    assert graft(wrong, repaired, []) == wrong
    assert graft(wrong, repaired, edits[:1]) == [1, 9, 3, 4, 5]
    # Where an insertion and a substitution meet, both orders are shortest.
    assert graft(wrong, repaired, edits[:2]) in ([1, 9, 3, 4, 6, 5], [1, 9, 3, 4, 6])
    assert masks(edits[:1], 5, 6) == ([False, True, False, False, False], [False, True, False, False, False, False])


@pytest.mark.parametrize(
    ("needed", "kept", "asked"),
    [
        (3, 4, [(4,)]),  # the first three differing tokens make it right: K = 4 of them are kept
        (4, 4, [(4,)]),
        (5, 8, [(4,), (8,)]),
        (8, 8, [(4,), (8,)]),
        (9, 12, [(4,), (8,)]),  # neither K nor 2K does: all twelve
    ],
)
def test_truncation(needed: int, kept: int, asked: list[tuple[int]]) -> None:
    wrong, repaired = [0] * 12, list(range(1, 13))
    seen = []

    def verify(numbers, responses):
        assert list(numbers) == [0]
        seen.append(tuple(sum(token > 0 for token in response) for response in responses))
        return [all(response[:needed]) for response in responses]

    assert truncate([(wrong, repaired)], [align(wrong, repaired)], 4, verify) == [kept]
    assert seen == asked


@pytest.mark.parametrize(("length", "asked"), [(4, []), (5, [4]), (8, [4]), (9, [4, 8])])
def test_short_repairs_are_not_verified_again(length: int, asked: list[int]) -> None:
    """A graft of all edits is the repair, and that is right already."""
    seen = []

    def verify(numbers, responses):
        seen.append(sum(token > 0 for token in responses[0]))
        return [False]

    pair = ([0] * length, list(range(1, length + 1)))
    assert truncate([pair], [align(*pair)], 4, verify) == [length]
    assert seen == asked


def test_pairs_are_verified_together() -> None:
    pairs = [([0] * n, list(range(1, n + 1))) for n in (2, 6, 20, 6)]
    calls = []

    def verify(numbers, responses):
        calls.append(list(numbers))
        return [i == 3 for i in numbers]

    assert truncate(pairs, [align(*pair) for pair in pairs], 4, verify) == [2, 6, 20, 4]
    assert calls == [[1, 2, 3], [2]]  # once for K, once for 2K


def test_nothing_to_truncate() -> None:
    assert truncate([], [], 4, lambda numbers, responses: pytest.fail("asked")) == []
