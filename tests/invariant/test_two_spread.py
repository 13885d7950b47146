"""The complete trainer with FSDP2 (recipes/accelerate/fsdp2.yaml), on two CPU processes."""

from __future__ import annotations

import pytest

from spread import as_one_process, resumed_as_whole

METHODS = ("attnpo", "outcome", "first_correct")
"""The other methods sample in addition to the rollouts, in each process separately, and are refused there."""
HOW = {"port": 27500, "recipe": "fsdp2.yaml"}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_same_numbers_as_one_process(method, trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path, read_rollouts):
    network = trainer_kit.sharpen(new_tiny_qwen2())
    model = trainer_kit.save_model(tmp_path / "model", network, tiny_tokenizer)
    as_one_process(method, model, network.state_dict(), tmp_path, read_rollouts, **HOW)


@pytest.mark.slow
def test_sampled_saved_and_resumed(trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path, read_rollouts):
    model = trainer_kit.save_model(tmp_path / "model", new_tiny_qwen2(), tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl", 8)
    options = ("--credit", "outcome", "--learning_rate", "0.01", "--save_steps", "1", "--max_steps", "3")
    resumed_as_whole(lambda folder: trainer_kit.command(model, data, folder, *options), tmp_path, read_rollouts, **HOW)
