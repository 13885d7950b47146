"""Trace files of other tools, read by `attnpo segment` and its neighbours."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from attnpo.cli.main import main
from attnpo.data.jsonl import read_jsonl
from attnpo.errors import InputError
from attnpo.traces.origins import origin_of
from attnpo.traces.read import ORIGINS, read_traces

ASKED = "How much are 7 pens at 3 euros?"
THOUGHT = "7 times 3 is 21, and that is what the seven pens cost together when one costs three euros, I think. "
SAID = "So \\boxed{21}."
WHOLE = f"<think>{THOUGHT}</think>{SAID}"
TRACE = {"problem": ASKED, "response": WHOLE, "reference": "21"}
USER = {"role": "user", "content": ASKED}
APART = {"role": "assistant", "content": SAID, "reasoning_content": THOUGHT}

LM_EVAL: dict[str, Any] = {
    "doc_id": 4,
    "doc": {"question": ASKED, "answer": "7*3=21\n#### 21"},
    "target": "7*3=21\n#### 21",
    "arguments": {"gen_args_0": {"arg_0": f"Q: {ASKED}\nA:", "arg_1": {"until": ["Q:"]}}},
    "resps": [[WHOLE]],
    "filtered_resps": ["21"],
    "filter": "strict-match",
    "metrics": ["exact_match"],
    "doc_hash": "…",
    "exact_match": 1.0,
}
LIGHTEVAL: dict[str, Any] = {
    "doc": {"query": ASKED, "choices": ["21"], "gold_index": 0, "id": "7", "task_name": "own|pens", "instruction": ""},
    "model_response": {"input": ASKED, "text": [WHOLE, SAID], "output_tokens": [[1, 2], [2]], "reasonings": []},
    "metric": {"pass@k:k=1": 1.0},
}
OLD_LIGHTEVAL = {
    "example": ASKED,
    "full_prompt": f"system… {ASKED}",
    "predictions": [WHOLE],
    "gold": ["21"],
    "metrics": {"extractive_match": 0.0},
}
EVER: dict[str, Any] = {
    "schema_version": "0.3.0",
    "evaluation_id": "pens/own/1",
    "model_id": "some/model",
    "evaluation_name": "pens",
    "sample_id": "p7",
    "interaction_type": "single_turn",
    "input": {"raw": ASKED, "reference": ["21"]},
    "output": {"raw": [SAID], "reasoning_trace": [THOUGHT]},
    "answer_attribution": [],
    "evaluation": {"score": 1.0, "is_correct": True},
}
EVER_TURNS = {
    **EVER,
    "interaction_type": "multi_turn",
    "output": None,
    "messages": [
        {"turn_idx": 0, **USER},
        {"turn_idx": 1, "role": "assistant", "content": SAID, "reasoning_trace": THOUGHT},
    ],
}
INSPECT: dict[str, Any] = {
    "id": "p7",
    "epoch": 2,
    "input": ASKED,
    "target": "21",
    "messages": [USER, {"role": "assistant", "content": WHOLE}],
    "output": {"model": "some/model", "choices": [{"message": {"role": "assistant", "content": WHOLE}}]},
    "scores": {"match": {"value": "I", "answer": "21"}},
}

# name: (row, what it is, traces)
ROWS: dict[str, tuple[dict[str, Any], str, list[dict[str, Any]]]] = {
    "own": ({**TRACE, "extra": 1}, "attnpo", [{**TRACE, "extra": 1}]),
    "lm-eval": (LM_EVAL, "lm-eval", [{"id": "4", **TRACE, "correct": True}]),
    "lm-eval, repeats": (
        {**LM_EVAL, "resps": [[WHOLE, SAID]], "exact_match": 0.5},
        "lm-eval",
        [{"id": "4-1", **TRACE}, {"id": "4-2", **TRACE, "response": SAID}],
    ),
    "lm-eval, repeats of which the first is graded": (
        {**LM_EVAL, "resps": [[WHOLE, SAID]], "exact_match": 1.0},
        "lm-eval",
        [{"id": "4-1", **TRACE}, {"id": "4-2", **TRACE, "response": SAID}],
    ),
    "lm-eval, chat": (
        {**LM_EVAL, "arguments": {"gen_args_0": {"arg_0": json.dumps([{"role": "system", "content": "a"}, USER])}},
         "doc": {"x": 1}},
        "lm-eval",
        [{"id": "4", **TRACE, "correct": True}],
    ),
    "lm-eval, a document of its own": (
        {**LM_EVAL, "doc": {"x": 1}},
        "lm-eval",
        [{"id": "4", **TRACE, "problem": f"Q: {ASKED}\nA:", "correct": True}],
    ),
    "lighteval": (
        LIGHTEVAL,
        "lighteval",
        [{"id": "7-1", **TRACE, "correct": True}, {"id": "7-2", **TRACE, "response": SAID, "correct": True}],
    ),
    "lighteval, one of two is right": (
        {**LIGHTEVAL, "metric": {"pass@2": 1}},
        "lighteval",
        [{"id": "7-1", **TRACE}, {"id": "7-2", **TRACE, "response": SAID}],
    ),
    "lighteval, thinking apart": (
        {**LIGHTEVAL, "model_response": {"text": [SAID], "reasonings": [THOUGHT]}},
        "lighteval",
        [{"id": "7", **TRACE, "correct": True}],
    ),
    "lighteval, several golds": (
        {**LIGHTEVAL, "doc": {"query": ASKED, "choices": ["20", "21", "21.0"], "gold_index": [1, 2]},
         "model_response": {"text": [WHOLE]}, "metric": {"a": 0.5, "b": 1}},
        "lighteval",
        [{**TRACE, "reference": '["21", "21.0"]'}],
    ),
    "lighteval before 0.9": (OLD_LIGHTEVAL, "lighteval", [{**TRACE, "correct": False}]),
    "Every Eval Ever": (EVER, "every-eval-ever", [{"id": "p7", **TRACE, "correct": True, "model": "some/model"}]),
    "Every Eval Ever, thinking in both": (
        {**EVER, "output": {"raw": [WHOLE], "reasoning_trace": [THOUGHT]}},
        "every-eval-ever",
        [{"id": "p7", **TRACE, "correct": True, "model": "some/model"}],
    ),
    "Every Eval Ever, turns": (
        EVER_TURNS,
        "every-eval-ever",
        [{"id": "p7", **TRACE, "correct": True, "model": "some/model"}],
    ),
    "inspect": (INSPECT, "inspect", [{"id": "p7-2", **TRACE, "correct": False, "model": "some/model"}]),
    "inspect, messages": (
        {**INSPECT, "epoch": 1, "input": [{"role": "system", "content": "a"}, USER], "target": ["21"], "scores": None},
        "inspect",
        [{"id": "p7", **TRACE, "model": "some/model"}],
    ),
    "messages": (
        {"messages": [{"role": "system", "content": "a"}, USER, APART], "answer": 21, "model": "m"},
        "messages",
        [{"answer": 21, "model": "m", **TRACE}],
    ),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": WHOLE}], "id": 3},
        "messages",
        [{"id": 3, "problem": ASKED, "response": WHOLE}],
    ),
    "TRL's prompt and completion as texts": (
        {"prompt": ASKED, "completion": WHOLE, "reference": "21"},
        "messages",
        [TRACE],
    ),
    "TRL's prompt and completion": (
        {"prompt": [USER], "completion": [APART], "reference": "21"},
        "messages",
        [TRACE],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_rows(name, tmp_path):
    row, origin, traces = ROWS[name]
    assert origin_of(row) == origin
    path = tmp_path / "in.jsonl"
    path.write_text("\n" + json.dumps(row) + "\n")
    assert list(read_traces(path)) == [(2, trace) for trace in traces]
    assert list(read_traces(path, origin=origin)) == [(2, trace) for trace in traces]


def test_filters_of_a_task_are_read_once(tmp_path):
    path = tmp_path / "samples_gsm8k.jsonl"
    rows = [LM_EVAL, {**LM_EVAL, "doc_id": 5}, {**LM_EVAL, "filter": "flexible-extract", "exact_match": 0.0}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [trace["id"] for _, trace in read_traces(path)] == ["4", "5"]


def test_lighteval_parquet(tmp_path):
    Dataset.from_list([LIGHTEVAL]).to_parquet(tmp_path / "details_own.parquet")
    assert [trace for _, trace in read_traces(tmp_path / "details_own.parquet")] == ROWS["lighteval"][2]


def test_inspect_logs(tmp_path):
    log = {"eval": {"model": "some/model"}, "samples": [INSPECT]}
    (tmp_path / "log.json").write_text(json.dumps(log))
    with zipfile.ZipFile(tmp_path / "log.eval", "w") as archive:
        archive.writestr("header.json", "{}")
        archive.writestr("samples/p7_epoch_2.json", json.dumps(INSPECT))
    for name in ("log.json", "log.eval"):
        assert list(read_traces(tmp_path / name)) == [(1, ROWS["inspect"][2][0])]


def test_own_rows_in_other_files(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps([TRACE, TRACE]))
    Dataset.from_list([TRACE]).to_parquet(tmp_path / "in.parquet")
    assert len(list(read_traces(tmp_path / "in.json", ("problem", "response")))) == 2
    assert list(read_traces(tmp_path / "in.parquet")) == [(1, TRACE)]


def test_segment(tmp_path, capsys):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(EVER) + "\n")
    assert main(["segment", str(source), "-o", str(target)]) == 0
    step = {"start": 0, "end": len(THOUGHT), "kind": "forward"}
    assert list(read_jsonl(target)) == [{**ROWS["Every Eval Ever"][2][0], "steps": [step]}]
    assert main(["segment", str(source), "--stats"]) == 0
    assert "| some/model | 1 | 1 |" in capsys.readouterr().out


def test_labels_of_a_conversation_are_read(tmp_path):
    """Fields that a converter does not know are kept where the row is the user's own: probe finds the steps."""
    from attnpo.traces.labelled import read_labelled

    steps = [{"start": 0, "end": len(THOUGHT), "essential": True}]
    (tmp_path / "in.jsonl").write_text(json.dumps({"messages": [USER, APART], "steps": steps}) + "\n")
    rows, labels = read_labelled(tmp_path / "in.jsonl")
    assert labels == [[True]]
    assert rows[0][1]["response"] == WHOLE


