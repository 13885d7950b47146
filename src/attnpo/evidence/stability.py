"""Do the heads stay the same while the model is trained? Head accuracies along checkpoints (paper section 3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from attnpo.errors import InputError
from attnpo.evidence.output import Cell, Table
from attnpo.evidence.probing import correlation
from attnpo.probe.head_table import HeadTable

COLUMNS = (
    "model",
    "Pearson with the first",
    "with the one before",
    "best SRA",
    "median SRA",
    "first's heads",
    "in common",
)


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


def stability_table(stages: Sequence[Stage], tables: Sequence[HeadTable], top: int) -> Table:
    """One row per model; the first is what the others are compared with.

    "first's heads": mean accuracy, now, of the `top` heads that were best in the first model. "in common": how many
    of them are among the best `top` now.
    """
    chosen = tables[0].best(top)
    rows: list[tuple[Cell, ...]] = []
    for index, (stage, table) in enumerate(zip(stages, tables, strict=True)):
        accuracy = table.mean()
        values = sorted(accuracy.values())
        rows.append(
            (
                stage.name,
                correlation(tables[0], table) if index else None,
                correlation(tables[index - 1], table) if index else None,
                values[-1],
                (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2,
                sum(accuracy[head] for head in chosen) / top,
                len(set(chosen) & set(table.best(top))),
            )
        )
    return Table(COLUMNS, rows)


def split_half(table: HeadTable) -> float | None:
    """Pearson correlation between two halves of the problems on one model: what the number of traces alone costs."""
    halves = table.halves()
    return None if halves is None else correlation(*halves)
