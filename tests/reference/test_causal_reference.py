"""Drops compared with three slow ways to hide a step: explicit masks, a forward in plain loops, tokens removed."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen3Config,
)

from attnpo.labels.hiding import iterate_drops
from attnpo.traces.prepared import PreparedTrace
from tiny_shapes import COMMON, random_model

LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
WINDOW = 6  # shorter than the longest hidden step: some of its own tokens then see nothing at all
CONFIGS = {
    "llama": LlamaConfig(**COMMON),
    "qwen2": Qwen2Config(**COMMON),
    "qwen2-sliding": Qwen2Config(**COMMON, use_sliding_window=True, sliding_window=WINDOW, layer_types=LAYERS),
    "qwen3": Qwen3Config(**COMMON, head_dim=8),
    "mistral": MistralConfig(**COMMON, sliding_window=WINDOW),
    "gemma3": Gemma3TextConfig(
        **COMMON, head_dim=8, sliding_window=WINDOW, query_pre_attn_scalar=5, layer_types=LAYERS
    ),
    "gpt-oss": GptOssConfig(
        **COMMON,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        head_dim=8,
        sliding_window=WINDOW,
        num_local_experts=2,
        num_experts_per_tok=1,
    ),
    "opt": OPTConfig(
        vocab_size=61,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        word_embed_proj_dim=32,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    ),
    "gpt2": GPT2Config(vocab_size=61, n_embd=32, n_layer=3, n_head=4, bos_token_id=None, eos_token_id=None),
}
CASES = [(name, "eager") for name in CONFIGS] + [(name, "sdpa") for name in CONFIGS if name != "gpt-oss"]
FULL = ["llama", "qwen2", "qwen3", "opt", "gpt2"]


def make_model(name: str, implementation: str = "eager"):
    return random_model(CONFIGS[name], implementation)


def make_traces() -> list[PreparedTrace]:
    """Three lengths; a step at the very start, one without tokens, one longer than the window."""
    generator = torch.Generator().manual_seed(1)
    plans = [
        (24, [(3, 5), (5, 5), (5, 14), (14, 17)], (19, 24)),
        (17, [(0, 4), (4, 9)], (11, 17)),
        (20, [(2, 3), (3, 9), (9, 16)], (17, 20)),
    ]
    return [
        PreparedTrace(
            torch.randint(0, 61, (length,), generator=generator).tolist(), [{} for _ in spans], spans, answer, None
        )
        for length, spans, answer in plans
    ]


def additive_mask(length: int, hidden: tuple[int, int], window: int | None) -> torch.Tensor:
    """Hide a step from the positions after it only: its own tokens attend to each other."""
    mask = torch.full((1, 1, length, length), torch.finfo(torch.float32).min)
    for q in range(length):
        for k in range(q + 1):
            seen = window is None or q - k < window
            if seen and not (hidden[0] <= k < hidden[1] <= q):
                mask[0, 0, q, k] = 0
    return mask


def answer_terms(logits: torch.Tensor, trace: PreparedTrace) -> torch.Tensor:
    assert trace.answer is not None
    return torch.stack([logits[t - 1].log_softmax(-1)[trace.ids[t]] for t in range(*trace.answer)])


def masked_logits(model, ids: list[int], hidden: tuple[int, int]) -> torch.Tensor:
    """One row in one forward of the eager model, with masks of our own."""
    config = model.config
    full, windowed = (additive_mask(len(ids), hidden, w) for w in (None, getattr(config, "sliding_window", None)))
    kinds = set(getattr(config, "layer_types", None) or [])
    mask = windowed if "sliding_attention" not in kinds else {"full_attention": full, "sliding_attention": windowed}
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([ids]),
            attention_mask=mask,
            position_ids=torch.arange(len(ids))[None],
            use_cache=False,
        ).logits[0]


@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_drops_equal_those_of_hand_made_masks(name, implementation):
    traces = make_traces()
    found = dict(iterate_drops(make_model(name, implementation), traces, batch_size=4))
    assert sorted(found) == [0, 1, 2]
    eager = make_model(name)
    for i, trace in enumerate(traces):
        shown = answer_terms(masked_logits(eager, trace.ids, (0, 0)), trace)
        expected = torch.stack(
            [shown - answer_terms(masked_logits(eager, trace.ids, span), trace) for span in trace.spans]
        )
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-4)
    assert max(float(drops.abs().max()) for drops in found.values()) > 0.05
    assert not found[0][1].any()  # the step without tokens


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3", "gpt2"])
def test_batches_and_padding_do_not_matter(name):
    model = make_model(name, "sdpa")
    traces = make_traces()
    reference = dict(iterate_drops(model, traces, batch_size=8))
    for batch_size in (1, 3, 100):
        for order in ([0, 1, 2], [2, 0, 1]):
            found = dict(iterate_drops(model, [traces[i] for i in order], batch_size))
            for place, i in enumerate(order):
                torch.testing.assert_close(found[place], reference[i], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FULL)
def test_without_windows_hiding_equals_removing_tokens(name):
    """With attention over everything, a row without the step's tokens, the others keeping their positions, is the
    same. No mask with holes is needed for that."""
    model = make_model(name)
    for i, drops in iterate_drops(make_model(name, "sdpa"), make_traces(), batch_size=4):
        trace = make_traces()[i]
        assert trace.answer is not None

        def terms(kept: list[int], trace=trace) -> torch.Tensor:
            ids = torch.tensor([[trace.ids[k] for k in kept]])
            with torch.no_grad():
                logits = model(
                    input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=torch.tensor([kept])
                ).logits[0]
            length = trace.answer[1] - trace.answer[0]
            answer = ids[0, -length:]
            return logits[-length - 1 : -1].log_softmax(-1)[torch.arange(length), answer]

        everything = list(range(len(trace.ids)))
        for k, (start, end) in enumerate(trace.spans):
            taken_out = everything[:start] + everything[end:]
            torch.testing.assert_close(drops[k], terms(everything) - terms(taken_out), rtol=1e-4, atol=1e-4)


def loop_forward(model, ids: list[int], hidden: tuple[int, int]) -> torch.Tensor:
    """Llama, Mistral or Qwen2, one position, head and key at a time; what a query sees is a list of keys."""
    config, weights = model.config, model.state_dict()
    size = config.hidden_size // config.num_attention_heads
    groups = config.num_attention_heads // config.num_key_value_heads
    frequency = [config.rope_parameters["rope_theta"] ** (-2 * i / size) for i in range(size // 2)]

    def norm(x, name):
        return weights[name] * x / math.sqrt(float((x * x).mean()) + config.rms_norm_eps)

    def project(x, name):
        return weights[f"{name}.weight"] @ x + weights.get(f"{name}.bias", torch.zeros(1))

    def rotate(x, position):
        half, turned = size // 2, x.clone()
        for i in range(half):
            c, s = math.cos(position * frequency[i]), math.sin(position * frequency[i])
            turned[i], turned[half + i] = x[i] * c - x[half + i] * s, x[half + i] * c + x[i] * s
        return turned

    states = [weights["model.embed_tokens.weight"][token] for token in ids]
    for layer in range(config.num_hidden_layers):
        name = f"model.layers.{layer}"
        inputs = [norm(x, f"{name}.input_layernorm.weight") for x in states]
        parts = {p: [project(x, f"{name}.self_attn.{p}_proj").view(-1, size) for x in inputs] for p in ("q", "k", "v")}
        for q in range(len(ids)):
            window = getattr(config, "sliding_window", None) or len(ids)
            keys = [k for k in range(q + 1) if q - k < window and not (hidden[0] <= k < hidden[1] <= q)]
            mixed = []
            for head in range(config.num_attention_heads):
                query = rotate(parts["q"][q][head], q)
                rotated = [rotate(parts["k"][k][head // groups], k) for k in keys]
                scores = torch.stack([query @ key for key in rotated]) / math.sqrt(size)
                values = torch.stack([parts["v"][k][head // groups] for k in keys])
                mixed.append(scores.softmax(0) @ values)
            states[q] = states[q] + project(torch.cat(mixed), f"{name}.self_attn.o_proj")
        for q, x in enumerate(states):
            y = norm(x, f"{name}.post_attention_layernorm.weight")
            gate = torch.nn.functional.silu(project(y, f"{name}.mlp.gate_proj"))
            states[q] = x + project(gate * project(y, f"{name}.mlp.up_proj"), f"{name}.mlp.down_proj")
    return torch.stack([weights["lm_head.weight"] @ norm(x, "model.norm.weight") for x in states])


@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral"])
def test_drops_equal_those_of_a_forward_in_loops(name):
    model = make_model(name, "sdpa")
    (_, _, trace) = make_traces()
    ((_, drops),) = iterate_drops(model, [trace], batch_size=8)
    shown = answer_terms(loop_forward(model, trace.ids, (0, 0)), trace)
    for k, span in enumerate(trace.spans):
        expected = shown - answer_terms(loop_forward(model, trace.ids, span), trace)
        torch.testing.assert_close(drops[k], expected, rtol=1e-3, atol=1e-3)


def test_explicit_positions_are_needed_for_opt():
    """Why positions are explicit: OPT numbers the tokens that the mask shows."""
    model = make_model("opt")
    trace = make_traces()[0]
    ids, mask = torch.tensor([trace.ids]), torch.ones(1, 24, dtype=torch.int64)
    mask[0, 5:14] = 0
    with torch.no_grad():
        given = model(input_ids=ids, attention_mask=mask, position_ids=torch.arange(24)[None]).logits[0, 14:]
        moved = model(input_ids=ids, attention_mask=mask).logits[0, 14:]
    expected = masked_logits(model, trace.ids, (5, 14))[14:]
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
    assert float((moved - expected).abs().max()) > 0.01
