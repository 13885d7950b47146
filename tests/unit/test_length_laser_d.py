"""LASER-D's targets by hand, and its state."""

from __future__ import annotations

import json

import pytest
import torch

from attnpo.rewards.length import LengthInputs, get_length_reward
from attnpo.rewards.length.laser import LaserD, difficulties, expected_correct_target, least_right


def batch(*groups: tuple[list[int], list[int]], step: int = 1, longest: int = 500) -> LengthInputs:
    lengths = torch.tensor([lengths for lengths, _ in groups])
    correct = torch.tensor([right for _, right in groups]).bool()
    return LengthInputs(
        lengths=lengths, correct=correct, known=torch.ones_like(correct), step=step, max_completion_length=longest
    )


def laser_d(**options: int) -> LaserD:
    method = get_length_reward("laser_d", **{"low": 100, "interval": 100, "update_every": 2, **options})
    assert isinstance(method, LaserD)
    return method


EASY = ([90, 150, 250, 350], [1, 1, 1, 0])
MEDIUM = ([100, 200, 300, 450], [1, 1, 0, 0])
HARD = ([100, 200, 300, 450], [0, 1, 0, 0])


def test_difficulty_is_the_solve_rate() -> None:
    assert difficulties(batch(EASY, MEDIUM, HARD)).tolist() == [0, 1, 2]
    thirds = batch(([1, 1, 1], [1, 1, 0]), ([1, 1, 1], [1, 0, 0]), ([1, 1, 1], [0, 0, 0]), ([1, 1, 1], [1, 1, 1]))
    assert difficulties(thirds).tolist() == [0, 1, 2, 0]  # exactly 2/3 is easy, exactly 1/3 medium


def test_expected_correct_responses() -> None:
    assert least_right(8) == [5, 2, 1]
    assert least_right(2) == [1, 1, 1]
    candidates = range(100, 500, 100)
    # 10 responses, of which 1, 2, 5, 9 fit: 2/10·5 ≥ 1 at 200 tokens, 5/10·2 at 300, 10/10·1 nowhere
    assert [expected_correct_target([10, 1, 2, 5, 9], candidates, least, 500) for least in (5, 2, 1)] == [200, 300, 500]


def test_targets_and_bonus_by_hand() -> None:
    # Groups of four: C = 2, 1, 1. Easy: half of the responses fit 200 tokens. Medium, hard: all must fit, none but 500.
    method = laser_d()
    term = method(batch(EASY, MEDIUM, HARD))
    assert method.metrics(1) == {
        "length_reward/target_easy": 200.0,
        "length_reward/target_medium": 500.0,
        "length_reward/target_hard": 500.0,
    }
    assert term.tolist() == [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0.5, 0, 0]]


def test_targets_follow_the_policy_every_other_step() -> None:
    method = laser_d()
    method(batch(EASY, HARD))
    shorter = ([10, 20, 30, 40], [1, 1, 1, 1])
    method(batch(shorter, step=2))
    assert method.metrics(2)["length_reward/target_easy"] == 200  # of step 1 still
    method(batch(shorter, step=3))
    assert method.metrics(3)["length_reward/target_easy"] == 100
    assert method.metrics(3)["length_reward/target_hard"] == 500  # none since: kept


def test_a_group_without_verdicts_counts_nothing() -> None:
    seen = batch(EASY, ([1, 1, 1, 1], [0, 0, 0, 0]))
    known = torch.tensor([[True] * 4, [False] * 4])
    method = laser_d()
    term = method(LengthInputs(lengths=seen.lengths, correct=seen.correct, known=known, max_completion_length=500))
    assert method.metrics(1)["length_reward/target_easy"] == 200
    assert term[1].tolist() == [0, 0, 0, 0]


def test_state_goes_through_json() -> None:
    one, other = laser_d(), laser_d()
    one(batch(EASY, MEDIUM, HARD))
    one(batch(HARD, step=2))
    other.load_state(json.loads(json.dumps(one.state())))
    for step in (3, 4, 5):
        groups = batch(HARD, EASY, step=step)
        assert torch.equal(one(groups), other(groups))
        assert one.state() == other.state()


def test_state_with_other_options_starts_counting_anew() -> None:
    one, other = laser_d(), laser_d(interval=50)
    one(batch(EASY))
    one(batch(EASY, step=2))
    other.load_state(one.state())
    other(batch(EASY, step=3))
    assert other.metrics(3)["length_reward/target_easy"] == pytest.approx(150)
