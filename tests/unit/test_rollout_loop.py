"""The sampling loop for rollouts against transformers' own: the same tokens, and the same random numbers used up."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationMixin, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, StoppingCriteriaList
from transformers.generation import MaxTimeCriteria

import tiny_shapes
from attnpo.models import fast_rollouts as module
from attnpo.models.fast_rollouts import draw, fast_rollouts

GPT2 = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": None}
SHAPES = {
    "llama": lambda: LlamaConfig(**tiny_shapes.TWO_LAYERS),
    "qwen2": lambda: Qwen2Config(**tiny_shapes.COMMON),
    "gpt2": lambda: GPT2Config(**GPT2, eos_token_id=None),
}


def tiny(name="llama"):
    """In float64, so that the rounding of a row, which depends on the number of rows, decides about no token."""
    model = tiny_shapes.random_model(SHAPES[name](), "sdpa").double()
    for parameter in model.parameters():
        parameter.data *= 0.5  # entropy enough that rows differ
    return model


@pytest.fixture
def loops(monkeypatch) -> list[int]:
    """The number of rows of each call that the loop took."""
    calls = []
    loop = module.rollout_loop

    def counted(model, ids, *args, **kwargs):
        calls.append(len(ids))
        return loop(model, ids, *args, **kwargs)

    monkeypatch.setattr(module, "rollout_loop", counted)
    return calls


def generated(model, *, fast, seed=0, lengths=(7, 4, 7, 1, 5, 6), new=40, **options):
    """The tokens (left-padded prompts first) and the state of the generator afterwards."""
    width = max(lengths)
    ids = torch.randint(3, 60, (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long()
    settings = {"do_sample": True, "top_k": 0, "pad_token_id": 0, "max_new_tokens": new, **options}
    torch.manual_seed(seed)
    with fast_rollouts(model) if fast else nullcontext():
        out = model.generate(input_ids=ids, attention_mask=mask, **settings)
    return out, torch.get_rng_state()


def compare(model, **options):
    """Both ways give the same; the tokens of transformers' own."""
    (plain, plain_state), (fast, fast_state) = (generated(model, fast=fast, **options) for fast in (False, True))
    assert torch.equal(plain, fast)
    assert torch.equal(plain_state, fast_state)
    return plain


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_same_tokens_where_rows_end_at_different_times(name, seed, loops):
    plain = compare(tiny(name), seed=seed, eos_token_id=[3, 4, 5])
    ended = (plain[:, 7:] == 0).any(dim=1)
    assert ended.any()  # else the test shows nothing: no row ended before the last
    assert loops == [6]


OPTIONS = {
    "no end token": {"eos_token_id": None},
    "an end token that never comes": {"eos_token_id": 10**6},
    "most tokens end": {"eos_token_id": list(range(1, 61)), "seed": 1},
    "one new token": {"new": 1, "eos_token_id": 3},
    "no padding": {"lengths": (5, 5, 5), "eos_token_id": [3, 4, 5]},
    "one row": {"lengths": (5,), "eos_token_id": [3, 4]},
    "the padding token is an end token": {"eos_token_id": [0, 3, 4]},
    "several responses per prompt": {"lengths": (3, 5), "num_return_sequences": 3, "eos_token_id": [3, 4, 5]},
    "greedy": {"do_sample": False, "eos_token_id": list(range(1, 30)), "top_k": None},
    "temperature": {"temperature": 0.7, "eos_token_id": [3, 4, 5]},
    "top k": {"top_k": 9, "eos_token_id": [3, 4, 5]},
    "top p": {"top_p": 0.8, "eos_token_id": [3, 4, 5]},
    "min p": {"min_p": 0.05, "eos_token_id": [3, 4, 5]},
    "repetition penalty": {"repetition_penalty": 1.3, "eos_token_id": [3, 4, 5]},
    "no repeated pair": {"no_repeat_ngram_size": 2, "eos_token_id": [3, 4, 5]},
    "min new tokens": {"min_new_tokens": 9, "eos_token_id": list(range(1, 20))},
    "several": {"temperature": 1.4, "top_p": 0.9, "repetition_penalty": 1.1, "eos_token_id": [3, 4, 5]},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_same_tokens_with_sampling_options(case, loops):
    options = OPTIONS[case]
    plain = compare(tiny(), **options)
    assert len(loops) == 1
    if case in ("no end token", "an end token that never comes"):
        assert plain.shape[1] == 47


@pytest.mark.parametrize("patience", [0, 1, 1000])
def test_removal_of_ended_rows_does_not_change_samples(patience, monkeypatch, loops):
    monkeypatch.setattr("attnpo.models.fast_rollouts.PATIENCE", patience)
    compare(tiny(), eos_token_id=[3, 4, 5], repetition_penalty=1.2)
    assert loops


def test_ended_rows_are_no_longer_computed(monkeypatch, loops):
    model, computed = tiny(), []
    model.register_forward_pre_hook(lambda _, args, kwargs: computed.append(len(kwargs["input_ids"])), with_kwargs=True)
    out, _ = generated(model, fast=True, eos_token_id=[3, 4, 5], new=50)
    tokens = int((out[:, 7:] != 0).sum())
    assert computed == sorted(computed, reverse=True)
    assert tokens <= sum(computed) < 6 * len(computed)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(2, 40), st.integers(0, 2**20), st.data())
