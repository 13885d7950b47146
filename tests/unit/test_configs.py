"""Every shipped configuration is understood, and a run's own is the configuration that made it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = sorted((REPOSITORY / "configs").rglob("*.yaml"))
# What a machine without an accelerator (or without vLLM) must change, and nothing else.
HERE = ["--use_cpu", "true", "--bf16", "false", "--use_vllm", "false"]


def test_configurations_are_found():
    assert {file.stem for file in CONFIGS} >= {"demo", "deepseek-r1-distill-qwen-1.5b", "grpo", "laser_d"}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_parses(file, monkeypatch):
    from attnpo.training.options import parse

    monkeypatch.chdir(REPOSITORY)
    given = yaml.safe_load(file.read_text())
    data, args, model_config = parse(["--config", str(file), *HERE])
    options = {**asdict(data), **args.to_dict(), **asdict(model_config)}
    for name, value in given.items():
        if f"--{name}" not in HERE:
            assert options[name] == ([] if (name, value) == ("report_to", "none") else value), name


# Recipe of configs/methods -> advantage, length reward with its options, loss, the upper clip.
OUTCOME_METHODS: dict[str, tuple[str, str, dict[str, Any], str, float | None]] = {
    "rloo": ("rloo", "none", {}, "dapo", None),
    "grpo": ("grpo", "none", {}, "grpo", None),
    "dr_grpo": ("dr_grpo", "none", {}, "dr_grpo", None),
    "dapo": ("grpo", "overlong", {"max_length": 20480, "cache": 4096}, "dapo", 0.28),
    "overlong": ("grpo", "overlong", {"max_length": 20480, "cache": 4096}, "dapo", None),
    "tlmre": ("rloo", "tlmre", {"alpha": 0.2}, "dapo", None),
    "kimi": ("rloo", "kimi", {"weight": 0.4, "warmup_steps": 100}, "dapo", None),
    "l1_exact": ("grpo", "l1_exact", {"alpha": 0.0003, "low": 100, "high": 4000}, "grpo", None),
    "l1_max": ("grpo", "l1_max", {"alpha": 0.0003, "low": 100, "high": 4000, "delta": 0.5}, "grpo", None),
    "laser": ("grpo", "laser", {"alpha": 0.5, "target": 8192}, "grpo", 0.28),
    "laser_d": ("grpo", "laser_d", {"low": 4096, "interval": 1024, "update_every": 20}, "grpo", 0.28),
    "thinkprune": ("grpo", "thinkprune", {"limits": [4000, 3000, 2000], "steps": 180}, "grpo", None),
    "shorterbetter": ("grpo", "shorterbetter", {"alpha": 2.0, "beta": 0.001}, "grpo", None),
}


def test_every_length_reward_has_a_recipe():
    from attnpo.rewards.length import length_reward_names

    assert set(length_reward_names()) - {"none"} <= set(OUTCOME_METHODS)
    assert set(OUTCOME_METHODS) <= {file.stem for file in (REPOSITORY / "configs" / "methods").glob("*.yaml")}


@pytest.mark.parametrize("name", OUTCOME_METHODS)
def test_recipe_of_a_method(name, monkeypatch):
    from attnpo.rewards.length import get_length_reward
    from attnpo.training.options import parse

    monkeypatch.chdir(REPOSITORY)
    advantage, length, options, loss, epsilon_high = OUTCOME_METHODS[name]
    file = f"configs/methods/{name}.yaml"
    data, args, _ = parse(["--config", file, *HERE])
    assert (args.advantage, args.credit, args.loss_type, args.epsilon_high) == (
        advantage,
        "outcome",
        loss,
        epsilon_high,
    )
    assert args.make_length_reward() == get_length_reward(length, **options)
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps * 8 == 128 * args.num_generations
    assert args.vllm_max_model_length >= data.max_prompt_length + args.max_completion_length
    first, second, third = Path(file).read_text().splitlines()[:3]
    assert "arXiv" in first
    assert second.startswith("# Differs: ")
    assert not third.startswith("#")


def test_recipe_of_the_paper(monkeypatch, repository):
    """ATTNPO's 1.5B setting: everything that can be built without weights or eight GPUs is built."""
    from transformers import Qwen2Config

    from attnpo.attention.heads import check_heads, load_heads
    from attnpo.credit.attnpo import AttnPOCredit
    from attnpo.rewards.accuracy import AccuracyReward
    from attnpo.rewards.pool import VerifierPool
    from attnpo.training.options import parse
    from attnpo.training.rewards import RewardSetup

    monkeypatch.chdir(repository)
    data, args, model_config = parse(["--config", "configs/deepseek-r1-distill-qwen-1.5b.yaml", *HERE])
    credit = args.make_credit()
    assert credit == AttnPOCredit(beta=2, lam=2, delta=0, delay=1000, positive=True, negative=True, difficulty=True)
    assert (args.advantage, args.length_reward, args.length_alpha) == ("rloo", "tlmre", 0.2)
    assert (args.learning_rate, args.epsilon, args.epsilon_high, args.beta) == (2e-6, 0.2, None, 0.0)
    assert (args.loss_type, args.scale_rewards, args.temperature, args.entropy_coef) == ("dapo", "none", 1.0, 0.0)
    assert (data.max_prompt_length, args.max_completion_length) == (1024, 16384)
    assert args.vllm_max_model_length >= 1024 + 16384
    # 128 prompts × 8 responses, on-policy, on eight processes; here there is one.
    processes = 8
    responses = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    assert responses == 1024
    assert args.num_generations == 8
    assert args.steps_per_generation == args.gradient_accumulation_steps
    assert args.num_iterations == 1
    # The shape of DeepSeek-R1-Distill-Qwen-1.5B.
    shape = Qwen2Config(hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2)
    heads = load_heads(args.heads)
    assert heads == [(16, 2), (20, 9), (23, 2)]
    check_heads(shape, heads)
    pool = VerifierPool(1, timeout=args.verifier_timeout)
    try:
        setup = RewardSetup.build([AccuracyReward(pool)], args)
        setup.bind(["accuracy", "length"], tokenizer=None)
    finally:
        pool.close()
    assert setup.correct_column == 0
    assert data.prompt_template is not None
    assert "{problem}" in data.prompt_template
    assert model_config.model_name_or_path == "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"