BAD = {
    "likelihoods": ({**LM_EVAL, "resps": [[[-1.5, False]]]}, "row 1: field 'resps' has no generated texts"),
    "no question": ({**EVER, "input": {"raw": "", "reference": []}}, "row 1: found no question of the row (text), exp"),
    "no output": ({**EVER, "output": None}, "row 1: field 'output' is null, expected an object"),
    "nobody answers": ({"messages": [USER]}, "row 1: found messages of user, expected a reply of the assistant"),
    "no responses": (
        {**LIGHTEVAL, "model_response": {"text": "21"}},
        "row 1: found no responses of the row (text), expected a list of texts",
    ),
    "unknown": ({"text": "a"}, "row 1: field 'response' is missing (found text)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows(name, tmp_path):
    row, message = BAD[name]
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError) as error:
        list(read_traces(tmp_path / "in.jsonl", ("response",)))
    assert message in str(error.value)


def test_a_row_that_differs_from_the_first(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps(EVER) + "\n" + json.dumps(TRACE) + "\n")
    with pytest.raises(InputError, match="row 2: field 'input' is null, expected an object"):
        list(read_traces(tmp_path / "in.jsonl"))


def test_not_a_log(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.eval", "w") as archive:
        archive.writestr("a.txt", "")
    with pytest.raises(InputError, match=r"x\.eval: a zip file with a\.txt, expected a log of inspect with samples"):
        list(read_traces(tmp_path / "x.eval"))
    with zipfile.ZipFile(tmp_path / "y.eval", "w") as archive:
        archive.writestr("samples/1.json", "{")
    with pytest.raises(InputError, match=r"y\.eval, samples/1\.json: not valid JSON"):
        list(read_traces(tmp_path / "y.eval"))
    with pytest.raises(InputError, match=r"absent\.jsonl: no such file"):
        list(read_traces(tmp_path / "absent.jsonl"))
    with pytest.raises(InputError, match="--from helm: expected one of auto, attnpo, messages"):
        list(read_traces(tmp_path / "absent.jsonl", origin="helm"))


def test_the_command_knows_every_origin(repository: Path):
    text = (repository / "src/attnpo/cli/trace_options.py").read_text()
    assert f"choices={ORIGINS!r}".replace("'", '"') in text
