"""`attnpo eval` as users run it: on the shipped model, killed in the middle, and continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMMAND = (
    sys.executable,
    "-m",
    "attnpo",
    "eval",
    "--model",
    "overthinker",
    "--benchmarks",
    "task",
    "--max-tokens",
    "512",
)


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [*COMMAND, *options, "-o", str(folder)]
    return subprocess.Popen(
        words,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs inherit "ignore"
    )


def run(folder: Path, *options: str) -> str:
    process = start(folder, *options)
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    return said


def lines(folder: Path) -> list[bytes]:
    file = folder / "samples" / "task.jsonl"
    return sorted(file.read_bytes().splitlines(keepends=True)) if file.exists() else []


def wait_for(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while len(lines(folder)) < count:
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_accuracy_of_the_shipped_model(tmp_path: Path):
    """docs/results.md has 0.834 and 222 tokens on 1,024 problems of difficulty 1–4, sampled at temperature 1."""
    run(tmp_path / "run", "--temperature", "1", "--top-p", "1", "--batch-size", "100", "--samples", "2")
    found = json.loads((tmp_path / "run" / "results.json").read_text())["benchmarks"]["task"]
    assert (found["problems"], found["samples"], found["ungraded"]) == (200, 400, 0)
    assert found["accuracy"]["value"] == pytest.approx(0.83, abs=0.08)  # four standard errors
    assert found["tokens"]["value"] == pytest.approx(222, rel=0.15)
    assert found["truncated"]["value"] < 0.01
    assert found["answer_tokens"]["value"] < found["thinking_tokens"]["value"] / 3


OPTIONS = ("--limit", "30", "--samples", "2", "--batch-size", "15")


def test_killed_and_continued(tmp_path: Path):
    run(tmp_path / "whole", *OPTIONS)
    assert len(lines(tmp_path / "whole")) == 60
    folder = tmp_path / "killed"
    kept: list[bytes] = []
    for count in (1, 25):
        process = start(folder, *OPTIONS)
        wait_for(folder, max(count, len(kept) + 1), process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        kept = lines(folder)
    assert len(kept) < 60
    assert "continuing: " in run(folder, *OPTIONS)
    assert lines(folder) == lines(tmp_path / "whole")
    assert len(json.loads((folder / "environment.json").read_text())["calls"]) == 3


def test_ctrl_c(tmp_path: Path):
    process = start(tmp_path / "run", *OPTIONS)
    wait_for(tmp_path / "run", 1, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "attnpo eval: interrupted: " in said
    assert "the same command continues from there" in said
    assert "Traceback" not in said
