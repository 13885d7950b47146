"""Checkpoints of a run folder, whole or cut off."""

from __future__ import annotations

from pathlib import Path


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step in a run folder; None: there is none.

    One without trainer_state.json, which transformers writes last, was cut off while it was saved and does not count.
    """
    whole: dict[int, Path] = {}
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        step = state.parent.name.removeprefix("checkpoint-")
        if step.isdecimal():
            whole[int(step)] = state.parent
    return whole[max(whole)] if whole else None
