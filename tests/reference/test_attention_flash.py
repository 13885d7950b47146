"""Step scores with transformers' flash attention path, with the kernel emulated by a few lines of PyTorch.

All but the kernel is the real thing: the masks transformers makes for flash attention, its unpadding, its reading of
packed rows, the arguments it gives the kernel. Windows and sequences reach flash attention in other ways than a mask.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
import transformers.modeling_flash_attention_utils as flash_utils
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
)

from attnpo import score_steps
from attnpo.attention.capture import capture_scores, score_packed_steps
from attnpo.attention.layout import PackedLayout, StepLayout
from attnpo.errors import InputError
from tiny_shapes import TWO_LAYERS

LAYERS = ["sliding_attention", "full_attention"]
CONFIGS = {
    "llama": LlamaConfig(**TWO_LAYERS),
    "mistral": MistralConfig(**TWO_LAYERS, sliding_window=6),
    "qwen3": Qwen3Config(**TWO_LAYERS, use_sliding_window=True, sliding_window=5, layer_types=LAYERS),
    "gemma2": Gemma2Config(
        **TWO_LAYERS, sliding_window=6, attn_logit_softcapping=2.0, query_pre_attn_scalar=5, layer_types=LAYERS
    ),
    "gpt-oss": GptOssConfig(
        **TWO_LAYERS,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        sliding_window=6,
        num_local_experts=2,
        num_experts_per_tok=1,
    ),
}
HEADS = [(1, 3), (0, 0), (0, 2), (1, 1)]


def attend_flash(q, k, v, softmax_scale, causal, window_size, softcap, s_aux=None):
    """Flash attention's contract for one sequence, [tokens, heads, size]."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    logits = torch.einsum("mhd,nhd->hmn", q, k) * (q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale)
    if softcap:
        logits = (logits / softcap).tanh() * softcap
    place = torch.arange(len(q))
    distance = place[:, None] - place
    hidden = (distance < 0) if causal else torch.zeros_like(distance, dtype=torch.bool)
    if window_size[0] >= 0:
        hidden = hidden | (distance > window_size[0])
    logits = logits.masked_fill(hidden, -torch.inf)
    if s_aux is not None:
        logits = torch.cat([logits, s_aux[:, None, None].expand(-1, len(q), 1)], dim=-1)
    return torch.einsum("hmn,nhd->mhd", logits.softmax(-1)[..., : len(q)], v)


def attend_rows(q, k, v, *options):
    return torch.stack([attend_flash(*row, *options) for row in zip(q, k, v, strict=True)])


def attend_sequences(q, k, v, bounds, *options):
    out = torch.zeros_like(q)
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        part = slice(start, end)
        out[part] = attend_flash(q[part], k[part], v[part], *options)
    return out


# transformers reads the arguments off the kernels' signatures and drops what they lack. Version 2 has no sinks.
# fmt: off
def flash2(q, k, v, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0):
    return attend_rows(q, k, v, softmax_scale, causal, window_size, softcap)


def flash2_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
                  softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0):
    return attend_sequences(q, k, v, cu_seqlens_k, softmax_scale, causal, window_size, softcap)


def flash3(q, k, v, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, s_aux=None):
    return attend_rows(q, k, v, softmax_scale, causal, window_size, softcap, s_aux)


def flash3_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
                  softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, s_aux=None):
    return attend_sequences(q, k, v, cu_seqlens_k, softmax_scale, causal, window_size, softcap, s_aux)


def without_window(q, k, v, softmax_scale=None, causal=False):
    return attend_rows(q, k, v, softmax_scale, causal, (-1, -1), 0.0)
# fmt: on


