"""Whether the heads stay the same during training: correlation of head accuracies along checkpoints.

Paper section 3 finds correlations above 0.85 between before and after training.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from jaxtyping import Float
from torch import Tensor
from transformers import AutoConfig

from attnpo.bootstrap import draw_problems
from attnpo.errors import InputError
from attnpo.heads.table import ACCURACY, HeadTable
from attnpo.models import resolve_model
from attnpo.tables import Cell, Table


def correlation(first: HeadTable, second: HeadTable) -> float | None:
    """Return the Pearson correlation of all heads' step ranking accuracies; None if all heads of a table rank equally.

    Raises InputError if the tables have different heads.
    """
    _check(first, second)
    means = [table.figures[:, ACCURACY].flatten(1).mean(dim=0, keepdim=True) for table in (first, second)]
    value = float(_pearson(means[0], means[1])[0])
    return value if value == value else None


def correlation_interval(
    first: HeadTable, second: HeadTable, draws: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of `correlation`, with the same problems drawn for both tables.

    None if the tables are not of the same problems trace by trace, or of fewer than two problems.
    """
    _check(first, second)
    if first.traces != second.traces or first.problems != second.problems or first.problem_count < 2:
        return None
    # Every trace counts as often as its problem was drawn.
    weights = draw_problems(first.problem_count, draws, seed)[:, first.groups]
    weights /= weights.sum(dim=1, keepdim=True)
    one, two = (weights @ table.figures[:, ACCURACY].flatten(1) for table in (first, second))
    values = _pearson(one, two)
    values = values[~values.isnan()]
    if not len(values):
        return None
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high


def _pearson(one: Float[Tensor, "D H"], two: Float[Tensor, "D H"]) -> Float[Tensor, "D"]:
    """Correlate row by row; NaN for a constant row."""
    one, two = one - one.mean(dim=1, keepdim=True), two - two.mean(dim=1, keepdim=True)
    return ((one * two).sum(dim=1) / (one.norm(dim=1) * two.norm(dim=1))).clamp(-1, 1)  # rounding may exceed 1


def _check(first: HeadTable, second: HeadTable) -> None:
    shapes = [(table.layers, table.figures.shape[-1]) for table in (first, second)]
    if shapes[0] != shapes[1]:
        found = " and ".join(f"{len(layers)} layers of {heads} heads" for layers, heads in shapes)
        raise InputError(f"heads: found {found}, expected two models with the same layers and heads")


COLUMNS = ("model", "traces", "Pearson", "low", "high", "before", "best", "median", "first's", "kept")


@dataclass(frozen=True)
class Stage:
    """A model along a training run: its name in the table, and its folder or Hub name."""

    name: str
    model: str


def stages_of_run(run: str | Path) -> list[Stage]:
    """Return the starting model of a run folder (config.yaml) and its checkpoints in order.

    Raises InputError if the folder has no checkpoint or its config.yaml does not name the starting model.
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
    """Name models by the last part of their paths; by more parts if these are equal, by number if the paths are."""
    parts = [Path(model).parts for model in models]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-count:]) for own in parts]
        if len(set(names)) == len(names):
            break
    else:
        names = [f"{Path(model).name} ({number})" for number, model in enumerate(models, 1)]
    return [Stage(name, model) for name, model in zip(names, models, strict=True)]


def check_stages(stages: Sequence[Stage]) -> None:
    """Check all models before the first is scored. Raises InputError, naming the model, for one that does not exist or
    has other layers or heads than the first. Of a LoRA folder only the existence is checked: the base has the shape.
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
    """Return one row per model; all are compared with the first.

    "Pearson", "low", "high": correlation of all heads' accuracies with those in the first model, and its 95 %
    interval over problems; "before": with the previous model. "best", "median": over the heads. "first's": mean
    accuracy in this model of the `top` heads that were best in the first; "kept": how many of them are still best.
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
