"""What a run says about itself: its description at the start, the table at the end."""

from __future__ import annotations

import json
import platform
import shlex
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table
from trl.trainer.model_config import ModelConfig

from attnpo.training.config import AttnPOConfig
from attnpo.training.options import DataConfig, resolved_options
from attnpo.versions import device_names, versions_of

PACKAGES = ("attnpo", "torch", "transformers", "trl", "accelerate", "datasets", "peft", "math-verify", "vllm")


def write_description(
    folder: Path,
    data: DataConfig,
    args: AttnPOConfig,
    model_config: ModelConfig,
    argv: list[str],
    notes: dict[str, Any],
) -> None:
    """config.yaml (every option as resolved; it can be given back to --config) and environment.json."""
    folder.mkdir(parents=True, exist_ok=True)
    resolved = resolved_options(data, args, model_config)
    (folder / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=True, allow_unicode=True), encoding="utf-8")
    environment = {
        "command": shlex.join(["attnpo", "train", *argv]),
        "versions": versions_of(PACKAGES),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": device_names(),
        "threads": torch.get_num_threads(),
        "processes": args.world_size,
        "seed": args.seed,
        "data_seed": args.data_seed,
        "problems": notes,
    }
    (folder / "environment.json").write_text(json.dumps(environment, indent=1) + "\n", encoding="utf-8")


def evaluated(folder: Path, step: int) -> bool:
    """Whether evaluations.jsonl has this step already."""
    return any(row["step"] == step for row in read_evaluations(folder))


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """The evaluations of a run, in order."""
    file = folder / "evaluations.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def print_summary(folder: Path, console: Console) -> None:
    """The table before/after, with 95 % intervals."""
    evaluations = read_evaluations(folder)
    console.print(f"run folder: {folder}")
    if len(evaluations) < 2:
        return
    before, after = evaluations[0], evaluations[-1]
    table = Table(title=f"Held-out problems (n = {after['n']}), 95 % intervals")
    for column in ("", f"step {before['step']}", f"step {after['step']}", "change"):
        table.add_column(column, justify="right" if column else "left")

    def row(name: str, key: str, spread: bool, form: str) -> None:
        cells = []
        for values in (before, after):
            cell = format(values[key], form)
            if spread:
                cell += f" [{values[f'{key}_low']:{form}}, {values[f'{key}_high']:{form}}]"
            cells.append(cell)
        difference = after[key] - before[key]
        if form.endswith("%"):
            change = f"{100 * difference:+.1f} points"
        else:
            change = f"{difference / before[key]:+.0%}" if before[key] else ""
        table.add_row(name, *cells, change)

    row("accuracy", "accuracy", True, ".1%")
    row("tokens per response", "length/completion", True, ".0f")
    row("  thinking", "length/thinking", False, ".0f")
    row("  final answer", "length/answer", False, ".0f")
    row("truncated", "truncated", False, ".1%")
    row("steps per response", "steps/per_response", False, ".1f")
    console.print(table)
