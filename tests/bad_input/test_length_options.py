"""Length rewards that do not exist, options they do not have, and options that make no sense in the run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attnpo import AttnPOConfig
from attnpo.errors import InputError
from attnpo.rewards.length import LengthInputs, LengthReward, get_length_reward, register_length_reward


def config(folder: Any, **options: Any) -> AttnPOConfig:
    return AttnPOConfig(str(folder), use_cpu=True, **options)


L1 = {"length_reward": "l1_exact", "length_kwargs": {"high": 400}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"length_reward": "kim"}, r"option length_reward: found 'kim', expected one of .*; did you mean kimi\?"),
    ({"length_reward": "kimi", "length_kwargs": {"wait": 1}}, r"wait: .* it has: weight \(0.4\), warmup_steps \(0\)"),
    ({"length_reward": "none", "length_kwargs": {"alpha": 1}}, "alpha: length_reward 'none' has no such option.* none"),
    ({"length_kwargs": "{"}, "option length_kwargs: found '{', expected JSON such as"),
    ({"length_kwargs": [1]}, r"option length_kwargs: found \[1\], expected a mapping"),
    ({"length_kwargs": {"alpha": 0.1}, "length_alpha": 0.1}, "length_alpha: found together with alpha in"),
    ({"length_alpha": 1.0}, "option length_alpha: found 1.0, expected 0 ≤ alpha < 1"),
    ({"length_kwargs": {"alpha": 1.0}}, r"option length_kwargs \(length_reward='tlmre'\): alpha: found 1.0"),
    ({"length_reward": "kimi", "length_kwargs": {"weight": 2.0}}, "weight: found 2.0, expected less than 2"),
    ({"length_reward": "kimi", "length_kwargs": {"warmup_steps": 0.5}}, "warmup_steps: found 0.5, expected a whole"),
    ({"length_reward": "l1_exact"}, "high: found 4000, expected at most max_completion_length, 512"),
    ({**L1, "length_alpha": 0.2}, r"option length_alpha: found 0.2, expected .* price per token"),
    ({**L1, "length_kwargs": {"low": 500, "high": 400}}, "high: found 400, expected at least low, 500"),
    ({"length_reward": "l1_max", "length_kwargs": {"high": 400, "delta": 2}}, r"delta: found 2, expected .* \[0, 1\]"),
    ({**L1, "length_eval_target": 513}, "length_eval_target: found 513, expected at most max_completion_length, 512"),
    ({**L1, "length_eval_target": 0}, "length_eval_target: found 0"),
    ({"length_eval_target": 100}, "length_eval_target: length_reward='tlmre' writes no target into prompts"),
    ({"length_reward": "laser"}, "target: found 8192, expected less than max_completion_length, 512"),
    ({"length_reward": "laser", "length_kwargs": {"target": 512}}, "every finished response would get the bonus"),
    ({"length_reward": "laser_d"}, "low: found 4096, expected less than max_completion_length, 512"),
    ({"length_reward": "laser_d", "max_completion_length": None}, "low: laser_d needs max_completion_length"),
    ({"length_reward": "thinkprune"}, "limits: found 4000, expected at most max_completion_length, 512"),
    (
        {"length_reward": "thinkprune", "length_kwargs": {"limits": [300, 300]}},
        "each to be smaller than",
    ),
    ({"length_reward": "thinkprune", "length_kwargs": {"limits": 300}}, "limits: found 300, expected a list"),
    ({"length_reward": "thinkprune", "length_kwargs": {"limits": [300, 2.5]}}, "limits: found 2.5, expected a whole"),
    ({"length_reward": "shorterbetter", "length_kwargs": {"beta": -1}}, "beta: found -1"),
    ({"length_reward": "overlong", "length_kwargs": {"cache": 512}}, "cache: found 512, expected less than L_max, 512"),
    ({"length_reward": "overlong", "length_kwargs": {"max_length": 900}}, "no response would be punished"),
    ({"length_reward": "overlong", "max_completion_length": None}, "max_length: found none, and max_completion_length"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refused(options: dict[str, Any], message: str, tmp_path) -> None:
    with pytest.raises(InputError, match=message):
        config(tmp_path, **options)


def test_boundary_values_are_allowed(tmp_path) -> None:
    """Also: α of the command line is not read by methods that have none, so that a file may set it for TLMRE."""
    config(tmp_path, length_reward="kimi", length_alpha=0.8)
    config(tmp_path, length_reward="none", length_alpha=0.8)
    config(tmp_path, length_reward="thinkprune", length_kwargs='{"limits": [512]}')
    config(tmp_path, length_reward="laser", length_kwargs={"target": 511})
    config(tmp_path, length_reward="l1_exact", length_kwargs={"high": 512}, length_eval_target=512)
    config(tmp_path, length_reward="overlong", length_kwargs={"max_length": 600, "cache": 100})
    assert config(tmp_path, length_alpha=0.3).make_length_reward() == get_length_reward("tlmre", alpha=0.3)
    assert config(tmp_path).make_length_reward() == get_length_reward("tlmre")


def test_tables_of_other_shapes() -> None:
    lengths, correct = torch.ones(2, 3).long(), torch.ones(2, 3).bool()
    for changes, message in (
        ({"correct": correct[:1]}, r"lengths \[2, 3\] and correct \[1, 3\]"),
        ({"known": correct[:, :2]}, r"lengths \[2, 3\] and known \[2, 2\]"),
        ({"lengths": lengths[0]}, r"lengths: found shape \[3\]"),
        ({"targets": torch.ones(3)}, r"targets: found shape \[3\], expected one per prompt, \[2\]"),
    ):
        with pytest.raises(InputError, match=message):
            LengthInputs(**{"lengths": lengths, "correct": correct, "known": correct, **changes})


def test_l1_without_targets() -> None:
    table = torch.ones(1, 2)
    with pytest.raises(InputError, match="l1_max needs a target length for every problem"):
        get_length_reward("l1_max")(LengthInputs(lengths=table.long(), correct=table.bool(), known=table.bool()))


def test_duplicate_registration_is_refused() -> None:
    with pytest.raises(InputError, match="length_reward: 'kimi' is already registered"):

        @register_length_reward("kimi")
        class Other(LengthReward):
            pass
