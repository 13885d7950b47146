"""Files that a reader never sees half-written, and folders that may be."""

from __future__ import annotations

from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Put `content` in place at once: whoever is killed in between leaves the file as it was."""
    partial = file.with_name(f".{file.name}.part")
    partial.write_bytes(content)
    partial.replace(file)


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
