"""Two processes that repair different numbers of responses train as one process does."""

from __future__ import annotations

import json

import pytest
import torch

from processes import run_processes
from spread import same_weights


@pytest.fixture(scope="module")
def folders(trainer_kit, tiny_tokenizer, new_tiny_qwen2, tmp_path_factory):
    """Run folders of one process and of two, on the same model, responses and repairs."""
    folder = tmp_path_factory.mktemp("repairing")
    model = trainer_kit.save_model(folder / "model", new_tiny_qwen2(), tiny_tokenizer)
    for processes in (1, 2):
        run_processes(processes, "one_of_two.py", "iop", model, folder / str(processes), port=28500)
    return folder / "1", folder / "2"


@pytest.mark.slow
def test_same_weights(folders, new_tiny_qwen2):
    one, two = (torch.load(folder / "weights.pt") for folder in folders)
    same_weights(one, two, new_tiny_qwen2().state_dict())


@pytest.mark.slow
def test_numbers_are_means_over_processes(folders):
    one, two = (
        json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0]) for folder in folders
    )
    assert (one["repair/chosen"], two["repair/chosen"]) == (2, 1)
    assert (one["repair/fallback_groups"], two["repair/fallback_groups"]) == (1, 0.5)
    assert one["loss"] == pytest.approx(two["loss"], abs=1e-6)
