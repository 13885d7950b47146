"""The Configuration view: command, options, environment and heads of each run, as needed to repeat it.

Credentials are hidden because pages are shared.
"""

from __future__ import annotations

import shlex
from typing import Any

from attnpo.credentials import HIDDEN, hide, is_secret
from attnpo.report.elements import Table, View, render
from attnpo.report.run import Run

MAPPED = ("sra", "sra_interval")  # one number or pair per head: shown in the map of heads
BUILT_IN = "task"  # the generated data set, as in attnpo.data.problems, which takes seconds to import
MAIN = (  # prefixes of the options that define a run
    *("model_name_or_path", "dataset_", "eval_dataset", "task_", "advantage", "length_", "credit", "heads", "seed"),
    *("learning_rate", "max_steps", "num_generations", "num_iterations", "per_device_train", "max_completion_length"),
    *("temperature", "gradient_accumulation_steps", "use_vllm", "use_peft", "train_problems", "eval_problems"),
)
OF_THE_TASK = ("task_", "train_problems", "eval_problems")  # without effect on a run with another data set


def configuration(runs: list[Run]) -> View:
    """The view: where runs differ, then the command, options, environment and head file of each run."""
    html = render("configuration.html", differences=_differences(runs), runs=[_started_with(run) for run in runs])
    return View("configuration", "Configuration", html)


def shown(key: str, value: Any) -> str:
    """Format a value in one line; hidden if its key, or the key of a part of it, names a credential."""
    if value and is_secret(key):
        return HIDDEN
    if isinstance(value, dict):
        return ", ".join(f"{inner}: {shown(str(inner), item)}" for inner, item in value.items())
    return ", ".join(shown(key, item) for item in value) if isinstance(value, list) else hide(str(value))


def _differences(runs: list[Run]) -> Table | None:
    """The options that differ between runs; None if all are equal."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    rows = [(key, *(shown(key, run.config[key]) if key in run.config else "–" for run in runs)) for key in keys]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    return Table(("Option", *(run.name for run in runs)), differing) if differing else None


def _started_with(run: Run) -> dict[str, Any]:
    """The values of one run for the template."""
    command = run.environment.get("command")
    if isinstance(command, list):
        command = shlex.join(str(word) for word in command)
    heads = {key: value for key, value in run.heads.items() if key not in MAPPED}
    environment = {key: value for key, value in run.environment.items() if key != "command"}
    main = {key: value for key, value in run.config.items() if key.startswith(MAIN) and value is not None}
    if BUILT_IN not in (run.config.get("dataset_name", BUILT_IN), run.config.get("eval_dataset_name")):
        main = {key: value for key, value in main.items() if not key.startswith(OF_THE_TASK)}
    parts = {"Main options": main, "All options": run.config, "Environment": environment, "Head file": heads}
    return {
        "name": run.name,
        "command": hide(str(command)) if command else None,
        "tables": {title: _table(values) for title, values in parts.items() if values},
        "folder": run.path,
        "has_card": (run.path / "README.md").is_file(),
    }


def _table(values: dict[str, Any]) -> Table:
    return Table(("Name", "Value"), [(str(key), shown(str(key), value)) for key, value in values.items()])
