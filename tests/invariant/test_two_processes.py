"""Two processes that share the responses of one group train as one process does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from processes import run_processes


def lines(file: Path) -> list[dict[str, Any]]:
    """What does not depend on the clock."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k and k != "step_time"} for row in rows]


@pytest.fixture(scope="module")
def folders(trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path_factory):
    """Run folders of one process and of two, on the same model and responses."""
    folder = tmp_path_factory.mktemp("processes")
    model = trainer_kit.save_model(folder / "model", trainer_kit.sharpen(new_tiny_qwen2()), tiny_tokenizer)
    for processes in (1, 2):
        run_processes(processes, "one_of_two.py", "attnpo", model, folder / str(processes), port=29500)
    return folder / "1", folder / "2"


@pytest.mark.slow
def test_same_weights(folders):
    one, two = (torch.load(folder / "weights.pt") for folder in folders)
    for name, weights in one.items():
        torch.testing.assert_close(weights, two[name], atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_same_records(folders, read_rollouts):
    for step in (1, 2):
        one, two = (read_rollouts(folder, f"train-{step:06d}") for folder in folders)
        assert len(one) == 8
        assert [r["text"] for r in one] == [r["text"] for r in two]
        assert [(r["group"], r["index"]) for r in one] == [(r["group"], r["index"]) for r in two]
        for a, b in zip(one, two, strict=True):
            assert a["advantage"] == pytest.approx(b["advantage"], abs=1e-6)
            scales = [[step["scale"] for step in record["steps"]] for record in (a, b)]
            assert scales[0] == pytest.approx(scales[1], abs=1e-5)
        assert any(step["scale"] not in (None, 1.0) for record in one for step in record["steps"])


@pytest.mark.slow
def test_same_metrics(folders):
    one, two = (lines(folder / "metrics.jsonl") for folder in folders)
    assert [row.keys() for row in one] == [row.keys() for row in two]
    for a, b in zip(one, two, strict=True):
        for name, value in a.items():
            assert b[name] == pytest.approx(value, abs=1e-5), name


@pytest.mark.slow
def test_each_held_out_problem_counts_once(folders):
    """Five problems in batches of two for two processes: repeats fill the last round and must not count."""
    for folder in folders:
        (row,) = lines(folder / "evaluations.jsonl")
        assert row["n"] == 5
