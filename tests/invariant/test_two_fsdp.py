"""The whole trainer under FSDP2, on two CPU processes, beside one process with the same global batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from processes import launch

METHODS = ("attnpo", "outcome", "first_correct")
"""The others sample beside the rollouts, each process by itself, and are refused there."""


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if not any(part in k for part in ("second", "step_time"))} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_as_one_process(method, trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path, read_rollouts):
    """Rewards, scores, advantages, losses, gradient norms, and the weights in the checkpoint, which is a whole one."""
    model = trainer_kit.save_model(tmp_path / "model", trainer_kit.sharpen(new_tiny_qwen2()), tiny_tokenizer)
    folders = [tmp_path / "1", tmp_path / "2"]
    for processes, folder in enumerate(folders, start=1):
        recipe = "fsdp2.yaml" if processes == 2 else None
        code, said = launch(processes, "one_of_two.py", method, model, folder, port=27500, recipe=recipe)
        assert code == 0, said[-3000:]
    one, two = (metrics(folder) for folder in folders)
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == pytest.approx(value, abs=1e-5), name
    for a, b in zip(*(read_rollouts(folder, "train-000001") for folder in folders), strict=True):
        assert a["rewards"] == pytest.approx(b["rewards"], abs=1e-6)
        assert a["mean_token_advantage"] == pytest.approx(b["mean_token_advantage"], abs=1e-5)
        for x, y in zip(a["steps"], b["steps"], strict=True):
            assert x.keys() == y.keys()
            assert [x.get(name) for name in ("score", "scale")] == pytest.approx(
                [y.get(name) for name in ("score", "scale")], abs=1e-5
            )
    one, two = (load_file(folder / "checkpoint-2" / "model.safetensors") for folder in folders)
    start = trainer_kit.sharpen(new_tiny_qwen2()).state_dict()
    assert any(not torch.equal(weights, start[name]) for name, weights in one.items())
    head, embeddings = two.pop("lm_head.weight"), two["model.embed_tokens.weight"]
    torch.testing.assert_close(head, embeddings, atol=0, rtol=0)  # tied, and written twice: as FSDP's checkpoints are
    assert one.keys() == two.keys()
    for name, weights in one.items():
        torch.testing.assert_close(weights, two[name], atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_sampled_saved_and_resumed(trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path, read_rollouts):
    """`attnpo train`: really sampled responses; a run that went on from a checkpoint is the one that was left alone."""
    model = trainer_kit.save_model(tmp_path / "model", new_tiny_qwen2(), tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl", 8)
    options = ("--credit", "outcome", "--learning_rate", "0.01", "--save_steps", "1", "--max_steps", "3")

    def train(folder: Path, *more: str) -> str:
        argv = trainer_kit.command(model, data, folder, *options, *more)
        code, said = launch(2, "fsdp_on_cpus.py", *argv, port=27500, recipe="fsdp2.yaml")
        assert code == 0, said[-3000:]
        return said

    train(tmp_path / "whole")
    train(tmp_path / "parts")
    for step in (2, 3):  # as if it had ended behind its first step
        for file in (tmp_path / "parts" / f"checkpoint-{step}").iterdir():
            file.unlink()
        (tmp_path / "parts" / f"checkpoint-{step}").rmdir()
    train(tmp_path / "parts", "--resume_from_checkpoint", "auto")
    whole, parts = (metrics(tmp_path / name) for name in ("whole", "parts"))
    assert len(whole) == 3
    assert whole == parts
    assert read_rollouts(tmp_path / "whole", "train-000003") == read_rollouts(tmp_path / "parts", "train-000003")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], two[name]) for name in one)
