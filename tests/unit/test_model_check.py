"""`attnpo check MODEL`: its notes on a model, and reasons against one."""

from __future__ import annotations

import pytest
import torch

from attnpo.cli.main import main
from attnpo.models import resolve_model
from attnpo.models.loading import load_model
from attnpo.traces import model_check
from attnpo.traces.model_check import check_model, largest_difference

PROBLEM = "Tom has 12 boxes with 30 pens each. He gives away 45 pens. How many pens has he left?"


@pytest.fixture(scope="module")
def overthinker():
    return load_model(resolve_model("overthinker"))


def check(overthinker, **options):
    torch.manual_seed(0)
    return check_model(*overthinker, problems=(PROBLEM,), **options)


def test_shipped_model(overthinker):
    found = check(overthinker, max_new_tokens=512)
    assert (found.against, found.notes) == ([], [])
    assert found.lines["thinking format"].startswith("deepseek_r1 (<think> … </think>)")
    assert found.lines["responses"] == "1 sampled, 1 with thinking and an answer, 0 cut off at 512 tokens"
    assert found.lines["layers that can be scored"] == "4 of 4"
    assert found.lines["heads"] == "40 (10 a layer)"
    assert found.lines["end tokens"] == "1 '<|end|>'"
    assert f"<|user|>{PROBLEM}<|assistant|>" in found.lines["prompt"]


def test_truncated_is_a_note_and_unmarked_a_failure(overthinker):
    found = check(overthinker, max_new_tokens=16)
    assert found.lines["responses"].endswith("0 with thinking and an answer, 1 cut off at 16 tokens")
    assert (found.against, "larger --max_completion_length" in found.notes[0]) == ([], True)
    found = check(overthinker, max_new_tokens=512, thinking_format="mistral")
    assert [line[:75] for line in found.against] == [
        "the model ends its responses without an end of the thinking: it thinks in o"
    ]


def test_scores_that_differ_are_found(overthinker, monkeypatch):
    network, _ = overthinker
    heads = [(0, 0), (3, 9), (2, 4)]
    ids = list(range(40, 80))
    layers = [0, 1, 2, 3]
    assert (largest_difference(network, ids, heads, layers) or 1) < 1e-6
    assert network.config._attn_implementation == "sdpa"
    wrong = model_check.score_steps
    monkeypatch.setattr(model_check, "score_steps", lambda *a, **k: [wrong(*a, **k)[0].flip(0)])
    assert (largest_difference(network, ids, heads, layers) or 0) > 1e-3
    assert "differ from eager attention" in check(overthinker, max_new_tokens=64).against[0]


def test_command(capsys):
    assert main(["check", "overthinker", "--max_completion_length", "24", "--lexicon", "paragraphs"]) == 0
    shown = capsys.readouterr().out
    assert "(lexicon" in shown
    assert "yes: steps of this model can be scored" in shown
    assert main(["check", "overthinker", "--learning_rate", "1e-6"]) == 2
    assert "found --learning_rate 1e-6 without data, expected DATA" in capsys.readouterr().err
