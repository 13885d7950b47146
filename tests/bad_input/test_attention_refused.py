"""Models and back ends whose scores would be wrong: refused, with the reason, before or inside the forward."""

from __future__ import annotations

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from attnpo.attention.capture import capture_scores, score_steps
from attnpo.attention.heads import check_heads
from attnpo.attention.layout import StepLayout
from attnpo.attention.model import scorable_layers
from attnpo.errors import InputError
from tiny_shapes import COMMON

IDS = torch.arange(20).reshape(2, 10)
MASK = torch.ones(2, 10, dtype=torch.int64)
SPANS = {"steps": [[(1, 3), (3, 5)], [(2, 5)]], "answers": [(6, 10), (6, 9)]}
CAUSAL = torch.ones(1, 1, 10, 10, dtype=torch.bool).tril()


def make_model(kind, implementation=None, **options):
    config = AutoConfig.for_model(kind, **{**COMMON, **options})
    return AutoModelForCausalLM.from_config(config, attn_implementation=implementation).eval()


def score(model, heads=((1, 2),), mask=MASK):
    return score_steps(model, IDS, mask, **SPANS, heads=heads)


def forward(model, **inputs):
    """With the layout, but another forward than that of score_steps."""
    layout = StepLayout.from_spans(**SPANS, attention_mask=MASK)
    with torch.no_grad(), capture_scores(model, layout, [(0, 2)]) as captured:
        model(**{"input_ids": IDS, **inputs})
    return captured.scores


LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["full_attention", "linear_attention", "full_attention"],
}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("bloom", {}, r"layer 1 of BloomModel .*ALiBi.* cannot be scored; nor can any other layer"),
        ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 3}, r"layer 1 of MptModel .*ALiBi"),
        ("falcon", {}, r"layer 1 of FalconModel .*remote-code"),
        ("gptj", {"n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4}, "layer 1 of GPTJModel"),
        ("qwen3_5_text", LINEAR, r"layer 1 \(linear_attention\) of .*the layers that can be scored are \[0, 2\]"),
        ("lfm2", {"layer_types": ["full_attention", "conv", "full_attention"]}, r"layer 1 \(conv\) of Lfm2Model"),
        ("mamba", {}, r"layer 1 \(linear_attention\) of MambaModel .* nor can any other layer"),
        ("diffllama", {}, "layer 1 ran twice"),
        ("bert", {}, "layer 1 is not causal"),
        ("gemma3_text", {"head_dim": 8, "use_bidirectional_attention": True}, "layer 1 is not causal"),
        ("llama", {"is_causal": False}, "layer 1 is not causal"),
        ("bart", {"decoder_layers": 3, "d_model": 32, "decoder_attention_heads": 4}, "two attention modules"),
    ],
)
def test_models_that_cannot_be_scored(kind, options, message):
    with pytest.raises(InputError, match=message):
        score(make_model(kind, **options))


def test_scorable_layers():
    assert scorable_layers(make_model("qwen3_5_text", **LINEAR)) == [0, 2]
    assert scorable_layers(make_model("bloom")) == []


def test_a_configuration_without_heads():
    with pytest.raises(InputError, match="mamba has no attention heads"):
        check_heads(AutoConfig.for_model("mamba"), [(0, 0)])


def test_model_code_that_ignores_the_interface(monkeypatch):
    """As remote code, or a library that patches a model's attention with a kernel of its own, may have it."""

    def own_forward(self, hidden_states, **kwargs):
        return self.o_proj(hidden_states), None

    model = make_model("llama")
    monkeypatch.setattr(type(model.model.layers[1].self_attn), "forward", own_forward)
    with pytest.raises(InputError, match="layer 1 of LlamaModel does not take its attention function from"):
        score(model)


def test_heads_split_over_devices():
    """A rank of tensor parallelism holds some of the heads: head 2 there is another one than the model's head 2."""
    model = make_model("llama")
    model.config.num_attention_heads = 8
    with pytest.raises(InputError, match=r"layer 1 computes 4 query heads where the configuration has 8.*tensor par"):
        score(model)


def test_heads_that_differ_by_layer():
    model = make_model("llama")
    model.model.layers[1] = make_model("llama", num_attention_heads=2, head_dim=8).model.layers[1]
    with pytest.raises(InputError, match="layer 1 computes 2 query heads where the configuration has 4"):
        score(model)


