"""`attnpo train` with custom reward functions, system prompt and models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attnpo.errors import InputError
from attnpo.training.rewards import load_rewards, with_columns

MODULE = '''
import json

def short(completions, level, **kwargs):
    """Half a point for a short response to an easy problem; what it was given is written down."""
    with open("seen.json", "w") as file:
        json.dump({"level": level, "columns": sorted(kwargs), "prompt": kwargs["prompts"][0]}, file)
    return [0.5 * (number == 1) for number in level]
'''


@pytest.fixture
def train(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, one_pool, capfd, monkeypatch):
    from attnpo.cli.main import main

    monkeypatch.chdir(tmp_path)
    trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    rows = [{"problem": f"What is {i} + 1?", "reference": str(i + 1), "level": i % 2, "solution": ""} for i in range(4)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*more: str) -> tuple[int, str, str]:
        capfd.readouterr()
        argv = trainer_kit.command(tmp_path / "model", tmp_path / "problems.jsonl", tmp_path / "run", *more)
        code = main(argv)
        return code, *capfd.readouterr()

    return run


def test_custom_rewards_get_the_columns_of_the_row(train, tmp_path):
    (tmp_path / "my_rewards.py").write_text(MODULE)
    more = ("--reward_funcs", "my_rewards:short", "accuracy", "think_format_reward", "--reward_weights", "2", "1", "0")
    code, out, err = train(*more, "--system_prompt", r"Be brief.\nThink.")
    assert code == 0, err
    assert "right or wrong: accuracy, from 1 on" in out
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert sorted(set(seen["level"])) == [0, 1]
    assert {"reference", "solution", "id", "completion_ids"} <= set(seen["columns"])
    assert seen["prompt"][0] == {"role": "system", "content": "Be brief.\nThink."}
    assert seen["prompt"][1]["role"] == "user"
    (line,) = [json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert line["rewards/short/mean"] == 0.25
    assert line["reward"] == pytest.approx(0.5 + line["rewards/length/mean"], abs=1e-6)


def test_a_model_that_does_not_think(train, tmp_path, session_pool):
    """The whole response is the answer, and nobody misses a mark."""
    from attnpo.rewards.accuracy import WHOLE, AccuracyReward

    reward = AccuracyReward(session_pool)
    texts: Any = ["The sum is \\boxed{42}.", "The sum is \\boxed{41}."]
    sampled: Any = {"completions": texts, "completion_ids": [[1], [2]], "reference": ["42", "42"]}
    assert reward(**sampled) == [0.0, 0.0]
    reward = AccuracyReward(session_pool, form=WHOLE)
    assert reward(**sampled) == [1.0, 0.0]
    code, out, err = train("--thinking", "no", "--credit", "outcome", "--max_completion_length", "40")
    assert code == 0, err
    assert "closing their thinking" not in out


def test_further_columns_of_rows():
    rows = [{"question": "a", "answer": "1", "level": 1, "prompt": "x"}, {"question": "b", "answer": "2", "level": 2}]
    problems = [{"id": "1", "problem": "a", "reference": "1"}, {"id": "2", "problem": "b", "reference": "2"}]
    found = with_columns(problems, rows)
    assert found[1] == {"question": "b", "answer": "2", "level": 2, "id": "2", "problem": "b", "reference": "2"}
    assert with_columns(problems[:1], rows) == problems[:1]


def test_functions_of_trl_are_known_by_name():
    from trl.rewards import accuracy_reward

    ours: Any = object()
    assert load_rewards(["accuracy_reward"], ours) == [accuracy_reward]
    with pytest.raises(InputError, match="expected accuracy, accuracy_reward, reasoning_accuracy_reward"):
        load_rewards(["format"], ours)


def test_a_quantised_model_is_loaded_as_trl_does(monkeypatch):
    from attnpo.training import options

    words = ["--use_cpu", "true", "--output_dir", "x", "--report_to", "none", "--load_in_4bit", "true"]
    with pytest.raises(InputError, match=r"option load_in_4bit: .* Add --use_peft true"):
        options.parse(words)
    with pytest.raises(InputError, match="pip install bitsandbytes, on a machine with an NVIDIA GPU"):
        options.parse([*words, "--use_peft", "true"])
    monkeypatch.setattr(options, "is_bitsandbytes_available", lambda: True)
    _, _, model = options.parse([*words, "--use_peft", "true", "--dtype", "bfloat16"])
    assert options.model_kwargs(model)["quantization_config"].load_in_4bit


def test_overlapping_sets_give_a_warning(tmp_path):
    from datasets import Dataset

    from attnpo.evaluation.contamination import seen_in_training
    from attnpo.training.problems import overlap_warnings

    long = "A train leaves the town at nine in the morning and reaches the next one after {} hours, how far is it"
    training = ["What is 1 + 1?", long.format(3), "Another problem altogether."]
    held_out = ["what is 1 + 1", long.format(7), "Something new."]
    assert seen_in_training(training, held_out) == {"same": 1, "numbers": 1}
    sets: Any = {"train": Dataset.from_dict({"problem": training}), "eval": Dataset.from_dict({"problem": held_out})}
    (said,) = overlap_warnings(sets)
    assert said.startswith("held-out problems that are also in the training set: 1 word for word of 3.")
    assert overlap_warnings({"train": sets["train"], "eval": None}) == []
    assert overlap_warnings({"train": sets["train"], "eval": Dataset.from_dict({"problem": ["New."]})}) == []


def test_progress_of_an_evaluation_without_a_terminal(monkeypatch):
    import io

    from rich.console import Console
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from attnpo.training import callbacks

    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    for terminal, expected in ((False, "evaluating: 5 of 8 batches\n"), (True, "evaluating")):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        live, args = callbacks.LiveProgress(console), TrainingArguments(use_cpu=True)
        state, control = TrainerState(is_world_process_zero=True), TrainerControl()
        for _ in range(8):
            live.on_prediction_step(args, state, control, eval_dataloader=[0] * 8)
            now[0] += 10
        live.on_evaluate(args, state, control)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert text == expected if not terminal else expected in text
        live.close()
