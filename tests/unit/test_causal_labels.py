"""The rule that turns drops into labels, and files of traces with causal labels on a tiny model."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoTokenizer

from attnpo.errors import InputError
from attnpo.labels.causal import label_file, label_steps, without_endings
from attnpo.labels.hiding import step_drops
from attnpo.traces.prepared import prepare_trace

THINKING = "First add 12 and 30, which gives 42. Now that is all there is to do, and I am done with the sum.\n"
THINKING += "Wait, let me check that sum once more with the numbers of the question: 12 + 30 = 42, é €."
RESPONSE = THINKING + "</think>The answer is 42."
CUT = THINKING.index("Wait")
STEPS = [{"start": 0, "end": CUT, "essential": True}, {"start": CUT, "end": len(THINKING), "essential": True}]


@pytest.mark.parametrize(
    ("drops", "threshold", "expected"),
    [
        ([5.0, 0.5, 0.49, -3.0], 0.1, [True, False, False, False]),  # at the threshold is not above it
        ([5.0, 0.51, 0.0], 0.1, [True, True, False]),
        ([5.0, 0.051, 0.049], None, [True, True, False]),
        ([5e-3, 5.1e-5, 4.9e-5], None, [True, True, False]),  # a share: no unit
        ([2.0, 1e-9, 0.0], 0.0, [True, True, False]),
        ([0.0, 0.0], 0.5, [False, False]),
        ([-1.0, -2.0], 0.5, [False, False]),
        ([], 0.5, []),
    ],
)
def test_labels_of_hand_made_drops(drops, threshold, expected):
    options = {} if threshold is None else {"threshold": threshold}
    assert label_steps(torch.tensor(drops), **options).tolist() == expected


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_bad_thresholds(threshold):
    with pytest.raises(InputError, match="expected a share of the largest drop"):
        label_steps(torch.tensor([1.0]), threshold)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_drops(value):
    with pytest.raises(InputError, match="not finite"):
        label_steps(torch.tensor([1.0, value]))


def test_line_breaks_at_step_ends_are_not_hidden(tiny_tokenizer):
    texts = ["First, 12.\n\n", "?!\n", "日本", " Then 30 € ", "done"]
    thinking = "".join(texts)
    ends = [len("".join(texts[: k + 1])) for k in range(len(texts))]
    steps = [{"start": start, "end": end} for start, end in zip([0, *ends], ends, strict=False)]
    row = {"problem": "1?", "response": thinking + "</think>x", "steps": steps}
    whole = prepare_trace(row, tiny_tokenizer)
    cut = without_endings(whole, tiny_tokenizer)
    assert [tiny_tokenizer.decode(whole.ids[slice(*span)]) for span in whole.spans] == texts
    hidden = [tiny_tokenizer.decode(cut.ids[slice(*span)]) for span in cut.spans]
    # The euro sign is three tokens, none of them a character of its own: they count as content.
    assert hidden == ["First, 12", "", "日本", " Then 30 €", "done"]
    assert [start for start, _ in cut.spans] == [start for start, _ in whole.spans]
    assert (cut.ids, cut.answer) == (whole.ids, whole.answer)


@pytest.fixture
def model_folder(tiny_qwen2, tiny_tokenizer, tmp_path):
    folder = tmp_path / "model"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in tiny_qwen2.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    tiny_qwen2.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def run_label(tmp_path, folder, rows, **options):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"batch_size": 2, "threshold": None, "max_length": None, "lexicon": "paper", **options}
    counts = label_file(source, target, model=str(folder), **options)
    return counts, [json.loads(line) for line in target.read_text().splitlines()]


def test_labels_drops_and_rows_that_cannot_be_labelled(model_folder, tmp_path, tiny_qwen2, tiny_tokenizer):
    row = {"id": "a", "problem": "12 + 30?", "response": RESPONSE, "steps": STEPS, "extra": [1], "skipped": "before"}
    sampled = tiny_tokenizer("12</think>1").input_ids
    rows = [
        row,
        {"id": "b", "problem": "12 + 30?", "response": THINKING, "steps": STEPS},
        {"id": "c", "problem": "12 + 30? " * 40, "response": RESPONSE},
        {"id": "d", "problem": "12 + 30?", "response": THINKING + "</think> \n"},
        {"id": "e", "problem": "12 + 30?", "response": "Add 12 and 30.</think>42"},
        {
            "id": "f",
            "problem": "12 + 30?",
            "response": RESPONSE,
            "completion_ids": sampled,
        },
        {"id": "g", "problem": "12 + 30?", "response": RESPONSE},
    ]
    counts, results = run_label(tmp_path, model_folder, rows, max_length=400)
    reasons = [
        "no closing tag",
        "longer than 400 tokens",
        "empty answer",
        "fewer than two steps",
        "the tokens do not decode to the response",
    ]
    assert counts == {"labelled": 2, **dict.fromkeys(reasons, 1)}
    assert [result["id"] for result in results] == list("abcdefg")
    assert [result.get("skipped") for result in results] == [None, *reasons, None]

    first, last = results[0], results[-1]
    tokenizer = AutoTokenizer.from_pretrained(model_folder)  # not quite the one that was saved
    (expected,) = step_drops(tiny_qwen2, [without_endings(prepare_trace(row, tokenizer), tokenizer)])
    assert expected is not None
    assert float(expected.abs().max()) > 0.1
    assert [step["drop"] for step in first["steps"]] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [step["essential"] for step in first["steps"]] == label_steps(expected).tolist()
    assert first["extra"] == [1]
    assert set(first) == set(row) - {"skipped"}
    assert all(step["kind"] and type(step["essential"]) is bool for step in last["steps"])
    for result in results[1:-1]:  # no labels, not even those that came with the row
        assert not any({"essential", "drop"} & set(step) for step in result["steps"])


def test_batch_size_and_order_of_rows_do_not_matter(model_folder, tmp_path):
    rows = [
        {"id": i, "problem": "12 + 30?" * (i + 1), "response": "So 1 + 1 = 2.\n" * i + RESPONSE, "steps": STEPS}
        for i in range(3)
    ]
    for i, row in enumerate(rows):
        shift = 14 * i
        row["steps"] = [{**step, "start": step["start"] + shift, "end": step["end"] + shift} for step in STEPS]
    (_, one), (_, eight) = (run_label(tmp_path, model_folder, rows, batch_size=n) for n in (1, 8))
    _, reversed_rows = run_label(tmp_path, model_folder, rows[::-1], batch_size=3)
    for other in (eight, reversed_rows[::-1]):
        for a, b in zip(one, other, strict=True):
            assert a["id"] == b["id"]
            assert [s["drop"] for s in a["steps"]] == pytest.approx([s["drop"] for s in b["steps"]], abs=1e-5)


def test_the_threshold_decides(model_folder, tmp_path):
    rows = [{"problem": f"{i} + 30?", "response": RESPONSE, "steps": STEPS} for i in range(5)]
    seen = set()
    for threshold in (0.0, 0.3, 0.999):
        for result in run_label(tmp_path, model_folder, rows, threshold=threshold)[1]:
            drops = [step["drop"] for step in result["steps"]]
            labels = [step["essential"] for step in result["steps"]]
            assert labels == [drop > max(threshold * max(drops), 0) for drop in drops]
            seen.update(labels)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "1?"}, "in.jsonl, row 1: field 'response' is missing"),
        ({"problem": "1?", "response": RESPONSE, "steps": [{"start": 0}]}, "in.jsonl, row 1: steps[0]"),
        ({"problem": "1?", "response": RESPONSE, "completion_ids": [9999]}, "row 1: field 'completion_ids'"),
    ],
)
def test_bad_rows(model_folder, tmp_path, row, message):
    with pytest.raises(InputError) as error:
        run_label(tmp_path, model_folder, [row])
    assert message in str(error.value)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"threshold": 1.0}, "--threshold is 1.0"),
        ({"threshold": float("nan")}, "--threshold is nan"),
        ({"max_length": 0}, "--max-length is 0"),
        ({"lexicon": "none"}, "lexicon"),
    ],
)
def test_bad_options(model_folder, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run_label(tmp_path, model_folder, [{"problem": "1?", "response": RESPONSE}], **options)


def test_bad_model_and_target(model_folder, tmp_path, tiny_qwen2):
    rows = [{"problem": "1?", "response": RESPONSE}]
    with pytest.raises(InputError, match="nowhere"):
        run_label(tmp_path, tmp_path / "nowhere", rows)
    with pytest.raises(InputError, match="does not exist"):
        label_file(tmp_path / "in.jsonl", tmp_path / "no" / "out.jsonl", model=str(model_folder))
    with torch.no_grad():
        tiny_qwen2.model.norm.weight.fill_(float("nan"))
    tiny_qwen2.save_pretrained(model_folder)
    with pytest.raises(InputError, match="log-probabilities that are not finite"):
        run_label(tmp_path, model_folder, rows)
    assert not (tmp_path / "out.jsonl").exists()
