"""Sequences packed into rows without padding: each has the same scores as in a row of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from attnpo import score_steps
from attnpo.attention.capture import capture_scores, score_packed_steps
from attnpo.attention.layout import PackedLayout, StepLayout
from attnpo.attention.rows import step_scores
from attnpo.errors import InputError
from tiny_shapes import TWO_LAYERS, random_model

MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5}
MODELS = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": 5}),
    "qwen3": ("qwen3", {**MIXED, "use_sliding_window": True}),
    "gemma2": ("gemma2", {**MIXED, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 5}),
    "gpt-oss": (
        "gpt_oss",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "num_local_experts": 2}
        | {"num_experts_per_tok": 1, "sliding_window": 5},
    ),
}
CASES = [("llama", "sdpa"), ("mistral", "sdpa"), ("qwen3", "sdpa"), ("qwen3", "eager")]
CASES += [("gemma2", "eager")]
HEADS = [(1, 3), (0, 0), (0, 2), (1, 1)]

# Two rows of 30 positions: three sequences; two sequences and four positions of padding.
LENGTHS = [[11, 6, 13], [9, 17]]
STEPS = [[(1, 4), (4, 7)], [], [(0, 5), (5, 9), (9, 9)], [(2, 3)], [(3, 8), (9, 13)]]
ANSWERS = [(8, 11), (2, 6), (10, 13), None, (14, 17)]
IDS = torch.randint(0, 61, (2, 30), generator=torch.Generator().manual_seed(2))
FLAT = [(row, sum(lengths[:i]), length) for row, lengths in enumerate(LENGTHS) for i, length in enumerate(lengths)]


def make_model(name, implementation="sdpa"):
    kind, options = MODELS[name]
    return random_model(AutoConfig.for_model(kind, **{**TWO_LAYERS, **options}), implementation)


def alone(model):
    return [
        score_steps(model, IDS[row : row + 1, at : at + length], None, steps=[steps], answers=[answer], heads=HEADS)[0]
        for (row, at, length), steps, answer in zip(FLAT, STEPS, ANSWERS, strict=True)
    ]


def restarting_positions():
    return torch.stack([torch.cat([torch.arange(n) for n in (*row, 30 - sum(row))]) for row in LENGTHS])


@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_packed_equals_alone(name, implementation):
    model = make_model(name, implementation)
    got = score_packed_steps(model, IDS, LENGTHS, steps=STEPS, answers=ANSWERS, heads=HEADS)
    expected = alone(model)
    assert max(float(table.max()) for table in expected if table.numel()) > 0.2
    assert [table.shape for table in got] == [(4, 2), (4, 0), (4, 3), (4, 1), (4, 2)]
    for mine, slow in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, slow, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_packed_with_flex_attention():
    """Layer 0 only: on a CPU, flex attention itself can be far from eager, and later layers read its output."""
    model = make_model("mistral", "flex_attention")
    heads = [(0, 3), (0, 0)]
    got = score_packed_steps(model, IDS, LENGTHS, steps=STEPS, answers=ANSWERS, heads=heads)
    for mine, slow in zip(got, alone(make_model("mistral")), strict=True):
        torch.testing.assert_close(mine[1], slow[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_one_answer_in_a_packed_row(name):
    """A layout of whole rows is right too: the mask keeps the other sequences out of the probabilities."""
    model = make_model(name)
    steps, answers = [], []
    for n in (2, 4):  # the last sequence of every row
        _, at, _ = FLAT[n]
        steps.append([(start + at, end + at) for start, end in STEPS[n]])
        answers.append((ANSWERS[n][0] + at, ANSWERS[n][1] + at))
    layout = StepLayout.from_spans(steps, answers, torch.ones_like(IDS))
    with torch.no_grad(), capture_scores(model, layout, HEADS) as captured:
        model(input_ids=IDS, position_ids=restarting_positions(), use_cache=False)
    expected = alone(model)
    for row, n in enumerate((2, 4)):
        torch.testing.assert_close(captured.scores[:, row, : len(STEPS[n])], expected[n], rtol=0, atol=1e-6)


def test_training_forward_of_packed_rows():
    model = make_model("llama").train()
    layout = PackedLayout.from_spans(STEPS, ANSWERS, LENGTHS, 30)
    plain = model(input_ids=IDS, position_ids=restarting_positions(), use_cache=False).logits
    with capture_scores(model, layout, HEADS) as captured:
        logits = model(input_ids=IDS, position_ids=restarting_positions(), use_cache=False).logits
    logits.logsumexp(-1).sum().backward()
    assert torch.equal(logits, plain)
    assert captured.scores.shape == (4, 5, 3)
    for n, slow in enumerate(alone(model)):
        torch.testing.assert_close(captured.scores[:, n, : slow.shape[1]], slow, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kwargs", [{}, {"attention_mask": torch.ones(2, 30), "position_ids": restarting_positions()}])
def test_packing_unknown_to_the_model_is_refused(kwargs):
    """transformers looks for packed sequences only where there is no attention mask."""
    layout = PackedLayout.from_spans(STEPS, ANSWERS, LENGTHS, 30)
    model = make_model("llama")
    with torch.no_grad(), capture_scores(model, layout, HEADS) as captured:
        model(input_ids=IDS, **kwargs)
    with pytest.raises(InputError, match="layer 0, answers of packed sequences attend to other sequences"):
        _ = captured.scores


def test_model_that_ignores_packed_positions_is_refused():
    """gpt-oss makes its masks without the positions (transformers 5.23): only flash attention keeps them apart."""
    with pytest.raises(InputError, match="attend to other sequences"):
        score_packed_steps(make_model("gpt-oss", "eager"), IDS, LENGTHS, steps=STEPS, answers=ANSWERS, heads=HEADS)


def test_bounds_that_differ_from_the_models_are_refused():
    """The model's second sequence begins one position earlier than the layout's."""
    answers = [*ANSWERS[:2], (9, 12), *ANSWERS[3:]]
    layout = PackedLayout.from_spans(STEPS, answers, [[12, 6, 12], [9, 17]], 30)
    model = make_model("llama")
    with torch.no_grad(), capture_scores(model, layout, HEADS) as captured:
        model(input_ids=IDS, position_ids=restarting_positions(), use_cache=False)
    with pytest.raises(InputError, match="attend to other sequences"):
        _ = captured.scores


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": [[11, 6, 14], [9, 17]]}, r"lengths: row 0 is \[11, 6, 14\].*at most 30"),
        ({"lengths": [[11, 0, 13], [9, 17]]}, r"lengths: row 0 is \[11, 0, 13\].*positive"),
        ({"lengths": [[], []], "steps": [], "answers": []}, "no sequence"),
        ({"lengths": [[11, 6], [9, 17]]}, "steps: 5 entries for a batch of 4 rows"),
        ({"lengths": LENGTHS[:1]}, r"input_ids: shape \(2, 30\), expected \[1 \(lengths\)"),
        ({"answers": [(8, 12), *ANSWERS[1:]]}, r"sequence 0 has 11 tokens, .* as \(8, 12\)"),
        ({"steps": [[(1, 9)], *STEPS[1:]]}, "row 0, step 0 is .* expected to end before its answer"),
    ],
)
def test_bad_packed_input(change, message):
    arguments = {"lengths": LENGTHS, "steps": STEPS, "answers": ANSWERS, "heads": HEADS, **change}
    with pytest.raises(InputError, match=message):
        score_packed_steps(make_model("llama"), IDS, **arguments)


def test_layers_that_carry_a_state_are_refused():
    """Linear attention and convolutions would run on from one sequence into the next."""
    options = {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2}
    options |= {"linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3_5_text", **{**TWO_LAYERS, **options}))
    with pytest.raises(InputError, match=r"layers \[0\] of .* are not attention layers .* packed"):
        score_packed_steps(model, IDS, LENGTHS, steps=STEPS, answers=ANSWERS, heads=[(1, 0)])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_packing_and_any_memory_bound(data):
    """Random sequences in random rows, under the mask of packed rows: equal to plain causal attention alone."""
    lengths = data.draw(st.lists(st.lists(st.integers(2, 7), min_size=1, max_size=3), min_size=1, max_size=3))
    width = max(sum(row) for row in lengths) + data.draw(st.integers(0, 2))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))
    query = torch.randn(len(lengths), 4, width, 3, generator=generator)
    key = torch.randn(len(lengths), 2, width, 3, generator=generator)
    flat = [(row, sum(lengths[row][:i]), n) for row in range(len(lengths)) for i, n in enumerate(lengths[row])]
    cuts = [data.draw(st.integers(1, n - 1)) for *_, n in flat]
    steps, answers = [[(0, cut)] for cut in cuts], [(cut, n) for cut, (*_, n) in zip(cuts, flat, strict=True)]
    same = torch.zeros(len(lengths), 1, width, width, dtype=torch.bool)
    for row, at, n in flat:
        same[row, 0, at : at + n, at : at + n] = True
    mask = same.tril()
    if data.draw(st.booleans()):
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    layout = PackedLayout.from_spans(steps, answers, lengths, width)
    got = step_scores(query, key, mask, layout, (0, 3), chunk_elements=data.draw(st.integers(1, 2000)))
    for n, (row, at, length) in enumerate(flat):
        part = slice(at, at + length)
        single = StepLayout.from_spans([steps[n]], [answers[n]], torch.ones(1, length))
        slow = step_scores(query[row : row + 1, :, part], key[row : row + 1, :, part], None, single, (0, 3))
        torch.testing.assert_close(got[:, n, :1], slow[:, 0], rtol=0, atol=1e-6)
