"""Golden values of the length-aware reward."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from attnpo.rewards.length import tlmre_penalty, tlmre_rewards


def test_by_hand() -> None:
    # correct lengths 100 and 300: mean 200, population std 100, z = ∓1; the wrong one (50) plays no part
    lengths, correct = torch.tensor([[100, 300, 50]]), torch.tensor([[True, True, False]])
    low, high = 1 / (1 + math.e), 1 / (1 + 1 / math.e)
    assert_close(tlmre_rewards(lengths, correct), torch.tensor([[1 - 0.2 * low, 1 - 0.2 * high, 0.0]]))
    assert_close(tlmre_penalty(lengths, correct, alpha=0.4), torch.tensor([[-0.4 * low, -0.4 * high, 0.0]]))


@pytest.mark.parametrize(
    ("lengths", "correct"),
    [([7, 900], [True, False]), ([231] * 7, [True] * 7), ([16_384] * 9, [True] * 9)],
    ids=["one correct", "equal lengths", "equal long"],
)
def test_no_deviation_gives_exactly_half_alpha(lengths: list[int], correct: list[bool]) -> None:
    rewards = tlmre_rewards(torch.tensor([lengths]), torch.tensor([correct]))
    assert set(rewards[torch.tensor([correct])].tolist()) == {torch.tensor(0.9).item()}


def test_no_correct_response() -> None:
    assert tlmre_rewards(torch.tensor([[1, 2]]), torch.tensor([[False, False]])).tolist() == [[0.0, 0.0]]


def test_groups_are_independent() -> None:
    lengths, correct = torch.tensor([[10, 20], [1000, 5]]), torch.tensor([[True, True], [True, True]])
    both = tlmre_penalty(lengths, correct)
    assert torch.equal(both[:1], tlmre_penalty(lengths[:1], correct[:1]))
