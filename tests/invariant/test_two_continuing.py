"""Two processes that continue different numbers of prefixes train with SHAPE as one process does."""

from __future__ import annotations

import json

import pytest
import torch

from processes import run_processes
from spread import same_weights


@pytest.mark.slow
def test_same_weights_and_numbers(trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path):
    model = trainer_kit.save_model(tmp_path / "model", new_tiny_qwen2(), tiny_tokenizer)
    folders = [tmp_path / "1", tmp_path / "2"]
    for processes, folder in enumerate(folders, start=1):
        run_processes(processes, "one_of_two.py", "shape", model, folder, port=27500)
    one, two = (torch.load(folder / "weights.pt") for folder in folders)
    same_weights(one, two, new_tiny_qwen2().state_dict())
    first, second = (json.loads((folder / "metrics.jsonl").read_text("utf-8").splitlines()[0]) for folder in folders)
    assert first["loss"] == pytest.approx(second["loss"], abs=1e-6)
    # The sum of one process is twice the mean of two.
    assert first["extra/rollout_tokens"] == 2 * second["extra/rollout_tokens"]
