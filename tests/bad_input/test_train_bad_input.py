"""Wrong input of `attnpo train`: exit code 2, and a message that names the place and the problem."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnpo.data.problems import load_rows
from attnpo.errors import InputError


@pytest.fixture
def folder(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, monkeypatch) -> Path:
    """A working folder with a model and problems; what a test writes goes there too."""
    monkeypatch.chdir(tmp_path)
    trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    trainer_kit.write_problems(tmp_path / "problems.jsonl")
    return tmp_path


@pytest.fixture
def complaint(trainer_kit, folder, capsys, one_pool):
    """Run the command with further options; what it prints on standard error, one line, without a traceback."""
    from attnpo.cli.main import main

    def run(*more: str) -> str:
        argv = trainer_kit.command(folder / "model", folder / "problems.jsonl", folder / "run", *more)
        code = main(argv)
        error = capsys.readouterr().err
        assert code == 2, error
        assert error.startswith("attnpo train: ")
        assert "Traceback" not in error
        assert not (folder / "run" / "metrics.jsonl").exists()
        return error

    return run


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


YAML = {
    "- a\n- b\n": "must contain a YAML mapping",
    "a: [1\n": "not valid YAML.*line 1",
    "learning_rat: 1\n": "unknown option learning_rat in the YAML file; did you mean learning_rate",
    "learning_rate: fast\n": "option learning_rate: invalid float value: 'fast'",
    "max_steps: [1]\n": r"option max_steps: found \[1\], expected a whole number",
    "num_generations: 2.5\n": "option num_generations: found 2.5, expected a whole number",
    "max_steps: true\n": "option max_steps: found True, expected a whole number",
    "credit_positive: 3\n": "option credit_positive: found 3, expected true or false",
    "credit_positive: perhaps\n": "option credit_positive: .*perhaps",
    "learning_rate:\n": "option learning_rate: found None, expected a number",
    "output_dir: [runs]\n": r"option output_dir: found \['runs'\], expected a text",
    "reward_weights: 1.0\n": "option reward_weights: found 1.0, expected a list",
    "lr_scheduler_type: wavy\n": "option lr_scheduler_type: found 'wavy', expected one of linear",
    "credit: magic\n": "option credit: found 'magic', expected one of",
}


@pytest.mark.parametrize("text", YAML)
def test_yaml(text, complaint, folder):
    import re

    found = complaint("--config", write(folder, "run.yaml", text))
    assert re.search(YAML[text], found, re.DOTALL), found


def test_no_such_yaml(complaint):
    assert "option config: nope.yaml cannot be read" in complaint("--config", "nope.yaml")


LINE = {
    ("--learning_rat", "1"): "unknown option learning_rat on the command line; did you mean learning_rate?",
    ("--learning_rat", "1", "--num_generation", "4", "--model", "x"): "unknown option learning_rat, num_generation, "
    "model on the command line; did you mean learning_rate for learning_rat, num_generations for num_generation, "
    "model_init_kwargs or model_name_or_path or model_revision for model?",
    ("--max_steps", "many"): "option max_steps: invalid int value: 'many'",
    ("--credit_delta", "2"): "option credit_delta: found 2.0, expected a number in [0, 1]",
    ("--length_alpha", "1"): "option length_alpha: found 1.0",
    ("--num_generations", "1"): "num_generations: found 1, expected at least 2",
    ("--num_generations", "3"): "options per_device_train_batch_size × gradient_accumulation_steps: found 4 × 1 = 4",
    ("--generation_batch_size", "3"): "option generation_batch_size: found 3 responses sampled together, which must",
    ("--use_vllm", "true"): "option use_vllm: the package vllm is not installed",
    ("--report_to", "nobody"): "option report_to: found nobody, expected none or some of azure_ml",
    ("--report_to", "comet_ml"): "option report_to: comet_ml is not installed: pip install comet-ml, or",
    ("--attn_implementation", "magic"): '`attn_implementation="magic"` is not supported',
    ("--eval_strategy", "steps", "--eval_steps", "1"): "option eval_strategy: there are no held-out problems",
    ("--load_in_4bit", "true"): "option load_in_4bit: found true without use_peft; quantised weights cannot be trained",
    ("--load_in_8bit", "true", "--use_peft", "true"): "option load_in_8bit: the package bitsandbytes is not installed",
    ("--reward_funcs", "magic"): "option reward_funcs: found 'magic', expected accuracy, accuracy_reward,",
    ("--reward_funcs", "no_such:f"): "option reward_funcs: module 'no_such' of 'no_such:f' cannot be imported",
    ("--reward_funcs", "json:nothing"): "option reward_funcs: found nothing called 'nothing' in json",
    ("--reward_funcs", "accuracy", "accuracy"): "option reward_funcs: two functions are called 'accuracy'",
    ("--thinking", "no"): "option thinking: 'no' leaves credit='attnpo' no steps to distinguish",
    ("--thinking_format", "none"): "option thinking_format: 'none' has no thinking part and leaves credit='attnpo'",
    ("--task_difficulty", "x", "--dataset_name", "task"): "option task_difficulty: found 'x'",
    ("--resume_from_checkpoint", "true"): "option resume_from_checkpoint: no checkpoint in",
    ("--resume_from_checkpoint", "."): "option resume_from_checkpoint: . is not a checkpoint",
    ("--model_name_or_path", "./absent"): "option model_name_or_path: no folder ./absent",
    ("--model_name_or_path", "no/such-model"): "option model_name_or_path: no model or tokenizer 'no/such-model'",
    ("--heads", "absent.json"): "absent.json: cannot be read",
    ("--prompt_template", "Solve it"): "option prompt_template: found 'Solve it', expected a text containing {problem}",
    ("--max_prompt_length", "3"): "option max_prompt_length: all 4 prompts have more than 3 tokens",
    ("--dataset_name", "absent.jsonl"): "absent.jsonl: no such file",
    ("--dataset_name", "no/such-data"): "data set 'no/such-data' (split 'train') cannot be loaded",
    ("--dataset_name", "model/config.json", "--problem_column", "x"): "config.json, row 1",
    ("--problem_column", "text"): "no problem column; expected 'text', found problem, reference",
    ("--reference_column", "gold"): "no reference column; expected 'gold', found problem, reference",
    ("--correct_reward", "judge"): "option correct_reward: found 'judge', expected one of accuracy",
}  # fmt: skip


@pytest.mark.parametrize("more", LINE, ids=" ".join)
def test_command_line(more, complaint):
    assert LINE[more] in complaint(*more)


DATA = {
    "malformed row": ('{"problem": "a", "reference": "1"}\n{"problem":\n', "data.jsonl, row 2"),
    "no problem": ('{"text": "a", "reference": "1"}\n', "no problem column; expected 'problem' or 'question'"),
    "no reference": ('{"problem": "a"}\n', "no reference column"),
    "empty": ("", "data.jsonl: the file has no rows"),
    "number": (
        '{"problem": "a", "reference": "1"}\n{"problem": 5, "reference": "1"}\n',
        "data.jsonl, row 2: column 'problem' is 5, expected a text",
    ),
    "blank": ('{"problem": " ", "reference": "1"}\n', "row 1: column 'problem' is ' ', expected a text"),
    "no answer": (
        '{"problem": "a", "reference": "1"}\n{"problem": "a", "reference": null}\n',
        "row 2: column 'reference' is None, expected an answer",
    ),
    "unreadable": ('{"problem": "a", "reference": ""}\n', "no reference can be read by the verifier, e.g. ''"),
    "one problem": ('{"problem": "a", "reference": "1"}\n', "found 1 problems, expected at least 2"),
}


@pytest.mark.parametrize("name", DATA)
def test_data(name, complaint, folder):
    text, message = DATA[name]
    assert message in complaint("--dataset_name", write(folder, "data.jsonl", text))


def test_json_array(tmp_path):
    rows = [{"problem": "a", "reference": "1"}, {"problem": "b", "reference": "2"}]
    assert load_rows(write(tmp_path, "array.json", json.dumps(rows, indent=1))) == rows
    assert load_rows(write(tmp_path, "lines.json", "\n".join(map(json.dumps, rows)))) == rows
    assert load_rows(write(tmp_path, "one.json", json.dumps(rows[0]))) == rows[:1]
    with pytest.raises(InputError, match=r"mixed\.json, row 2: found a number, expected an object"):
        load_rows(write(tmp_path, "mixed.json", '[{"problem": "a"}, 3]'))
    with pytest.raises(InputError, match="found no rows"):
        load_rows(write(tmp_path, "empty.json", "[]"))


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".xlsx"])
def test_other_files(suffix, complaint, folder):
    assert f"data{suffix}" in complaint("--dataset_name", write(folder, f"data{suffix}", 'a,"b\n1,2\n3'))


def test_heads(complaint, folder):
    assert 'heads.json: field "heads" is 3' in complaint("--heads", write(folder, "heads.json", '{"heads": 3}'))
    assert "no layer 99" in complaint("--heads", write(folder, "heads.json", '{"heads": [[99, 0]]}'))
    assert "option heads_count: found 0, expected more than 0" in complaint("--heads_count", "0")
    assert "option heads_traces: found 15, expected at least 16" in complaint("--heads_traces", "15")


def test_no_chat_template(complaint, folder):
    file = folder / "model" / "chat_template.jinja"
    assert file.exists()
    file.unlink()
    assert "has no chat template; give --prompt_template" in complaint()


def test_no_weights(complaint, folder):
    (folder / "model" / "model.safetensors").unlink()
    assert "model.safetensors" in complaint()


def test_output_folder(complaint, folder):
    write(folder, "taken", "")
    assert "option output_dir: taken cannot be written to" in complaint("--output_dir", "taken")
    config = write(folder, "run.yaml", "output_dir: taken/below\n")
    assert "option output_dir: taken/below cannot be written to" in complaint(
        "--config", config, "--output_dir", "taken/below"
    )
    (folder / "old").mkdir()
    write(folder, "old/metrics.jsonl", '{"step": 1}\n')
    assert "old already contains a run" in complaint("--output_dir", "old")


def test_dropped_problems_are_counted(trainer_kit, folder, capsys, one_pool):
    from attnpo.cli.main import main

    rows = [{"problem": f"What is {i} + 1?", "reference": str(i + 1)} for i in range(3)]
    rows += [{"problem": "What?", "reference": ""}, {"problem": "What is it? " * 9, "reference": "1"}]
    data = folder / "mixed.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(trainer_kit.command(folder / "model", data, folder / "run", "--max_prompt_length", "60")) == 0
    assert "train: 3 problems (left out: 1 with a reference the verifier cannot read, 1 with a prompt of more" in (
        capsys.readouterr().out.replace("\n", " ")
    )
    environment = json.loads((folder / "run" / "environment.json").read_text())
    assert list(environment["problems"]["train"].values()) == [3, 1, 1]
