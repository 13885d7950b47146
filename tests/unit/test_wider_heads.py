"""The shipped model with wider heads, for engines whose attention does not support heads of 16."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from wider_heads import widen, write_wider

from attnpo.models import resolve_model


def test_widening_by_hand():
    rows = torch.tensor([[1.0], [2.0], [3.0], [4.0]])  # two heads of two
    assert widen(rows, 2, 1).flatten().tolist() == [1, 2, 0, 0, 3, 4, 0, 0]
    assert widen(rows, 2, 2).flatten().tolist() == [1, 0, 2, 0, 3, 0, 4, 0]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = write_wider("overthinker", tmp_path_factory.mktemp("wide"))
    return [
        AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32) for p in (resolve_model("overthinker"), folder)
    ]


def test_wider_model_computes_the_same(pair):
    model, wide = pair
    assert (model.config.head_dim, wide.config.head_dim) == (16, 32)
    tokenizer = AutoTokenizer.from_pretrained(wide.name_or_path)
    ids = torch.tensor([tokenizer("12 + 30 - 7 * 2, and so on. " * 12)["input_ids"]])
    assert ids.shape[1] > 100  # far enough for rotary embeddings to matter
    with torch.no_grad():
        torch.testing.assert_close(wide(ids).logits, model(ids).logits, atol=1e-4, rtol=1e-4)


def test_added_components_are_not_trained(pair):
    _, wide = pair
    ids = torch.arange(2, 40)[None]
    wide(ids, labels=ids).loss.backward()
    attention = wide.model.layers[1].self_attn
    for weights in (attention.q_proj.weight, attention.k_proj.weight):
        by_part = weights.grad.unflatten(0, (-1, 2, 16))  # head, half, number
        assert by_part[:, :, :8].abs().max() > 0
        assert by_part[:, :, 8:].abs().max() == 0
    by_part = attention.v_proj.weight.grad.unflatten(0, (-1, 32))
    assert by_part[:, :16].abs().max() > 0
    assert by_part[:, 16:].abs().max() == 0
    by_part = attention.o_proj.weight.grad.unflatten(1, (-1, 32))
    assert by_part[:, :, :16].abs().max() > 0
    assert by_part[:, :, 16:].abs().max() == 0
