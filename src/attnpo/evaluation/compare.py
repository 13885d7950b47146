"""Comparison of runs on their common problems: what `attnpo compare` computes, prints and writes to its folder
(comparison.json, table.csv, table.md and frontier.png).

The first and the last held-out evaluation of a training run are read like evaluations of `attnpo eval`.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from torch import Tensor

from attnpo.data.jsonl import check_field, read_numbered_jsonl, row_name, type_name
from attnpo.errors import InputError
from attnpo.evaluation.aes import Weights
from attnpo.evaluation.exchange import read_exchanged
from attnpo.evaluation.folder import (
    Evaluation,
    is_evaluation,
    read_evaluation,
    read_options,
    read_verdict,
    sample_from_json,
)
from attnpo.evaluation.frontier import draw_frontier, pareto, points_of
from attnpo.evaluation.metrics import BUDGETS, by_problem, columns
from attnpo.evaluation.options import sampling_notices
from attnpo.evaluation.paired import Tables, against, macro_average, problem_table, shared_problems
from attnpo.evaluation.results import (
    benchmark_results,
    cut_share,
    flat,
    keyed,
    new_table,
    print_columns,
    print_notes,
    scatter,
    shown,
)
from attnpo.evaluation.samples import Sample
from attnpo.rewards.verdict import Verdict
from attnpo.tables import Table, write_table, writing

_SAMPLING = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_completion_length"}
"""Option of an evaluation → its name in a training run."""
_EVALUATION = re.compile(r"eval-(\d+)\.jsonl\.gz")


def is_training_run(path: Path) -> bool:
    return (path / "rollouts").is_dir()


def read_training_run(path: Path, name: str | None = None) -> list[Evaluation]:
    """The first and the last held-out evaluation of a run folder, named NAME@STEP; one if there is only one.

    The benchmark is named after the held-out problems of the run's configuration.

    Raises:
        InputError: the run has no evaluation, or a row is not a recorded response (names file, row and field).
    """
    found = (path / "rollouts").iterdir()
    files = {int(match[1]): file for file in found if (match := _EVALUATION.fullmatch(file.name))}
    if not files:
        raise InputError(f"{path}: a training run without rollouts/eval-*.jsonl.gz; nothing was evaluated in it")
    options = read_options(path / "config.yaml")
    problems = options.get("eval_dataset_name") or options.get("dataset_name") or "held-out"
    benchmark = Path(str(problems)).name.split(".")[0]
    sampling = {ours: options[theirs] for ours, theirs in _SAMPLING.items() if options.get(theirs) is not None}
    name = name or str(options.get("run_name") or path.resolve().name)
    return [
        Evaluation(
            name=f"{name}@{step}",
            model=f"{options.get('model_name_or_path', 'model not recorded')}, trained for {step} steps",
            path=path,
            samples={benchmark: _read(files[step], benchmark, options.get("seed", 0))},
            step=step,
            options=sampling,
        )
        for step in sorted({min(files), max(files)})
    ]


def _read(file: Path, benchmark: str, seed: int) -> list[Sample]:
    rows = read_numbered_jsonl(file, ("text",))
    return [_sample(row, row_name(file, number), benchmark, seed) for number, row in rows]


def _sample(row: dict[str, Any], where: str, benchmark: str, seed: int) -> Sample:
    """A recorded response as a sample. A problem without an id has its text as id."""
    problem = row.get("id") if row.get("id") is not None else row.get("prompt")
    counts = row.get("tokens")
    if not isinstance(counts, dict):
        raise InputError(f"{where}: field 'tokens' is {type_name(counts)}, expected an object of counts")
    for name in ("prompt", "completion", "thinking", "answer"):
        check_field(counts, name, f"{where}, tokens")
    fields = {
        "benchmark": benchmark,
        "id": str(problem),
        "sample": row.get("index"),
        "seed": seed,  # of the run, which records no seed per response
        "text": row["text"],
        "prompt_tokens": counts["prompt"],
        "tokens": counts["completion"],
        "thinking_tokens": counts["thinking"],
        "answer_tokens": counts["answer"],
        "truncated": row.get("truncated"),
        "extracted": None,
        "verdict": _verdict(row, where),
        "reference": row.get("reference"),
        "level": None,
    }
    return sample_from_json(fields, where)


def _verdict(row: dict[str, Any], where: str) -> Verdict | None:
    """The recorded verdict; a run with the user's own reward functions records only `correct`."""
    if row.get("verdict") is not None:
        return read_verdict(row["verdict"], where)
    correct = row.get("correct")
    return None if correct is None else Verdict.RIGHT if correct else Verdict.WRONG