@pytest.fixture
def flash(monkeypatch):
    """A function that gives a model with flash attention: 2, 3, or (as 4) a kernel without windows."""

    def kernels(implementation, *_, **__):
        pair = {
            "flash_attention_2": (flash2, flash2_varlen),
            "flash_attention_3": (flash3, flash3_varlen),
            "flash_attention_4": (without_window, without_window),
        }[implementation]
        return *pair, None, flash_utils._pad_input, flash_utils._unpad_input

    monkeypatch.setattr(flash_utils, "_lazy_imports", kernels)
    for name in ("_flash_fn", "_flash_varlen_fn", "_flash_with_kvcache_fn", "_pad_fn", "_unpad_fn"):
        monkeypatch.setattr(flash_utils, name, None, raising=False)
    for name in ("_loaded_implementation", "_process_flash_kwargs_fn", "_process_with_kvcache_kwargs_fn"):
        monkeypatch.setattr(flash_utils, name, None, raising=False)

    def make(name, version=2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager").eval()
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
        # set_attn_implementation would look for the packages.
        model.config._attn_implementation = f"flash_attention_{version}"
        return model

    return make


def eager_scores(model, ids, mask, steps, answers):
    flash_name = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    with torch.no_grad():
        attentions = model(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    model.config._attn_implementation = flash_name
    return [
        torch.stack(
            [
                torch.stack([attentions[at][i, h, a:b, start:end].sum() / (end - start) for start, end in steps[i]])
                for at, h in HEADS
            ]
        )
        for i, (a, b) in enumerate(answers)
    ]


IDS = torch.randint(0, 61, (3, 24), generator=torch.Generator().manual_seed(1))
STEPS = [[(7, 9), (9, 15)], [(2, 8), (8, 13)], [(1, 4), (4, 6), (6, 13)]]
ANSWERS = [(16, 24), (14, 20), (15, 24)]
CASES = [("llama", 2), ("mistral", 2), ("qwen3", 2), ("gemma2", 2), ("gpt-oss", 3), ("mistral", 3)]


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize(("name", "version"), CASES)
def test_padded_rows(flash, name, version, padding):
    model = flash(name, version)
    mask = torch.ones_like(IDS)
    if padding:
        mask[0, :5] = mask[1, -4:] = 0
    got = score_steps(model, IDS, mask, steps=STEPS, answers=ANSWERS, heads=HEADS)
    expected = eager_scores(model, IDS, mask, STEPS, ANSWERS)
    assert max(float(table.max()) for table in expected) > 0.1
    for mine, slow in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, slow, rtol=0, atol=1e-6)


# Three sequences in one row, their spans in positions of the sequence.
LENGTHS = [11, 8, 14]
PACKED_STEPS = [[(1, 4), (4, 7)], [], [(0, 5), (5, 10)]]
PACKED_ANSWERS = [(8, 11), (5, 8), (11, 14)]
ROW = torch.randint(0, 61, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(2))


def alone(model):
    """Every sequence as a batch of its own, by eager attention."""
    result, start = [], 0
    for length, steps, answer in zip(LENGTHS, PACKED_STEPS, PACKED_ANSWERS, strict=True):
        ids = ROW[:, start : start + length]
        start += length
        if steps:
            result += eager_scores(model, ids, torch.ones_like(ids), [steps], [answer])
        else:
            result.append(torch.zeros(len(HEADS), 0))
    return result


@pytest.mark.parametrize(("name", "version"), CASES)
def test_packed_by_position_ids(flash, name, version):
    model = flash(name, version)
    got = score_packed_steps(model, ROW, [LENGTHS], steps=PACKED_STEPS, answers=PACKED_ANSWERS, heads=HEADS)
    for mine, slow in zip(got, alone(model), strict=True):
        torch.testing.assert_close(mine, slow, rtol=0, atol=1e-6)


def packed_kwargs(with_bounds):
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    if not with_bounds:
        return {"position_ids": positions}
    bounds = torch.tensor([0, *LENGTHS], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    longest = {"max_length_q": max(LENGTHS), "max_length_k": max(LENGTHS)}
    return {"position_ids": positions, "cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, **longest}


@pytest.mark.parametrize("with_bounds", [False, True])
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_one_answer_in_a_packed_row(flash, name, with_bounds):
    """A layout of the row as a whole: the other sequences are not attended to, so they take no probability."""
    model = flash(name)
    first = LENGTHS[0] + LENGTHS[1]
    steps = [[(first + start, first + end) for start, end in PACKED_STEPS[2]]]
    layout = StepLayout.from_spans(steps, [(first + 11, first + 14)], torch.ones_like(ROW))
    with torch.no_grad(), capture_scores(model, layout, HEADS) as captured:
        model(input_ids=ROW, **packed_kwargs(with_bounds))
    torch.testing.assert_close(captured.scores[:, 0], alone(model)[2], rtol=0, atol=1e-6)


def test_all_answers_by_given_bounds(flash):
    model = flash("mistral")
    layout = PackedLayout.from_spans(PACKED_STEPS, PACKED_ANSWERS, [LENGTHS], ROW.shape[1])
    with torch.no_grad(), capture_scores(model, layout, HEADS) as captured:
        model(input_ids=ROW, **packed_kwargs(with_bounds=True))
    for n, slow in enumerate(alone(model)):
        torch.testing.assert_close(captured.scores[:, n, : slow.shape[1]], slow, rtol=0, atol=1e-6)


def test_packed_rows_without_position_ids_are_refused(flash):
    model = flash("llama")
    layout = PackedLayout.from_spans(PACKED_STEPS, PACKED_ANSWERS, [LENGTHS], ROW.shape[1])
    with torch.no_grad(), capture_scores(model, layout, HEADS) as captured:
        model(input_ids=ROW)
    with pytest.raises(InputError, match="layer 0, answers of packed sequences attend to other sequences"):
        _ = captured.scores


def test_sequences_over_several_rows_are_refused(flash):
    model = flash("llama")
    layout = StepLayout.from_spans([[], []], [(3, 5), (3, 5)], torch.ones(2, 8))
    bounds = torch.tensor([0, 5, 16], dtype=torch.int32)
    with pytest.raises(InputError, match="cu_seq_lens for 2 rows"), capture_scores(model, layout, HEADS):
        model(input_ids=IDS[:2, :8], cu_seq_lens_q=bounds, cu_seq_lens_k=bounds, max_length_q=11, max_length_k=11)


def test_a_kernel_without_sinks_is_refused(flash):
    """transformers drops the sinks silently where the kernel has no argument for them."""
    with pytest.raises(InputError, match="'flash_attention_2', ignores the model's attention sinks"):
        score_steps(flash("gpt-oss", 2), IDS, None, steps=STEPS, answers=ANSWERS, heads=HEADS)


def test_a_kernel_without_windows_is_refused(flash):
    with pytest.raises(InputError, match="'flash_attention_4', ignores the model's sliding window"):
        score_steps(flash("mistral", 4), IDS, None, steps=STEPS, answers=ANSWERS, heads=HEADS)


@pytest.mark.slow
@pytest.mark.skipif(
    not (torch.cuda.is_available() and find_spec("flash_attn")),
    reason="the real kernel needs a CUDA device and the package flash-attn; its part is played by PyTorch above",
)
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3"])
def test_the_real_kernel(name):
    """Layer 0 sees the same queries and keys under both; later layers read outputs rounded to half precision."""
    ids, mask = IDS.cuda(), torch.ones_like(IDS).cuda()
    mask[0, :5] = mask[1, -4:] = 0
    scores = []
    for implementation in ("flash_attention_2", "sdpa"):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=implementation)
        model = model.to("cuda", torch.bfloat16).eval()
        scores.append(score_steps(model, ids, mask, steps=STEPS, answers=ANSWERS, heads=HEADS))
    for flash_table, table in zip(*scores, strict=True):
        torch.testing.assert_close(flash_table[1:3], table[1:3], rtol=0, atol=1e-5)
        torch.testing.assert_close(flash_table, table, rtol=0, atol=2e-2)
