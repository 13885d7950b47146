"""Nested Python values with tensors in them, as one JSON text and one safetensors file: nothing is ever unpickled.

What training has in hand between two steps (half used responses, unfinished records, sums of metrics) is such a value.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from attnpo.errors import InputError

TENSOR, ENTRIES = "tensor", "entries"
"""Keys of the objects that stand for a tensor (its name in the other file) and for a dict (its entries)."""


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON knows it, its tensors put into `tensors` by number. Tuples become lists; numbers stay exact.

    The tensors are not copied, everything else is.

    Raises:
        TypeError: anything but None, truth values, numbers, text, lists, tuples, dicts with text as keys, and tensors.
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
    """What `pack` was given."""
    if isinstance(packed, list):
        return [unpack(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if TENSOR in packed:
        return tensors[packed[TENSOR]]
    return {key: unpack(item, tensors) for key, item in packed[ENTRIES].items()}


def write_packed(stem: Path, packed: Any, tensors: dict[str, Tensor]) -> None:
    """STEM.json and, where there are tensors, STEM.safetensors."""
    stem.with_suffix(".json").write_text(json.dumps(packed), encoding="utf-8")
    if tensors:
        # Views of one batch share memory, which the format forbids.
        own = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        save_file(own, stem.with_suffix(".safetensors"))


def read_packed(stem: Path, device: torch.device | str = "cpu") -> Any:
    """The value written by `write_packed`, its tensors on `device`; None where there is none.

    Raises:
        InputError: the files are not whole.
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
        raise InputError(f"{file}: not whole, or not a state of a run ({error})") from error
