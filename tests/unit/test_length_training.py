"""Every length reward with the real trainer, on a tiny model: rewards, metrics and checkpoints."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from attnpo.errors import InputError
from attnpo.rewards.length import length_reward_names

# The right canned responses SHORT, USUAL and LONG have 187, 276 and 366 tokens.
OPTIONS: dict[str, dict[str, Any]] = {
    "kimi": {"weight": 0.5, "warmup_steps": 1},
    "l1_exact": {"low": 300, "high": 400},
    "l1_max": {"low": 300, "high": 400},
    "laser": {"target": 300},
    "laser_d": {"low": 200, "interval": 50, "update_every": 1},
    "thinkprune": {"limits": [300, 200], "steps": 1},
    "overlong": {"cache": 300},
}
OWN_METRICS = {
    "kimi": {"length_reward/weight": [0.0, 0.5]},
    "thinkprune": {"length_reward/limit": [300.0, 200.0]},
    "laser_d": {f"length_reward/target_{difficulty}": None for difficulty in ("easy", "medium", "hard")},
}


def lines(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("seconds") and k != "step_time"} for row in rows]


def settings(name: str) -> dict[str, Any]:
    return {
        "length_reward": name,
        "length_kwargs": OPTIONS.get(name),
        "max_completion_length": 512,
        "credit": "outcome",
    }


@pytest.mark.parametrize("name", length_reward_names())
def test_two_steps(name, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, read_rollouts):
    kit = trainer_kit
    trainer = kit.make_trainer(
        tiny_qwen2,
        tiny_tokenizer,
        tmp_path,
        responses=kit.MIXED,
        data=kit.problems(8, target_length=350),
        max_steps=2,
        **settings(name),
    )
    trainer.train()
    rows = lines(tmp_path)
    assert [row["step"] for row in rows] == [1, 2]
    for step, row in enumerate(rows, start=1):
        records = read_rollouts(tmp_path, f"train-{step:06d}")
        assert len(records) == 8
        terms = [record["rewards"].get("length", 0.0) for record in records]
        if name != "none":
            assert row["rewards/length/mean"] == pytest.approx(sum(terms) / 8, abs=1e-6)
            assert any(terms) or (name, step) == ("kimi", 1)  # warming up
        for record, extra in zip(records, terms, strict=True):
            assert record["reward"] == pytest.approx(record["correct"] + extra, abs=1e-6)
        for metric, expected in OWN_METRICS.get(name, {}).items():
            assert row[metric] == expected[step - 1] if expected else 200 <= row[metric] <= 512
        if name.startswith("l1"):
            assert row["length/target"] == 350
            off = [abs(record["tokens"]["completion"] - 350) for record in records]
            assert row["length/off_target"] == pytest.approx(sum(off) / 8)
            assert {record["target_length"] for record in records} == {350}


def test_l1_by_hand(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, read_rollouts):
    """Every problem's own target, also where the responses are shuffled between generation and loss."""
    kit = trainer_kit
    targets = {f"p{i}": 100 + 10 * i for i in range(8)}
    data = kit.problems(8).map(lambda row: {"target_length": targets[row["id"]]})
    trainer = kit.make_trainer(
        tiny_qwen2, tiny_tokenizer, tmp_path, responses=kit.MIXED, data=data, eval_data=data, **settings("l1_exact")
    )
    trainer.train()
    for record in read_rollouts(tmp_path, "train-000001"):
        off = abs(targets[record["id"]] - record["tokens"]["completion"])
        assert record["rewards"]["length"] == pytest.approx(-0.0003 * off, abs=1e-6)
    trainer.evaluate()
    evaluation = json.loads((tmp_path / "evaluations.jsonl").read_text())
    assert evaluation["length/target"] == 135
    assert all(record["rewards"]["length"] == 0 for record in read_rollouts(tmp_path, "eval-000001"))


def test_l1_needs_the_target_column(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    trainer = trainer_kit.make_trainer(
        tiny_qwen2, tiny_tokenizer, tmp_path, responses=trainer_kit.MIXED, **settings("l1_max")
    )
    with pytest.raises(InputError, match=r"train_dataset: no column 'target_length' .* length_reward='l1_max' needs"):
        trainer.train()


def test_laser_d_is_resumed(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """Three steps at once, and one after a checkpoint of the second: the same targets, the same rewards.

    The targets of the third step are of the responses since the first; half are in the checkpoint, long ones.
    """
    kit = trainer_kit
    options = {**settings("laser_d"), "length_kwargs": {"low": 150, "interval": 20, "update_every": 2}}

    def run(folder: str, steps: int, responses: list[Any], resume: str | None = None) -> list[dict[str, Any]]:
        trainer = kit.make_trainer(
            copy.deepcopy(tiny_qwen2),
            tiny_tokenizer,
            tmp_path / folder,
            responses=responses,
            max_steps=steps,
            save_strategy="steps",
            save_steps=2,
            lr_scheduler_type="constant",
            **options,
        )
        trainer.train(resume_from_checkpoint=resume)
        return lines(tmp_path / folder)

    batches = [kit.MIXED, [kit.LONG, kit.LONG, kit.LONG, kit.USUAL] * 2, kit.MIXED]
    whole = run("whole", 3, [response for batch in batches for response in batch])
    run("parts", 2, [*batches[0], *batches[1]])
    checkpoint = tmp_path / "parts" / "checkpoint-2"
    kept = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]["attnpo_length_reward"]
    assert kept["next_update"] == 3
    parts = run("parts", 3, batches[2], resume=str(checkpoint))
    keys = [key for key in whole[-1] if key.startswith("length_reward/") or "reward" in key]
    assert "length_reward/target_easy" in keys
    assert [{key: row[key] for key in keys} for row in parts] == [{key: row[key] for key in keys} for row in whole]
    assert [row["length_reward/target_easy"] for row in whole] == [190, 190, 370]
