"""Generating with the cache that grows in place, against transformers' own, which concatenates."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from attnpo.models import fast_rollouts as module
from attnpo.models.fast_rollouts import _LAYERS, GrowingLayer, growing_cache


def generated(model, *, growing, sample, end=None, new=24, **options):
    """Three rows of prompt lengths 7, 4, 7 and, where asked for, the logits of every step."""
    ids = torch.randint(3, 280, (3, 7), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    torch.manual_seed(5)
    with growing_cache() if growing else nullcontext(), torch.no_grad():
        return model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=sample,
            max_new_tokens=new,
            top_k=0,
            eos_token_id=end,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
            **options,
        )


@pytest.mark.parametrize("sample", [False, True])
def test_same_tokens_and_logits_as_the_concatenating_cache(tiny_qwen2, monkeypatch, sample):
    monkeypatch.setattr(module, "ROOM", 5)  # so that the buffers grow several times
    model = tiny_qwen2.eval()
    plain, fast = (generated(model, growing=growing, sample=sample) for growing in (False, True))
    assert isinstance(fast.past_key_values.layers[0], GrowingLayer)
    assert not isinstance(plain.past_key_values.layers[0], GrowingLayer)
    assert torch.equal(plain.sequences, fast.sequences)
    torch.testing.assert_close(torch.stack(fast.logits), torch.stack(plain.logits), rtol=0, atol=1e-5)


def test_same_tokens_where_rows_end_early(tiny_qwen2):
    model = tiny_qwen2.eval()
    free = generated(model, growing=False, sample=True).sequences
    end = int(free[0, 7 + 5])  # a token the first row samples: it ends there, the others go on
    plain, fast = (generated(model, growing=growing, sample=True, end=end).sequences for growing in (False, True))
    assert (plain[0, 7 + 6 :] == 0).all()
    assert torch.equal(plain, fast)


def test_same_tokens_under_beam_search_which_moves_rows(tiny_qwen2):
    model = tiny_qwen2.eval()
    plain, fast = (generated(model, growing=g, sample=False, num_beams=3).sequences for g in (False, True))
    assert torch.equal(plain, fast)


def appended(layer, *lengths, seed=0, rows=2):
    torch.manual_seed(seed)
    for length in lengths:
        layer.update(torch.randn(rows, 3, length, 4), torch.randn(rows, 3, length, 4))
    return layer


CHANGES = {
    "nothing": lambda layer: None,
    "crop": lambda layer: layer.crop(-2),
    "rows chosen": lambda layer: layer.batch_select_indices(torch.tensor([1, 0])),
    "rows moved": lambda layer: layer.reorder_cache(torch.tensor([1, 1])),
    "reset": lambda layer: layer.reset(),
}


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_layer_equals_the_concatenating_layer(monkeypatch, change):
    monkeypatch.setattr(module, "ROOM", 3)
    layers = []
    for kind in (DynamicLayer, GrowingLayer):
        layer = appended(kind(), 4, 1, 1, 1, 1)
        CHANGES[change](layer)
        layers.append(appended(layer, 1, 2, 1, 5, seed=1))
    plain, fast = layers
    assert torch.equal(plain.keys, fast.keys)
    assert torch.equal(plain.values, fast.values)
    assert plain.get_seq_length() == fast.get_seq_length()


@torch.no_grad()
def test_an_append_within_the_room_copies_nothing():
    layer = appended(GrowingLayer(), 4)
    where = layer.keys.data_ptr()
    appended(layer, *[1] * module.ROOM)
    assert layer.keys.data_ptr() == where
    appended(layer, 1)
    assert layer.keys.data_ptr() != where


@torch.no_grad()
def test_the_room_stays_where_rows_leave():
    layers = []
    for kind in (DynamicLayer, GrowingLayer):
        layer = appended(kind(), 4, 1)
        layer.batch_select_indices(torch.tensor([1]))
        where = layer.keys.data_ptr()
        layers.append(appended(layer, 1, 1, seed=1, rows=1))
    plain, fast = layers
    assert torch.equal(plain.keys, fast.keys)
    assert torch.equal(plain.values, fast.values)
    assert fast.keys.data_ptr() == where


def test_gradients_pass_where_they_are_recorded(tiny_qwen2):
    ids = torch.arange(5, 13)[None]
    grads = []
    for kind in (nullcontext, growing_cache):
        with kind():
            cache = DynamicCache(config=tiny_qwen2.config)
        tiny_qwen2.zero_grad()
        for piece in ids.split(4, dim=1):
            out = tiny_qwen2(input_ids=piece, past_key_values=cache, use_cache=True)
        out.logits.sum().backward()
        grads.append(tiny_qwen2.model.layers[0].self_attn.k_proj.weight.grad.clone())
    assert grads[0].abs().sum() > 0
    assert torch.equal(*grads)


def test_plain_layer_is_restored_after_an_error():
    def fail():
        with growing_cache():
            assert _LAYERS["full_attention"] is GrowingLayer
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        fail()
    assert _LAYERS["full_attention"] is DynamicLayer
