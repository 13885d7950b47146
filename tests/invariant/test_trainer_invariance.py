"""Invariances of a training run: the split of a batch, the order of its rows, their padding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch


def run(kit: Any, model: Any, tokenizer: Any, folder: Any, **changes: Any):
    """Two steps on the mixed batch; per-token advantages by completion, and the weights at the end."""
    model = copy.deepcopy(model)
    trainer = kit.make_trainer(
        model, tokenizer, folder, responses=kit.MIXED, max_steps=2, optim="sgd", learning_rate=0.1, **changes
    )
    seen = kit.spy(trainer)
    trainer.train()
    return seen.rows(), model.state_dict()


def assert_same(one, other, *, atol: float = 1e-6) -> None:
    assert one[0].keys() == other[0].keys()
    for ids, advantages in one[0].items():
        torch.testing.assert_close(advantages, other[0][ids], atol=atol, rtol=1e-4)
    for name, weights in one[1].items():
        torch.testing.assert_close(weights, other[1][name], atol=atol, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture
def whole(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """The run in one batch of eight, and a way to run it otherwise."""
    model = trainer_kit.sharpen(tiny_qwen2)

    def otherwise(name: str, **changes: Any):
        return run(trainer_kit, model, tiny_tokenizer, tmp_path / name, **changes)

    return otherwise("whole"), otherwise


@pytest.mark.parametrize("size", [1, 4])
def test_gradient_accumulation_changes_nothing(whole, size):
    """1 × 8 = 8 × 1 up to float32 sums in another order."""
    reference, otherwise = whole
    assert_same(reference, otherwise("parts", per_device_train_batch_size=size, gradient_accumulation_steps=8 // size))


def test_wider_padding_changes_nothing(whole):
    reference, otherwise = whole
    assert_same(reference, otherwise("padded", pad_to_multiple_of=64))


def test_gradient_checkpointing_changes_nothing(whole):
    reference, otherwise = whole
    assert_same(reference, otherwise("checkpointing", gradient_checkpointing=True))


def test_order_of_responses_changes_nothing(whole, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, monkeypatch):
    """The responses of each group come in another order."""
    reference, otherwise = whole
    responses = trainer_kit.MIXED
    monkeypatch.setattr(trainer_kit, "MIXED", [*responses[3::-1], *responses[:3:-1]])
    assert_same(reference, otherwise("reversed"))
