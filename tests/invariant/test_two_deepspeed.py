"""The complete trainer with DeepSpeed (recipes/accelerate/zero2.yaml, zero3.yaml), on two CPU processes.

DeepSpeed is installed into a separate environment, because transformers and Accelerate import it if it is present.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from processes import launch, python_with
from spread import as_one_process, resumed_as_whole


@pytest.fixture(scope="module")
def how(tmp_path_factory) -> dict[str, Any]:
    python = python_with(["deepspeed==0.19.8"], tmp_path_factory.mktemp("deepspeed") / "venv")
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"  # its ninja
    return {"port": 29500, "python": python, "DS_ACCELERATOR": "cpu", "PATH": path}


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "method"), [("zero2", "attnpo"), ("zero3", "attnpo"), ("zero3", "outcome")])
def test_same_numbers_as_one_process(
    recipe, method, how, trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path, read_rollouts
):
    network = trainer_kit.sharpen(new_tiny_qwen2())
    model = trainer_kit.save_model(tmp_path / "model", network, tiny_tokenizer)
    as_one_process(method, model, network.state_dict(), tmp_path, read_rollouts, recipe=f"{recipe}.yaml", **how)
    assert list((tmp_path / "2" / "checkpoint-2").glob("global_step2/*zero_pp_rank_1*"))  # DeepSpeed's own, of both


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["zero2", "zero3"])
def test_a_loss_that_is_not_finite_ends_the_run_at_once(
    recipe, how, trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path
):
    """Started as documented, which leaves `args.deepspeed` unset. One of the two processes has the loss."""
    model = trainer_kit.save_model(tmp_path / "model", new_tiny_qwen2(), tiny_tokenizer)
    run = tmp_path / "run"
    code, said = launch(2, "one_of_two.py", "outcome", model, run, recipe=f"{recipe}.yaml", NOT_FINITE="1", **how)
    assert code != 0
    assert f"NotFiniteError: step 2: the loss is nan. {run} has no complete checkpoint" in said
    assert "NotFiniteError: step 2: the loss of another process is not finite." in said
    assert "is skipped" not in said


@pytest.mark.slow
def test_sampled_saved_and_resumed(how, trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path, read_rollouts):
    model = trainer_kit.save_model(tmp_path / "model", new_tiny_qwen2(), tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl", 8)
    options = ("--credit", "outcome", "--learning_rate", "0.01", "--save_steps", "1", "--max_steps", "3")
    resumed_as_whole(
        lambda folder: trainer_kit.command(model, data, folder, *options),
        tmp_path,
        read_rollouts,
        recipe="zero3.yaml",
        **how,
    )
