"""Write and read evaluations in formats of other projects: Every Eval Ever (schema 0.3.0) and lighteval.

https://github.com/evaleval/every_eval_ever: one JSON file with the results and one JSON Lines file with the responses
in the same folder. Who ran the evaluation is recorded as "unknown". lighteval 0.13: results as JSON, details as
Parquet; token ids, which our samples do not have, are left empty.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnpo.data.jsonl import check_field, json_line, read_numbered_jsonl, row_name, type_name, write_whole
from attnpo.data.references import alternatives
from attnpo.errors import InputError
from attnpo.evaluation.folder import Evaluation, Results, read_evaluation, sample_from_json
from attnpo.evaluation.metrics import by_problem
from attnpo.evaluation.samples import Question, Sample
from attnpo.rewards.verdict import REWARD_OF
from attnpo.traces.origins import is_share, lighteval
from attnpo.versions import versions_of

SCHEMA = "0.3.0"
FOLDER = "every-eval-ever"
MEASURES = {"accuracy": False, "tokens": True}
"""Measures that are written, and whether lower is better."""

UNGRADED = "ungraded"
"""The verdict in the metadata for a response to a question without a reference or tests."""

_CONFIDENCE = 0.95


def write_every_eval_ever(folder: Path, results: Results, questions: Mapping[str, Sequence[Question]]) -> Path:
    """Write an evaluation folder's results and responses below FOLDER/every-eval-ever; returns the results file.

    Paths are those of the data repository: data/BENCHMARK/DEVELOPER/MODEL/UUID.json and UUID_samples.jsonl. Equal
    responses give an equal UUID.

    Args:
        results: the content of results.json.
        questions: of every benchmark, for the text of its problems.

    Raises:
        InputError: the folder has no samples, or cannot be written to.
    """
    evaluation = read_evaluation(folder)
    now = str(int(time.time()))
    identity = f"attnpo/{evaluation.model}/{now}"
    records = [
        _record(sample, evaluation, identity, asked.get(sample.id))
        for name, samples in evaluation.samples.items()
        for asked in [{question.id: question for question in questions.get(name, ())}]
        for sample in samples
    ]
    lines = b"".join(json_line(record) for record in records)
    checksum = hashlib.sha256(lines)
    name = str(uuid.UUID(bytes=checksum.digest()[:16], version=4))
    developer, _, model = evaluation.model.strip("/").rpartition("/")
    place = Path(
        "data",
        next(iter(evaluation.samples)) if len(evaluation.samples) == 1 else "attnpo",
        Path(developer).name or "unknown",
        model or evaluation.name,
    )
    target = folder / FOLDER / place
    summary = {
        "schema_version": SCHEMA,
        "evaluation_id": identity,
        "retrieved_timestamp": now,
        "source_metadata": {
            "source_name": "attnpo eval",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
        },
        "eval_library": {"name": "attnpo", "version": _own_version()},
        "model_info": {
            "name": evaluation.name,
            "id": evaluation.model,
            "inference_engine": {"name": str(evaluation.options.get("engine", "unknown"))},
            "additional_details": {"deployment_type": "self_deployed", "model_availability": "open_weights"},
        },
        "evaluation_results": [
            _result(benchmark, measure, found, evaluation)
            for benchmark, found in results["benchmarks"].items()
            for measure in MEASURES
            if found[measure]["value"] is not None
        ],
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": (place / f"{name}_samples.jsonl").as_posix(),
            "hash_algorithm": "sha256",
            "checksum": checksum.hexdigest(),
            "total_rows": len(records),
        },
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        write_whole(target / f"{name}_samples.jsonl", lines)
        write_whole(target / f"{name}.json", json.dumps(summary, indent=1, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        raise InputError(f"{target}: cannot be written to ({error.strerror})") from error
    return target / f"{name}.json"


def _own_version() -> str:
    # Not attnpo.__version__: importing the package itself from here would be a circle of imports (through the trainer).
    return versions_of(["attnpo"]).get("attnpo", "unknown")


def _result(benchmark: str, measure: str, found: dict[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    value = found[measure]
    bounds = {} if value["low"] is None else {"lower": value["low"], "upper": value["high"]}
    options = evaluation.options
    arguments = {
        name: options[name] for name in ("temperature", "top_p", "max_tokens") if options.get(name) is not None
    }
    return {
        "evaluation_result_id": f"{benchmark}/{measure}",
        "evaluation_name": benchmark,
        "source_data": {"dataset_name": benchmark, "source_type": "other"},
        "metric_config": {
            "metric_id": measure,
            "metric_name": "Accuracy, mean over samples" if measure == "accuracy" else "Tokens per response",
            "metric_unit": "proportion" if measure == "accuracy" else "tokens",
            "lower_is_better": MEASURES[measure],
            "score_type": "continuous",
            "min_score": 0,
            "max_score": 1 if measure == "accuracy" else "Infinity",
        },
        "score_details": {
            "score": value["value"],
            "details": {"problems": str(found["problems"]), "samples_per_problem": str(found["samples_per_problem"])},
            "uncertainty": {
                "num_samples": found["problems"],
                **({"confidence_interval": {**bounds, "confidence_level": _CONFIDENCE}} if bounds else {}),
            },
        },
        **({"generation_config": {"generation_args": arguments}} if arguments else {}),
    }


def _record(sample: Sample, evaluation: Evaluation, identity: str, question: Question | None) -> dict[str, Any]:
    """The record of one response, with the extracted answer if the verifier found one."""
    right = sample.verdict is not None and REWARD_OF[sample.verdict] == 1
    extracted = [] if sample.extracted is None else [sample.extracted]
    return {
        "schema_version": SCHEMA,
        "evaluation_id": identity,
        "model_id": evaluation.model,
        "evaluation_name": sample.benchmark,
        "evaluation_result_id": f"{sample.benchmark}/accuracy",
        "sample_id": sample.id,
        "interaction_type": "single_turn",
        "input": {
            "raw": "" if question is None else question.problem,
            "reference": [] if sample.reference is None else alternatives(sample.reference) or [sample.reference],
            **({"choices": list(question.choices)} if question is not None and question.choices else {}),
        },
        "output": {"raw": [sample.text]},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": text,
                "extraction_method": "attnpo",
                "is_terminal": True,
            }
            for text in extracted
        ],
        "evaluation": {"score": float(right), "is_correct": right},
        "token_usage": {
            "input_tokens": sample.prompt_tokens,
            "output_tokens": sample.tokens,
            "total_tokens": sample.prompt_tokens + sample.tokens,
            "reasoning_tokens": sample.thinking_tokens,
        },
        "metadata": {
            "sample": str(sample.sample),
            "truncated": str(sample.truncated).lower(),
            "verdict": UNGRADED if sample.verdict is None else sample.verdict.value,
            **({} if sample.level is None else {"level": sample.level}),
        },
    }


def write_lighteval(folder: Path, results: Results, questions: Mapping[str, Sequence[Question]]) -> Path:
    """Write an evaluation in the layout of lighteval's output, below FOLDER/lighteval; returns the results file.

    Raises:
        InputError: the folder has no samples, or cannot be written to.
    """
    from datasets import Dataset  # takes a second, which other evaluations do not need

    evaluation = read_evaluation(folder)
    now = time.strftime("%Y-%m-%dT%H-%M-%S")
    model = evaluation.model.strip("/")
    scores = {
        f"{name}|0": {"accuracy": found["accuracy"]["value"], "tokens": found["tokens"]["value"]}
        for name, found in results["benchmarks"].items()
    }
    general = {"model_name": model, "attnpo_version": _own_version(), "date": now}
    summary = folder / "lighteval" / "results" / model / f"results_{now}.json"
    details = folder / "lighteval" / "details" / model / now
    try:
        summary.parent.mkdir(parents=True, exist_ok=True)
        details.mkdir(parents=True, exist_ok=True)
        content = {"config_general": general, "results": scores, "versions": dict.fromkeys(scores, 0)}
        write_whole(summary, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
        for name, samples in evaluation.samples.items():
            asked = {question.id: question for question in questions.get(name, ())}
            rows = [_detail(problem, asked.get(problem[0].id)) for problem in by_problem(samples)]
            Dataset.from_list(rows).to_parquet(details / f"details_{name}|0_{now}.parquet")
    except OSError as error:
        raise InputError(f"{folder / 'lighteval'}: cannot be written to ({error.strerror})") from error
    return summary


def _detail(samples: Sequence[Sample], question: Question | None) -> dict[str, Any]:
    """The row of one problem with all its responses."""
    first = samples[0]
    asked = "" if question is None else question.problem
    choices = list(question.choices) if question is not None and question.choices else [first.reference or ""]
    index = choices.index(first.reference) if first.reference in choices else 0
    if first.reference is not None and len(first.reference) == 1 and question is not None and question.choices:
        index = ord(first.reference) - ord("A")  # the gold of a choice is its letter
    right = [one.verdict is not None and REWARD_OF[one.verdict] == 1 for one in samples]
    return {
        "doc": {
            "query": asked,
            "choices": choices,
            "gold_index": index,
            "id": first.id,
            "task_name": f"{first.benchmark}|0",
        },
        "model_response": {
            "input": asked,
            "input_tokens": [],
            "text": [one.text for one in samples],
            "output_tokens": [],
        },
        "metric": {"accuracy": sum(right) / len(right), "tokens": sum(one.tokens for one in samples) / len(samples)},
    }


def read_every_eval_ever(path: Path, name: str | None = None) -> Evaluation:
    """Read an evaluation from its results file, or from its responses alone (``*_samples.jsonl``).

    Of several metrics of one evaluation the first one's responses are read. Lengths are `token_usage.output_tokens`.

    Raises:
        InputError: there are no responses, or one has no verdict or length; names file, row and field.
    """
    summary: dict[str, Any] = {}
    if path.suffix == ".json":
        summary = _summary(path)
        path = path.parent / Path(summary["detailed_evaluation_results"]["file_path"]).name
    samples: dict[str, list[Sample]] = {}
    seen: Counter[tuple[str, str]] = Counter()
    metrics: dict[str, Any] = {}
    model = "model not recorded"
    for number, row in read_numbered_jsonl(path, ("evaluation_name", "sample_id", "evaluation")):
        benchmark, where = str(row["evaluation_name"]), row_name(path, number)
        if metrics.setdefault(benchmark, row.get("evaluation_result_id")) != row.get("evaluation_result_id"):
            continue
        model = str(row.get("model_id", model))
        key = benchmark, str(row["sample_id"])
        samples.setdefault(benchmark, []).append(_sample(row, benchmark, seen[key], where))
        seen[key] += 1
    info = summary.get("model_info") or {}
    return Evaluation(
        name=name or str(info.get("name") or Path(model).name),
        model=str(info.get("id") or model),
        path=path,
        samples=samples,
    )


def _summary(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no JSON file ({error}), expected one of Every Eval Ever") from error
    details = content.get("detailed_evaluation_results") if isinstance(content, dict) else None
    if not isinstance(details, dict) or not isinstance(details.get("file_path"), str):
        raise InputError(
            f"{path}: has no detailed_evaluation_results.file_path, expected results of Every Eval Ever with a file of "
            "responses: runs are compared problem by problem"
        )
    return content


def _sample(row: dict[str, Any], benchmark: str, index: int, where: str) -> Sample:
    usage, result = row.get("token_usage"), row["evaluation"]
    if not isinstance(usage, dict):
        raise InputError(f"{where}: field 'token_usage' is {type_name(usage)}, expected an object with output_tokens")
    check_field(usage, "output_tokens", f"{where}, token_usage")
    check_field(result, "is_correct", f"{where}, evaluation")
    asked, output, about = row.get("input") or {}, row.get("output") or {}, row.get("metadata") or {}
    texts, references = output.get("raw") or [""], asked.get("reference") or []
    thinking = usage.get("reasoning_tokens") or 0
    verdict = about.get("verdict", "right" if result["is_correct"] else "wrong")
    fields = {
        "benchmark": benchmark,
        "id": str(row["sample_id"]),
        "sample": index,
        "seed": 0,
        "text": texts[0] if isinstance(texts, list) else texts,
        "prompt_tokens": usage.get("input_tokens") or 0,
        "tokens": usage["output_tokens"],
        "thinking_tokens": thinking,
        "answer_tokens": usage["output_tokens"] - thinking,
        "truncated": about.get("truncated") == "true",
        "extracted": None,
        "verdict": None if verdict == UNGRADED else verdict,
        "reference": None if not references else str(references[0]),
        "level": about.get("level"),
    }
    return sample_from_json(fields, where)


def read_exchanged(path: Path, name: str | None = None) -> Evaluation:
    """Read an evaluation of another project: lighteval's details if the file is Parquet, else Every Eval Ever.

    Raises:
        InputError: as `read_lighteval` and `read_every_eval_ever`.
    """
    return read_lighteval(path, name) if path.suffix == ".parquet" else read_every_eval_ever(path, name)


def read_lighteval(path: Path, name: str | None = None) -> Evaluation:
    """Read one task of lighteval: its ``details_TASK_DATE.parquet``.

    lighteval keeps one score per problem. For a problem with several responses, as many as the mean score implies are
    taken to be right, the first ones: numbers per problem are correct, but which responses were right is not known.
    The model is named after the parent of the date's folder, as in lighteval's layout.

    Raises:
        InputError: a row has no response, no length, or no score that gives the number of right responses.
    """
    from attnpo.data.problems import load_rows  # imports `datasets`, which takes a second

    samples: dict[str, list[Sample]] = {}
    for number, row in enumerate(load_rows(str(path)), start=1):
        found = list(_samples_of_detail(row, number, row_name(path, number)))
        samples.setdefault(found[0].benchmark, []).extend(found)
    model = path.resolve().parent.parent.name
    return Evaluation(name=name or model, model=model, path=path, samples=samples)


def _samples_of_detail(row: dict[str, Any], number: int, where: str) -> Iterator[Sample]:
    doc, answer = row.get("doc"), row.get("model_response")
    if not isinstance(doc, dict) or not isinstance(answer, dict) or not answer.get("text"):
        raise InputError(
            f"{where}: has no doc and model_response with text, expected details of lighteval (0.9 or later)"
        )
    traces = list(lighteval(row, where))
    right, lengths = _right(row.get("metric") or {}, len(traces), where), _lengths(row, answer, len(traces), where)
    for i, (trace, tokens) in enumerate(zip(traces, lengths, strict=True)):
        fields = {
            "benchmark": str(doc.get("task_name") or "lighteval").split("|")[0],
            "id": str(doc.get("id") or number),
            "sample": i,
            "seed": 0,
            "text": trace["response"],
            "prompt_tokens": len(answer.get("input_tokens") or ()),
            "tokens": tokens,
            "thinking_tokens": 0,
            "answer_tokens": tokens,
            "truncated": False,
            "extracted": None,
            "verdict": "right" if i < right else "wrong",
            "reference": trace.get("reference"),
            "level": None,
        }
        yield sample_from_json(fields, where)


def _right(metric: dict[str, Any], count: int, where: str) -> int:
    """The number of right responses among `count`."""
    scores = {name: value for name, value in metric.items() if name not in MEASURES or name == "accuracy"}
    if "accuracy" in scores:
        scores = {"accuracy": scores["accuracy"]}
    if len(scores) != 1:
        raise InputError(
            f"{where}: field 'metric' has {sorted(scores) or 'nothing'}, expected one score, or `accuracy`"
        )
    [(name, score)] = scores.items()
    whole = isinstance(score, int | float) and 0 <= score <= 1 and abs(score * count - round(score * count)) < 1e-6
    if not whole or (count > 1 and not is_share(name)):
        raise InputError(
            f"{where}: metric {name!r} is {score!r} for {count} responses, expected the share of them that is right"
        )
    return round(score * count)


def _lengths(row: dict[str, Any], answer: dict[str, Any], count: int, where: str) -> list[int]:
    """Tokens of every response; without token ids, the mean length among the metrics."""
    ids = answer.get("output_tokens") or []
    if len(ids) == count and all(isinstance(row_ids, list) for row_ids in ids):
        return [len(row_ids) for row_ids in ids]
    mean = (row.get("metric") or {}).get("tokens")
    if not isinstance(mean, int | float):
        raise InputError(f"{where}: model_response.output_tokens is empty, expected the token ids of {count} responses")
    return [round(mean)] * count


WRITERS = {FOLDER: write_every_eval_ever, "lighteval": write_lighteval}
"""Format of `attnpo eval --write` → its writer."""
