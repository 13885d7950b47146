"""Memory estimates of a run, compared with real tensors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Qwen2ForCausalLM
from trl.kernels import chunked_logprob

from attnpo.training.sizes import (
    LiveBytes,
    _count,
    counted_attention,
    decoder_peak,
    head_bytes,
    kv_cache_bytes,
    optimiser_bytes,
)


@pytest.fixture
def shape(tiny_qwen2):
    config = copy.deepcopy(tiny_qwen2.config)
    config.num_hidden_layers, config.layer_types = 5, ["full_attention"] * 5
    return config


@pytest.mark.parametrize("checkpointing", [False, True])
def test_counting_without_numbers_is_that_of_real_tensors(checkpointing, shape):
    """Five layers, two rows: counted at once, from two and three layers, and of tensors that are there."""
    found = decoder_peak(shape, 2, 50, checkpointing=checkpointing)
    assert found == _count(shape, 5, 2, 50, dtype=torch.float32, autocast=False, checkpointing=checkpointing)
    with counted_attention() as attention:
        decoder = Qwen2ForCausalLM(shape).get_decoder()
        decoder.set_attn_implementation(attention)
        decoder.train()
        if checkpointing:
            decoder.activation_checkpointing_enable()
        for parameter in decoder.parameters():
            parameter.grad = torch.zeros_like(parameter)
        ids = torch.zeros(2, 50, dtype=torch.long)
        mask = torch.ones_like(ids)
        grads = [parameter.grad for parameter in decoder.parameters()]
        with LiveBytes([*decoder.parameters(), *decoder.buffers(), *grads, ids, mask]) as memory:
            hidden = decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            kept = memory.live
            hidden.backward(torch.zeros_like(hidden))
    assert (found.kept, found.peak) == (kept, memory.peak)


def test_checkpointing_keeps_one_hidden_state_a_layer(shape):
    shape.num_hidden_layers, shape.layer_types = 20, ["full_attention"] * 20
    kept = [decoder_peak(shape, 3, 64, checkpointing=on).kept for on in (True, False)]
    assert kept[1] > 5 * kept[0]
    shape.num_hidden_layers, shape.layer_types = 21, ["full_attention"] * 21
    assert decoder_peak(shape, 3, 64).kept - kept[0] == 3 * 64 * 32 * 4


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("tokens", [100, 5000])
@pytest.mark.parametrize(
    ("weight", "compute"),
    [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16)],
)
def test_head_is_that_of_trl(tokens, weight, compute, trained, monkeypatch):
    """Its tiles are turned in place, as by the kernels of a GPU."""
    for name in ("_forward_tile", "_backward_tile", "_addmm_fp32"):
        monkeypatch.setattr(chunked_logprob, name, lambda *_, **__: None)
    vocabulary, width = 70000, 64
    with FakeTensorMode():
        head = torch.nn.Parameter(torch.zeros(vocabulary, width, dtype=weight))
        head.grad = torch.zeros_like(head)
        head.requires_grad_(trained)
        hidden = torch.zeros(tokens, width, dtype=weight, requires_grad=True)
        targets = torch.zeros(tokens, dtype=torch.long)
        autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=compute != weight)
        with LiveBytes([head, head.grad, hidden, targets]) as memory, autocast:
            output = chunked_logprob.ChunkedLogProbFunction.apply(
                hidden.clone(), head, None, targets, 1.0, 32768, None, 1.0, ("log_probs", "entropy")
            )
            output[0].sum().backward()
    numbers_per_token = 10 * 4 * tokens  # log-probabilities and what they are folded from
    found = head_bytes(tokens, vocabulary, width, weight, compute, trained=trained)
    assert memory.peak == pytest.approx(found, abs=numbers_per_token)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 16])
def test_cache_is_that_of_a_forward(window, dtype, tiny_qwen2):
    model = tiny_qwen2
    if window is not None:
        config = copy.deepcopy(model.config)
        config.use_sliding_window, config.sliding_window, config.max_window_layers = True, window, 1
        config.layer_types = ["full_attention", "sliding_attention", "sliding_attention"]
        model = Qwen2ForCausalLM(config)
    model = model.to(dtype).eval()
    with torch.no_grad():
        cache = model(input_ids=torch.zeros(3, 40, dtype=torch.long), use_cache=True).past_key_values
    held = sum(t.untyped_storage().nbytes() for layer in cache.layers for t in (layer.keys, layer.values))
    assert kv_cache_bytes(model.config, 3, 40, dtype) == held
    if window is None:
        assert held == 3 * 40 * 3 * 2 * 2 * 8 * dtype.itemsize  # layers, keys and values, key heads, size, by hand


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd", "adafactor", "rmsprop"])
def test_optimiser_is_that_of_a_step(optim, tiny_qwen2, trainer_kit, tiny_tokenizer, tmp_path):
    trainer = trainer_kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, responses=trainer_kit.MIXED, optim=optim)
    trainer.train()
    states = [t for state in trainer.optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    if "Accelerated" in type(trainer.optimizer).__name__:
        inner = trainer.optimizer.optimizer
        states = [t for state in inner.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    held = sum(t.untyped_storage().nbytes() for t in states)
    assert optimiser_bytes(trainer.args, tiny_qwen2.parameters()) == held
    if optim.startswith("adamw"):
        numbers = sum(p.numel() for p in tiny_qwen2.parameters())
        assert held == 8 * numbers + 4 * len(list(tiny_qwen2.parameters()))  # and a count of steps each
