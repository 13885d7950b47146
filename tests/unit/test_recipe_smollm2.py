"""The recipe of SmolLM2: its commands are valid, and it keeps its options."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from attnpo.errors import InputError


@pytest.fixture
def recipe(repository, monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "recipes"))
    return importlib.import_module("smollm2_on_task")


@pytest.fixture
def make(recipe, tmp_path):
    def make(*more: str):
        return recipe.recipe_of(recipe.parse_arguments(["--out", str(tmp_path / "out"), "--device", "cpu", *more]))

    return make


def value(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_the_time_is_divided(make):
    stages = make().stages()
    assert sum(stage.share for stage in stages) == pytest.approx(1)
    names = ["fine-tuning", "heads", "TLMRE", "AttnPO", "evaluation of start", "evaluation of TLMRE"]
    assert [stage.name for stage in stages] == [*names, "evaluation of AttnPO", "comparison", "page"]
    by_name = {stage.name: stage for stage in stages}
    # Of ten minutes left, eight are for learning.
    (command,) = by_name["fine-tuning"].commands(10)
    assert float(value(command, "--max-minutes")) == pytest.approx(8)
    (command,) = by_name["TLMRE"].commands(10)
    assert float(value(command, "--max_minutes")) == pytest.approx(8)


def checkpoint(run: Path, step: int) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


def test_attnpo_gets_as_many_updates_as_tlmre(make, tmp_path):
    by_name = {stage.name: stage for stage in make().stages()}
    assert not by_name["TLMRE"].made()
    run = tmp_path / "out" / "TLMRE"
    checkpoint(run, 20)
    (checkpoint(run, 31) / "trainer_state.json").unlink()  # cut off while it was saved
    assert by_name["TLMRE"].made()
    assert by_name["TLMRE"].outcome() == "20 of 40 updates"
    (command,) = by_name["AttnPO"].commands(10)
    assert value(command, "--max_steps") == "20"
    assert value(command, "--credit") == "attnpo"
    (command,) = by_name["evaluation of TLMRE"].commands(10)
    assert value(command, "--model") == str(run / "checkpoint-20")


def test_training_resumes_from_a_checkpoint(make, tmp_path):
    stage = next(stage for stage in make().stages() if stage.name == "TLMRE")
    (command,) = stage.commands(10)
    assert command[-2:] == ["--overwrite_run", "true"]
    checkpoint(tmp_path / "out" / "TLMRE", 10)
    (command,) = stage.commands(10)
    assert command[-2:] == ["--resume_from_checkpoint", "true"]


@pytest.mark.parametrize("more", [(), ("--small",), ("--redundancy", "30")])
def test_training_commands_are_understood(more, make, recipe, tmp_path):
    """The script's options agree with those in smollm2.yaml."""
    from attnpo.training.options import parse

    checkpoint(tmp_path / "out" / "TLMRE", 2)
    given = make(*more)
    said = yaml.safe_load(recipe.CONFIG.read_text())
    for stage in given.stages()[2:4]:
        (command,) = stage.commands(10)
        data, args, _ = parse(command[4:])
        assert args.credit == {"TLMRE": "outcome", "AttnPO": "attnpo"}[stage.name]
        assert data.max_prompt_length == recipe.PROMPT
        assert args.generation_batch_size % args.num_generations == 0
        if not more:
            assert (data.task_redundancy, data.task_difficulty) == (said["task_redundancy"], said["task_difficulty"])
            assert args.max_completion_length == said["max_completion_length"]
            assert given.sizes.updates == said["max_steps"]
            assert args.per_device_eval_batch_size == args.generation_batch_size == 32
    if "30" in more:
        assert (data.task_redundancy, args.max_completion_length) == (30, 1920)


def test_on_a_gpu(make, recipe):
    def options(*more: str) -> list[str]:
        (command,) = make("--device", "cuda", *more).stages()[2].commands(10)
        return command

    compiled, plain = options(), options("--no-compile")
    assert (value(compiled, "--compile_rollouts"), value(compiled, "--tf32")) == ("true", "true")
    assert json.loads(value(compiled, "--generation_kwargs")) == {"max_cache_len": 1024 + 128}
    assert "--bf16" not in compiled
    assert value(plain, "--bf16") == "true"
    assert not {"--compile_rollouts", "--use_cpu"} & {*plain}


def test_a_folder_keeps_its_options(make):
    make("--max-minutes", "5")
    make("--max-minutes", "50", "--no-compile")  # may change
    with pytest.raises(InputError, match=r"was begun with other options \(redundancy 12.0, now 30.0; max_tokens 1024"):
        make("--redundancy", "30")


@pytest.fixture
def in_this_process(recipe, monkeypatch):
    """Let the recipe's commands run here: a dozen starts of Python with torch would take minutes. Their words."""
    from attnpo.cli.main import main

    called: list[list[str]] = []

    def call(self: Any, command: list[str], seconds: float) -> tuple[int, bool]:
        called.append(command[1:])
        if command[1:3] == ["-m", "attnpo"]:
            return main(command[3:]), False
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command[1:])
            runpy.run_path(command[1], run_name="__main__")
        return 0, False

    monkeypatch.setattr(sys.modules["stages"]._Run, "call", call)
    return called


@pytest.mark.slow
def test_from_start_to_end(
    recipe, in_this_process, tiny_qwen2, tiny_tokenizer, trainer_kit, one_pool, tmp_path, capsys
):
    """All stages with the real commands, on a random model."""
    model = trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    (model / "heads.json").unlink()
    out = tmp_path / "out"
    words = ["--out", str(out), "--small", "--model", str(model), "--redundancy", "2", "--max-tokens", "16"]
    args = recipe.parse_arguments([*words, "--device", "cpu"])
    given = recipe.recipe_of(args)
    # This tokenizer has a token for nearly every letter of a prompt.
    sizes = replace(given.sizes, rl=(*given.sizes.rl, "--max_prompt_length", "900"))
    given = replace(given, sizes=sizes)
    state = recipe.run_stages(given.stages(), given.out, args.max_minutes)
    assert [known["done"] for known in state.values()] == ["finished"] * 9
    assert (state["TLMRE"]["outcome"], state["AttnPO"]["outcome"]) == ("2 of 2 updates", "2 of 2 updates")
    compared = json.loads((out / "comparison" / "comparison.json").read_text())
    assert list(compared["runs"]) == ["start", "TLMRE", "AttnPO"]
    assert compared["base"] == "start"
    assert (out / "report.html").stat().st_size > 100_000
    # The runs started from the fine-tuned model, with the heads found in it.
    heads = json.loads((out / "start" / "heads.json").read_text())["heads"]
    assert json.loads((out / "AttnPO" / "heads.json").read_text())["heads"] == heads
    assert not (out / "TLMRE" / "heads.json").exists()
    calls = len(in_this_process)
    capsys.readouterr()
    assert recipe.run_stages(given.stages(), given.out, args.max_minutes) == state
    assert capsys.readouterr().out.count("not repeated") == 9
    assert len(in_this_process) == calls
