"""Defaults that follow from other options, and the warnings about options that can do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attnpo import AttnPOConfig
from attnpo.training.defaults import accumulation, without_effect

REPOSITORY = Path(__file__).resolve().parents[2]


def config(folder: Path, **options: Any) -> AttnPOConfig:
    return AttnPOConfig(str(folder), use_cpu=True, report_to="none", **options)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 16),  # 8 responses at a time
        ({"per_device_train_batch_size": 4}, 32),
        ({"per_device_train_batch_size": 2, "num_generations": 4}, 32),
        ({"per_device_train_batch_size": 256}, 1),
        ({"gradient_accumulation_steps": 2}, 2),
        ({"steps_per_generation": 2}, 1),  # as in TRL
        ({"generation_batch_size": 16}, 1),
    ],
)
def test_an_update_has_sixteen_problems(options, steps, tmp_path):
    args = config(tmp_path, **options)
    assert args.gradient_accumulation_steps == steps
    if not options.keys() & {"gradient_accumulation_steps", "steps_per_generation", "generation_batch_size"}:
        problems = args.per_device_train_batch_size * steps / args.num_generations
        assert problems >= 16
        assert args.generation_batch_size == args.per_device_train_batch_size * steps


def test_processes_share_an_update(tmp_path, monkeypatch):
    from attnpo.training.defaults import fill_in

    args: Any = config(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "8")
    args.gradient_accumulation_steps = None
    args.steps_per_generation = args.generation_batch_size = None
    args.eval_strategy = "no"
    assert fill_in(args) == {"gradient_accumulation_steps": 2}


@given(st.integers(1, 300), st.integers(1, 40))
def test_accumulation_is_the_least_that_serves(micro, group):
    found = accumulation(micro, group)
    serves = [n for n in range(1, found + 1) if micro * n % group == 0 and micro * n >= 16 * group]
    assert serves == [found]


def test_the_delay_is_half_of_the_run(tmp_path):
    assert config(tmp_path, max_steps=200).credit_delay == 100
    assert config(tmp_path, max_steps=200, credit_delay=1000).credit_delay == 1000
    assert config(tmp_path).credit_delay == 1000
    args = config(tmp_path, max_steps=200)
    assert args.derived == {
        "learning_rate": 2e-6,
        "credit_delay": 100,
        "eval_strategy": "no",
        "dataloader_pin_memory": False,
        "gradient_accumulation_steps": 16,
    }
    assert args.make_credit().delay == 100  # pyright: ignore[reportAttributeAccessIssue]


IDLE = {
    "credit_delay: 1000 with max_steps 200: .* more than 80% of": {"max_steps": 200, "credit_delay": 1000},
    "credit_delay: the paper's 1000 steps, as max_steps is not given": {},
    "options credit_beta, credit_sharp: no effect with credit=outcome": {
        "max_steps": 9,
        "credit": "outcome",
        "credit_beta": 1.0,
        "credit_sharp": True,
    },
    "option heads: no effect with credit=outcome": {"max_steps": 9, "credit": "outcome", "heads": "auto"},
    "both false, so credit=attnpo changes nothing": {
        "max_steps": 9,
        "credit_positive": False,
        "credit_negative": False,
    },
    "option eval_steps: 10 has no effect with eval_strategy no": {"max_steps": 9, "eval_steps": 10},
    "option eval_steps: 10 is more than max_steps 9": {"max_steps": 9, "eval_steps": 10, "eval_strategy": "steps"},
    "option warmup_steps: 9 with max_steps 9": {"max_steps": 9, "warmup_steps": 9},
}


@pytest.mark.parametrize("message", IDLE)
def test_options_without_effect_give_a_warning(message, tmp_path):
    import re

    (said,) = without_effect(config(tmp_path, **IDLE[message]))
    assert re.search(message, said), said


def test_sound_settings_give_no_warning(tmp_path):
    assert without_effect(config(tmp_path, max_steps=200)) == []
    assert without_effect(config(tmp_path, max_steps=200, eval_strategy="steps", eval_steps=20)) == []
    assert without_effect(config(tmp_path, credit="outcome")) == []


@pytest.mark.parametrize("file", sorted((REPOSITORY / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_set_the_options_they_depend_on(file):
    """The batch, the delay and the learning rate of a recipe do not move with the defaults."""
    given = yaml.safe_load(file.read_text())
    assert {"gradient_accumulation_steps", "learning_rate"} <= given.keys()
    assert "credit_delay" in given or given.get("credit", "attnpo") != "attnpo"


def test_run_prints_warnings_and_derived_settings(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, one_pool, capfd):
    import json

    from attnpo.cli.main import main
    from attnpo.report.run import read_run

    trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl")
    argv = trainer_kit.command(tmp_path / "model", data, tmp_path / "run", "--credit_delay", "4")
    assert main(argv) == 0
    out = capfd.readouterr().out
    assert "warning: option credit_delay: 4 with max_steps 1: redundant steps are attenuated only where" in out
    run = read_run(tmp_path / "run")
    assert any("option credit_delay: 4 with" in notice for notice in run.notices)
    assert run.config["learning_rate"] == 2e-6  # followed: config.yaml leaves it open
    assert "learning_rate" not in yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["derived"] == {
        "learning_rate": 2e-6,
        "eval_strategy": "no",
        "dataloader_pin_memory": False,
    }


def test_a_shipped_model_has_a_rate_of_its_own(tmp_path):
    from attnpo.training.options import parse, resolved_options
    from attnpo.training.run import use_fitting_rate

    base = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--report_to", "none", "--max_steps", "20"]
    for more, rate in (
        ([], 3e-4),
        (["--model_name_or_path", "overthinker-medium"], 3e-4),
        (["--model_name_or_path", "org/other"], 2e-6),
        (["--model_name_or_path", "org/other", "--use_peft", "true"], 2e-5),
        (["--learning_rate", "1e-5"], 1e-5),
    ):
        data, args, model = parse([*base, *more])
        use_fitting_rate(args, model)
        assert args.learning_rate == rate
        assert ("learning_rate" in resolved_options(data, args, model)) == ("--learning_rate" in more)


def test_line_breaks_of_a_command_line_are_read():
    from attnpo.checks import read_escapes
    from attnpo.evaluation.options import EvalOptions
    from attnpo.training.options import parse

    hint = r"Problem: {problem}\n<think>\n"  # as the error message prints it
    assert read_escapes(hint) == "Problem: {problem}\n<think>\n"
    for kept in (r"\neq", r"a \nu b", r"\boxed{}", r"\times", "a\nb"):
        assert read_escapes(kept) == kept
    assert read_escapes(r"\nAnswer") == "\nAnswer"
    data, _, _ = parse(["--prompt_template", hint, "--use_cpu", "true", "--output_dir", "x", "--report_to", "none"])
    assert data.prompt_template == "Problem: {problem}\n<think>\n"
    options = EvalOptions(model="m", benchmarks=["gsm8k"], output=Path("x"), prompt_template=hint)
    assert options.prompt_template == "Problem: {problem}\n<think>\n"
