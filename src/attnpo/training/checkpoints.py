"""Checkpoints of a run folder: finding them, checking that they are complete, and packing values without pickle.

The state of training between two steps (half-used responses, unfinished records, sums of metrics) is a nested Python
value with tensors in it; it is saved as one JSON file and one safetensors file.
"""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from attnpo.errors import InputError
from attnpo.training.records import REPLACED

STATE = "trainer_state.json"

FILES = "files.json"
"""In a checkpoint: its files with their sizes and checksums (CRC-32), written last."""

BLOCK = 1 << 24  # bytes read at a time


def state_of_checkpoint(checkpoint: str | Path) -> dict[str, Any]:
    """Read trainer_state.json of a checkpoint: global_step, max_steps, epoch …"""
    return json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))


def last_checkpoint(folder: Path) -> Path | None:
    """Return the latest complete checkpoint of a run folder; None: there is none.

    A checkpoint whose saving was interrupted does not count (`what_is_broken`).
    """
    return next((path for path in checkpoints(folder) if what_is_broken(path) is None), None)


def checkpoints(folder: Path) -> list[Path]:
    """Return all checkpoints of a run folder, complete or not, the latest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir()]
    steps = {path: path.name.removeprefix("checkpoint-") for path in found}
    return sorted((path for path in found if steps[path].isdecimal()), key=lambda path: -int(steps[path]))


def checkpoint_of(folder: Path, resume: str | bool | None) -> Path | None:
    """Return the checkpoint for `resume_from_checkpoint`: a path, or for true the last complete one of a run folder.

    auto is the same as true where the folder has a checkpoint, and as false where it has none.

    Raises:
        InputError: there is none, or it is damaged.
    """
    if resume is None or str(resume).lower() in ("false", "none", ""):
        return None
    if str(resume).lower() == "auto" and not checkpoints(folder):
        return None
    if str(resume).lower() in ("true", "auto"):
        last = last_checkpoint(folder)
        if last is None:
            found = [f"{path.name}: {what_is_broken(path)}" for path in checkpoints(folder)]
            why = f" that is complete ({'; '.join(found)})" if found else ""
            raise InputError(
                f"option resume_from_checkpoint: no checkpoint in {folder}{why}; auto begins a run where there is none"
            )
        return last
    given = Path(str(resume))
    if not (given / STATE).is_file():
        raise InputError(f"option resume_from_checkpoint: {given} is not a checkpoint (it has no {STATE})")
    broken = what_is_broken(given)
    if broken is not None:
        raise InputError(f"option resume_from_checkpoint: {given} is damaged: {broken}")
    return given


def set_aside_after(folder: Path, step: int) -> list[Path]:
    """Rename the complete checkpoints of a run folder after `step` to _replaced-checkpoint-N; returns the new paths.

    A run that resumes at `step` makes those steps again: after the next interruption it must not resume from the old
    ones. Damaged ones are never resumed from.
    """
    renamed = []
    for path in checkpoints(folder):
        if int(path.name.removeprefix("checkpoint-")) > step and what_is_broken(path) is None:
            new = path.with_name(f"{REPLACED}{path.name}")
            if new.exists():
                shutil.rmtree(new)
            renamed.append(path.rename(new))
    return renamed


def passed_over(folder: Path, resumed: Path) -> list[str]:
    """Return a warning for every damaged checkpoint of `folder` later than `resumed`."""
    warnings = []
    for path in checkpoints(folder):
        if path.resolve() == resumed.resolve():
            break
        broken = what_is_broken(path)
        if broken is not None:
            warnings.append(f"{path} is skipped: {broken}; resuming from {resumed}")
    return warnings


def write_list_of_files(checkpoint: Path) -> None:
    """Write the list of the files of a complete checkpoint, for `what_is_broken`."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != FILES)
    listed = {str(path.relative_to(checkpoint)): [path.stat().st_size, _checksum(path)] for path in files}
    (checkpoint / FILES).write_text(json.dumps(listed, indent=0), encoding="utf-8")


def _checksum(file: Path) -> int:
    """CRC-32 of a file."""
    found = 0
    with open(file, "rb") as content:
        while block := content.read(BLOCK):
            found = zlib.crc32(block, found)
    return found


