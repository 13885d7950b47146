"""`attnpo check`: prediction for a run from a sample of responses."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from attnpo.training.preflight import advice, findings, has_signal, suggested_limit


def record(state: str, tokens: int = 100, group: int = 0, steps: int = 3) -> dict[str, Any]:
    answered = state not in ("cut off", "not closed")
    return {
        "prompt": "What is 12 + 30?",
        "text": "…",
        "correct": state == "right",
        "truncated": state == "cut off",
        "answered": answered,
        "tokens": {"completion": tokens, "answer": 3 * answered},
        "verdict": "timed_out" if state == "not judged" else "wrong",
        "reward": 0.0,
        "group": group,
        "steps": [{}] * steps,
    }


def test_findings_by_hand():
    records = [record("right", 100, 0), record("wrong", 200, 0, steps=1), record("cut off", 300, 1, steps=5)]
    records.append(record("not closed", 400, 1, steps=3))
    found = findings(records, seconds=10)
    assert found.shares == {"cut off": 0.25, "not closed": 0.25, "not judged": 0, "wrong": 0.25, "right": 0.25}
    assert (found.responses, found.with_signal, found.steps, found.one_step) == (4, 0.5, 3.0, 0.5)
    assert (found.tokens, found.longest, found.tokens_per_second) == (250, 400, 100)


def test_signal_of_a_problem():
    assert has_signal([record("right"), record("wrong")], by_length=False)
    assert not has_signal([record("wrong", 1), record("wrong", 2)], by_length=True)
    assert has_signal([record("right", 1), record("right", 2)], by_length=True)
    assert not has_signal([record("right", 1), record("right", 2)], by_length=False)


CASES = {
    "100% of the responses cut off at 512 tokens": [record("cut off")] * 4,
    "100% of the responses without an end of the thinking": [record("not closed")] * 4,
    "100% of the responses that could not be judged": [record("not judged")] * 4,
    "no response is right": [record("wrong")] * 4,
    "no problem has responses with different rewards": [record("right")] * 4,
}


@pytest.mark.parametrize("message", CASES)
def test_negative_answer_has_a_reason(message):
    against, _ = advice(findings(CASES[message], seconds=1), limit=512, stepwise=True)
    assert any(line.startswith(message) for line in against)


def test_positive_answer_may_have_advice():
    good = [record("right", 100 + i, group=i // 2) for i in range(8)]
    assert advice(findings(good, seconds=1), limit=512, stepwise=True) == ([], [])
    one_step = [record("right", 100 + i, steps=1) for i in range(8)]
    against, change = advice(findings(one_step, seconds=1), limit=512, stepwise=True)
    assert (against, len(change)) == ([], 1)
    assert "the lexicon does not fit this model" in change[0]
    assert advice(findings(one_step, seconds=1), limit=512, stepwise=False) == ([], [])
    some_cut = [*good, record("cut off", 512, 9), record("cut off", 512, 9)]
    against, change = advice(findings(some_cut, seconds=1), limit=512, stepwise=True)
    assert (against, len(change)) == ([], 1)


def test_the_suggested_limit():
    assert suggested_limit(findings([record("cut off", 512)] * 2, seconds=1), 512) == 1024
    assert suggested_limit(findings([record("right", 300)] * 2, seconds=1), 8192) == 512
    assert suggested_limit(findings([record("right", 400)] * 2, seconds=1), 512) == 512


def test_the_command(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, monkeypatch, session_pool, capfd):
    """A random model: no, with the reason, and a configuration with a longer limit."""
    from contextlib import nullcontext

    from attnpo.cli.main import main

    monkeypatch.setattr("attnpo.training.preflight.VerifierPool", lambda *args, **kwargs: nullcontext(session_pool))
    trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl", 20)
    words = ["check", str(tmp_path / "model"), str(data), "--problems", "2", "--responses", "2"]
    more = ["-o", str(tmp_path / "run.yaml"), "--max_completion_length", "8", "--use_cpu", "true"]
    assert main([*words, *more]) == 1
    out, err = capfd.readouterr()
    assert "4 responses" in out
    assert "attnpo check: no: 100% of the responses cut off at 8 tokens: raise --max_completion_length" in err
    given = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert given["max_completion_length"] == 16
    assert given["dataset_name"] == str(data)
    assert main([*words[:-1], "1"]) == 2