def test_the_draw_is_that_of_multinomial_over_all_rows(batch, words, seed, data):
    rows = torch.tensor(data.draw(st.lists(st.integers(0, batch - 1), min_size=1, unique=True)))
    torch.manual_seed(seed)
    probs = torch.randn(batch, words).mul(2).softmax(dim=-1)
    torch.manual_seed(seed)
    expected, after = torch.multinomial(probs, 1).squeeze(1), torch.get_rng_state()
    torch.manual_seed(seed)
    assert torch.equal(draw(probs[rows], rows, batch), expected[rows])
    assert torch.equal(torch.get_rng_state(), after)


def test_probabilities_that_are_no_numbers_are_an_error():
    model = tiny()
    model.lm_head.weight.data[:] = torch.nan
    for fast in (False, True):
        with pytest.raises(RuntimeError, match=r"nan|no numbers"):
            generated(model, fast=fast)


LEFT_TO_STOCK = {
    "beams": {"num_beams": 2, "do_sample": False, "top_k": None},
    "the other outputs": {"return_dict_in_generate": True, "output_scores": True},
    "time": {"stopping_criteria": StoppingCriteriaList([MaxTimeCriteria(1000.0)])},
    "no cache": {"use_cache": False},
    "a static cache": {"cache_implementation": "static", "disable_compile": True},
    "prefixes": {"prefix_allowed_tokens_fn": lambda row, ids: [7 + row, 9, 11]},
    "a bias on sequences": {"sequence_bias": {(5,): 1.5}},
    "the synchronisation of processes": {"synced_gpus": False, "trust_remote_code": True},
    "a draft of the prompt": {"lengths": (5,), "prompt_lookup_num_tokens": 3},
}


@pytest.mark.parametrize("case", LEFT_TO_STOCK)
def test_calls_left_to_transformers(case, loops):
    model = tiny()
    plain, fast = (generated(model, fast=fast, new=6, **LEFT_TO_STOCK[case])[0] for fast in (False, True))
    if not isinstance(plain, torch.Tensor):
        assert len(fast.scores) == 6
        plain, fast = plain.sequences, fast.sequences
    assert torch.equal(plain, fast)
    assert not loops


class Own(type(tiny())):
    def prepare_inputs_for_generation(self, *args, **kwargs):
        return super().prepare_inputs_for_generation(*args, **kwargs)


def own():
    model = tiny()
    model.__class__ = Own
    return model


def dropping():
    model = tiny("gpt2").train()
    assert model.transformer.drop.p > 0
    return model


def with_dropout_of_attention():
    model = tiny().train()
    model.config.attention_dropout = 0.1
    return model


def windowed():
    return tiny_shapes.random_model(MistralConfig(**tiny_shapes.COMMON, sliding_window=4), "sdpa")


def following_the_longest_row():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    return tiny_shapes.random_model(LlamaConfig(**tiny_shapes.TWO_LAYERS, rope_parameters=rope), "sdpa")


MODELS = {
    "eager attention": lambda: tiny_shapes.random_model(SHAPES["llama"](), "eager"),
    "a way of its own to prepare inputs": own,
    "dropout": dropping,
    "dropout of attention": with_dropout_of_attention,
    "a sliding window": windowed,
    "dynamic rotary frequencies": following_the_longest_row,
}


@pytest.mark.parametrize("case", MODELS)
def test_models_left_to_transformers(case, loops):
    compare(MODELS[case](), new=6, eos_token_id=3)
    assert not loops


def test_a_model_in_training_mode_without_dropout_is_covered(loops):
    compare(tiny("qwen2").train(), new=6, eos_token_id=3)
    assert loops


def test_adapter_models_use_the_loop(tiny_qwen2, loops):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = peft.get_peft_model(tiny_qwen2.double(), lora)
    compare(model, eos_token_id=list(range(3, 40)))
    assert loops == [6]


def test_generate_is_restored_and_nothing_is_wrapped_twice():
    model = tiny()

    def fail():
        with fast_rollouts(model):
            first = model.generate
            with fast_rollouts(model):
                assert model.generate is first
            assert model.generate is first
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        fail()
    assert "generate" not in vars(model)
    assert model.generate.__func__ is GenerationMixin.generate


def test_a_module_that_does_not_generate_is_left_alone():
    with fast_rollouts(torch.nn.Linear(1, 1)) as nothing:
        assert nothing is None
