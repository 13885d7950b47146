"""`attnpo score` on a tiny model: numbers against direct calls, rows kept, prompts not doubled."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoTokenizer

from attnpo.attention.capture import score_steps
from attnpo.cli.main import main
from attnpo.traces.prepared import prepare_trace, prompt_ids

THINKING = "First add 12 and 30, which gives 42. Now I am done with the sum.\nWait, let me check: 12 + 30 = 42, é €."
RESPONSE = THINKING + "</think>The answer is 42."
CUT = THINKING.index("Wait")


@pytest.fixture
def model_folder(tiny_qwen2, tiny_tokenizer, tmp_path):
    folder = tmp_path / "model"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in tiny_qwen2.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    tiny_qwen2.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    (tmp_path / "heads.json").write_text('{"heads": [[2, 1], [0, 3]]}')
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run_score(tmp_path, folder, rows, *options):
    source = write(tmp_path / "in.jsonl", rows)
    target = tmp_path / "out.jsonl"
    heads = str(tmp_path / "heads.json")
    code = main(["score", source, "--model", str(folder), "--heads", heads, "-o", str(target), *options])
    return code, [json.loads(line) for line in target.read_text().splitlines()] if target.exists() else []


def test_scores_baseline_and_rows_that_cannot_be_scored(model_folder, tmp_path, capsys, tiny_qwen2):
    steps = [{"start": 0, "end": CUT, "essential": True}, {"start": CUT, "end": len(THINKING), "essential": False}]
    rows = [
        {"id": "a", "problem": "12 + 30?", "response": RESPONSE, "steps": steps, "extra": [1]},
        {"id": "b", "problem": "12 + 30?", "response": THINKING},
        {"id": "c", "problem": "12 + 30?", "response": RESPONSE},
        {"id": "d", "problem": "12 + 30? " * 40, "response": RESPONSE},
        {"id": "e", "problem": "12?", "response": "</think>12"},
    ]
    options = ("--group-accuracy", "0.5", "--batch-size", "2", "--max-length", "300")
    code, results = run_score(tmp_path, model_folder, rows, *options)
    assert code == 0
    assert "3 traces scored, 1 skipped (no closing tag), 1 skipped (longer than 300 tokens)" in capsys.readouterr().err
    assert [row["id"] for row in results] == list("abcde")
    first, unclosed, segmented, long, empty = results

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    prompt = tokenizer("<|im_start|>user\n12 + 30?<|im_end|>\n<|im_start|>assistant\n<think>\n")["input_ids"]
    pieces = [THINKING[:CUT], THINKING[CUT:], "</think>", "The answer is 42.<|im_end|>"]
    tokens = [tokenizer(piece)["input_ids"] for piece in pieces]
    a, b = len(prompt), len(prompt) + len(tokens[0])
    c = b + len(tokens[1])
    ids = [*prompt, *(token for part in tokens for token in part)]
    (expected,) = score_steps(
        tiny_qwen2,
        torch.tensor([ids]),
        None,
        steps=[[(a, b), (b, c)]],
        answers=[(c + 1, len(ids))],
        heads=[(2, 1), (0, 3)],
    )
    assert [step["score"] for step in first["steps"]] == pytest.approx(expected.mean(0).tolist(), abs=1e-6)
    assert [step["essential"] for step in first["steps"]] == [True, False]
    assert (first["extra"], first["answer_tokens"], first["total_tokens"]) == ([1], len(tokens[3]), len(ids))
    assert first["baseline"] == pytest.approx(0.25 * len(tokens[3]) / len(ids))
    assert "skipped" not in first
    assert [step["kind"] for step in segmented["steps"]]
    for row, reason in ((unclosed, "no closing tag"), (long, "longer than 300 tokens")):
        assert row["skipped"] == reason
        assert row["baseline"] is None
        assert {step["score"] for step in row["steps"]} == {None}
    assert empty["steps"] == []
    assert empty["answer_tokens"] == 3


def test_an_opened_prompt_is_not_doubled(tiny_tokenizer):
    opened = tiny_tokenizer.decode(prompt_ids("1?", tiny_tokenizer, opens_itself=False))
    assert opened.endswith("assistant\n<think>\n")
    plain = prepare_trace({"problem": "1?", "response": "ab</think>c"}, tiny_tokenizer)
    doubled = prepare_trace({"problem": "1?", "response": "<think>\nab</think>c"}, tiny_tokenizer)
    assert tiny_tokenizer.decode(plain.ids) == tiny_tokenizer.decode(doubled.ids)
    assert tiny_tokenizer.decode(plain.ids).count("<think>") == 1


def test_sampled_ids_are_taken_as_they_are(tiny_tokenizer):
    """Ids that re-tokenising would not give: one token per byte."""
    ids = [token for letter in "the answer</think>" for token in tiny_tokenizer(letter)["input_ids"]]
    row = {"problem": "1?", "response": "the answer</think>", "completion_ids": ids}
    trace = prepare_trace(row, tiny_tokenizer)
    assert trace.ids[-len(ids) :] == ids
    start = len(trace.ids) - len(ids)
    assert trace.spans == [(start, start + 10)]
    assert trace.answer == (len(trace.ids), len(trace.ids))
    other = prepare_trace({**row, "response": "another</think>"}, tiny_tokenizer)
    assert other.skipped == "the tokens do not decode to the response"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "1?"}, "row 1: field 'response' is missing"),
        ({"problem": "1?", "response": RESPONSE, "steps": [{"start": 0}]}, "row 1: steps[0]"),
        ({"problem": "1?", "response": "abc</think>d", "steps": [{"start": 0, "end": 4}]}, "row 1: steps[0]"),
        ({"problem": "1?", "response": RESPONSE, "completion_ids": [1, 9999]}, "row 1: field 'completion_ids'"),
    ],
)
def test_bad_rows(model_folder, tmp_path, capsys, row, message):
    code, results = run_score(tmp_path, model_folder, [row])
    assert (code, results) == (2, [])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--group-accuracy", "1.5"), "--group-accuracy is 1.5"), (("--batch-size", "0"), "--batch-size is 0")],
)
def test_bad_options(model_folder, tmp_path, capsys, options, message):
    assert run_score(tmp_path, model_folder, [{"problem": "1?", "response": RESPONSE}], *options)[0] == 2
    assert message in capsys.readouterr().err


def test_bad_model_and_heads(model_folder, tmp_path, capsys):
    rows = [{"problem": "1?", "response": RESPONSE}]
    assert run_score(tmp_path, tmp_path / "nowhere", rows)[0] == 2
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "heads.json").write_text('{"heads": [[7, 1]]}')
    assert run_score(tmp_path, model_folder, rows)[0] == 2
    assert "no layer 7" in capsys.readouterr().err
    source, target = write(tmp_path / "in.jsonl", rows), str(tmp_path / "out.jsonl")
    assert main(["score", source, "--model", str(tmp_path / "nowhere"), "-o", target]) == 2
    assert "has no heads.json in its folder: give --heads" in capsys.readouterr().err


def test_help_does_not_import_torch():
    script = "import sys, attnpo.cli.main as m\ntry: m.main(['score', '--help'])\nexcept SystemExit: pass\n"
    script += "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--group-accuracy" in result.stdout
