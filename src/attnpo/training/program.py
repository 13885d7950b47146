"""What a run says of itself that a Python program started: the same files as `attnpo train` writes, as far as known."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from accelerate.utils import is_peft_model
from datasets import Audio, Dataset, Image, Video

from attnpo.attention.heads import HEADS, load_heads, save_heads
from attnpo.training.description import environment_of, write_description
from attnpo.training.known_heads import Trained
from attnpo.training.options import resolved_options
from attnpo.training.processes import from_main
from attnpo.training.resume import check_changes, keep_delay, keep_history, what_changed
from attnpo.training.rewards import RewardSetup

MEDIA = (Image, Audio, Video)
MOST = 4096
COMMENT = (
    "of a Python program: model, problems and reward functions are the program's, the options those of AttnPOConfig"
)


class Described(Trained, Protocol):
    """What is read of a trainer here: public names only."""

    train_dataset: Any
    eval_dataset: Any
    reward_func_names: list[str]
    rewards: RewardSetup


def describe(trainer: Described, checkpoint: Path | None) -> None:
    """config.yaml, environment.json and heads.json into the run folder; the main process writes.

    checkpoint: the one that the run goes on from.

    Raises:
        InputError: it would go on with other options, problems or reward functions than it began with, and
            `args.resume_with_changes` does not say that it may.
    """
    from_main(trainer.accelerator, lambda: _describe(trainer, None if checkpoint is None else str(checkpoint)))


def _describe(trainer: Described, checkpoint: str | None) -> None:
    folder = trainer.folder.path
    # A program's values may be of any type (a dtype among model_init_kwargs): those a file cannot hold go in as text.
    options = json.loads(json.dumps(resolved_options(None, trainer.args, None), default=str))
    options["model_name_or_path"] = getattr(trainer.model.config, "_name_or_path", "") or type(trainer.model).__name__
    names = list(trainer.reward_func_names)
    options["reward_funcs"] = names[:-1] if trainer.rewards.has_length else names  # the length reward is an option
    keep_delay(trainer, checkpoint)
    command = [Path(sys.executable).name, *sys.argv]
    about = environment_of(trainer.args, command, {}, dict(_sets(trainer)), trainer.rewards.who_judges)
    defaults = {option.name: option.default for option in fields(trainer.args)}
    changed = what_changed(checkpoint, options, about, defaults)
    whole = not is_peft_model(trainer.model) and not trainer.args.beta  # a checkpoint has all that counts
    if whole and Path(options["model_name_or_path"]).exists():
        changed.pop("model_name_or_path", None)  # a folder that has moved
    check_changes(changed, accepted=trainer.args.resume_with_changes)
    if checkpoint is not None:
        keep_history(folder, checkpoint, changed)
    write_description(folder, options, about, COMMENT)
    if trainer.heads_file is not None:
        trainer.folder.keep_heads(trainer.heads_file, traces=False)
    elif trainer.heads is not None and not ((folder / HEADS).is_file() and load_heads(folder / HEADS) == trainer.heads):
        save_heads(folder / HEADS, trainer.heads, model=options["model_name_or_path"])


def _sets(trainer: Described) -> Iterable[tuple[str, Any]]:
    """Problems by name, of what can be read twice: how many, and every column of up to `MOST` of them but images, audio
    and video, whose content is not read."""
    held_out = trainer.eval_dataset
    named = held_out.items() if isinstance(held_out, dict) else [("", held_out)]
    for name, rows in [("train", trainer.train_dataset), *((f"eval {name}".strip(), rows) for name, rows in named)]:
        if isinstance(rows, Dataset):
            plain = rows.with_format(None)
            plain = plain.select_columns([c for c, kind in plain.features.items() if not isinstance(kind, MEDIA)])
            some = plain.select(range(0, len(plain), max(1, math.ceil(len(plain) / MOST))))
            yield name, [{"prompt": len(plain)}, *({"prompt": repr(row)} for row in some)]
