"""Every Eval Ever: our evaluations written in it, and anyone's read by `attnpo compare`."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from attnpo.cli.main import main
from attnpo.data.jsonl import read_jsonl
from attnpo.errors import InputError
from attnpo.evaluation.exchange import (
    WRITERS,
    read_every_eval_ever,
    read_exchanged,
    write_every_eval_ever,
    write_lighteval,
)
from attnpo.evaluation.folder import read_evaluation
from attnpo.evaluation.options import WRITTEN, EvalOptions
from attnpo.evaluation.samples import Question
from attnpo.rewards.verdict import Verdict
from attnpo.traces.read import read_traces
from example_evaluation import write_evaluation

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
PATH = rf"data/attnpo/unknown/tiny-overthinker/{UUID}_samples\.jsonl"
"""As the schema asks for."""


@pytest.fixture
def written(tmp_path) -> tuple[Path, Path]:
    """An evaluation folder, and its results in Every Eval Ever."""
    folder = write_evaluation(tmp_path / "base", ungraded=0.1)
    results = json.loads((folder / "results.json").read_text())
    question = Question(benchmark="math500", id="math500-0", problem="How much?", kind="math", reference="1")
    return folder, write_every_eval_ever(folder, results, {"math500": [question]})


def test_written_fields(written):
    folder, file = written
    summary, results = json.loads(file.read_text()), json.loads((folder / "results.json").read_text())
    assert [(one["evaluation_name"], one["metric_config"]["metric_id"]) for one in summary["evaluation_results"]] == [
        ("aime24", "accuracy"),
        ("aime24", "tokens"),
        ("math500", "accuracy"),
        ("math500", "tokens"),
    ]
    for one in summary["evaluation_results"]:
        ours = results["benchmarks"][one["evaluation_name"]][one["metric_config"]["metric_id"]]
        assert one["score_details"]["score"] == ours["value"]
        bounds = one["score_details"]["uncertainty"]["confidence_interval"]
        assert (bounds["lower"], bounds["upper"]) == (ours["low"], ours["high"])
    responses = folder / "every-eval-ever" / summary["detailed_evaluation_results"]["file_path"]
    assert file.name == responses.name.replace("_samples.jsonl", ".json")
    assert re.fullmatch(PATH, summary["detailed_evaluation_results"]["file_path"])
    assert hashlib.sha256(responses.read_bytes()).hexdigest() == summary["detailed_evaluation_results"]["checksum"]
    rows = list(read_jsonl(responses))
    assert len(rows) == summary["detailed_evaluation_results"]["total_rows"] == 4 * 30
    asked = [row["input"]["raw"] for row in rows if row["sample_id"] == "math500-0"]
    assert asked == ["How much?"] * 4


def test_exported_evaluation_is_read_back(written):
    """Read again, the responses are those of the folder, but for seeds and the answers that were read out."""
    folder, file = written
    ours, theirs = read_evaluation(folder), read_every_eval_ever(file)
    assert (theirs.name, theirs.model) == (ours.name, ours.model)
    kept = ("benchmark", "id", "sample", "text", "prompt_tokens", "tokens", "thinking_tokens", "truncated", "verdict")
    for name, samples in ours.samples.items():
        for one, other in zip(samples, theirs.samples[name], strict=True):
            assert [getattr(one, field) for field in kept] == [getattr(other, field) for field in kept]
            assert (one.reference, one.level) == (other.reference, other.level)


def test_compare_reads_an_exported_evaluation(written, tmp_path, capsys):
    folder, file = written
    responses = file.with_name(file.stem + "_samples.jsonl")
    for theirs in (file, responses):
        assert main(["compare", str(folder), str(theirs), "-o", str(tmp_path / "out"), "--names", "a,b"]) == 0
        found = json.loads((tmp_path / "out" / "comparison.json").read_text())
        both = found["benchmarks"]["math500"]["runs"]
        assert both["a"]["accuracy"] == both["b"]["accuracy"]
        assert both["a"]["tokens"] == both["b"]["tokens"]


def test_lighteval(tmp_path):
    """Read again as lighteval's details: every response, its problem, reference and id."""
    folder = write_evaluation(tmp_path / "base", benchmarks={"math500": 3}, samples=2)
    results = json.loads((folder / "results.json").read_text())
    questions = [
        Question(benchmark="math500", id=f"math500-{i}", problem=f"Problem {i}", kind="math", reference="1")
        for i in range(3)
    ]
    file = write_lighteval(folder, results, {"math500": questions})
    found = json.loads(file.read_text())["results"]["math500|0"]
    assert found["accuracy"] == results["benchmarks"]["math500"]["accuracy"]["value"]
    [details] = (folder / "lighteval" / "details").rglob("*.parquet")
    samples = read_evaluation(folder).samples["math500"]
    traces = [trace for _, trace in read_traces(details)]
    assert [trace["response"] for trace in traces] == [sample.text for sample in samples]
    assert [trace["id"] for trace in traces] == [f"math500-{i}-{k}" for i in range(3) for k in (1, 2)]
    assert [trace["problem"] for trace in traces] == [f"Problem {i}" for i in (0, 0, 1, 1, 2, 2)]
    assert [trace["reference"] for trace in traces] == [sample.reference for sample in samples]


