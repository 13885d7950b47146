"""Runs side by side on the problems that all of them have: what `attnpo compare` computes (comparison.json)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from attnpo.errors import InputError
from attnpo.evaluation.aes import Weights
from attnpo.evaluation.folder import Evaluation, is_evaluation, read_evaluation
from attnpo.evaluation.held_out import is_training_run, read_training_run
from attnpo.evaluation.metrics import BUDGETS, by_problem, columns
from attnpo.evaluation.paired import Tables, against, macro_average
from attnpo.evaluation.records import Sample
from attnpo.evaluation.results import benchmark_results, keyed
from attnpo.evaluation.sampling_options import sampling_notices
from attnpo.evaluation.shared import problem_table, shared_problems

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
        for run in _read(path, name):
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
    found: dict[str, Any] = {}
    for benchmark, samples in shared.items():
        here = {name: {benchmark: problem_table(part)} for name, part in samples.items()}
        for name, table in here.items():
            tables[name] |= table
        found[benchmark] = {
            "problems": len(by_problem(next(iter(samples.values())))),
            "runs": {name: benchmark_results(part, budgets) for name, part in samples.items()},
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


def _read(path: Path, name: str | None) -> list[Evaluation]:
    if is_evaluation(path):
        return [read_evaluation(path, name)]
    if is_training_run(path):
        return read_training_run(path, name)
    found = "a folder without either" if path.is_dir() else "a file" if path.exists() else "nothing"
    raise InputError(f"{path}: found {found}, expected an evaluation (samples/) or a training run (rollouts/)")


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
