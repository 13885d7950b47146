"""Runs of two processes, whose model may be sharded, compared with one process and the same global batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from processes import launch

Read = Callable[[Path, str], list[dict[str, Any]]]
"""A run folder and a part's name to the rollouts in it (the fixture `read_rollouts`)."""
Weights = dict[str, torch.Tensor]


def metrics(folder: Path, *more: str) -> list[dict[str, Any]]:
    """Those that are not times; nor those whose name holds one of `more`."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    skipped = ("second", "step_time", *more)
    return [{k: v for k, v in row.items() if not any(part in k for part in skipped)} for row in rows]


def alike(
    method: str, model: Path, folder: Path, read: Read, leave_out: tuple[str, ...] = (), **how: Any
) -> tuple[Path, Path]:
    """Run folders of a method on one process and on two, whose numbers and first records are the same.

    Losses, gradient norms and all other `metrics` but those of `leave_out`; rewards, advantages, scores and scales of
    the steps. how: of `processes.launch`; what is more than the port holds for the two processes.
    """
    folders = folder / "1", folder / "2"
    for processes, target in enumerate(folders, start=1):
        more = how if processes == 2 else {"port": how["port"]}
        code, said = launch(processes, "one_of_two.py", method, model, target, **more)
        assert code == 0, said[-3000:]
    for a, b in zip(*(metrics(target, *leave_out) for target in folders), strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == pytest.approx(value, abs=1e-5), name
    for a, b in zip(*(read(target, "train-000001") for target in folders), strict=True):
        assert a["rewards"] == pytest.approx(b["rewards"], abs=1e-6)
        assert a["advantage"] == pytest.approx(b["advantage"], abs=1e-6)
        assert a["mean_token_advantage"] == pytest.approx(b["mean_token_advantage"], abs=1e-5)
        for x, y in zip(a["steps"], b["steps"], strict=True):
            assert x.keys() == y.keys()
            assert [x.get(name) for name in ("score", "scale")] == pytest.approx(
                [y.get(name) for name in ("score", "scale")], abs=1e-5
            )
    return folders


def same_weights(one: Weights, two: Weights, start: Weights) -> None:
    """The same, and not those that training began with."""
    assert any(not torch.equal(weights, start[name]) for name, weights in one.items())
    assert one.keys() == two.keys()
    for name, weights in one.items():
        torch.testing.assert_close(weights, two[name], atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def as_one_process(method: str, model: Path, start: Weights, folder: Path, read: Read, **how: Any) -> None:
    """`alike`, and so are the weights in the checkpoint, which is a whole one. start: the model's weights."""
    folders = alike(method, model, folder, read, **how)
    one, two = (load_file(target / "checkpoint-2" / "model.safetensors") for target in folders)
    if "lm_head.weight" in two:  # tied, and written twice in checkpoints of FSDP
        assert torch.equal(two.pop("lm_head.weight"), two["model.embed_tokens.weight"])
    same_weights(one, two, start)


def resumed_as_whole(argv: Callable[[Path], list[str]], folder: Path, read: Read, **how: Any) -> None:
    """A command of three steps, each saved, with sampled responses: resumed after its first step, and uninterrupted."""

    def train(target: Path, *more: str) -> None:
        code, said = launch(2, "spread_on_cpus.py", *argv(target), *more, **how)
        assert code == 0, said[-3000:]

    whole, parts = folder / "whole", folder / "parts"
    train(whole)
    shutil.copytree(whole, parts)
    for step in (2, 3):
        shutil.rmtree(parts / f"checkpoint-{step}")
    train(parts, "--resume_from_checkpoint", "auto")
    assert len(metrics(whole)) == 3
    assert metrics(whole) == metrics(parts)
    assert read(whole, "train-000003") == read(parts, "train-000003")
    one, two = (load_file(target / "model.safetensors") for target in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)