@pytest.fixture
def finished_run(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, one_pool):
    """`attnpo train` with these further options; its run folder."""
    from attnpo.cli.main import main

    trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl")

    def run(*more: str) -> Path:
        assert main(trainer_kit.command(tmp_path / "model", data, tmp_path / "run", *more)) == 0
        return tmp_path / "run"

    return run


# Options that resist being written down and read back: lists, nested values, null where the default is not null,
# what TRL derives or forbids together, values YAML has opinions about. (In a file, on the command line.)
VARIED: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"max_prompt_length": None}, ["--gradient_accumulation_steps", "2", "--learning_rate", "2e-6"]),
    ({}, ["--steps_per_generation", "2", "--num_iterations", "2", "--gradient_checkpointing", "false"]),
    ({"length_reward": "none", "reward_weights": [2]}, ["--advantage", "grpo", "--credit", "outcome"]),
    ({"save_strategy": False, "task_difficulty": 2}, ["--optim_args", "a=1", "--generation_kwargs", '{"top_k": 5}']),
    ({"length_reward": "thinkprune", "length_kwargs": {"limits": [300, 200]}}, ["--max_completion_length", "400"]),
    (
        {"length_reward": "l1_max", "length_eval_target": 9},
        ["--length_kwargs", '{"low": 9, "high": 99}', "--length_alpha", "0"],
    ),
    ({"eval_dataset_name": "x.jsonl"}, ["--eval_strategy", "steps", "--eval_steps", "1", "--dtype", "auto"]),
]


