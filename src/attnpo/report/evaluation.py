"""An evaluation of one model: its results on each benchmark and its responses, from a folder of `attnpo eval` or a file
of another project."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from attnpo.data.jsonl import number, read_unfinished_jsonl
from attnpo.errors import InputError
from attnpo.report.rollouts import Response, response_of
from attnpo.report.run import distinct
from attnpo.steps.formats import Form, recorded_format
from attnpo.steps.response import split_response

RESULTS, OPTIONS = "results.json", "eval.yaml"
EVALUATION_FILES = (RESULTS, OPTIONS, "samples")
NO_TEXT = "(The text of this problem was not recorded: evaluate again to have questions.jsonl.)"


@dataclass(frozen=True)
class Measure:
    """A mean with the ends of its 95 % interval over problems; None if not recorded."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """One model on one benchmark. `at_k` has a measure per number of samples, `at_budget` one per number of tokens."""

    problems: int
    ungraded: int
    measures: dict[str, Measure]
    at_k: dict[int, Measure]
    at_budget: dict[int, Measure]
    behaviour: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """One model on several benchmarks; `aes` by benchmark and under "all", relative to the model `base`.

    `options`: the contents of eval.yaml.
    """

    name: str
    path: Path
    benchmarks: dict[str, Benchmark]
    aes: dict[str, float]
    base: str | None
    options: dict[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def same_problems(self, other: Evaluation, benchmark: str) -> bool:
        """Whether both answered the same problems: equal counts, and equal question hashes or (without them) limits."""
        if self.benchmarks[benchmark].problems != other.benchmarks[benchmark].problems:
            return False
        ours, theirs = self._questions(benchmark), other._questions(benchmark)
        if ours is None or theirs is None:
            return self.options.get("limit") == other.options.get("limit")
        return ours == theirs

    def _questions(self, benchmark: str) -> Any:
        """The hash of the questions in eval.yaml; None if not recorded."""
        recorded = self.options.get("benchmarks")
        found = recorded.get(benchmark) if isinstance(recorded, dict) else None
        return found.get("questions") if isinstance(found, dict) else None


def is_exchanged(path: Path) -> bool:
    """Whether the name is that of an evaluation in another project's format (`attnpo.evaluation.exchange`)."""
    return path.is_file() and (path.suffix in (".json", ".parquet") or path.name.endswith("_samples.jsonl"))


def is_evaluation(path: Path) -> bool:
    return is_exchanged(path) or any((path / name).exists() for name in EVALUATION_FILES)