def what_is_broken(checkpoint: Path) -> str | None:
    """Return why a checkpoint cannot be resumed from, naming the file; None: no damage found.

    A checkpoint with a list of its files is compared with it. One without is of an earlier version or other software:
    transformers writes trainer_state.json last, so that its absence shows an interrupted save; a full disk leaves
    truncated files.
    """
    try:
        return _damage(checkpoint) or _difference_from_list(checkpoint)
    except OSError as error:
        return f"{Path(str(error.filename or checkpoint)).name} cannot be read ({error.strerror})"


def _difference_from_list(checkpoint: Path) -> str | None:
    """Return the first difference from the list of files; None: there is none, or no list."""
    if not (checkpoint / FILES).is_file():
        return None
    try:
        listed = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
        for name, (size, checksum) in listed.items():
            file = checkpoint / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} bytes, expected {size}"
            if _checksum(file) != checksum:
                return f"{name} is damaged: its content is not what was saved"
    except (ValueError, TypeError, AttributeError):
        return f"{FILES} is not valid"
    return None


def _damage(checkpoint: Path) -> str | None:
    """Return the damage that the files show without a list; None: there is none."""
    state = checkpoint / STATE
    if not state.is_file():
        return f"it has no {STATE}: saving it was interrupted"
    try:
        json.loads(state.read_text(encoding="utf-8"))["global_step"]
    except (ValueError, KeyError, TypeError):
        return f"{STATE} is not valid"
    for index in checkpoint.glob("*.safetensors.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{index.name} is not valid"
        missing = sorted(name for name in shards if not (checkpoint / name).is_file())
        if missing:
            return f"{missing[0]} is missing"
    for weights in sorted(checkpoint.glob("*.safetensors")):
        if not _is_complete_safetensors(weights):
            return f"{weights.name} is truncated"
    for archive in ("optimizer.pt", "scheduler.pt"):
        file = checkpoint / archive
        if file.is_file() and not zipfile.is_zipfile(file):
            return f"{archive} is truncated"
    return None


def _is_complete_safetensors(file: Path) -> bool:
    """Whether a file has the size given by its header (8 bytes of length, the header, the tensors)."""
    with open(file, "rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if file.stat().st_size < 8 + length:
            return False
        try:
            header = json.loads(content.read(length))
        except ValueError:
            return False
    try:
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return file.stat().st_size == 8 + length + max(ends, default=0)
    except (KeyError, TypeError, AttributeError, IndexError):
        return False


TENSOR, ENTRIES = "tensor", "entries"
"""Keys of the objects that represent a tensor (by its name in the other file) and a dict (by its entries)."""


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Convert `value` to JSON types, with its tensors in `tensors` by number. Tuples become lists; numbers stay exact.

    The tensors are not copied, everything else is.

    Raises:
        TypeError: a value other than None, bool, number, str, list, tuple, dict with str keys, or tensor.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach()
        return {TENSOR: name}
    if isinstance(value, list | tuple):
        return [pack(item, tensors) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {ENTRIES: {key: pack(item, tensors) for key, item in value.items()}}
    raise TypeError(f"found {type(value).__name__}, expected numbers, text, lists, dicts by name, or tensors")


def unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo `pack`."""
    if isinstance(packed, list):
        return [unpack(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if TENSOR in packed:
        return tensors[packed[TENSOR]]
    return {key: unpack(item, tensors) for key, item in packed[ENTRIES].items()}


def write_packed(stem: Path, packed: Any, tensors: dict[str, Tensor]) -> None:
    """Write STEM.json and, where there are tensors, STEM.safetensors."""
    stem.with_suffix(".json").write_text(json.dumps(packed), encoding="utf-8")
    if tensors:
        # Views of one batch share memory, which the format forbids.
        own = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        save_file(own, stem.with_suffix(".safetensors"))


def read_packed(stem: Path, device: torch.device | str = "cpu") -> Any:
    """Read a value written by `write_packed`, with its tensors on `device`; None where there is no file.

    Raises:
        InputError: the files are damaged.
    """
    file = stem.with_suffix(".json")
    if not file.is_file():
        return None
    with_tensors = stem.with_suffix(".safetensors")
    try:
        tensors = load_file(with_tensors) if with_tensors.is_file() else {}
        # moved here: safetensors refuses "cpu:0", which is what Accelerate calls the device of several CPU processes
        on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
        return unpack(json.loads(file.read_text(encoding="utf-8")), on_device)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{file}: damaged, or not the state of a run ({error})") from error
