"""Captured step scores against plain loops over eager attention; test_attention_architectures.py has more models."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    Gemma2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from attnpo import score_steps
from attnpo.attention.capture import capture_scores
from attnpo.attention.layout import StepLayout
from attnpo.attention.rows import step_scores
from tiny_shapes import COMMON, random_model

YARN_OFF = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
CONFIGS = {
    "qwen2": Qwen2Config(**COMMON),
    "llama": LlamaConfig(**COMMON),
    "mistral": MistralConfig(**COMMON, sliding_window=7),
    "gemma2": Gemma2Config(
        **COMMON, head_dim=8, sliding_window=6, attn_logit_softcapping=2.0, query_pre_attn_scalar=5, layer_types=LAYERS
    ),
    "gpt-oss": GptOssConfig(
        **COMMON, **YARN_OFF, head_dim=8, sliding_window=6, num_local_experts=2, num_experts_per_tok=1
    ),
}
EAGER_ONLY = {"gemma2", "gpt-oss"}
CASES = [(name, "eager") for name in CONFIGS] + [(name, "sdpa") for name in CONFIGS if name not in EAGER_ONLY]
LENGTH = 24
HEADS = [(2, 3), (0, 0), (1, 2), (2, 1)]


def make_model(name: str, implementation: str = "eager"):
    return random_model(CONFIGS[name], implementation)


def make_batch():
    """Left, right, no padding, and both sides; an empty step; a row without an answer."""
    ids = torch.randint(0, 61, (5, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(5, LENGTH, dtype=torch.int64)
    mask[0, :5] = 0
    mask[1, -4:] = 0
    mask[3, :3] = mask[3, -3:] = 0
    steps = [[(7, 9), (9, 15)], [(2, 8), (8, 8), (8, 13)], [(1, 4), (4, 6), (6, 13)], [(5, 12)], [(3, 9), (9, 20)]]
    answers = [(17, 24), (14, 20), (20, 24), (13, 21), None]
    return ids, mask, steps, answers


def loop_scores(attentions, steps, answers, heads):
    """S(l,h,s_k) = (1/|s_k|) Σ_m Σ_n a(m→n), word for word."""
    result = []
    for i, (row, answer) in enumerate(zip(steps, answers, strict=True)):
        table = []
        for layer, head in heads:
            scores = []
            for start, end in row:
                total = 0.0
                for m in range(*answer) if answer else ():
                    for n in range(start, end):
                        total += attentions[layer][i, head, m, n].item()
                scores.append(total / (end - start) if end > start else 0.0)
            table.append(scores)
        result.append(torch.tensor(table))
    return result


def eager_attentions(model, ids, mask):
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, output_attentions=True).attentions


@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_scores_equal_loops_over_eager_attention(name, implementation):
    model = make_model(name, implementation)
    ids, mask, steps, answers = make_batch()
    got = score_steps(model, ids, mask, steps=steps, answers=answers, heads=HEADS)
    expected = loop_scores(eager_attentions(model, ids, mask), steps, answers, HEADS)
    assert max(float(table.max()) for table in expected) > 0.2
    for mine, slow in zip(got, expected, strict=True):
        assert mine.dtype == torch.float32
        assert not mine.requires_grad
        torch.testing.assert_close(mine, slow, rtol=0, atol=1e-5)
    assert got[1][:, 1].tolist() == [0.0] * 4  # a step without tokens
    assert not got[4].any()  # a row without an answer


@pytest.mark.parametrize("name", ["qwen2", "mistral", "gemma2"])
def test_all_heads_at_once_and_padding_in_the_middle(name):
    """A batch of prompts padded right, then completions padded right, has holes: windows count padded positions."""
    model = make_model(name, "eager" if name in EAGER_ONLY else "sdpa")
    ids, mask, *_ = make_batch()
    mask[:] = 1
    mask[0, 4:9] = mask[2, 10:12] = mask[2, -2:] = 0
    steps = [[(1, 3), (10, 14)], [(2, 8)], [(5, 10), (12, 14)], [(0, 4)], [(5, 12)]]
    answers = [(15, 24), (9, 20), (14, 22), (4, 24), (13, 14)]
    heads = [(layer, head) for layer in range(3) for head in range(4)]
    got = score_steps(model, ids, mask, steps=steps, answers=answers, heads=heads)
    expected = loop_scores(eager_attentions(model, ids, mask), steps, answers, heads)
    for mine, slow in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, slow, rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrap", ["plain", "peft"])
def test_wrapped_in_an_adapter(wrap):
    model = make_model("llama", "sdpa")
    ids, mask, steps, answers = make_batch()
    outer = model
    if wrap == "peft":
        from peft import LoraConfig, get_peft_model

        outer = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "k_proj"], init_lora_weights=False))
    got = score_steps(outer, ids, mask, steps=steps, answers=answers, heads=HEADS)
    expected = loop_scores(eager_attentions(model, ids, mask), steps, answers, HEADS)
    for mine, slow in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, slow, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mistral", "gemma2"])
def test_flex_attention(name):
    """Layer 0 only: on a CPU, flex attention itself can be far from eager, and later layers read its output."""
    model = make_model(name, "flex_attention")
    ids, mask, steps, answers = make_batch()
    heads = [(0, 3), (0, 0)]
    got = score_steps(model, ids, mask, steps=steps, answers=answers, heads=heads)
    expected = loop_scores(eager_attentions(model, ids, mask), steps, answers, heads)
    for mine, slow in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, slow, rtol=0, atol=1e-5)


@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}, {"use_reentrant": True}])
@pytest.mark.parametrize("backward_inside", [False, True])
def test_training_mode_with_backward(checkpointing, backward_inside):
    """Scores, logits and gradients of a training forward are what they are without capturing, to the bit."""
    model = make_model("qwen2", "sdpa").train()
    ids, mask, steps, answers = make_batch()
    layout = StepLayout.from_spans(steps, answers, mask)
    if checkpointing is not None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=checkpointing)

    def step(capturing):
        model.zero_grad()
        embeds = model.get_input_embeddings()(ids).requires_grad_(True)
        if not capturing:
            logits = model(inputs_embeds=embeds, attention_mask=mask).logits
            logits.logsumexp(-1).sum().backward()
            return logits, None
        with capture_scores(model, layout, HEADS) as captured:
            logits = model(inputs_embeds=embeds, attention_mask=mask).logits
            if backward_inside:
                logits.logsumexp(-1).sum().backward()
        if not backward_inside:
            logits.logsumexp(-1).sum().backward()
        return logits, captured.scores

    plain, _ = step(capturing=False)
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    logits, scores = step(capturing=True)
    assert torch.equal(logits, plain)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, gradients[name]), name
    assert model.training
    if checkpointing is not None:
        model.gradient_checkpointing_disable()
    expected = loop_scores(eager_attentions(model.eval(), ids, mask), steps, answers, HEADS)
    for i, slow in enumerate(expected):
        torch.testing.assert_close(scores[:, i, : slow.shape[1]], slow, rtol=0, atol=1e-5)


def test_flash_attention_mask_form():
    """Flash attention gets a 2-D mask and drops padding first, so that its windows count tokens."""
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(1, 4, 12, 8, generator=generator)
    key = torch.randn(1, 2, 12, 8, generator=generator)
    mask = torch.tensor([[0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0]])
    kept = mask[0].bool()
    layout = StepLayout.from_spans([[(1, 4), (6, 8)]], [(8, 11)], mask)
    dense = StepLayout.from_spans([[(0, 3), (3, 5)]], [(5, 8)], torch.ones(1, 8))
    got = step_scores(query, key, mask, layout, (0, 3), sliding_window=4)
    expected = step_scores(query[:, :, kept], key[:, :, kept], None, dense, (0, 3), sliding_window=4)
    torch.testing.assert_close(got, expected)
    logits = (query[:, :, kept][0, 3] @ key[:, :, kept][0, 1].T) / 8**0.5
    place = torch.arange(8)
    distance = place[:, None] - place
    weights = logits.masked_fill((distance < 0) | (distance >= 4), -torch.inf).softmax(-1)
    torch.testing.assert_close(expected[1, 0], torch.stack([weights[5:8, 0:3].sum() / 3, weights[5:8, 3:5].sum() / 2]))