def comparable(parsed: tuple[Any, ...]) -> dict[str, Any]:
    data, args, model_config = parsed
    return {**asdict(data), **args.to_dict(), **asdict(model_config)}


@pytest.mark.parametrize(("in_file", "on_line"), VARIED, ids=range(len(VARIED)))
def test_configuration_round_trips(in_file, on_line, tmp_path):
    from attnpo.training.options import parse, resolved_options

    config = {"use_cpu": True, "output_dir": str(tmp_path), "report_to": "none", **in_file}
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(config))
    parsed = parse(["--config", str(tmp_path / "given.yaml"), *on_line])
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(resolved_options(*parsed)))
    assert comparable(parse(["--config", str(tmp_path / "again.yaml")])) == comparable(parsed)


def test_configuration_of_a_run_can_be_used_and_changed(finished_run, tmp_path):
    from attnpo.training.options import parse

    folder = finished_run("--reward_weights", "2.0", "--max_prompt_length", "500", "--per_device_eval_batch_size", "2")
    text = (folder / "config.yaml").read_text()
    data, args, _ = again = parse(["--config", str(folder / "config.yaml")])
    assert args.reward_weights == [2.0]
    assert args.heads is None  # not recorded, since they are those next to the model: another model has its own
    assert data.dataset_name == str(tmp_path / "problems.jsonl")
    from attnpo.training.options import resolved_options

    assert resolved_options(*again) == yaml.safe_load(text)
    # What follows from other options does not outlive their change.
    changes = {"advantage": "grpo", "gradient_checkpointing": "false", "gradient_accumulation_steps": "3"}
    words = [word for name, value in changes.items() for word in (f"--{name}", value)]
    _, args, model_config = parse(["--config", str(folder / "config.yaml"), *words, "--dtype", "bfloat16"])
    assert args.scale_rewards == "group"
    assert not args.gradient_checkpointing
    assert args.steps_per_generation == 3
    assert model_config.dtype == "bfloat16"
    assert args.model_init_kwargs is None
    assert "overwrite_run" not in text


def test_description_of_a_run(finished_run, tmp_path):
    import platform
    import sys

    import torch

    from attnpo import __version__

    folder = finished_run("--seed", "7")
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["command"].startswith("attnpo train --model_name_or_path ")
    assert environment["command"].endswith("--seed 7")
    assert environment["versions"]["attnpo"] == __version__
    assert environment["versions"]["torch"] == torch.__version__
    assert {"transformers", "trl", "accelerate", "datasets", "math-verify"} <= set(environment["versions"])
    assert environment["python"] == platform.python_version() == sys.version.split()[0]
    assert environment["seed"] == 7
    assert environment["processes"] == 1
    assert environment["problems"]["train"]["problems"] == 4
    assert json.loads((folder / "heads.json").read_text())["heads"] == [[1, 0], [2, 3]]


def test_the_shapes_of_values():
    from attnpo.training.options import typed_value

    assert typed_value("x", "2e-6", float) == "2e-6"  # YAML's text; the parser reads it as on the command line
    assert typed_value("x", 2, str | None) == "2"
    assert type(typed_value("x", 1, float)) is float
    assert typed_value("x", [1, 2.5], list[float] | None) == [1, 2.5]
    assert typed_value("x", {"a": 1}, dict[str, Any] | str | None) == {"a": 1}
    assert typed_value("x", None, int | None) is None


def test_yaml_reads_a_bare_no_as_false(tmp_path):
    from attnpo.training.options import parse

    file = tmp_path / "run.yaml"
    file.write_text(f"eval_strategy: no\nsave_strategy: no\nuse_cpu: true\noutput_dir: {tmp_path}\nreport_to: none\n")
    _, args, _ = parse(["--config", str(file)])
    assert args.eval_strategy == args.save_strategy == "no"
