"""Custom reward functions in addition to ours, missing rewards, and their metrics."""

from __future__ import annotations

import json
from typing import Any

import pytest


def metrics(folder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def politeness(completions: list[Any], **kwargs: Any) -> list[float | None]:
    """Half a point for the word "which"; no opinion on wrong sums."""
    return [None if "{41}" in text else 0.5 * ("which" in text) for text in completions]


def test_verifier_and_a_reward_of_the_users(session_pool, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    from attnpo.rewards.accuracy import AccuracyReward

    kit = trainer_kit
    trainer = kit.make_trainer(
        tiny_qwen2,
        tiny_tokenizer,
        tmp_path,
        responses=kit.MIXED,
        reward=[politeness, AccuracyReward(session_pool)],
        reward_weights=[0.1, 2.0],
        length_reward="none",
        credit="outcome",
    )
    seen = kit.spy(trainer)
    trainer.train()
    (line,) = metrics(tmp_path)
    assert line["accuracy"] == 5 / 8
    assert {key: line[f"verdicts/{key}"] for key in ("right", "wrong", "no_answer", "unverifiable", "timed_out")} == {
        "right": 5,
        "wrong": 1,
        "no_answer": 2,
        "unverifiable": 0,
        "timed_out": 0,
    }
    # The second group: right 0.05 + 2, wrong 0 (no opinion), endless 0, silent 0.05.
    rewards = [2.05, 0.0, 0.0, 0.05]
    expected = [r - (sum(rewards) - r) / 3 for r in rewards]
    found = {tuple(key): row[0].item() for key, row in seen.rows().items()}
    prompt = tiny_tokenizer(kit.problems(2)["prompt"][1])["input_ids"]
    for response, advantage in zip(kit.MIXED[4:], expected, strict=True):
        assert found[tuple(prompt + response.ids(tiny_tokenizer))] == pytest.approx(advantage, abs=1e-6)
    assert line["groups/without_signal"] == 0.5  # in the first all are right and polite


def test_length_column_and_weights(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    kit = trainer_kit
    trainer = kit.make_trainer(
        tiny_qwen2, tiny_tokenizer, tmp_path, responses=kit.MIXED, reward=[kit.says_42], reward_weights=[3.0]
    )
    assert trainer.args.reward_weights == [3.0]  # as given: the same arguments may make another trainer
    assert trainer.reward_func_names == ["accuracy", "length"]
    assert trainer.reward_weights.tolist() == [3.0, 1.0]
    trainer.train()
    (line,) = metrics(tmp_path)
    assert line["reward"] == pytest.approx(3 * line["rewards/accuracy/mean"] + line["rewards/length/mean"])
    # One right response alone in its group has penalty α/2; wrong ones have none.
    assert -0.2 < line["rewards/length/mean"] < 0
    assert line["accuracy"] == 5 / 8


def test_correct_reward_names_the_judge(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    from attnpo.errors import InputError

    kit = trainer_kit

    def always(completions: list[Any], **kwargs: Any) -> list[float]:
        return [1.0] * len(completions)

    with pytest.raises(InputError, match=r"correct_reward: found 'judge', expected one of always, accuracy"):
        kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, reward=[always, kit.says_42], correct_reward="judge")
    shares = []
    for judge in (None, "always"):
        trainer = kit.make_trainer(
            tiny_qwen2,
            tiny_tokenizer,
            tmp_path / str(judge),
            responses=kit.MIXED,
            reward=[always, kit.says_42],
            correct_reward=judge,
        )
        trainer.train()
        shares.append(metrics(tmp_path / str(judge))[0]["accuracy"])
    assert shares == [5 / 8, 1.0]


def test_missing_rewards(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, read_rollouts):
    """A response that nobody could judge: advantage 0, out of its group's baseline, null in the records."""
    kit = trainer_kit

    def judge(completions: list[Any], **kwargs: Any) -> list[float | None]:
        return [
            None if "{41}" in text else right for text, right in zip(completions, kit.says_42(completions), strict=True)
        ]

    judge.__name__ = "accuracy"
    trainer = kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, responses=kit.MIXED, reward=judge)
    trainer.train()
    records = read_rollouts(tmp_path, "train-000001")
    wrong = next(r for r in records if "{41}" in r["text"])
    assert wrong["reward"] is None
    assert wrong["rewards"] == {}
    assert wrong["advantage"] == 0
    # The others of its group: one right (0.9) and two wrong among three judged.
    group = sorted(r["advantage"] for r in records if r["group"] == wrong["group"] and r is not wrong)
    assert group == pytest.approx([-0.45, -0.45, 0.9], abs=1e-6)
    assert [r["group_accuracy"] for r in records if r["group"] == wrong["group"]] == pytest.approx([1 / 3] * 4)
    (line,) = metrics(tmp_path)
    assert line["rewards/length/mean"] == pytest.approx(sum(r["rewards"].get("length", 0) for r in records) / 7)
    assert line["reward"] == pytest.approx(sum(r["reward"] or 0 for r in records) / 7)


def test_groups_without_signal_cost_nothing(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    kit = trainer_kit
    trainer = kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, responses=[kit.FALSE] * 4 + [kit.USUAL] * 4)
    seen = kit.spy(trainer)
    trainer.train()
    assert seen.losses == [0.0]
    assert all((gradient == 0).all() for gradient in seen.gradients[0].values())
    assert metrics(tmp_path)[0]["groups/without_signal"] == 1.0


def test_no_reward_function(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    from attnpo.errors import InputError

    with pytest.raises(InputError, match="reward_funcs: found none"):
        trainer_kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, reward=None)


@pytest.mark.parametrize(
    ("names", "judge", "guessed"),
    [
        (["format_reward", "accuracy_reward", "length"], "accuracy_reward", False),
        (["think_format_reward", "reasoning_accuracy_reward"], "reasoning_accuracy_reward", False),
        (["format", "accuracy_reward", "accuracy"], "accuracy", False),
        (["format", "is_correct"], "is_correct", False),
        (["politeness", "length"], "politeness", False),  # the only one besides the length term
        (["politeness", "cosine"], "politeness", True),
    ],
)
def test_reward_function_that_determines_accuracy(names, judge, guessed):
    from attnpo.training.rewards import find_judge

    assert find_judge(names, None) == (judge, guessed)
    assert find_judge(names, names[0]) == (names[0], False)


def graded(completions: list[Any], **kwargs: Any) -> list[float]:
    """0.6 for the right sum, 0.1 for anything else: never 1."""
    return [0.6 if "{42}" in text else 0.1 for text in completions]


def test_threshold_determines_what_is_right(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, capsys):
    kit = trainer_kit
    reward = [politeness, graded]
    options = {"responses": kit.MIXED, "reward": reward, "correct_reward": "graded", "length_reward": "none"}
    kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path / "a", **options).train()
    assert metrics(tmp_path / "a")[0]["accuracy"] == 0
    said = capsys.readouterr().err
    assert "right or wrong: graded, from 1 on" in said
    assert "graded gives 0.1 to 0.6, and only 1 is right: --correct_threshold" in said
    kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path / "b", **options, correct_threshold=0.5).train()
    assert metrics(tmp_path / "b")[0]["accuracy"] == 5 / 8
    assert "right or wrong: graded, from 0.5 on" in capsys.readouterr().err