Comparison = dict[str, Any]


def read_runs(paths: Sequence[Path], names: Sequence[str] = ()) -> tuple[list[Evaluation], list[str]]:
    """The evaluations of evaluation folders and training runs (two each) with unique names, and notices about them.

    Raises:
        InputError: a path is neither, names are missing or equal, or there are fewer than two evaluations.
    """
    if names and len(names) != len(paths):
        raise InputError(f"--names: found {len(names)} for {len(paths)} runs, expected one for each")
    runs: list[Evaluation] = []
    notices = []
    for path, name in zip(paths, names or [None] * len(paths), strict=True):
        for run in _evaluations_of(path, name):
            twin = next((old for old in runs if old.step is not None and old.samples == run.samples), None)
            if twin is not None and run.step is not None:
                notices.append(f"{run.name} has the same responses as {twin.name}: shown once.")
                continue
            if run.name in (old.name for old in runs):
                raise InputError(f"{path}: two runs are called {run.name!r}; give each its own name with --names")
            runs.append(run)
    if len(runs) < 2:
        raise InputError(f"found one evaluation ({runs[0].path}), expected at least two to compare")
    return runs, notices


def compare(
    runs: Sequence[Evaluation],
    *,
    base: str | None = None,
    budgets: Sequence[int] = BUDGETS,
    weights: Weights | None = None,
    notices: Sequence[str] = (),
) -> Comparison:
    """The content of comparison.json (docs/evaluation.md); `base` is the name of a run, by default of the first.

    Raises:
        InputError: an unknown base, problems with one id and two references, or no problem in common.
    """
    weights = weights or Weights()
    names = [run.name for run in runs]
    if base is not None and base not in names:
        raise InputError(f"--base: found {base!r}, expected one of {', '.join(names)}")
    base = base or names[0]
    notices = list(notices)
    shared = shared_problems(runs, notices)
    notices += sampling_notices({run.name: run.options for run in runs}, {b: list(part) for b, part in shared.items()})
    tables: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    forms = {run.name: run.form for run in runs}
    found: dict[str, Any] = {}
    for benchmark, samples in shared.items():
        here = {name: {benchmark: problem_table(part)} for name, part in samples.items()}
        for name, table in here.items():
            tables[name] |= table
        found[benchmark] = {
            "problems": len(by_problem(next(iter(samples.values())))),
            "runs": {name: benchmark_results(part, budgets, form=forms[name]) for name, part in samples.items()},
            "against_base": _against_base(
                {name: {benchmark: tables[name][benchmark]} for name in samples}, base, weights
            ),
        }
    everywhere = [benchmark for benchmark, samples in shared.items() if len(samples) == len(runs)]
    overall = None
    if len(everywhere) > 1:
        overall = {
            "benchmarks": everywhere,
            "problems": sum(found[benchmark]["problems"] for benchmark in everywhere),
            "runs": {name: _overall({b: shared[b][name] for b in everywhere}, budgets) for name in names},
            "against_base": _against_base(
                {name: {b: tables[name][b] for b in everywhere} for name in names}, base, weights
            ),
        }
    return {
        "base": base,
        "runs": {run.name: {"path": str(run.path), "model": run.model, "step": run.step} for run in runs},
        "weights": vars(weights),
        "notices": notices,
        "benchmarks": found,
        "all": overall,
    }


def _evaluations_of(path: Path, name: str | None) -> list[Evaluation]:
    if is_evaluation(path):
        return [read_evaluation(path, name)]
    if is_training_run(path):
        return read_training_run(path, name)
    if path.is_file() and path.suffix in (".json", ".jsonl", ".parquet"):
        return [read_exchanged(path, name)]
    found = "a folder without either" if path.is_dir() else "a file" if path.exists() else "nothing"
    raise InputError(
        f"{path}: found {found}, expected an evaluation (samples/), a training run (rollouts/), a file of Every Eval "
        "Ever (.json, or its _samples.jsonl) or lighteval's details (.parquet)"
    )


