"""The advantage estimator, with another trainer of verl's and with this package's."""

from __future__ import annotations

import os

os.environ["VERL_PLATFORM"] = "cpu"
os.environ["VERL_USE_EXTERNAL_MODULES"] = "attnpo.engines.verl.cpu"

import pytest
import torch
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from attnpo.credit.advantages import outcome_advantages
from attnpo.engines.verl.trainer import estimate, handing_over
from attnpo.errors import RunError
from attnpo.rewards.length import LengthInputs, get_length_reward

LENGTHS = torch.tensor([5, 3, 6, 4, 2, 6, 3, 5])
RIGHT = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
UIDS = ["b", "a", "b", "a", "a", "b", "b", "a"]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    mask = (torch.arange(6) < LENGTHS[:, None]).long()
    rewards = torch.zeros(8, 6)
    rewards[torch.arange(8), LENGTHS - 1] = RIGHT
    return rewards, mask


@pytest.mark.parametrize("advantage", ["rloo", "grpo", "dr_grpo"])
@pytest.mark.parametrize("length", ["tlmre", "none"])
def test_estimator_with_another_trainer(advantage, length):
    rewards, mask = batch()
    options = {"attnpo": {"advantage": advantage, "length_reward": length}}
    found, returns = estimate(rewards, mask, config=options, index=UIDS)
    assert torch.equal(found, returns)
    for uid in "ab":
        places = [i for i, other in enumerate(UIDS) if other == uid]
        right = RIGHT[places][None] == 1
        inputs = LengthInputs(lengths=LENGTHS[places][None], correct=right, known=torch.ones_like(right))
        totals = RIGHT[places][None] + get_length_reward(length)(inputs)
        expected = outcome_advantages(totals, advantage)[0]
        torch.testing.assert_close(found[places], expected[:, None] * mask[places])


def test_trainer_advantages_are_returned_once():
    rewards, mask = batch()
    rows = [torch.arange(n) + 1.0 for n in LENGTHS.tolist()]
    mask[0, 2] = 0  # a token that rollout correction has rejected
    with handing_over(rows):
        found, _ = get_adv_estimator_fn("attnpo")(token_level_rewards=rewards, response_mask=mask, index=UIDS)
    assert found[0].tolist() == [1, 2, 0, 4, 5, 0]
    assert found[1].tolist() == [1, 2, 3, 0, 0, 0]
    again, _ = estimate(rewards, mask, index=UIDS)
    assert not torch.equal(again, found)


def test_mismatched_input_is_refused():
    rewards, mask = batch()
    with handing_over([torch.ones(3)] * 8), pytest.raises(RunError, match=r"shape \[8, 3\], expected \[8, 6\]"):
        estimate(rewards, mask, index=UIDS)
    with pytest.raises(RunError, match="found no uid"):
        estimate(rewards, mask)
    with pytest.raises(RunError, match="problem a: 3 of"):
        estimate(rewards[:7], mask[:7], index=UIDS[:7])
