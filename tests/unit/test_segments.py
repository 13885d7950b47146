"""The positions at which a response is cut into segments."""

from __future__ import annotations

import pytest
import torch

from attnpo.credit.segments import SegmentOptions, cut_points, segment_ids, thin

PEAKS = torch.tensor([9.0, 0, 0, 3, 0, 0, 5, 0, 0, 4, 0, 0])  # thinking tokens; then the tag and the answer


def test_entropy_cuts_are_at_peaks() -> None:
    cut = lambda **options: cut_points(SegmentOptions(**options), (0, 12), entropy=PEAKS)  # noqa: E731
    # Four of twelve values are above 0, so the median is 0. The first token begins the first segment anyway.
    assert cut(quantile=0.5) == [3, 6, 9]
    assert cut(threshold=3.5) == [6, 9]
    assert cut(threshold=3.0) == [6, 9]  # strictly above
    assert cut(threshold=9.0) == []
    assert cut(threshold=0.0, segments=2) == [6]  # the middle one of three
    assert cut(threshold=0.0, segments=1) == []


def test_quantile_is_of_the_thinking_alone() -> None:
    entropy = torch.tensor([0.0, 0.1, 0.2, 0.3, 50.0, 50.0])
    assert cut_points(SegmentOptions(quantile=0.5), (0, 4), entropy=entropy) == [2, 3]  # the median is 0.15


def test_thinking_behind_an_opening_tag() -> None:
    entropy = torch.tensor([9.0, 9.0, 0.0, 9.0, 0.0])
    assert cut_points(SegmentOptions(threshold=1.0), (1, 5), entropy=entropy) == [3]


@pytest.mark.parametrize("thinking", [(0, 0), (3, 3), (0, 1)])
@pytest.mark.parametrize("cuts", ["entropy", "even", "steps"])
def test_no_thinking_is_not_cut(cuts: str, thinking: tuple[int, int]) -> None:
    options = SegmentOptions(cuts=cuts, threshold=0.0)
    assert cut_points(options, thinking, entropy=torch.ones(5), steps=[thinking[0]]) == []


def test_equal_entropies_are_not_cut() -> None:
    assert cut_points(SegmentOptions(), (0, 8), entropy=torch.full((8,), 0.7)) == []


def test_even_cuts() -> None:
    assert cut_points(SegmentOptions(cuts="even", segments=4), (0, 10)) == [2, 5, 7]
    assert cut_points(SegmentOptions(cuts="even", segments=4), (2, 12)) == [4, 7, 9]
    assert cut_points(SegmentOptions(cuts="even", segments=8), (0, 3)) == [1, 2]


def test_step_cuts() -> None:
    steps = [0, 4, 4, 9, 15]  # one step has no token of its own
    assert cut_points(SegmentOptions(cuts="steps"), (0, 20), steps=steps) == [4, 9, 15]
    assert cut_points(SegmentOptions(cuts="steps", segments=2), (0, 20), steps=steps) == [9]


def test_thinning_is_even() -> None:
    assert thin(list(range(100)), 4) == [12, 37, 62, 87]
    assert thin([7], 0) == []
    assert thin([], 3) == []


def test_segments_tile_the_response() -> None:
    assert segment_ids([[2, 5], []], [7, 3], 8, 4).tolist() == [[0, 0, 1, 1, 1, 2, 2, 4], [0, 0, 0, 4, 4, 4, 4, 4]]
