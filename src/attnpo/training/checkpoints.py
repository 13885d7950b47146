"""Checkpoints of a run folder, whole or cut off."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

STATE = "trainer_state.json"


def last_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint of the latest step in a run folder; None: there is none.

    One that was cut off while it was saved does not count (`what_is_broken`).
    """
    return next((path for path in checkpoints(folder) if what_is_broken(path) is None), None)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run folder, whole or not, the latest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir()]
    steps = {path: path.name.removeprefix("checkpoint-") for path in found}
    return sorted((path for path in found if steps[path].isdecimal()), key=lambda path: -int(steps[path]))


def what_is_broken(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be gone on from, naming the file; None: nothing seen.

    transformers writes trainer_state.json last, so that its absence tells of a save that was cut off; a full disk
    leaves files that end too early.
    """
    state = checkpoint / STATE
    if not state.is_file():
        return f"it has no {STATE}: saving it was cut off"
    try:
        json.loads(state.read_text(encoding="utf-8"))["global_step"]
    except (ValueError, KeyError, TypeError):
        return f"{STATE} is not whole"
    for index in checkpoint.glob("*.safetensors.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{index.name} is not whole"
        missing = sorted(name for name in shards if not (checkpoint / name).is_file())
        if missing:
            return f"{missing[0]} is missing"
    for weights in sorted(checkpoint.glob("*.safetensors")):
        if not _whole_safetensors(weights):
            return f"{weights.name} ends too early"
    for archive in ("optimizer.pt", "scheduler.pt"):
        file = checkpoint / archive
        if file.is_file() and not zipfile.is_zipfile(file):
            return f"{archive} ends too early"
    return None


def _whole_safetensors(file: Path) -> bool:
    """Whether a file has as many bytes as its header promises (8 bytes of length, the header, the tensors)."""
    with open(file, "rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if file.stat().st_size < 8 + length:
            return False
        try:
            header = json.loads(content.read(length))
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return file.stat().st_size == 8 + length + max(ends, default=0)
