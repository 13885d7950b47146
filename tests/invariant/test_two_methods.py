"""`accelerate launch` with two CPU processes trains with every credit method as one process on the same global batch.

The methods that sample or repair in addition to the rollouts have separate modules (test_two_{repairing,continuing}).
"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from processes import launch
from spread import alike, metrics, same_weights

METHODS = ("attnpo", "outcome", "first_correct", "mrt")
SAMPLED = ("completions/", "num_tokens")
"""What TRL counts of all that was sampled: two processes that replace groups sample rows for company (`resampling`)."""
ELSEWHERE = {"shape": "test_two_continuing", "iop": "test_two_repairing"}
COUNTED = ("extra/", "potential/", "segments/")
"""Metrics of stages: two processes have the mean of their sums, and the mean of their means."""


def test_every_method_is_tested():
    # In a process of its own: other tests register methods of theirs.
    code = "from attnpo.credit.base import credit_names; print(*credit_names())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {*METHODS, *ELSEWHERE} == set(found)


@pytest.mark.slow
@pytest.mark.parametrize("method", [*METHODS, "resampled"])
def test_rewards_advantages_and_losses(method, trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path, read_rollouts):
    model = trainer_kit.save_model(tmp_path / "model", trainer_kit.sharpen(new_tiny_qwen2()), tiny_tokenizer)
    more = (*COUNTED, *SAMPLED) if method == "resampled" else COUNTED
    folders = alike(method, model, tmp_path, read_rollouts, more, port=23500)
    assert method != "resampled" or metrics(folders[0])[0]["groups/replaced"]
    environments = [sorted(folder.glob("checkpoint-2/rng_state*")) for folder in folders]
    assert [len(found) for found in environments] == [1, 2]  # there really were two
    one, two = (torch.load(folder / "weights.pt") for folder in folders)
    same_weights(one, two, trainer_kit.sharpen(new_tiny_qwen2()).state_dict())


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run(trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path):
    model = trainer_kit.save_model(tmp_path / "model", new_tiny_qwen2(), tiny_tokenizer)
    began = time.monotonic()
    code, said = launch(2, "one_of_two.py", "outcome", model, tmp_path / "run", port=21500, DIES="1")
    assert code != 0
    assert time.monotonic() - began < 120
    assert "exitcode" in said
    assert "SIGKILL" in said or "-9" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("raises", "RewardError", "the reward function 'accuracy' failed: ConnectionError: the judge is away"),
        ("short", "RewardInputError", "reward_funcs: 'accuracy' gave 1 rewards, expected"),
    ],
)
@pytest.mark.parametrize("stage", [False, True])
def test_a_reward_that_fails_on_one_process_ends_both(
    stage, fault, kind, message, trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path
):
    """With the state before the step saved by both, and no hang; in a stage, one judges without the other."""
    model = trainer_kit.save_model(tmp_path / "model", new_tiny_qwen2(), tiny_tokenizer)
    faults = {"FAILS": "1", "FAULT": fault, **({"IN_STAGE": "1"} if stage else {})}
    method, step = ("mrt", 1) if stage else ("attnpo", 2)
    code, said = launch(2, "one_of_two.py", method, model, tmp_path / "run", port=19500, **faults)
    assert code != 0
    assert message in said
    assert f"{kind}: process 1: step {step}" in said  # as the other one tells it
    assert len(list((tmp_path / "run" / f"checkpoint-{step - 1}").glob("attnpo_state-*.json"))) == 2
