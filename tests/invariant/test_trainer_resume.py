"""A resumed run equals the uninterrupted one in every number, and evaluating does not change training."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k and k != "step_time"} for row in rows]


def rollouts(folder: Path) -> dict[str, str]:
    return {file.name: gzip.decompress(file.read_bytes()).decode() for file in (folder / "rollouts").glob("train-*")}


@pytest.fixture
def run(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """Train really sampled responses, rewarded for e's, to some step; the folder and the weights."""

    def reward(completions: list[Any], **kwargs: Any) -> list[float]:
        return [float("e" in text) for text in completions]

    at = trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)

    def train(name: str, steps: int, resume: str | bool | None = None, **changes: Any):
        trainer = trainer_kit.make_trainer(
            str(at),  # and not the model itself: a reference model is loaded from there
            tiny_tokenizer,
            tmp_path / name,
            reward=reward,
            data=trainer_kit.problems(6),
            eval_data=trainer_kit.problems(3),
            max_completion_length=24,
            **{"save_strategy": "steps", "save_steps": 2, "shuffle_dataset": True, "max_steps": 4, **changes},
        )
        if steps < trainer.args.max_steps:  # stopped, not finished: the schedule is that of all steps
            from transformers import TrainerCallback

            class Stop(TrainerCallback):
                def on_step_end(self, args, state, control, **kwargs):
                    control.should_training_stop = state.global_step >= steps

            trainer.add_callback(Stop())
        trainer.train(resume_from_checkpoint=resume)
        return tmp_path / name, trainer.model.state_dict()

    return train


def assert_equal_runs(one, other) -> None:
    assert lines(one[0]) == lines(other[0])
    assert rollouts(one[0]) == rollouts(other[0])
    for name, weights in one[1].items():
        assert torch.equal(weights, other[1][name]), name


def test_resuming_with_another_micro_batch_size(run, tmp_path):
    """An update of as many responses: the next generation begins where it would have begun."""
    sizes = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    whole = run("whole", 4, **sizes)
    run("parts", 3, save_steps=1, **sizes)
    half = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    parts = run("parts", 4, resume=str(tmp_path / "parts" / "checkpoint-3"), **half)
    for name in ("train-000003.jsonl.gz", "train-000004.jsonl.gz"):
        assert rollouts(parts[0])[name].count("\n") == rollouts(whole[0])[name].count("\n") == 16
    last = lines(parts[0])[-1]
    assert last["steps/per_response"] == lines(whole[0])[-1]["steps/per_response"]
    assert last["groups/without_signal"] == lines(whole[0])[-1]["groups/without_signal"]


def test_resumed_run_equals_the_uninterrupted_one(run, tmp_path):
    whole = run("whole", 4, lr_scheduler_type="linear")
    # Three steps, of which the last is lost with its line and its rollouts; resumed from the second.
    run("parts", 3, lr_scheduler_type="linear")
    assert [row["step"] for row in lines(tmp_path / "parts")] == [1, 2, 3]
    parts = run("parts", 4, resume=str(tmp_path / "parts" / "checkpoint-2"), lr_scheduler_type="linear")
    assert [row["step"] for row in lines(parts[0])] == [1, 2, 3, 4]
    assert sorted(rollouts(parts[0])) == [f"train-{step:06d}.jsonl.gz" for step in (1, 2, 3, 4)]
    # Responses really are sampled and rewarded: otherwise equality would be easy.
    assert len({row["reward"] for row in lines(whole[0])}) > 1
    assert_equal_runs(whole, parts)


HALF_USED: dict[str, dict[str, Any]] = {
    "two updates on the same responses": {"num_iterations": 2},
    "four updates on parts of one generation": {"steps_per_generation": 4, "per_device_train_batch_size": 4},
    "both": {"num_iterations": 2, "steps_per_generation": 2, "per_device_train_batch_size": 4},
    "an update on one generation and a half": {
        "steps_per_generation": 2,
        "gradient_accumulation_steps": 3,
        "per_device_train_batch_size": 4,
    },
    "steps that are not logged": {"logging_steps": 3, "num_iterations": 2, "max_steps": 6},
    "steps that are not logged, on-policy": {"logging_steps": 3, "max_steps": 6},
    "later epochs": {"max_steps": 7, "logging_steps": 2},
    "a length reward that remembers": {
        "length_reward": "laser_d",
        "length_kwargs": {"low": 4, "interval": 4, "update_every": 1},
        "num_iterations": 2,
    },
    "a reference that follows": {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1, "num_iterations": 2},
    "a table of completions": {"log_completions": True, "num_iterations": 2},
    "another credit method": {"credit": "outcome", "advantage": "grpo", "num_iterations": 2},
}


@pytest.mark.parametrize("case", HALF_USED)
def test_resumed_inside_a_generation(case, run, tmp_path):
    """Resume from every checkpoint: the state between two steps of a generation is restored."""
    options = {"save_steps": 1, "learning_rate": 0.05, **HALF_USED[case]}
    steps = options.get("max_steps", 4)
    whole = run("whole", steps, **options)
    assert any(row["loss"] for row in lines(whole[0]))
    for step in range(1, steps):
        parts = tmp_path / "parts"
        shutil.copytree(whole[0], parts)
        for later in range(step + 1, steps + 1):
            shutil.rmtree(parts / f"checkpoint-{later}")
        assert_equal_runs(whole, run("parts", steps, resume=True, **options))
        shutil.rmtree(parts)


@pytest.mark.parametrize("share", [True, False])
def test_resumed_run_with_continuations_equals_the_uninterrupted_one(run, tmp_path, share):
    """A stage that samples draws from the same random numbers as the rollouts."""
    kwargs = {"segments": 3, "rollouts": 2, "rollout_tokens": 4, "closing": "", "share_prefixes": share}
    options: dict[str, Any] = {"credit": "shape", "credit_kwargs": kwargs}
    whole = run("whole", 4, **options)
    run("parts", 3, **options)
    parts = run("parts", 4, resume=str(tmp_path / "parts" / "checkpoint-2"), **options)
    assert all(row["extra/rollout_tokens"] > 0 for row in lines(whole[0]))
    assert_equal_runs(whole, parts)


def test_a_static_cache_changes_nothing(run):
    """On a CPU `compile_rollouts` is that alone."""
    assert_equal_runs(run("grows", 4), run("static", 4, compile_rollouts=True))


def test_evaluating_changes_nothing(run):
    quiet = run("quiet", 4)
    busy = run("busy", 4, eval_strategy="steps", eval_steps=1)
    assert_equal_runs(quiet, busy)
    evaluations = [json.loads(line) for line in (busy[0] / "evaluations.jsonl").read_text().splitlines()]
    assert [row["step"] for row in evaluations] == [1, 2, 3, 4]
    assert all(row["n"] == 3 for row in evaluations)


def test_evaluations_are_the_same_for_the_same_weights(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    trainer = trainer_kit.make_trainer(
        tiny_qwen2, tiny_tokenizer, tmp_path, eval_data=trainer_kit.problems(3), max_completion_length=16
    )
    trainer.evaluate()
    torch.rand(7)  # training continues in between
    trainer.evaluate()
    first, second = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    first.pop("seconds"), second.pop("seconds")
    assert first == second
