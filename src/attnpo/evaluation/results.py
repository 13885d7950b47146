"""The results of an evaluation, computed from its samples alone.

Written to results.json, results.csv and results.md in its folder, and printed with small plots of characters, readable
without colours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_low
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as ScreenTable
from rich.text import Text

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
    """Write results.json, .csv and .md into an evaluation folder and return the content of results.json.

    Args:
        base: the evaluation folder of the base model for AES; None: `aes` is null.
        budgets: token budgets; those beyond the length at which a response was cut off are left out.
        weights: of AES; None: those of the paper.

    Raises:
        InputError: no samples, a bad row, no common problem with the base, or a file that cannot be written.
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
    """The entry of one benchmark in results.json; needs at least one sample."""
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
    """Problems by level, first numbers, then words, each sorted; problems without a level are left out."""
    levels: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem[0].level is not None:
            levels.setdefault(problem[0].level, []).append(problem)
    return {level: levels[level] for level in sorted(levels, key=level_order)}


def level_order(level: str) -> tuple[bool, str, str]:
    """A key to sort levels by."""
    return not level.isdigit(), level.zfill(9), level


def histogram(tokens: Sequence[int], bins: int = BINS) -> dict[str, list[int]]:
    """Responses per range of lengths: `bins` ranges of equal width from 0; the last one includes its end."""
    width = -(-max(*tokens, 1) // bins)
    counts = [0] * bins
    for length in tokens:
        counts[min(length // width, bins - 1)] += 1
    return {"edges": [width * edge for edge in range(bins + 1)], "counts": counts}


def results_table(results: Results) -> Table:
    """One row per benchmark with all numbers; a cell is empty if the benchmark does not have the column."""
    rows = [{"benchmark": name, **flat(values)} for name, values in results["benchmarks"].items()]
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(names, [tuple(row.get(name) for name in names) for row in rows])


def keyed(found: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The columns whose names start with `prefix`, under the rest of the name: `pass@4` → `4`."""
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Cell]:
    """A benchmark's numbers as a flat mapping: accuracy, accuracy_low, pass_at_k_4, …"""
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
    """Advice for every benchmark with at least half of the responses cut off."""
    return [
        f"{name}: {100 * found['truncated']['value']:.0f} % of the responses reached the limit of {found['longest']} "
        "tokens; raise --max-tokens (as far as the model's context allows)"
        for name, found in benchmarks.items()
        if found["truncated"]["value"] >= 0.5
    ]


def shown(value: dict[str, Any], scale: float, places: int, sign: str = "") -> str:
    """A measure as text: `41.0 [33.0, 49.0]`; `sign` "+": with its sign."""
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
    """AES of every common benchmark, and of the macro averages of accuracy and tokens over them (`all`)."""
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


EIGHTHS = " ▁▂▃▄▅▆▇█"
BAR = " ▏▎▍▌▋▊▉█"


def sparkline(counts: Sequence[int]) -> str:
    """One character per count, the largest one full; a count above 0 is never blank.

    >>> sparkline([0, 1, 4, 8])
    ' ▁▄█'
    """
    top = max(counts, default=0)
    return "".join(EIGHTHS[-(-8 * count // top)] if count else " " for count in counts)


def bar(share: float, width: int) -> str:
    """A bar of `width` characters of which `share` (0 … 1) is filled.

    >>> bar(0.5, 5)
    '██▌  '
    """
    eighths = round(8 * width * min(max(share, 0.0), 1.0))
    full, rest = divmod(eighths, 8)
    return ("█" * full + (BAR[rest] if rest else "")).ljust(width)


def scatter(points: Mapping[str, tuple[float, float]], width: int, height: int) -> list[str]:
    """Draw points as the first character of their name in a field of `width` × `height`, higher values further up.

    Two or more points at one place are drawn as `+`.
    """
    field = [[" "] * width for _ in range(height)]
    places = {}
    for axis, size in ((0, width), (1, height)):
        values = [point[axis] for point in points.values()]
        low, span = min(values), (max(values) - min(values)) or 1.0
        places[axis] = [round((value - low) / span * (size - 1)) for value in values]
    for name, column, row in zip(points, places[0], places[1], strict=True):
        line = field[height - 1 - row]
        line[column] = name[0] if line[column] == " " else "+"
    return ["".join(line) for line in field]


LEVELS_BAR, MOST_LEVELS = 20, 20


def print_results(results: Results, console: Console | None = None) -> None:
    """Print the content of results.json: accuracy, lengths, pass@k, budgets, levels and ungraded responses."""
    console = console or Console(highlight=False, markup=False)  # names may contain [brackets]
    benchmarks = results["benchmarks"]
    console.print()
    names = dict.fromkeys((results["name"], results["model"]))  # often the same
    console.print(*(Text(name, style) for name, style in zip(names, ("bold", ""), strict=False)))
    table = new_table("", ("benchmark", "problems", "accuracy %", "tokens", "truncated %"))
    for name, found in benchmarks.items():
        size = f"{found['problems']} × {found['samples_per_problem']}"
        table.add_row(name, size, shown(found["accuracy"], 100, 1), shown(found["tokens"], 1, 0), cut_share(found))
    console.print(table)
    for note in truncation_notes(benchmarks):
        console.print(Text(note, "bold"))
    _print_lengths(benchmarks, console)
    rows = [((name,), found) for name, found in telling_budgets(benchmarks).items()]
    for part in ("pass_at_k", "accuracy_at_budget"):
        print_columns(("benchmark",), rows, part, console)
    for name, found in benchmarks.items():
        _print_levels(name, found["levels"], console)
    if results["aes"]:
        scores = {**results["aes"]["benchmarks"], **({"all": results["aes"]["all"]} if len(benchmarks) > 1 else {})}
        listed = ", ".join(f"{name} {'–' if score is None else f'{score:+.2f}'}" for name, score in scores.items())
        console.print(f"AES against {results['aes']['base']}: {listed}")
    print_notes(["In brackets: 95 % intervals, problems resampled.", *ungraded_notes(benchmarks)], console)


def telling_budgets(benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    """The results up to the first budget that no response exceeds; larger ones only repeat the accuracy."""
    longest = max(found["longest"] for found in benchmarks.values())
    budgets = sorted({int(budget) for found in benchmarks.values() for budget in found["accuracy_at_budget"]})
    last = next((budget for budget in budgets if budget >= longest), longest)
    return {
        name: {**found, "accuracy_at_budget": {k: v for k, v in found["accuracy_at_budget"].items() if int(k) <= last}}
        for name, found in benchmarks.items()
    }


def new_table(title: str, columns: Sequence[str], left: int = 1) -> ScreenTable:
    """A table without vertical lines; the first `left` columns are aligned left, the others right."""
    table = ScreenTable(
        title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.pad_edge = False  # so that three intervals fit into 80 columns
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < left else "right", overflow="fold")
    return table


def print_columns(
    heads: Sequence[str],
    rows: Iterable[tuple[Sequence[str], Mapping[str, Any]]],
    part: str,
    console: Console,
) -> None:
    """Print pass@k or accuracy under budgets, a column for each k or budget of any row; nothing if there are none."""
    rows = list(rows)
    keys = sorted({key for _, found in rows for key in found[part]}, key=int)
    if not keys or (part == "pass_at_k" and keys == ["1"]):  # pass@1 is the accuracy
        return
    title = "pass@k %" if part == "pass_at_k" else "accuracy % within so many tokens"
    table = new_table(title, (*heads, *keys), left=len(heads))
    for names, found in rows:
        cells = [found[part].get(key, {"value": None})["value"] for key in keys]
        table.add_row(*names, *("–" if value is None else f"{100 * value:.1f}" for value in cells))
    console.print(table)


def cut_share(found: Mapping[str, Any]) -> str:
    """Share of truncated responses, in percent."""
    return f"{100 * found['truncated']['value']:.1f}"


def ungraded_notes(benchmarks: Mapping[str, Any], of: str = "") -> list[str]:
    """A note for every benchmark with ungraded responses; `of`: text to insert after "responses"."""
    return [
        f"{name}: {found['ungraded']} of {found['samples']} responses{of} could not be graded; no accuracy counts them."
        for name, found in benchmarks.items()
        if found["ungraded"]
    ]


def print_notes(notes: Iterable[str], console: Console) -> None:
    for note in notes:
        console.print(Text(note, "dim"))


def _print_lengths(benchmarks: Mapping[str, Any], console: Console) -> None:
    table = new_table("how long the responses are, in tokens", ("benchmark", "", "", "", "median"))
    for name, found in benchmarks.items():
        lengths = found["lengths"]
        line = Text(sparkline(lengths["counts"]), "cyan")
        table.add_row(name, "0", line, str(lengths["edges"][-1]), f"{found['tokens_median']['value']:.0f}")
    console.print(table)


def _print_levels(name: str, levels: Mapping[str, Any], console: Console) -> None:
    if len(levels) < 2:
        return
    if len(levels) > MOST_LEVELS:
        console.print(f"{name}: {len(levels)} levels, see results.json")
        return
    table = new_table(f"{name} by level", ("level", "", "accuracy %", "tokens", "problems"), left=2)
    for level, found in levels.items():
        accuracy, tokens = found["accuracy"]["value"], found["tokens"]["value"]
        cells = ("", "–") if accuracy is None else (bar(accuracy, LEVELS_BAR), f"{100 * accuracy:.1f}")
        table.add_row(level, Text(cells[0], "cyan"), cells[1], f"{tokens:.0f}", str(found["problems"]))
    console.print(table)
