"""results.json, results.csv and results.md of an evaluation folder, computed from its samples and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_low
from typing import Any

from attnpo.evaluation.aes import Weights
from attnpo.evaluation.folder import CSV, JSON, MARKDOWN, Evaluation, Results, read_evaluation
from attnpo.evaluation.metrics import (
    BUDGETS,
    Problem,
    accuracy,
    behaviour,
    by_problem,
    columns,
    graded,
    measure,
    median_tokens,
)
from attnpo.evaluation.paired import against, problem_table, shared_problems
from attnpo.evaluation.samples import Sample
from attnpo.steps.formats import BY_MARKS, Form
from attnpo.tables import Cell, Table, write_table, writing

BINS = 24
_PLAIN = ("accuracy", "tokens", "thinking_tokens", "answer_tokens", "truncated")


def write_results(
    folder: Path,
    *,
    base: Path | None = None,
    budgets: Sequence[int] = BUDGETS,
    weights: Weights | None = None,
    lexicon: str = "paper",
) -> Results:
    """Write results.json, .csv and .md into an evaluation folder and return what results.json holds.

    Args:
        base: the evaluation folder of the model to form AES against; None: `aes` is null.
        budgets: token budgets; those beyond the length at which a response was cut off are left out.
        weights: of AES; None: those of the paper.

    Raises:
        InputError: no samples, a bad row, nothing in common with the base, or a file that cannot be written.
    """
    evaluation = read_evaluation(folder)
    results: Results = {
        "model": evaluation.model,
        "name": evaluation.name,
        "benchmarks": {
            name: benchmark_results(samples, budgets, lexicon, evaluation.form)
            for name, samples in evaluation.samples.items()
        },
        "aes": None if base is None else aes_against(read_evaluation(base), evaluation, weights or Weights()),
    }
    table = results_table(results)
    with writing(folder / JSON) as path:
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    write_table(folder / CSV, table)
    with writing(folder / MARKDOWN) as path:
        path.write_text(f"# {evaluation.name}\n\nModel: {evaluation.model}\n\n{_markdown(results)}", encoding="utf-8")
    return results


def benchmark_results(
    samples: Sequence[Sample], budgets: Sequence[int] = BUDGETS, lexicon: str = "paper", form: Form = BY_MARKS
) -> dict[str, Any]:
    """Everything results.json says about one benchmark; `samples` are at least one."""
    problems = by_problem(samples)
    found = {name: value.as_json() for name, value in measure(columns(problems, budgets)).items()}
    return {
        "problems": len(problems),
        "samples": len(samples),
        "samples_per_problem": median_low(map(len, problems)),
        "ungraded": len(samples) - sum(len(graded(problem)) for problem in problems),
        **{name: found[name] for name in _PLAIN},
        "longest": max(sample.tokens for sample in samples),
        "tokens_median": median_tokens(problems).as_json(),
        "pass_at_k": keyed(found, "pass@"),
        "accuracy_at_budget": keyed(found, "budget@"),
        "lengths": histogram([sample.tokens for sample in samples]),
        "behaviour": behaviour(samples, lexicon, form),
        "levels": {level: _level(part) for level, part in by_level(problems).items()},
    }


def by_level(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    """Problems by their level, numbers in their order and words in theirs; those without one are left out."""
    levels: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem[0].level is not None:
            levels.setdefault(problem[0].level, []).append(problem)
    return {level: levels[level] for level in sorted(levels, key=level_order)}


def level_order(level: str) -> tuple[bool, str, str]:
    """A key to sort levels by."""
    return not level.isdigit(), level.zfill(9), level


def histogram(tokens: Sequence[int], bins: int = BINS) -> dict[str, list[int]]:
    """Responses per range of lengths: `bins` equally wide ones from 0; the last one includes its end."""
    width = -(-max(*tokens, 1) // bins)
    counts = [0] * bins
    for length in tokens:
        counts[min(length // width, bins - 1)] += 1
    return {"edges": [width * edge for edge in range(bins + 1)], "counts": counts}


def results_table(results: Results) -> Table:
    """One row per benchmark, all numbers; a column that a benchmark does not have is empty there."""
    rows = [{"benchmark": name, **flat(values)} for name, values in results["benchmarks"].items()]
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(names, [tuple(row.get(name) for name in names) for row in rows])


def keyed(found: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The columns named `prefix`…, without it: `pass@4` → `4`."""
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Cell]:
    """A benchmark's numbers under one name each: accuracy, accuracy_low, pass_at_k_4, …"""
    cells: dict[str, Cell] = {}
    for name, value in values.items():
        if name in ("levels", "lengths"):
            continue
        if not isinstance(value, dict):
            cells[prefix + name] = value
        elif "value" in value:
            cells |= {prefix + name: value["value"]}
            cells |= {f"{prefix}{name}_{end}": value[end] for end in ("low", "high", "p") if end in value}
        else:
            cells |= flat(value, "" if name == "behaviour" else f"{name}_")
    return cells


def _markdown(results: Results) -> str:
    columns = ("benchmark", "problems", "samples", "accuracy %", "tokens", "truncated %", "ungraded")
    rows: list[tuple[Cell, ...]] = []
    for name, found in results["benchmarks"].items():
        shares = (shown(found["accuracy"], 100, 1), shown(found["tokens"], 1, 0), shown(found["truncated"], 100, 1))
        rows.append((name, found["problems"], found["samples"], *shares, found["ungraded"]))
    listed = "".join(f"- {note}\n" for note in truncation_notes(results["benchmarks"]))
    return Table(columns, rows).markdown() + (f"\n{listed}" if listed else "")


def truncation_notes(benchmarks: Mapping[str, Any]) -> list[str]:
    """What to do where at least half of the responses were cut off."""
    return [
        f"{name}: {100 * found['truncated']['value']:.0f} % of the responses reached the limit of {found['longest']} "
        "tokens; raise --max-tokens (as far as the model's context allows)"
        for name, found in benchmarks.items()
        if found["truncated"]["value"] >= 0.5
    ]


def shown(value: dict[str, Any], scale: float, places: int, sign: str = "") -> str:
    """A measure for people: `41.0 [33.0, 49.0]`; `sign` "+": with its sign."""
    if value["value"] is None:
        return "–"
    text, low, high = (
        "" if value[end] is None else f"{scale * value[end]:{sign}.{places}f}".replace("-", "−")
        for end in ("value", "low", "high")
    )
    return f"{text} [{low}, {high}]" if low else text


def _level(problems: list[Problem]) -> dict[str, Any]:
    values = {
        "accuracy": [accuracy(problem) for problem in problems],
        "tokens": columns(problems, ())["tokens"],
    }
    return {"problems": len(problems), **{name: value.as_json() for name, value in measure(values).items()}}


def aes_against(base: Evaluation, evaluation: Evaluation, weights: Weights) -> dict[str, Any]:
    """AES per benchmark that both have, and of the macro averages of accuracy and tokens over these (`all`)."""
    shared = shared_problems([replace(base, name="base"), replace(evaluation, name="model")], [])
    tables = {
        name: {benchmark: problem_table(samples[name]) for benchmark, samples in shared.items()}
        for name in ("base", "model")
    }
    return {
        "base": base.name,
        "benchmarks": {
            name: against({name: tables["model"][name]}, {name: tables["base"][name]}, weights).aes.value
            for name in shared
        },
        "all": against(tables["model"], tables["base"], weights).aes.value,
    }
