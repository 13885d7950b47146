"""verl's engine with the capture, compared with `score_steps` on every single sequence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from verl_runs import torchrun

HERE = Path(__file__).parent
ALONE, TOGETHER = ("packed", "padded", "eager", "lora", "bucket"), ("packed", "ulysses")


def run(processes: int, model: Path, output: Path, kinds: tuple[str, ...]) -> Path:
    torchrun(processes, HERE / "engine_process.py", model, output, *kinds)
    return output


@pytest.fixture(scope="module")
def alone(tiny_folder, tmp_path_factory):
    return run(1, tiny_folder, tmp_path_factory.mktemp("alone") / "rank", ALONE)


@pytest.fixture(scope="module")
def together(tiny_folder, tmp_path_factory):
    return run(2, tiny_folder, tmp_path_factory.mktemp("together") / "rank", TOGETHER)


@pytest.mark.parametrize("kind", ALONE)
def test_scores_on_one_process(alone, kind):
    check(kind, [torch.load(file) for file in alone.parent.glob(f"rank-{kind}-*.pt")], 1)


@pytest.mark.parametrize("kind", TOGETHER)
def test_scores_on_two_processes(together, kind):
    """Each with its sequences, or both with one part of every row: then one of them answers."""
    check(kind, [torch.load(file) for file in together.parent.glob(f"rank-{kind}-*.pt")], 1 if kind == "ulysses" else 2)


def check(kind: str, found: list[dict], answering: int) -> None:
    assert len(found) == answering
    assert sorted(place for part in found for place in part["places"]) == list(range(6))
    largest = 0.0
    for part in found:
        assert not part["without"], "scores came back although nobody asked for them"
        for plain, captured in zip(*part["logps"], strict=True):
            assert torch.equal(plain, captured), "the capture changed a log-probability"
        for scores, alone in zip(part["scores"], part["alone"], strict=True):
            expected = alone if len(alone) else torch.zeros(1)
            assert len(scores) == len(expected)
            largest = max(largest, float((scores - expected).abs().max()))
        assert max(float(alone.max()) for alone in part["alone"] if len(alone)) > 0.01
    print(f"{kind}, {answering}: largest difference {largest:.1e}")
    assert largest < 1e-6