def details(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """As lighteval lays them out."""
    from datasets import Dataset

    file = folder / "details" / "org" / "model-7b" / "2026-01-01T00-00-00" / "details_aime24|0_2026-01-01.parquet"
    file.parent.mkdir(parents=True)
    Dataset.from_list(rows).to_parquet(file)
    return file


def detail(i: int, score: float, lengths: list[int], metric: str = "extractive_match") -> dict[str, Any]:
    return {
        "doc": {"query": f"Problem {i}", "choices": ["7"], "gold_index": [0], "id": str(i), "task_name": "aime24|0"},
        "model_response": {
            "input": f"Problem {i}",
            "input_tokens": [1, 2, 3],
            "text": [f"Response {k}" for k in range(len(lengths))],
            "output_tokens": [[5] * length for length in lengths],
        },
        "metric": {metric: score},
    }


def test_lighteval_of_others_is_compared_and_shown(tmp_path, capsys):
    file = details(tmp_path, [detail(0, 1.0, [10, 30]), detail(1, 0.5, [20, 20]), detail(2, 0.0, [40, 60])])
    found = read_exchanged(file)
    assert (found.name, list(found.samples)) == ("model-7b", ["aime24"])
    samples = found.samples["aime24"]
    assert [(one.id, one.sample, one.tokens) for one in samples[:3]] == [("0", 0, 10), ("0", 1, 30), ("1", 0, 20)]
    assert [one.verdict == Verdict.RIGHT for one in samples] == [True, True, True, False, False, False]
    assert (samples[0].reference, samples[0].prompt_tokens) == ("7", 3)
    assert main(["compare", str(file), str(file), "--names", "a,b", "-o", str(tmp_path / "out")]) == 0
    both = json.loads((tmp_path / "out" / "comparison.json").read_text())["benchmarks"]["aime24"]["runs"]
    assert (both["a"]["accuracy"]["value"], both["b"]["tokens"]["value"]) == (0.5, 30.0)
    page = tmp_path / "page.html"
    assert main(["report", str(file), "-o", str(page)]) == 0
    assert "model-7b" in page.read_text()
    assert "50.0" in page.read_text()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (detail(0, 0.3, [1, 2]), "metric 'extractive_match' is 0.3 for 2 responses"),
        (detail(0, 1.0, [1, 2], metric="pass@k"), "metric 'pass@k' is 1.0 for 2 responses"),
        (
            {**detail(0, 1.0, [1]), "metric": {"a": 1.0, "b": 0.0}},
            r"field 'metric' has \['a', 'b'\], expected one score",
        ),
        ({**detail(0, 1.0, [1]), "doc": None}, "has no doc and model_response with text"),
    ],
)
def test_lighteval_that_cannot_be_read(row, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_exchanged(details(tmp_path, [row]))


def test_gold_of_a_choice_is_its_index(tmp_path):
    folder = write_evaluation(tmp_path / "base", benchmarks={"math500": 1}, samples=1)
    samples = folder / "samples" / "math500.jsonl"
    row = json.loads(samples.read_text()) | {"reference": "B"}
    samples.write_text(json.dumps(row) + "\n")
    question = Question(
        benchmark="math500", id=row["id"], problem="Which?", kind="choice", reference="B", choices=("no", "yes", "may")
    )
    write_lighteval(folder, json.loads((folder / "results.json").read_text()), {"math500": [question]})
    [details] = (folder / "lighteval" / "details").rglob("*.parquet")
    assert [trace["reference"] for _, trace in read_traces(details)] == ["yes"]


def test_eval_writes_both(tmp_path):
    """Of an evaluation that is finished, too."""
    from rich.console import Console

    from attnpo.evaluation.run import write_for_others

    folder = write_evaluation(tmp_path / "base")
    options = EvalOptions(model="m", benchmarks=["task"], output=folder, write=list(WRITTEN))
    assert set(WRITTEN) == set(WRITERS)
    write_for_others(options, json.loads((folder / "results.json").read_text()), {}, Console(quiet=True))
    assert len(list((folder / "every-eval-ever").rglob("*_samples.jsonl"))) == 1
    assert len(list((folder / "lighteval").rglob("*.parquet"))) == 2


ROW = {
    "schema_version": "0.3.0",
    "evaluation_id": "x",
    "model_id": "some/model",
    "evaluation_name": "pens",
    "evaluation_result_id": "pens/em",
    "sample_id": "p1",
    "interaction_type": "single_turn",
    "input": {"raw": "How much?", "reference": ["21"]},
    "output": {"raw": ["21"]},
    "answer_attribution": [],
    "evaluation": {"score": 1.0, "is_correct": True},
    "token_usage": {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14, "reasoning_tokens": 6},
}


def test_files_of_other_programs(tmp_path):
    """The responses of one metric only; each sample counted on."""
    rows = [ROW, {**ROW, "evaluation_result_id": "pens/f1"}, {**ROW, "evaluation": {"score": 0, "is_correct": False}}]
    file = tmp_path / "run_samples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_every_eval_ever(file)
    assert (found.name, found.model) == ("model", "some/model")
    assert [
        (one.id, one.sample, one.tokens, one.thinking_tokens, str(one.verdict)) for one in found.samples["pens"]
    ] == [
        ("p1", 0, 9, 6, "right"),
        ("p1", 1, 9, 6, "wrong"),
    ]


BAD = {
    "no lengths": ({**ROW, "token_usage": None}, "row 1: field 'token_usage' is null, expected an object with output"),
    "no length": ({**ROW, "token_usage": {}}, "row 1, token_usage: field 'output_tokens' is missing"),
    "no verdict": ({**ROW, "evaluation": {"score": 1}}, "row 1, evaluation: field 'is_correct' is missing"),
    "no name": ({"sample_id": "a"}, "row 1: field 'evaluation_name' is missing"),
    "a share": ({**ROW, "token_usage": {"output_tokens": 1.5}}, "row 1: field 'tokens' is a number, expected a whole"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows(name, tmp_path):
    row, message = BAD[name]
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError) as error:
        read_every_eval_ever(tmp_path / "x.jsonl")
    assert message in str(error.value)


def test_results_without_responses(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match=r"has no detailed_evaluation_results\.file_path"):
        read_every_eval_ever(tmp_path / "x.json")


def test_unknown_format(tmp_path):
    with pytest.raises(InputError, match="--write: found 'helm', expected every-eval-ever, lighteval"):
        EvalOptions(model="m", benchmarks=["task"], output=tmp_path, write=["helm"])