def test_a_reward_above_one_needs_a_threshold(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    from attnpo.errors import InputError

    def points(completions: list[Any], **kwargs: Any) -> list[float]:
        return [2.0 if "{42}" in text else 1.0 for text in completions]

    kit = trainer_kit
    trainer = kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path / "a", responses=kit.MIXED, reward=points)
    message = "'points', which decides whether a response is right, gave 2; expected at most"
    with pytest.raises(InputError, match=message):
        trainer.train()
    changes = {"responses": kit.MIXED, "reward": points, "correct_threshold": 2.0}
    kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path / "b", **changes).train()
    assert metrics(tmp_path / "b")[0]["accuracy"] == 5 / 8


def test_values_of_a_trl_config_are_kept(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """Its values are kept; options at TRL's default get this package's default."""
    from transformers import TrainingArguments
    from trl import GRPOConfig

    from attnpo import AttnPOConfig, AttnPOTrainer
    from attnpo.errors import InputError

    kit = trainer_kit
    given = GRPOConfig(
        str(tmp_path), num_generations=4, max_steps=1, learning_rate=1e-3, epsilon=0.1, use_cpu=True, report_to="none"
    )
    trainer = AttnPOTrainer(tiny_qwen2, kit.says_42, given, kit.problems(16), None, tiny_tokenizer, heads=kit.HEADS)
    assert isinstance(trainer.args, AttnPOConfig)
    assert (trainer.args.learning_rate, trainer.args.epsilon, trainer.args.max_steps) == (1e-3, 0.1, 1)
    assert (trainer.args.advantage, trainer.args.scale_rewards, trainer.args.credit) == ("rloo", "none", "attnpo")
    assert trainer.args.gradient_accumulation_steps == 8  # 16 problems x 4, eight responses at a time
    other = TrainingArguments(str(tmp_path), use_cpu=True)
    with pytest.raises(InputError, match="args: found TrainingArguments, expected AttnPOConfig"):
        AttnPOTrainer(tiny_qwen2, kit.says_42, other, kit.problems(16), None, tiny_tokenizer)  # pyright: ignore
