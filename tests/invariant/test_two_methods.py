"""`accelerate launch` with two CPU processes trains with every credit method as one process on the same global batch.

The methods that sample or repair beside the rollouts have modules of their own (test_two_{repairing,continuing}).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from processes import launch

METHODS = ("attnpo", "outcome", "first_correct", "mrt")
SAMPLED = ("completions/", "num_tokens")
"""What TRL counts of all that was sampled: two processes that replace groups sample rows for company (`resampling`)."""
ELSEWHERE = {"shape": "test_two_continuing", "iop": "test_two_repairing"}
COUNTED = ("extra/", "potential/", "segments/")
"""What a stage counts beside the rollouts: of sums two processes have the mean, and of means the mean of two."""


def test_no_method_is_forgotten():
    # In a process of its own: other tests register methods of theirs.
    code = "from attnpo.credit.base import credit_names; print(*credit_names())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {*METHODS, *ELSEWHERE} == set(found)


def numbers(folder: Path, *more: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    skipped = ("second", "step_time", *COUNTED, *more)
    return [{k: v for k, v in row.items() if not any(part in k for part in skipped)} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("method", [*METHODS, "resampled"])
def test_rewards_advantages_and_losses(method, trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path, read_rollouts):
    model = trainer_kit.save_model(tmp_path / "model", trainer_kit.sharpen(new_tiny_qwen2()), tiny_tokenizer)
    folders = [tmp_path / "1", tmp_path / "2"]
    for processes, folder in enumerate(folders, start=1):
        code, said = launch(processes, "one_of_two.py", method, model, folder, port=23500)
        assert code == 0, said[-3000:]
    more = SAMPLED if method == "resampled" else ()
    one, two = (numbers(folder, *more) for folder in folders)
    assert method != "resampled" or one[0]["groups/replaced"]
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == pytest.approx(value, abs=1e-5), name
    for a, b in zip(*(read_rollouts(folder, "train-000001") for folder in folders), strict=True):
        assert a["rewards"] == pytest.approx(b["rewards"], abs=1e-6)
        assert a["advantage"] == pytest.approx(b["advantage"], abs=1e-6)
        assert a["mean_token_advantage"] == pytest.approx(b["mean_token_advantage"], abs=1e-5)
    environments = [sorted(folder.glob("checkpoint-2/rng_state*")) for folder in folders]
    assert [len(found) for found in environments] == [1, 2]  # there really were two
    one, two = (torch.load(folder / "weights.pt") for folder in folders)
    start = trainer_kit.sharpen(new_tiny_qwen2()).state_dict()
    assert any(not torch.equal(weights, start[name]) for name, weights in one.items())
    for name, weights in one.items():
        torch.testing.assert_close(weights, two[name], atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


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
def test_a_reward_that_raises_on_one_process_ends_both(trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path):
    """With the state before the step saved by both, and no hang."""
    model = trainer_kit.save_model(tmp_path / "model", new_tiny_qwen2(), tiny_tokenizer)
    code, said = launch(2, "one_of_two.py", "attnpo", model, tmp_path / "run", port=19500, FAILS="1")
    assert code != 0
    assert "the reward function 'accuracy' failed: ConnectionError: the judge is away" in said
    assert "RewardError: process 1: step 2" in said  # as the other one tells it
    assert len(list((tmp_path / "run" / "checkpoint-1").glob("attnpo_state-*.json"))) == 2
