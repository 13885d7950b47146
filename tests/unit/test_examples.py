"""The scripts of examples/ run, small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ("--num_generations", "2", "--gradient_accumulation_steps", "1", "--eval_problems", "2")


def run(repository: Path, folder: Path, *words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(repository / "examples" / words[0]), *words[1:]]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_trl_script_with_a_reward_of_its_own(repository, tmp_path):
    run(repository, tmp_path, "trl_own_reward.py", "--steps", "1", "--problems", "16", "--output", "out")
    (line,) = [json.loads(row) for row in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert {"rewards/closes_thinking/mean", "rewards/accuracy/mean", "accuracy"} <= line.keys()
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.slow
def test_lora_and_comparison(repository, tmp_path):
    more = ("--max_completion_length", "64", "--max_minutes", "5")
    out = run(repository, tmp_path, "lora_one_gpu.py", "--steps", "1", *SMALL, *more)
    assert "run folder: runs/lora" in out
    assert (tmp_path / "runs" / "lora" / "adapter_model.safetensors").is_file()
    small = ("--limit", "2", "--samples", "1", "--max-tokens", "32")
    run(repository, tmp_path, "evaluate_and_compare.py", "overthinker", "overthinker-medium", "--output", "e", *small)
    assert any((tmp_path / "e" / "compared").iterdir())
