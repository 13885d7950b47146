"""Golden outcome advantages, degenerate groups and missing rewards."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from attnpo.credit.advantages import KINDS, group_accuracy, groups_without_signal, outcome_advantages

NAN = float("nan")


def test_rloo_by_hand() -> None:
    # 1 − (0+0+1)/3, 0 − (1+0+1)/3, …
    found = outcome_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), "rloo")
    assert_close(found, torch.tensor([[2 / 3, -2 / 3, -2 / 3, 2 / 3]]))


def test_rloo_is_the_group_advantage_times_g_over_g_minus_one() -> None:
    rewards = torch.tensor([[0.9, 0.85, 0.0, 0.82], [0.0, 0.0, 1.0, 0.0]])
    assert_close(outcome_advantages(rewards, "rloo"), outcome_advantages(rewards, "dr_grpo") * 4 / 3)


def test_grpo_by_hand() -> None:
    # mean 0.5, deviations ±0.5, sample std sqrt(4·0.25/3)
    std = math.sqrt(1 / 3)
    found = outcome_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), "grpo")
    assert_close(found, torch.tensor([[0.5, -0.5, -0.5, 0.5]]) / (std + 1e-4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 0.1, 0.9, 1 - 0.2 * 0.5, 1 / 3, 1e6 + 0.1, -0.7])
@pytest.mark.parametrize("size", [2, 3, 7, 8])
def test_equal_rewards_give_exactly_zero(kind: str, value: float, size: int) -> None:
    assert outcome_advantages(torch.full((1, size), value), kind).count_nonzero() == 0


def test_missing_reward_is_left_out() -> None:
    # of the rest [1, 0]: 1 − 0 and 0 − 1; the missing one gets 0
    found = outcome_advantages(torch.tensor([[1.0, NAN, 0.0]]), "rloo")
    assert_close(found, torch.tensor([[1.0, 0.0, -1.0]]))
    found = outcome_advantages(torch.tensor([[1.0, NAN, 0.0]]), "dr_grpo")
    assert_close(found, torch.tensor([[0.5, 0.0, -0.5]]))
    found = outcome_advantages(torch.tensor([[1.0, NAN, 0.0]]), "grpo")
    assert_close(found, torch.tensor([[0.5, 0.0, -0.5]]) / (math.sqrt(0.5) + 1e-4))


@pytest.mark.parametrize("kind", KINDS)
def test_one_reward_or_none_left(kind: str) -> None:
    rewards = torch.tensor([[1.0, NAN, NAN], [NAN, NAN, NAN]])
    assert outcome_advantages(rewards, kind).tolist() == [[0.0] * 3] * 2


def test_groups_without_signal() -> None:
    rewards = torch.tensor([[0.9, 0.9], [1.0, 0.0], [NAN, 1.0], [NAN, NAN]])
    assert groups_without_signal(rewards).item() == pytest.approx(0.75)


def test_group_accuracy_counts_verdicts_only() -> None:
    accuracy = torch.tensor([[1.0, 0.0, NAN, 1.0], [NAN] * 4, [0.0] * 4])
    assert_close(group_accuracy(accuracy), torch.tensor([2 / 3, 0.0, 0.0]))


def test_partial_credit_is_not_correct() -> None:
    assert_close(group_accuracy(torch.tensor([[1.0, 0.7, 0.0, 0.9]])), torch.tensor([0.25]))
