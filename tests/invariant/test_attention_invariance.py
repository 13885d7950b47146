"""Invariances of step scores, and of everything else under capturing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from attnpo.attention.capture import capture_scores, score_steps
from attnpo.attention.layout import PackedLayout, StepLayout, attends_elsewhere
from attnpo.attention.masks import RowMask, read_mask
from attnpo.attention.rows import step_scores

HEADS = [(2, 3), (0, 0), (1, 2), (2, 1)]


def batch(rows=8, width=32):
    ids = torch.randint(0, 250, (rows, width), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    steps, answers = [], []
    for i in range(rows):
        left, right = (0, i) if i % 2 else (i, 0)
        mask[i, :left] = 0
        mask[i, width - right :] = 0
        steps.append([(left + 2, left + 6), (left + 6, left + 7 + i)])
        answers.append((left + 9 + i, width - right))
    return ids, mask, steps, answers


def test_batch_of_eight_equals_eight_batches_of_one(tiny_qwen2):
    ids, mask, steps, answers = batch()
    together = score_steps(tiny_qwen2, ids, mask, steps=steps, answers=answers, heads=HEADS)
    for i in range(8):
        kept = mask[i].bool()
        left = int(mask[i].argmax())
        (alone,) = score_steps(
            tiny_qwen2,
            ids[i : i + 1, kept],
            None,
            steps=[[(start - left, end - left) for start, end in steps[i]]],
            answers=[(answers[i][0] - left, answers[i][1] - left)],
            heads=HEADS,
        )
        torch.testing.assert_close(together[i], alone, rtol=0, atol=1e-6)


def test_order_of_heads_and_rows(tiny_qwen2):
    ids, mask, steps, answers = batch(4)
    straight = score_steps(tiny_qwen2, ids, mask, steps=steps, answers=answers, heads=HEADS)
    turned = score_steps(tiny_qwen2, ids, mask, steps=steps, answers=answers, heads=HEADS[::-1])
    layout = StepLayout.from_spans(steps, answers, mask)
    with torch.no_grad(), capture_scores(tiny_qwen2, layout[1:3], HEADS) as captured:
        tiny_qwen2(input_ids=ids[1:3], attention_mask=mask[1:3])
    for i in range(4):
        torch.testing.assert_close(straight[i], turned[i].flip(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(captured.scores[:, 0], straight[1], rtol=0, atol=1e-6)


def test_scores_of_a_row_sum_to_the_answer_length(tiny_qwen2):
    """Every answer token spends attention 1; steps that tile all it can see receive |F| in total."""
    ids, mask, *_ = batch(1, 20)
    (scores,) = score_steps(tiny_qwen2, ids, mask, steps=[[(0, 12), (12, 19)]], answers=[(19, 20)], heads=HEADS)
    own = score_steps(tiny_qwen2, ids, mask, steps=[[(0, 19)]], answers=[(19, 20)], heads=HEADS)[0] * 19
    torch.testing.assert_close((scores * torch.tensor([12.0, 7.0])).sum(1), own[:, 0], rtol=0, atol=1e-5)
    assert (own < 1).all()
    assert (own > 0.5).all()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_memory_bound_does_not_change_scores(data):
    """Any split into chunks of heads and rows gives the same numbers."""
    width = data.draw(st.integers(6, 14))
    start = data.draw(st.integers(2, width - 1))
    heads = tuple(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))
    query = torch.randn(2, 4, width, 3, generator=generator)
    key = torch.randn(2, 2, width, 3, generator=generator)
    cut = data.draw(st.integers(0, start))
    layout = StepLayout.from_spans(
        [[(0, cut), (cut, start)], [(0, 1)]], [(start, width), (1, width)], torch.ones(2, width)
    )
    whole = step_scores(query, key, None, layout, heads)
    pieces = step_scores(query, key, None, layout, heads, chunk_elements=data.draw(st.integers(1, 600)))
    torch.testing.assert_close(whole, pieces, rtol=0, atol=1e-6)
    logits = torch.einsum("bhmd,bhnd->bhmn", query, key.repeat_interleave(2, dim=1)) / 3**0.5
    weights = logits.masked_fill(torch.ones(width, width).triu(1).bool(), -torch.inf).softmax(-1)
    for row, head in enumerate(heads):
        expected = weights[0, head, start:, cut:start].sum() / max(1, start - cut)
        assert abs(float(whole[row, 0, 1] - expected)) < 1e-5


class Recorder(TorchDispatchMode):
    """The most elements of any tensor that an operation gives."""

    def __init__(self):
        super().__init__()
        self.largest = 0
        self.operations = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations.add(str(function).split(".")[1])
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


def test_one_forward_and_no_square_tensor(tiny_qwen2):
    """512 positions without padding: the model itself builds no T x T mask, and neither do we."""
    width = 512
    ids = torch.randint(0, 250, (1, width), generator=torch.Generator().manual_seed(5))
    forwards = []
    tiny_qwen2.register_forward_hook(lambda *_: forwards.append(1))
    recorder = Recorder()
    with recorder:
        score_steps(
            tiny_qwen2, ids, None, steps=[[(10, 300), (300, 480)]], answers=[(490, 512)], heads=[(1, 1), (1, 2)]
        )
    assert forwards == [1]
    assert 2 * 22 * width <= recorder.largest < width * width
    with recorder:
        tiny_qwen2.set_attn_implementation("eager")
        tiny_qwen2(input_ids=ids)
    assert recorder.largest >= width * width  # the recorder would have seen one


def test_no_device_synchronisation():
    """No operation that fetches a value to the host or whose result's shape depends on values."""
    _, mask, steps, answers = batch(4)
    layout = StepLayout.from_spans(steps, answers, mask)
    query, key = torch.randn(4, 4, 32, 8), torch.randn(4, 2, 32, 8)
    both = PackedLayout.from_spans([[(0, 9)]] * 8, [(9, 16)] * 8, [[16, 16]] * 4, 32)
    masks = (None, mask, torch.ones(4, 1, 32, 32, dtype=torch.bool).tril(), torch.zeros(1, 1, 32, 32))
    recorder = Recorder()
    with recorder:
        for form in masks:
            step_scores(query, key, form, layout, (1, 2), sliding_window=4, softcap=3.0, sinks=torch.zeros(4))
        packed = RowMask(None, (4, 32), query.device, window=4, sequences=torch.arange(32).expand(4, -1) // 16)
        step_scores(query, key, packed, both, (1, 2))
        attends_elsewhere(packed, both, (1, 2), 1 << 20)
        positions = {"position_ids": torch.arange(32)[None] % 16}
        bounds = torch.tensor([0, 16, 32], dtype=torch.int32)
        lengths = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 16, "max_length_k": 16}
        for kwargs in (positions, {**positions, **lengths}, {}):
            read_mask(0, "flash_attention_2", None, query[:1], kwargs)
    assert "bmm" in recorder.operations
    assert not recorder.operations & {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select"}


def test_logits_are_bit_identical_and_state_is_restored(tiny_qwen2):
    ids, mask, steps, answers = batch(4)
    layout = StepLayout.from_spans(steps, answers, mask)
    before = dict(AttentionInterface._global_mapping), dict(ALL_ATTENTION_FUNCTIONS)
    with torch.no_grad():
        plain = tiny_qwen2(input_ids=ids, attention_mask=mask).logits
        with capture_scores(tiny_qwen2, layout, HEADS):
            captured = tiny_qwen2(input_ids=ids, attention_mask=mask).logits
        with pytest.raises(RuntimeError, match="own"), capture_scores(tiny_qwen2, layout, HEADS):
            raise RuntimeError("own")
    assert torch.equal(plain, captured)
    assert tiny_qwen2.config._attn_implementation == "sdpa"
    assert (dict(AttentionInterface._global_mapping), dict(ALL_ATTENTION_FUNCTIONS)) == before
    assert not tiny_qwen2.model._forward_hooks
    assert not tiny_qwen2.model._forward_pre_hooks
    generated = tiny_qwen2.generate(ids, attention_mask=mask, max_new_tokens=2, do_sample=False)
    assert generated.shape[1] > ids.shape[1]


def test_a_local_replacement_of_the_attention_function_survives(tiny_qwen2):
    ids, mask, steps, answers = batch(2)
    original, calls = ALL_ATTENTION_FUNCTIONS["sdpa"], []

    def mine(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    ALL_ATTENTION_FUNCTIONS["sdpa"] = mine
    try:
        score_steps(tiny_qwen2, ids, mask, steps=steps, answers=answers, heads=HEADS)
        assert len(calls) == 3
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is mine
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


def test_second_model_inside_the_context_is_not_scored(tiny_qwen2, tiny_tokenizer):
    """A reference model's forward in the same context is neither scored nor counted."""
    import copy

    other = copy.deepcopy(tiny_qwen2)
    torch.nn.init.normal_(other.model.layers[0].self_attn.q_proj.weight)
    ids, mask, steps, answers = batch(2)
    expected = score_steps(tiny_qwen2, ids, mask, steps=steps, answers=answers, heads=HEADS)
    layout = StepLayout.from_spans(steps, answers, mask)
    with torch.no_grad(), capture_scores(tiny_qwen2, layout, HEADS) as captured:
        other(input_ids=ids[:1])
        tiny_qwen2(input_ids=ids, attention_mask=mask)
        other(input_ids=ids[:1])
    torch.testing.assert_close(captured.scores[:, 0], expected[0], rtol=0, atol=1e-6)


def test_training_mode_is_kept(tiny_qwen2):
    ids, mask, steps, answers = batch(2)
    for mode in (True, False):
        tiny_qwen2.train(mode)
        score_steps(tiny_qwen2, ids, mask, steps=steps, answers=answers, heads=HEADS)
        assert tiny_qwen2.training is mode


@pytest.mark.parametrize(
    "how", ["around", "in place", "every layer", "wrapped layers", "attention only", "wrapped attention"]
)
def test_compiled_model_runs_uncompiled_during_capture(tiny_qwen2, how):
    """Compiled with hooks that differ each time, it would be compiled anew for every capture."""
    ids, mask, steps, answers = batch(2)
    expected = score_steps(tiny_qwen2, ids, mask, steps=steps, answers=answers, heads=HEADS)
    graphs = []

    def backend(graph, _):
        graphs.append(1)
        return graph.forward

    torch._dynamo.reset()
    model, layers = tiny_qwen2, tiny_qwen2.model.layers
    if how == "around":
        model = torch.compile(model, backend=backend)
    elif how == "in place":
        model.compile(backend=backend)
    for i, layer in enumerate(layers):
        if how == "every layer":
            layer.compile(backend=backend)
        elif how == "wrapped layers":
            layers[i] = torch.compile(layer, backend=backend)
        elif how == "attention only":
            layer.self_attn.forward = torch.compile(layer.self_attn.forward, backend=backend)
        elif how == "wrapped attention":
            layer.self_attn = torch.compile(layer.self_attn, backend=backend)
    with torch.no_grad():
        plain = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        compiled = len(graphs)
        for _ in range(3):
            got = score_steps(model, ids, mask, steps=steps, answers=answers, heads=HEADS)
        assert torch.equal(model(input_ids=ids, attention_mask=mask, use_cache=False).logits, plain)
    assert compiled > 0
    assert len(graphs) == compiled
    for mine, uncompiled in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, uncompiled, rtol=0, atol=1e-6)