@pytest.mark.parametrize("adapter", ["prefix", "prompt"])
def test_virtual_tokens(adapter):
    from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model

    config = {"prefix": PrefixTuningConfig, "prompt": PromptTuningConfig}[adapter]
    model = get_peft_model(make_model("llama"), config(task_type="CAUSAL_LM", num_virtual_tokens=3))
    message = {"prefix": "13 key positions for 10.*prefix tuning", "prompt": "2 rows of 13.*prompt-tuning"}[adapter]
    with pytest.raises(InputError, match=message):
        score(model)


def test_paged_attention():
    model = make_model("llama", "paged|eager")
    with pytest.raises(InputError, match=r"'paged\|eager' is for generation"):
        score(model)
    model = make_model("llama")
    for option in ("cache", "block_table"):
        with pytest.raises(InputError, match="paged cache"):
            forward(model, **{option: object()})


def test_custom_attention_implementations(monkeypatch):
    """Known are the masks that transformers makes; an implementation without any may attend to anything."""
    original = ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(AttentionInterface._global_mapping, "mine", original)
    model = make_model("llama")
    expected = score(model)
    model.set_attn_implementation("mine")
    with pytest.raises(InputError, match="layer 1, attention implementation 'mine', got no mask"):
        score(model)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "mine", AttentionMaskInterface._global_mapping["sdpa"])
    for mine, sdpa in zip(score(model), expected, strict=True):
        torch.testing.assert_close(mine, sdpa, rtol=0, atol=0)
    model.config._attn_implementation = "theirs"
    with pytest.raises(InputError, match="'theirs' is not registered"):
        score(model)


def test_attention_kernels_from_the_hub(monkeypatch):
    """transformers registers most as its flash attention; one with an entry of its own takes masks its own way."""
    name = "someone/attention-kernel"
    monkeypatch.setitem(AttentionInterface._global_mapping, name, lambda *_, **__: None)
    monkeypatch.setitem(
        AttentionMaskInterface._global_mapping, name, AttentionMaskInterface._global_mapping["flash_attention_2"]
    )
    model = make_model("llama")
    model.config._attn_implementation = name
    with pytest.raises(InputError, match="'someone/attention-kernel' is not one that transformers calls as flash"):
        score(model)


@pytest.mark.parametrize(
    ("implementation", "mask", "message"),
    [
        ("eager", CAUSAL, "'eager', got a mask of bools, which it adds"),
        ("flex_attention", CAUSAL.float(), "'flex_attention', got a mask tensor"),
        ("sdpa", None, None),
        ("sdpa", CAUSAL, None),
        ("sdpa", torch.zeros(1, 1, 10, 10).masked_fill(~CAUSAL, -torch.inf), None),
        ("eager", torch.zeros(1, 1, 10, 10).masked_fill(~CAUSAL, -1e9), None),
    ],
)
def test_masks_given_by_the_caller(implementation, mask, message):
    model = make_model("llama", implementation)
    if message is None:
        torch.testing.assert_close(forward(model, attention_mask=mask), forward(model), rtol=0, atol=1e-6)
        return
    with pytest.raises(InputError, match=message):
        forward(model, attention_mask=mask)


def test_sinks_that_the_attention_ignores():
    model = make_model(
        "gpt_oss",
        "eager",
        head_dim=8,
        num_local_experts=2,
        num_experts_per_tok=1,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    score(model)
    model.config._attn_implementation = "sdpa"
    with pytest.raises(InputError, match="layer 1, attention implementation 'sdpa', ignores the model's attention si"):
        score(model)


def test_layers_with_different_implementations():
    """Each layer's own is replaced; a layer whose mask was made for another one is refused."""
    import copy

    model = make_model("llama")
    expected = score(model, [(0, 1), (1, 2)])
    for layer in model.model.layers[:2]:
        layer.self_attn.config = copy.deepcopy(model.config)
    model.model.layers[0].self_attn.config._attn_implementation = "eager"
    padded = MASK.clone()
    padded[1, 0] = 0
    for heads in ([(0, 1)], [(0, 1), (1, 2)]):
        with pytest.raises(InputError, match="layer 0, attention implementation 'eager', got"):
            score(model, heads, padded)
    model.model.layers[0].self_attn.config._attn_implementation = "sdpa"
    torch.testing.assert_close(score(model, [(0, 1), (1, 2)]), expected)
