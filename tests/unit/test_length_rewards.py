"""Golden values of the length rewards: terms in addition to an accuracy of 1 or 0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from attnpo.rewards.length import LengthInputs, get_length_reward, length_reward_names


def inputs(lengths: list[list[int]], correct: list[list[int]], **more: Any) -> LengthInputs:
    known = more.pop("known", [[1] * len(row) for row in lengths])
    targets = more.pop("targets", None)
    return LengthInputs(
        lengths=torch.tensor(lengths),
        correct=torch.tensor(correct).bool(),
        known=torch.tensor(known).bool(),
        targets=None if targets is None else torch.tensor(targets).float(),
        **more,
    )


# One group: right ones of 100 and 300 tokens, wrong ones of 200 and 500.
LENGTHS, CORRECT = [[100, 300, 200, 500]], [[1, 1, 0, 0]]
# name, options, further inputs, expected terms
GOLDEN: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[float]]] = {
    "none": ("none", {}, {}, [0, 0, 0, 0]),
    # mean 200, deviation 100, z = ∓1
    "tlmre": ("tlmre", {}, {}, [-0.2 * 0.26894, -0.2 * 0.73106, 0, 0]),
    # λ = 0.5 − (len − 100)/400: 0.5, 0, 0.25, −0.5; wrong ones get no praise
    "kimi": ("kimi", {"weight": 1}, {}, [0.5, 0, 0, -0.5]),
    "kimi, the default weight": ("kimi", {}, {}, [0.2, 0, 0, -0.2]),
    "kimi, warming up": ("kimi", {"warmup_steps": 3}, {"step": 3}, [0, 0, 0, 0]),
    "kimi, warm": ("kimi", {"warmup_steps": 3}, {"step": 4}, [0.2, 0, 0, -0.2]),
    # 0.0003 per token off 250
    "l1_exact": ("l1_exact", {}, {"targets": [250]}, [-0.045, -0.015, -0.015, -0.075]),
    # 0.5 + 0.0003·150 and 0.5 − 0.0003·50, less the 1 of the accuracy
    "l1_max": ("l1_max", {}, {"targets": [250]}, [-0.455, -0.515, 0, 0]),
    # clipped: 1000 tokens to spare at 0.001 are worth 1 at the most, 1000 over it nothing
    "l1_max, clipped": ("l1_max", {"alpha": 0.01}, {"targets": [200]}, [0, -1, 0, 0]),
    "laser": ("laser", {"target": 299}, {}, [0.5, 0, 0, 0]),
    "laser, on target": ("laser", {"target": 300, "alpha": 0.3}, {}, [0.3, 0.3, 0, 0]),
    "thinkprune": ("thinkprune", {"limits": [300, 299, 99], "steps": 2}, {"step": 2}, [0, 0, 0, 0]),
    "thinkprune, second": ("thinkprune", {"limits": [300, 299, 99], "steps": 2}, {"step": 3}, [0, -1, 0, 0]),
    "thinkprune, the last stays": ("thinkprune", {"limits": [300, 299, 99], "steps": 2}, {"step": 9}, [-1, -1, 0, 0]),
    # SOL 100
    "shorterbetter": ("shorterbetter", {}, {}, [1, 0.8, -0.1, -0.4]),
    # punished from 250 on, fully at 350; half of the paper's, whose accuracy is ±1
    "overlong": ("overlong", {"max_length": 350, "cache": 100}, {}, [0, -0.25, 0, -0.5]),
    # L_max 600, L_cache a fifth: from 480 on
    "overlong, by default": ("overlong", {}, {"max_completion_length": 600}, [0, 0, 0, -0.5 * 20 / 120]),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_by_hand(case: str) -> None:
    name, options, more, expected = GOLDEN[case]
    assert_close(get_length_reward(name, **options)(inputs(LENGTHS, CORRECT, **more)), torch.tensor([expected]).float())


def test_every_method_has_a_golden_value() -> None:
    tested = {name for name, *_ in GOLDEN.values()} | {"laser_d"}  # test_length_laser_d
    assert tested == set(length_reward_names())


# Groups in which statistics are empty or without spread.
NO_RIGHT, ALIKE, UNJUDGED = ([[100, 300]], [[0, 0]]), ([[70, 70]], [[1, 0]]), ([[100, 300]], [[0, 0]])
DEGENERATE = {
    "tlmre": ([0, 0], [-0.1, 0]),
    "kimi": ([0, -0.2], [0, 0]),
    "l1_exact": ([-0.03, -0.03], [-0.039, -0.039]),
    "l1_max": ([0, 0], [-0.461, 0]),
    "laser": ([0, 0], [0.5, 0]),
    "thinkprune": ([0, 0], [0, 0]),
    "shorterbetter": ([-0.1, -0.1], [1, 0]),  # SOL is the mean where none is right
    "overlong": ([0, 0], [0, 0]),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_groups(name: str) -> None:
    more: dict[str, Any] = {"targets": [200], "max_completion_length": 5000}
    no_right, alike = DEGENERATE[name]
    method = get_length_reward(name)
    assert_close(method(inputs(*NO_RIGHT, **more)), torch.tensor([no_right]).float())
    assert_close(method(inputs(*ALIKE, **more)), torch.tensor([alike]).float())
    assert method(inputs(*UNJUDGED, known=[[0, 0]], **more)).tolist() == [[0, 0]]


def test_overlong_gives_the_papers_advantages() -> None:
    """Accuracy 1/0 plus our term, and accuracy ±1 plus the paper's R, divided by the group's deviation."""
    from attnpo.credit.advantages import outcome_advantages

    batch = inputs([[100, 290, 340, 500]], [[1, 1, 0, 1]])
    term = get_length_reward("overlong", max_length=350, cache=100)(batch)
    accuracy = batch.correct.float()
    paper = outcome_advantages(2 * accuracy - 1 + 2 * term, "grpo")
    assert_close(outcome_advantages(accuracy + term, "grpo"), paper, atol=1e-3, rtol=1e-3)
    assert_close(2 * outcome_advantages(accuracy + term), outcome_advantages(2 * accuracy - 1 + 2 * term))


def test_thinkprune_says_its_limit_and_kimi_its_weight() -> None:
    pruning = get_length_reward("thinkprune", limits=[300, 200], steps=2)
    assert [pruning.metrics(step)["length_reward/limit"] for step in (1, 2, 3, 9)] == [300, 300, 200, 200]
    kimi = get_length_reward("kimi", warmup_steps=1)
    assert [kimi.metrics(step)["length_reward/weight"] for step in (1, 2)] == [0.0, 0.4]


def test_help_names_every_method_and_its_options() -> None:
    """`attnpo train --help` must not import torch, so it has them in writing."""
    from attnpo.cli.train import PARSER_OPTIONS
    from attnpo.rewards.length import length_reward_options

    text = PARSER_OPTIONS["epilog"]
    listed = next(line for line in text.splitlines() if line.lstrip().startswith("--length_reward"))
    assert sorted(listed.replace("(default)", "").replace(",", "").split()[1:]) == length_reward_names()
    for name in length_reward_names():
        options = length_reward_options(name)
        if options:
            assert f"  {name} {' '.join(options)}" in text, name
