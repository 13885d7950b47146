"""Error messages name options and numbers out of range."""

from __future__ import annotations

import pytest
import torch

from attnpo.credit.advantages import check_group_size, outcome_advantages
from attnpo.credit.attnpo import step_scales
from attnpo.credit.base import get_credit
from attnpo.errors import InputError
from attnpo.rewards.length import tlmre_penalty, tlmre_rewards
from attnpo.rewards.pool import VerifierPool


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("beta", -0.1),
        ("lam", -1),
        ("lam", float("nan")),
        ("delta", -0.01),
        ("delta", 1.01),
        ("delay", -1),
        ("delay", float("inf")),
        ("beta", "two"),
        ("beta", None),
        ("beta", True),
        ("positive", 1),
        ("negative", "yes"),
        ("difficulty", None),
    ],
)
def test_attnpo_options(option: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{option}: found "):
        get_credit("attnpo", **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("group_accuracy", 1.5),
        ("group_accuracy", -0.1),
        ("total_tokens", 0),
        ("answer_tokens", 300),
        ("answer_tokens", -1),
        ("advantage", float("nan")),
        ("delta", 2),
    ],
)
def test_step_scales_numbers(option: str, value: float) -> None:
    good = {"advantage": 0.3, "group_accuracy": 1.0, "answer_tokens": 20, "total_tokens": 200, "step": 1}
    with pytest.raises(InputError, match=f"{option}: found "):
        step_scales(torch.tensor([0.1]), **{**good, option: value})


def test_step_scales_needs_one_score_per_step() -> None:
    with pytest.raises(InputError, match=r"scores: found shape \[3, 2\], expected one score per step"):
        step_scales(torch.zeros(3, 2), advantage=0.3, group_accuracy=1, answer_tokens=1, total_tokens=2, step=1)


def test_group_of_one_has_no_baseline() -> None:
    with pytest.raises(InputError, match="num_generations: found 1, expected at least 2: the rloo advantage"):
        check_group_size("rloo", 1)
    with pytest.raises(InputError, match="num_generations: found 1"):
        outcome_advantages(torch.ones(4, 1), "grpo")


def test_unknown_advantage() -> None:
    with pytest.raises(InputError, match="advantage: found 'ppo', expected one of rloo, grpo, dr_grpo"):
        outcome_advantages(torch.ones(4, 2), "ppo")


def test_rewards_must_be_a_table() -> None:
    with pytest.raises(InputError, match=r"rewards: found shape \[8\]"):
        outcome_advantages(torch.ones(8), "rloo")


@pytest.mark.parametrize("alpha", [-0.1, 1.0, 2.0, float("nan")])
def test_alpha_that_could_rank_wrong_above_right_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match="alpha: found "):
        tlmre_rewards(torch.ones(1, 2), torch.ones(1, 2).bool(), alpha=alpha)


def test_lengths_of_another_shape() -> None:
    with pytest.raises(InputError, match=r"lengths \[1, 3\] and correct \[1, 2\]"):
        tlmre_penalty(torch.ones(1, 3), torch.ones(1, 2).bool())


@pytest.mark.parametrize(("option", "value"), [("workers", 0), ("timeout", 0), ("memory_mb", 1)])
def test_pool_options(option: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{option}: found "):
        VerifierPool(**{option: value})