def _against_base(tables: Mapping[str, Tables], base: str, weights: Weights) -> dict[str, Any]:
    if base not in tables:
        return {}
    found = {name: against(table, tables[base], weights) for name, table in tables.items() if name != base}
    return {name: {part: value.as_json() for part, value in vars(one).items()} for name, one in found.items()}


def _overall(samples: Mapping[str, Sequence[Sample]], budgets: Sequence[int]) -> dict[str, Any]:
    average = macro_average({name: columns(by_problem(part), budgets) for name, part in samples.items()})
    found = {name: value.as_json() for name, value in average.items()}
    plain = {name: value for name, value in found.items() if "@" not in name}
    return {**plain, "pass_at_k": keyed(found, "pass@"), "accuracy_at_budget": keyed(found, "budget@")}


SIGNIFICANT = 0.05
FILES = JSON, CSV, MARKDOWN, FRONTIER = "comparison.json", "table.csv", "table.md", "frontier.png"


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write the four files. Raises InputError if they cannot be written, RunError if the disk fails."""
    with writing(folder / JSON) as path:
        path.write_text(json.dumps(comparison, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    write_table(folder / CSV, comparison_table(comparison))
    with writing(folder / MARKDOWN) as path:
        path.write_text(markdown(comparison), encoding="utf-8")
    with writing(folder / FRONTIER) as path:
        draw_frontier(comparison).savefig(path, dpi=150)


def parts(comparison: Comparison) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, numbers) of every benchmark, and of the macro average (`all`) if there is one."""
    yield from comparison["benchmarks"].items()
    if comparison["all"]:
        yield "all", comparison["all"]


def comparison_table(comparison: Comparison) -> Table:
    """One row per benchmark and run with all numbers; `difference_…` and `aes` are relative to the base."""
    rows = []
    for benchmark, part in parts(comparison):
        for name, found in part["runs"].items():
            row = {"benchmark": benchmark, "run": name, "problems": part["problems"]} | flat(found)
            for key, value in part["against_base"].get(name, {}).items():
                row |= flat({key if key == "aes" else f"difference_{key}": value})
            rows.append(row)
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(names, [tuple(row.get(name) for name in names) for row in rows])


def markdown_table(comparison: Comparison) -> str:
    """The main numbers, one row per benchmark and run."""
    rows = []
    for benchmark, part in parts(comparison):
        for name, found in part["runs"].items():
            versus = part["against_base"].get(name)
            cells = difference_cells(versus) if versus else ("", "", "")
            rows.append((benchmark, name, shown(found["accuracy"], 100, 1), shown(found["tokens"], 1, 0), *cells))
    columns = ("benchmark", "run", "accuracy %", "tokens", "accuracy: points", "tokens: difference", "AES")
    return Table(columns, rows).markdown()


def markdown(comparison: Comparison) -> str:
    """The content of table.md: the main numbers, with notes on how to read them."""
    notes = [*reading_notes(comparison), *comparison["notices"]]
    listed = "".join(f"- {note}\n" for note in notes)
    return f"# Comparison\n\n{markdown_table(comparison)}\n{listed}\n![accuracy against length]({FRONTIER})\n"


def difference_cells(versus: dict[str, Any]) -> tuple[str, str, str]:
    """Accuracy in points, tokens and AES against the base, with intervals; `*`: significant."""
    accuracy, tokens, score = versus["accuracy"], versus["tokens"], versus["aes"]
    return (
        shown(accuracy, 100, 1, "+") + mark(accuracy["p"]),
        shown(tokens, 1, 0, "+") + mark(tokens["p"]),
        shown(score, 1, 2, "+"),
    )


def mark(p: float | None) -> str:
    return " *" if p is not None and p < SIGNIFICANT else ""


