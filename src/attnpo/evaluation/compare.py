"""A training run's own evaluations, read as if `attnpo eval` had made them: its first and its last one.

Runs side by side on the problems that all of them have: what `attnpo compare` computes (comparison.json).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from attnpo.evaluation.metrics import BUDGETS, by_problem, columns
from attnpo.evaluation.paired import Tables, against, macro_average, problem_table, shared_problems
from attnpo.evaluation.results import benchmark_results, keyed
from attnpo.evaluation.samples import Sample
from attnpo.evaluation.sampling_options import sampling_notices
from attnpo.rewards.verdict import Verdict

_SAMPLING = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_completion_length"}
"""Options of an evaluation, and what a training run calls them."""
_EVALUATION = re.compile(r"eval-(\d+)\.jsonl\.gz")


def is_training_run(path: Path) -> bool:
    return (path / "rollouts").is_dir()


def read_training_run(path: Path, name: str | None = None) -> list[Evaluation]:
    """The first and the last held-out evaluation of a run folder, named NAME@STEP; one where there is but one.

    The benchmark is called after the held-out problems of its configuration.

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
    """A recorded response as a sample. A problem without an id is known by its text."""
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
        "seed": seed,  # of the whole evaluation: a run records none per response
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
    """As recorded; a run with reward functions of its own has no verdicts, but knows what was correct."""
    if row.get("verdict") is not None:
        return read_verdict(row["verdict"], where)
    correct = row.get("correct")
    return None if correct is None else Verdict.RIGHT if correct else Verdict.WRONG


Comparison = dict[str, Any]


def read_runs(paths: Sequence[Path], names: Sequence[str] = ()) -> tuple[list[Evaluation], list[str]]:
    """Evaluation folders and training runs (two evaluations each) under one name each, and what to say about them.

    Raises:
        InputError: a path is neither, the names are not as many or not different, or fewer than two evaluations.
    """
    if names and len(names) != len(paths):
        raise InputError(f"--names: found {len(names)} for {len(paths)} runs, expected one for each")
    runs: list[Evaluation] = []
    notices = []
    for path, name in zip(paths, names or [None] * len(paths), strict=True):
        for run in _evaluations_of(path, name):
            twin = next((old for old in runs if old.step is not None and old.samples == run.samples), None)
            if twin is not None and run.step is not None:
                notices.append(f"{run.name} is {twin.name}, response for response: shown once.")
                continue
            if run.name in (old.name for old in runs):
                raise InputError(f"{path}: two runs are called {run.name!r}; give each a name with --names")
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
    """Everything comparison.json holds (docs/evaluation.md); `base` is a run's name, by default the first's.

    Raises:
        InputError: an unknown base, problems with one id and two references, or no problem in common.
    """
    weights = weights or Weights()
    names = [run.name for run in runs]
    if base is not None and base not in names:
        raise InputError(f"--base: found {base!r}, expected one of {', '.join(names)}")
    base = base or names[0]
    said = list(notices)
    shared = shared_problems(runs, said)
    said += sampling_notices({run.name: run.options for run in runs}, {b: list(part) for b, part in shared.items()})
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
        "notices": said,
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
