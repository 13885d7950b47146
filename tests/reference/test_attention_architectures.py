"""Step scores of many architectures against eager attention: the table of docs/architectures.md, one case a row.

Small random models whose weights make attention far from uniform; every layer that computes attention is scored.
"""

from __future__ import annotations

import inspect

import pytest
import torch
from transformers import AutoConfig

from attnpo import score_steps
from attnpo.attention.capture import score_packed_steps
from attnpo.errors import InputError
from tiny_shapes import COMMON, random_model

HEAD = {"head_dim": 8}
WINDOW = {"sliding_window": 6}
MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], **WINDOW}
MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
GEMMA = {**HEAD, **MIXED, "query_pre_attn_scalar": 5}
GPT_OSS_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
SDPA, EAGER = "sdpa", "eager"
MODELS = {  # name in the table: model type, attention implementation, options
    "arcee": ("arcee", SDPA, {}),
    "cohere": ("cohere", SDPA, {}),
    "cohere2": ("cohere2", SDPA, MIXED),
    "deepseek-v2": ("deepseek_v2", SDPA, LATENT),
    "deepseek-v3": ("deepseek_v3", SDPA, LATENT),
    "ernie4.5": ("ernie4_5", SDPA, {}),
    "exaone4": ("exaone4", SDPA, MIXED),
    "gemma": ("gemma", SDPA, HEAD),
    "gemma2": ("gemma2", EAGER, {**GEMMA, "attn_logit_softcapping": 2.0}),
    "gemma3": ("gemma3_text", SDPA, GEMMA),
    "gemma3n": (
        "gemma3n_text",
        SDPA,
        {**GEMMA, "vocab_size_per_layer_input": 61, "hidden_size_per_layer_input": 8, "laurel_rank": 4}
        | {"num_kv_shared_layers": 1, "layer_types": ["sliding_attention", "full_attention", "full_attention"]},
    ),
    "gemma4": (  # its last layer reuses keys
        "gemma4_text",
        SDPA,
        {**HEAD, "global_head_dim": 16, "num_global_key_value_heads": 1, **WINDOW, "num_kv_shared_layers": 1}
        | {"layer_types": ["sliding_attention", "full_attention", "full_attention"]}
        | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 61},
    ),
    "glm4": ("glm4", SDPA, HEAD),
    "glm4-moe": ("glm4_moe", SDPA, {**LATENT, **HEAD, "num_key_value_heads": 2}),
    "gpt2": ("gpt2", SDPA, {"n_embd": 32, "n_layer": 3, "n_head": 4}),
    "gpt-bigcode": ("gpt_bigcode", SDPA, {"n_embd": 32, "n_layer": 3, "n_head": 4}),
    "gpt-neox": ("gpt_neox", SDPA, {}),
    "gpt-oss": ("gpt_oss", EAGER, {**HEAD, **WINDOW, **MOE, **GPT_OSS_ROPE}),
    "granite": ("granite", SDPA, {"attention_multiplier": 0.6}),
    "granitemoe": ("granitemoe", SDPA, {**MOE, "attention_multiplier": 0.6}),
    "hunyuan": ("hunyuan_v1_dense", SDPA, HEAD),
    "lfm2": ("lfm2", SDPA, {"layer_types": ["conv", "full_attention", "full_attention"]}),
    "llama": ("llama", SDPA, {}),
    "llama4": ("llama4_text", SDPA, {**HEAD, **MOE, "attention_chunk_size": 7, "intermediate_size_mlp": 48}),
    "mimo-v2-flash": ("mimo_v2_flash", EAGER, {**HEAD, **MIXED, **MOE, "v_head_dim": 8}),
    "minimax": ("minimax", SDPA, {**MOE, "layer_types": LINEAR["layer_types"]}),
    "ministral3": ("ministral3", SDPA, HEAD),
    "mistral": ("mistral", SDPA, {"sliding_window": 7}),
    "mixtral": ("mixtral", SDPA, {**MOE, "sliding_window": None}),
    "modernbert-decoder": (
        "modernbert-decoder",
        SDPA,
        {f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")}
        | {"local_attention": 12, "layer_types": MIXED["layer_types"]},
    ),
    "nemotron": ("nemotron", SDPA, {}),
    "olmo": ("olmo", SDPA, {}),
    "olmo2": ("olmo2", SDPA, {}),
    "olmo3": ("olmo3", SDPA, MIXED),
    "opt": ("opt", SDPA, {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "phi": ("phi", SDPA, {}),
    "phi3": ("phi3", SDPA, WINDOW),
    "qwen2": ("qwen2", SDPA, {}),
    "qwen2-sliding": ("qwen2", SDPA, {**MIXED, "use_sliding_window": True}),
    "qwen3": ("qwen3", SDPA, HEAD),
    "qwen3-moe": ("qwen3_moe", SDPA, {**HEAD, **MOE}),
    "qwen3-next": ("qwen3_next", SDPA, {**LINEAR, **HEAD, **MOE, "shared_expert_intermediate_size": 16}),
    "qwen3.5": ("qwen3_5_text", SDPA, {**LINEAR, **HEAD}),
    "seed-oss": ("seed_oss", SDPA, HEAD),
    "smollm3": ("smollm3", SDPA, {"no_rope_layers": [1, 0, 1]}),
    "stablelm": ("stablelm", SDPA, {}),
    "starcoder2": ("starcoder2", SDPA, WINDOW),
}
SINKS_OUTSIDE = {"granite-swa": ("granite_swa", EAGER, {**MIXED, "attention_multiplier": 0.6})}
ALSO_EAGER = ["cohere2", "deepseek-v3", "gemma3", "gpt2", "llama", "mistral", "qwen3-next", "qwen3"]
CASES = [(name, MODELS[name][1]) for name in MODELS] + [(name, EAGER) for name in ALSO_EAGER]

MASK = torch.ones(4, 24, dtype=torch.int64)
MASK[0, :5] = MASK[1, -4:] = MASK[3, :3] = MASK[3, -3:] = 0
STEPS = [[(7, 9), (9, 15)], [(2, 8), (8, 13)], [(1, 4), (4, 6), (6, 13)], [(5, 12)]]
ANSWERS = [(17, 24), (14, 20), (20, 24), (13, 21)]
IDS = torch.randint(0, 61, MASK.shape, generator=torch.Generator().manual_seed(1))


def make_model(name: str, implementation: str):
    kind, _, options = {**MODELS, **SINKS_OUTSIDE}[name]
    return random_model(AutoConfig.for_model(kind, **{**COMMON, **options}), implementation)


def by_definition(attentions, layers, heads):
    """S(l,h,s_k) = (1/|s_k|) Σ_{m∈F} Σ_{n∈s_k} a(m→n) for every row: one [H, S_i] table each."""
    weights = dict(zip(layers, attentions, strict=True))
    return [
        torch.stack(
            [
                torch.stack([weights[l][i, h, a:b, s:e].sum() / (e - s) for s, e in STEPS[i]])
                for l, h in heads  # noqa: E741
            ]
        )
        for i, (a, b) in enumerate(ANSWERS)
    ]


def positions_of(model):
    """As `generate` numbers them: every row from its first token on."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return {}
    return {"position_ids": (MASK.cumsum(dim=1) - 1).clamp(min=0)}


@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_architecture(name, implementation):
    model = make_model(name, implementation)
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    layers = [i for i, kind in enumerate(kinds) if kind.endswith("attention") and kind != "linear_attention"]
    heads = [(layer, head) for layer in layers for head in (3, 0)]
    assert config.num_hidden_layers == 3
    assert len(layers) >= 2
    got = score_steps(model, IDS, MASK, steps=STEPS, answers=ANSWERS, heads=heads)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        inputs = {"input_ids": IDS, "attention_mask": MASK, **positions_of(model)}
        attentions = model(**inputs, output_attentions=True, use_cache=False).attentions
    attentions = attentions if len(attentions) == len(layers) else [attentions[i] for i in layers]
    expected = by_definition(attentions, layers, heads)
    error = max(float((mine - slow).abs().max()) for mine, slow in zip(got, expected, strict=True))
    print(f"{name}, {implementation}: largest error {error:.1e}")  # pytest -rP shows it
    assert max(float(table.max()) for table in expected) > 0.2  # far from uniform
    assert error < 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_left_padding_changes_nothing(name):
    """A row scores as it does alone, also where attention depends on the number of a position."""
    model = make_model(name, MODELS[name][1])
    heads = [(2, 3), (1, 0)]
    padded = score_steps(model, IDS[:1], MASK[:1], steps=STEPS[:1], answers=ANSWERS[:1], heads=heads)
    start = 5
    spans = {
        "steps": [[(a - start, b - start) for a, b in STEPS[0]]],
        "answers": [(ANSWERS[0][0] - start, ANSWERS[0][1] - start)],
    }
    alone = score_steps(model, IDS[:1, start:], None, **spans, heads=heads)
    torch.testing.assert_close(padded[0], alone[0], rtol=0, atol=2e-6)


NOT_SEPARATED = {"gpt-oss": "attend to other sequences", "opt": "attend to other sequences"}
NOT_SEPARATED |= dict.fromkeys(("lfm2", "minimax", "qwen3-next", "qwen3.5"), "are not attention layers")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_packed_sequences(name):
    """Two sequences in one row, each scored as alone; refused where transformers does not keep them apart."""
    model = make_model(name, MODELS[name][1])
    spans = {"steps": [[(1, 3), (3, 6)], [(2, 9)]], "answers": [(6, 10), (10, 14)]}
    arguments = {**spans, "heads": [(2, 3), (1, 0)]}
    if name in NOT_SEPARATED:
        with pytest.raises(InputError, match=NOT_SEPARATED[name]):
            score_packed_steps(model, IDS[:1], [[10, 14]], **arguments)
        return
    got = score_packed_steps(model, IDS[:1], [[10, 14]], **arguments)
    for n, part in enumerate((IDS[:1, :10], IDS[:1, 10:])):
        spans_alone = {key: [value[n]] for key, value in spans.items()}
        (alone,) = score_steps(model, part, None, **spans_alone, heads=arguments["heads"])
        torch.testing.assert_close(got[n], alone, rtol=0, atol=1e-6)


def test_sinks_outside_the_softmax():
    """Granite's sliding-window models scale the output instead: their weights times that scale are what is attended."""
    model = make_model("granite-swa", EAGER)
    heads = [(1, 3), (1, 0)]
    got = score_steps(model, IDS, MASK, steps=STEPS, answers=ANSWERS, heads=heads)
    taken = {}

    def spy(module, args, kwargs, output):
        taken["weights"] = output[1]
        hidden = kwargs["hidden_states"]
        shape = (*hidden.shape[:-1], -1, module.head_dim)
        query, key = (p(hidden).view(shape).transpose(1, 2) for p in (module.q_proj, module.k_proj))
        if kwargs["position_embeddings"] is not None:
            from transformers.models.granite_swa.modeling_granite_swa import apply_rotary_pos_emb

            query, key = apply_rotary_pos_emb(query, key, *kwargs["position_embeddings"])
        logits = query @ key.repeat_interleave(2, dim=1).transpose(2, 3) * module.scaling + kwargs["attention_mask"]
        taken["scale"] = (logits.logsumexp(-1) - module.sinks.view(1, -1, 1)).sigmoid()

    model.model.layers[1].self_attn.register_forward_hook(spy, with_kwargs=True)
    with torch.no_grad():
        model(input_ids=IDS, attention_mask=MASK, output_attentions=True, use_cache=False)
    expected = by_definition([taken["weights"] * taken["scale"][..., None]], [1], heads)
    plain = by_definition([taken["weights"]], [1], heads)
    for mine, slow, wrong in zip(got, expected, plain, strict=True):
        torch.testing.assert_close(mine, slow, rtol=0, atol=1e-6)
        assert (mine - wrong).abs().max() > 1e-3
