"""Do the heads stay the same while the model is trained? Head accuracies along checkpoints (paper section 3)."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from transformers import AutoConfig

from attnpo.errors import InputError
from attnpo.evidence.correlation import correlation, correlation_interval
from attnpo.models import resolve_model
from attnpo.probe.head_table import HeadTable
from attnpo.tables import Cell, Table

COLUMNS = ("model", "traces", "Pearson", "low", "high", "before", "best", "median", "first's", "kept")


@dataclass(frozen=True)
class Stage:
    """A model along a training run: what it is called, and where it lies."""

    name: str
    model: str


def stages_of_run(run: str | Path) -> list[Stage]:
    """The starting model of a run folder (config.yaml) and its checkpoints in order.

    Raises InputError where the folder has no checkpoint or does not say which model it started from.
    """
    folder = Path(run)
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"--run {run}: config.yaml cannot be read: {error}") from None
    start = config.get("model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(start, str):
        raise InputError(f"--run {run}: config.yaml has no model_name_or_path, expected the model the run started from")
    found = ((path, re.fullmatch(r"checkpoint-(\d+)", path.name)) for path in folder.iterdir())
    steps = sorted((int(match[1]), path) for path, match in found if match)
    if not steps:
        raise InputError(f"--run {run}: no folder checkpoint-…, expected at least one (option save_steps of the run)")
    return [Stage("start", start), *(Stage(path.name, str(path)) for _, path in steps)]


def named(models: Sequence[str]) -> list[Stage]:
    """Models by the last part of their names; by more parts where these are alike, by number where the names are."""
    parts = [Path(model).parts for model in models]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-count:]) for own in parts]
        if len(set(names)) == len(names):
            break
    else:
        names = [f"{Path(model).name} ({number})" for number, model in enumerate(models, 1)]
    return [Stage(name, model) for name, model in zip(names, models, strict=True)]


def check_stages(stages: Sequence[Stage]) -> None:
    """Look at all models before the first is scored. Raises InputError, naming the model, for one that is not there
    or has other layers or heads than the first. LoRA folders are only looked for: their base says what they are.
    """
    shapes: list[tuple[str, int, int]] = []
    for stage in stages:
        folder = resolve_model(stage.model)
        if (Path(folder) / "adapter_config.json").is_file():
            continue
        try:
            config = AutoConfig.from_pretrained(folder).get_text_config(decoder=True)
        except (OSError, ValueError) as error:
            raise InputError(f"model {stage.model}: cannot be loaded: {str(error).splitlines()[0]}") from None
        shapes.append((stage.name, config.num_hidden_layers, config.num_attention_heads))
        if shapes[-1][1:] != shapes[0][1:]:
            found = "; ".join(
                f"{name}: {layers} layers of {heads} heads" for name, layers, heads in (shapes[0], shapes[-1])
            )
            raise InputError(f"models: found {found}, expected the same layers and heads in all")


def stability_table(stages: Sequence[Stage], tables: Sequence[HeadTable], top: int) -> Table:
    """One row per model; the first is what the others are compared with.

    "Pearson", "low", "high": correlation of all heads' accuracies with those in the first model, and its 95 %
    interval over problems; "before": with the model before. "best", "median": over the heads. "first's": mean accuracy,
    now, of the `top` heads that were best in the first model; "kept": how many of them are among the best now.
    """
    chosen = tables[0].best(top)
    rows: list[tuple[Cell, ...]] = []
    for index, (stage, table) in enumerate(zip(stages, tables, strict=True)):
        accuracy = table.mean()
        interval = correlation_interval(tables[0], table) if index else None
        rows.append(
            (
                stage.name,
                table.traces,
                correlation(tables[0], table) if index else None,
                *(interval or (None, None)),
                correlation(tables[index - 1], table) if index else None,
                max(accuracy.values()),
                statistics.median(accuracy.values()),
                sum(accuracy[head] for head in chosen) / top,
                len(set(chosen) & set(table.best(top))),
            )
        )
    return Table(COLUMNS, rows)
