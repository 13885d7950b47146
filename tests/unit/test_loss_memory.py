"""The loss never holds the logits of all tokens: with (B, T) advantages its memory is that of one chunk."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import Qwen2ForCausalLM
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils
from trl.trainer.utils import add_fused_lm_head

from attnpo.training.sizes import LiveBytes, bytes_of

TOKENS, WIDTH = 64, 1024  # of a chunk, in place of 4,096 tokens × 32,768 words of the vocabulary


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunked_logprob, "TOKEN_CHUNK_SIZE", TOKENS)
    monkeypatch.setattr(trl_utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", WIDTH)


def test_live_bytes_by_hand():
    weight = torch.ones(50)
    with LiveBytes([weight]) as memory:
        a = torch.zeros(100)  # 400
        b = a * 2  # 800
        assert (memory.live, memory.peak) == (800, 800)
        del b
        assert memory.live == 400
        c = a.view(10, 10)[2:].t()  # views
        d = weight.view(5, 10)  # of a tensor held before
        assert (memory.live, memory.peak) == (400, 800)
        e = (c @ torch.ones(8, 1)).sum()  # 32 for the ones, 40 for the product, 4 for the sum
        assert memory.peak == 800
        del a, c
        assert memory.live == 4
    assert bytes_of([e, d, weight]) == 204


def with_vocabulary(model: Any, size: int) -> Any:
    config = copy.deepcopy(model.config)
    config.vocab_size = size
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config)


def peak(model: Any, kit: Any, tokenizer: Any, folder: Any, responses: int) -> int:
    """Peak of the loss and its backward pass in a training step of AttnPO, over `responses` of about 600 tokens."""
    trainer = kit.make_trainer(
        model,
        tokenizer,
        folder,
        responses=[kit.LONG],
        num_generations=2,
        per_device_train_batch_size=responses,
    )
    found = []
    inner = trainer.training_step

    def step(*args: Any):
        with LiveBytes([*model.parameters(), *model.buffers()]) as memory:
            loss = inner(*args)
        found.append(memory.peak)
        return loss

    trainer.training_step = step
    trainer.train()
    return found[0]


def test_vocabulary_memory_is_independent_of_the_number_of_tokens(
    small_chunks, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, monkeypatch
):
    """With a vocabulary of 8,192 instead of 512 the peak grows by the weights' gradients and one chunk, for any
    number of tokens: at most 1.2 × what one chunk needs. The logits of all tokens would be 16 times that."""
    monkeypatch.setattr(trainer_kit, "LONG", trainer_kit.Canned((trainer_kit.ADD * 5, trainer_kit.CONCLUDE), " 42"))
    large, small = 8192, 512
    costs = {}
    for responses in (2, 8):
        peaks = {}
        for size in (large, small):
            model = with_vocabulary(tiny_qwen2, size)
            peaks[size] = peak(model, trainer_kit, tiny_tokenizer, tmp_path / f"{responses}-{size}", responses)
        costs[responses] = peaks[large] - peaks[small]
    rows = trainer_kit.LONG.ids(tiny_tokenizer)
    assert costs[8] <= 1.2 * costs[2]
    assert costs[8] < 4 * 8 * len(rows) * (large - small) / 4


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("bias", [False, True])
def test_chunks_equal_the_plain_path(temperature, bias, tiny_qwen2, monkeypatch):
    """Loss and gradients of (B, T) advantages, chunks that do not divide the tokens or the vocabulary, float32."""
    monkeypatch.setattr(chunked_logprob, "TOKEN_CHUNK_SIZE", 7)
    monkeypatch.setattr(trl_utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 100)
    torch.manual_seed(1)
    plain = with_vocabulary(tiny_qwen2, 331)
    if bias:
        plain.lm_head.bias = torch.nn.Parameter(torch.randn(331))
    chunked = copy.deepcopy(plain)
    add_fused_lm_head(chunked, temperature=temperature, outputs=("log_probs", "entropy"))
    ids = torch.randint(0, 331, (3, 20))
    advantages, prompt = torch.randn(3, 15), 5
    labels = ids.clone()
    labels[:, :prompt] = -100
    output = chunked(input_ids=ids, labels=labels, fused_lm_head=True)
    log_probs, entropy = output.log_probs[:, -15:], output.entropy[:, -15:]
    logits = plain(input_ids=ids).logits[:, prompt - 1 : -1] / temperature
    every = logits.log_softmax(dim=-1)
    by_hand = every.gather(2, ids[:, prompt:, None])[..., 0]
    entropy_by_hand = -(every.exp() * every).sum(dim=-1)
    torch.testing.assert_close(log_probs, by_hand, atol=2e-6, rtol=1e-6)
    torch.testing.assert_close(entropy, entropy_by_hand, atol=4e-6, rtol=1e-6)
    for logps, h in ((log_probs, entropy), (by_hand, entropy_by_hand)):
        (-(logps * advantages).mean() - 0.1 * h.mean()).backward()
    for (name, one), other in zip(chunked.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-7, rtol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