def reading_notes(comparison: Comparison) -> list[str]:
    """Notes on how to read the tables."""
    weights = comparison["weights"]
    notes = [
        f"Differences and AES are against {comparison['base']}, on the same problems; in brackets 95 % intervals, "
        "from problems resampled for both runs at once.",
        f"*: p < {SIGNIFICANT} in a sign-flip permutation test over problems, not corrected for the number of tests.",
        f"AES = {weights['length']:g}·ΔL + {weights['gain']:g}·ΔA, or − {weights['loss']:g}·|ΔA| if accuracy fell.",
    ]
    if comparison["all"]:
        notes.append(f"all: the mean over {', '.join(comparison['all']['benchmarks'])}, each counting the same.")
    for benchmark, part in comparison["benchmarks"].items():
        notes += [
            f"{benchmark}: {found['ungraded']} of {found['samples']} responses of {name} are ungraded and left out of "
            "every accuracy."
            for name, found in part["runs"].items()
            if found["ungraded"]
        ]
    return notes


HEIGHT, WIDTH = 10, 50
LETTERS = string.ascii_uppercase + string.ascii_lowercase


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print the content of comparison.json, one benchmark after the other, the macro average last."""
    console = console or Console(highlight=False, markup=False)  # names may contain [brackets]
    console.print()
    for benchmark, part in parts(comparison):
        _print_part(f"{benchmark} ({part['problems']} problems)", part, comparison["base"], console)
    rows = [((benchmark, name), found) for benchmark, part in parts(comparison) for name, found in part["runs"].items()]
    for key in ("pass_at_k", "accuracy_at_budget"):
        print_columns(("benchmark", "run"), rows, key, console)
    last, part = list(parts(comparison))[-1]
    _print_frontier(last, part["runs"], console)
    print_notes([*reading_notes(comparison), *comparison["notices"]], console)


def _print_part(title: str, part: dict[str, Any], base: str, console: Console) -> None:
    table = new_table(title, ("run", "accuracy %", "tokens", "truncated %"))
    for name, found in part["runs"].items():
        table.add_row(name, shown(found["accuracy"], 100, 1), shown(found["tokens"], 1, 0), cut_share(found))
    console.print(table)
    if not part["against_base"]:
        return
    table = new_table(f"against {base}", ("run", "accuracy, points", "tokens", "AES"))
    for name, versus in part["against_base"].items():
        accuracy, tokens, score = difference_cells(versus)
        table.add_row(name, _styled(accuracy, versus["accuracy"], 1), _styled(tokens, versus["tokens"], -1), score)
    console.print(table)


def _styled(cell: str, difference: dict[str, Any], good: int) -> Text:
    """Colour a significant difference, which has a `*` in its text: green if it is an improvement, red if not."""
    if not cell.endswith("*"):
        return Text(cell)
    return Text(cell, "bold green" if difference["value"] * good > 0 else "bold red")


def _print_frontier(benchmark: str, runs: dict[str, Any], console: Console) -> None:
    points = points_of(runs)
    if len(points) < 2:
        return
    letters = dict(zip(points, LETTERS, strict=False))  # 52 runs at most: more would be illegible
    drawn = scatter({letters[name]: points[name] for name in letters}, WIDTH, HEIGHT)
    accuracies, tokens = [y for _, y in points.values()], [x for x, _ in points.values()]
    ends = {0: f"{100 * max(accuracies):.1f} %", HEIGHT - 1: f"{100 * min(accuracies):.1f} %"}
    console.print(Text(f"accuracy against tokens, {benchmark}: up and to the left is better", "bold"))
    for number, line in enumerate(drawn):
        console.print(Text(f"{ends.get(number, ''):>8} │{line}"))
    console.print(Text(" " * 9 + "└" + "─" * WIDTH))
    left, right = f"{min(tokens):.0f}", f"{max(tokens):.0f} tokens"
    console.print(Text(" " * 10 + left + right.rjust(WIDTH - len(left))))
    best = pareto(points)
    for name, letter in letters.items():
        length, accuracy = points[name]
        beaten = "on the frontier" if name in best else "beaten by " + _beater(name, points)
        console.print(Text(f"  {letter}  {name}: {100 * accuracy:.1f} % with {length:.0f} tokens, {beaten}"))
    console.print()


def _beater(name: str, points: dict[str, tuple[float, float]]) -> str:
    """The most accurate run on the frontier that is no longer and no less accurate."""
    tokens, accuracy = points[name]
    better = [other for other in pareto(points) if points[other][0] <= tokens and points[other][1] >= accuracy]
    return max(better, key=lambda other: points[other][1])
