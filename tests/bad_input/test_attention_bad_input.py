"""Wrong heads, spans, models and forwards give an error that names the problem, never a wrong number."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, FalconConfig, T5Config, T5ForConditionalGeneration

from attnpo.attention.capture import capture_scores, score_steps
from attnpo.attention.heads import load_heads
from attnpo.attention.layout import StepLayout
from attnpo.errors import InputError

IDS = torch.arange(20).reshape(2, 10)
MASK = torch.ones(2, 10, dtype=torch.int64)
STEPS = [[(1, 3), (3, 5)], [(2, 5)]]
ANSWERS = [(6, 10), (6, 9)]
HEADS = [(1, 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": [(3, 0)]}, r"no layer 3 in .*3 layers with 4 heads each.*from 0 to 2"),
        ({"heads": [(0, 1), (1, 4)]}, r"\(1, 4\): no head 4 in .*from 0 to 3"),
        ({"heads": [(-1, 0)]}, "no layer -1"),
        ({"heads": []}, "empty"),
        ({"steps": STEPS[:1]}, "steps: 1 entries for a batch of 2 rows"),
        ({"answers": ANSWERS * 2}, "answers: 4 entries for a batch of 2 rows"),
        ({"steps": [[(1, 3), (2, 5)], []]}, "row 0 has steps that overlap"),
        ({"steps": [[], [(4, 5), (2, 5)]]}, "row 1 has steps that overlap"),
        ({"steps": [[(1, 3)], [(3, 2)]]}, r"row 1, step 0 is \(3, 2\)"),
        ({"steps": [[(1, 3), (-1, 2)], []]}, r"row 0, step 1 is \(-1, 2\)"),
        (
            {"steps": [[(1, 3), (5, 7)], []]},
            r"row 0, step 1 is \(5, 7\), expected to end before its answer at \(6, 10\)",
        ),
        ({"steps": [[(1, 3, 4)], []]}, "expected pairs"),
        ({"steps": [["a"], []]}, "expected pairs"),
        ({"answers": [(6, 11), (6, 9)]}, r"answers: row 0 is \(6, 11\), expected 0 <= start <= end <= 10"),
        ({"attention_mask": MASK[:, :9]}, r"attention_mask: shape \(2, 9\)"),
        ({"input_ids": IDS[0]}, "input_ids: shape"),
    ],
)
def test_bad_arguments(tiny_qwen2, change, message):
    arguments = {"input_ids": IDS, "attention_mask": MASK, "steps": STEPS, "answers": ANSWERS, "heads": HEADS, **change}
    with pytest.raises(InputError, match=message):
        score_steps(tiny_qwen2, **arguments)


@pytest.mark.parametrize(("padded", "message"), [(2, "row 0, step 0"), (9, "row 0, answer")])
def test_spans_over_padding(tiny_qwen2, padded, message):
    mask = MASK.clone()
    mask[0, padded] = 0
    with pytest.raises(InputError, match=f"{message}.*covers padding"):
        score_steps(tiny_qwen2, IDS, mask, steps=STEPS, answers=ANSWERS, heads=HEADS)


@pytest.mark.parametrize("config", [BloomConfig, FalconConfig])
def test_attention_outside_the_interface_is_refused(config):
    """Bloom has ALiBi; both compute attention in code of their own."""
    model = AutoModelForCausalLM.from_config(
        config(vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    )
    with pytest.raises(InputError, match=r"layer 1 of .* cannot be scored"):
        score_steps(model, IDS, MASK, steps=STEPS, answers=ANSWERS, heads=HEADS)


def test_models_of_another_kind_are_refused():
    with pytest.raises(InputError, match="Linear is not a transformers model"):
        score_steps(torch.nn.Linear(2, 2), IDS, MASK, steps=STEPS, answers=ANSWERS, heads=HEADS)
    model = T5ForConditionalGeneration(T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    with pytest.raises(InputError, match="encoder-decoder"):
        score_steps(model, IDS, MASK, steps=STEPS, answers=ANSWERS, heads=HEADS)


def test_mismatched_forwards_are_refused(tiny_qwen2):
    layout = StepLayout.from_spans(STEPS, ANSWERS, MASK)
    with torch.no_grad():
        with pytest.raises(InputError, match="second forward"), capture_scores(tiny_qwen2, layout, HEADS):
            _ = [tiny_qwen2(input_ids=IDS) for _ in range(2)]
        with pytest.raises(InputError, match="saw 2 rows of 1 positions"), capture_scores(tiny_qwen2, layout, HEADS):
            tiny_qwen2(input_ids=IDS[:, :1])
        with pytest.raises(InputError, match="saw 1 rows of 10"), capture_scores(tiny_qwen2, layout, HEADS):
            tiny_qwen2(input_ids=IDS[:1])
        cache = tiny_qwen2(input_ids=IDS).past_key_values
        with pytest.raises(InputError, match="20 key positions for 10"), capture_scores(tiny_qwen2, layout, HEADS):
            tiny_qwen2(input_ids=IDS, past_key_values=cache)
        with capture_scores(tiny_qwen2, layout, HEADS) as captured:
            pass
        with pytest.raises(InputError, match="no forward"):
            _ = captured.scores
        tiny_qwen2(input_ids=IDS)  # and no hook remains


def test_unsupported_attention_arguments_are_refused(tiny_qwen2):
    """A bias on the attention of each position, say, would make the scores wrong."""
    layout = StepLayout.from_spans(STEPS, ANSWERS, MASK)
    with pytest.raises(InputError, match="'position_bias'"), capture_scores(tiny_qwen2, layout, HEADS):
        tiny_qwen2(input_ids=IDS, position_bias=torch.zeros(1, 4, 10, 10))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", 'field "heads" is missing'),
        ('{"head": []}', 'field "heads" is missing'),
        ('{"heads": []}', "non-empty list"),
        ('{"heads": "1,2"}', "non-empty list"),
        ('{"heads": [[1, 2], [3]]}', r"entry 1 is \[3\]"),
        ('{"heads": [[1, true]]}', "entry 0"),
        ('{"heads": [[1, -2]]}', "entry 0"),
        ('{"heads": [[1, 2.0]]}', "entry 0"),
        ('{"heads": [[1, 2], [1, 2]]}', r"names \[1, 2\] twice"),
    ],
)
def test_malformed_head_files(tmp_path, content, message):
    path = tmp_path / "heads.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load_heads(path)
    assert str(path) in str(caught.value)


def test_missing_head_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        load_heads(tmp_path / "none.json")
