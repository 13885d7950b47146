"""`heads: auto` with the packaged model, nothing canned: the run is that with the heads it finds given in advance."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from attnpo.attention.heads import load_heads
from attnpo.cli.main import main

LORA = ["--use_peft", "true", "--lora_r", "4", "--lora_target_modules", "q_proj", "v_proj"]


def argv(folder: Path, *more: str) -> list[str]:
    """Two steps of 2 problems × 4 sampled responses; attenuated is, from the start, what is below uniform attention."""
    options = {
        "output_dir": folder,
        "train_problems": 32,
        "eval_problems": 2,
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "per_device_eval_batch_size": 16,
        "max_steps": 2,
        "save_steps": 2,
        "max_completion_length": 320,
        "learning_rate": 1e-3,
        "credit_beta": 0,
        "credit_delay": 0,
        "heads_traces": 16,
        "gradient_checkpointing": "false",
        "use_cpu": "true",
        "report_to": "none",
        "verifier_timeout": 60,
    }
    return ["train", *(word for name, value in options.items() for word in (f"--{name}", str(value))), *more]


def results(folder: Path) -> dict[str, Any]:
    """All numbers of a run that do not depend on the clock."""
    found: dict[str, Any] = {}
    for name in ("metrics", "evaluations"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        found[name] = [{k: v for k, v in row.items() if "second" not in k and k != "step_time"} for row in rows]
    for file in (folder / "rollouts").iterdir():
        found[file.name] = gzip.decompress(file.read_bytes())
    (weights,) = (folder / "checkpoint-2").glob("*model.safetensors")
    found["weights"] = {name: tensor.tolist() for name, tensor in load_file(weights).items()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], LORA], ids=["whole", "lora"])
def test_auto_run_equals_run_with_these_heads(more, tmp_path, one_pool, trainer_kit):
    auto, given = tmp_path / "auto", tmp_path / "given"
    assert main(argv(auto, "--heads", "auto", *more)) == 0
    assert main(argv(given, "--heads", str(auto / "heads.json"), *more)) == 0
    content = json.loads((auto / "heads.json").read_text())
    assert (content["model"], content["traces"]) == ("overthinker", 16)  # the name, not where it is installed
    assert load_heads(auto / "heads.json") == load_heads(given / "heads.json")
    one, other = results(auto), results(given)
    lines = [line for step in (1, 2) for line in one[f"train-{step:06d}.jsonl.gz"].decode().splitlines()]
    scales = [step["scale"] for line in lines for step in json.loads(line)["steps"]]
    assert any(scale not in (None, 1.0) for scale in scales)  # else the heads would not matter
    assert one == other