def read_evaluation(path: Path) -> Evaluation:
    """Read the results of an evaluation folder, or compute them from a file of Every Eval Ever or lighteval.

    Raises InputError if there are none or they are malformed.
    """
    if path.is_file():
        # Imports torch, which a page of runs does not need.
        from attnpo.evaluation.exchange import read_exchanged
        from attnpo.evaluation.results import benchmark_results

        theirs = read_exchanged(path)
        found = {
            name: _benchmark(benchmark_results(samples), f"{path}, {name}") for name, samples in theirs.samples.items()
        }
        return Evaluation(theirs.name, path, found, aes={}, base=None)
    file = path / RESULTS
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _unfinished(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    content = _object(content, str(file))
    benchmarks = {
        str(name): _benchmark(_object(values, f"{file}, {name}"), f"{file}, {name}")
        for name, values in _object(content.get("benchmarks"), f"{file}, benchmarks").items()
    }
    recorded = _object(content.get("aes") or {}, f"{file}, aes")
    aes = _numbers(_object(recorded.get("benchmarks") or {}, f"{file}, aes"), f"{file}, aes")
    if (overall := number(recorded, "all", f"{file}, aes")) is not None:
        aes["all"] = overall
    name = str(content.get("name") or content.get("model") or path.resolve().name)
    base = recorded.get("base")
    return Evaluation(name, path, benchmarks, aes, None if base is None else str(base), _options(path / OPTIONS))


def _unfinished(path: Path) -> Evaluation:
    """Read an evaluation that is still sampling, as far as it got. Raises InputError if it has no sample yet."""
    if not any(file.stat().st_size for file in (path / "samples").glob("*.jsonl")):
        raise InputError(f"{path}: no {RESULTS}: the evaluation has not ended; run `attnpo eval` again")
    from attnpo.evaluation.folder import read_evaluation as read_samples  # imports torch
    from attnpo.evaluation.results import benchmark_results

    theirs = read_samples(path)
    found = {
        name: _benchmark(benchmark_results(samples, form=theirs.form), f"{path}, {name}")
        for name, samples in theirs.samples.items()
    }
    said = f"{theirs.name}: the evaluation has not ended (no {RESULTS}); the numbers are those of the samples so far."
    return Evaluation(theirs.name, path, found, {}, None, _options(path / OPTIONS), (said,))


def read_evaluations(paths: list[Path]) -> list[Evaluation]:
    """Read several evaluations; equal names are distinguished by their folders or else by a number."""
    evaluations = [read_evaluation(path) for path in paths]
    names = distinct([(one.name, one.path) for one in evaluations])
    return [replace(one, name=name) for one, name in zip(evaluations, names, strict=True)]


def _options(file: Path) -> dict[str, Any]:
    """The options of the evaluation; empty if the file is missing."""
    if not file.exists():
        return {}
    try:
        return _object(yaml.safe_load(file.read_text(encoding="utf-8")) or {}, str(file))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error


def _benchmark(values: dict[str, Any], where: str) -> Benchmark:
    measures = {
        key: measure
        for key in (*("accuracy", "tokens", "tokens_median", "thinking_tokens", "answer_tokens", "truncated"),)
        if (measure := _measure(values.get(key), f"{where}, {key}")) is not None
    }
    problems, ungraded = number(values, "problems", where), number(values, "ungraded", where)
    return Benchmark(
        int(problems or 0),
        int(ungraded or 0),
        measures,
        _by_number(values.get("pass_at_k"), f"{where}, pass_at_k"),
        _by_number(values.get("accuracy_at_budget"), f"{where}, accuracy_at_budget"),
        _numbers(_object(values.get("behaviour") or {}, where), f"{where}, behaviour"),
    )


def _measure(value: Any, where: str) -> Measure | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        value = {"value": value}
    mean = number(value, "value", where)
    return None if mean is None else Measure(mean, number(value, "low", where), number(value, "high", where))


def _by_number(value: Any, where: str) -> dict[int, Measure]:
    found = {}
    for key, inner in _object(value or {}, where).items():
        if not str(key).isdigit():
            raise InputError(f"{where}: found {key!r}, expected whole numbers")
        if (measure := _measure(inner, f"{where}, {key}")) is not None:
            found[int(key)] = measure
    return dict(sorted(found.items()))


def _numbers(values: dict[str, Any], where: str) -> dict[str, float]:
    return {str(key): found for key in values if (found := number(values, key, where)) is not None}


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: found {value!r:.80}, expected an object")
    return value


@dataclass(frozen=True)
class Sampled:
    """The responses of one evaluation by benchmark, in the order of its files; they have no steps."""

    evaluation: Evaluation
    responses: dict[str, list[Response]]
    notices: list[str]


def read_sampled(evaluation: Evaluation) -> Sampled:
    """Read all samples of an evaluation. Raises InputError, with file, row and field, for rows that are not samples."""
    path, notices = evaluation.path, []
    if is_exchanged(path):
        from attnpo.evaluation.exchange import read_exchanged  # imports torch

        rows = {
            name: [(index, sample.as_json()) for index, sample in enumerate(samples, 1)]
            for name, samples in read_exchanged(path).samples.items()
        }
        files = dict.fromkeys(rows, path)
    else:
        files = {name: path / "samples" / f"{name}.jsonl" for name in evaluation.benchmarks}
        rows = {}
        for name, file in files.items():
            if file.is_file():
                rows[name], notice = read_unfinished_jsonl(file)
                notices += [notice] if notice else []
            else:
                notices.append(f"{evaluation.name}: no samples/{name}.jsonl: there are no responses of it to show.")
    problems, form = _problems(path / "questions.jsonl"), recorded_format(path / "environment.json")
    found: dict[str, list[Response]] = {}
    for name, numbered in rows.items():
        found[name] = []
        for index, row in numbered:
            where, problem = f"{files[name]}, row {index}", problems.get((name, str(row.get("id"))), NO_TEXT)
            found[name].append(response_of(_as_rollout(row, problem, form, where), where))
    return Sampled(evaluation, {name: responses for name, responses in found.items() if responses}, notices)


def _problems(file: Path) -> dict[tuple[str, str], str]:
    """The text of each question with its choices, by benchmark and id; empty if questions were not recorded."""
    if not file.is_file():
        return {}
    found = {}
    for index, row in read_unfinished_jsonl(file)[0]:
        if not isinstance(row.get("problem"), str) or not isinstance(row.get("choices") or [], list):
            raise InputError(f"{file}, row {index}: expected a text as 'problem' and a list as 'choices'")
        choices = [f"({chr(ord('A') + place)}) {text}" for place, text in enumerate(row.get("choices") or [])]
        found[str(row.get("benchmark")), str(row.get("id"))] = "\n".join([row["problem"], *choices])
    return found


def _as_rollout(row: dict[str, Any], problem: str, form: Form, where: str) -> dict[str, Any]:
    """Convert a sample to a row of a rollout file, without steps."""
    text = row.get("text")
    if not isinstance(text, str):
        raise InputError(f"{where}: 'text' is {text!r:.80}, expected a text")
    counts = {name: number(row, f"{name}tokens", where) for name in ("", "prompt_", "thinking_", "answer_")}
    parts = split_response(text, form)
    start, end, answer = parts.thinking_start, parts.thinking_end, parts.answer_start
    if counts["thinking_"] == 0 and answer is None:
        start, end, answer = 0, 0, 0  # a model that does not think: all of the text is the answer
    elif counts["answer_"] == 0 and counts["thinking_"] and not end - start:
        start, end, answer = 0, len(text), None  # thinking that was cut off before any mark
    return {
        **{"id": row.get("id", ""), "index": row.get("sample", 0), "problem": problem, "text": text},
        **{"reference": row.get("reference"), "verdict": row.get("verdict"), "truncated": row.get("truncated")},
        **{"thinking_start": start, "thinking_end": end, "answer_start": answer, "answer_end": parts.answer_end},
        "tokens": {
            **{"completion": counts[""], "prompt": counts["prompt_"]},
            **{"thinking": counts["thinking_"], "answer": counts["answer_"]},
        },
    }
