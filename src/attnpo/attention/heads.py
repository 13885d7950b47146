"""Sets of attention heads: files, and whether a model has them."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnpo.data.jsonl import write_whole
from attnpo.errors import InputError
from attnpo.models import model_name

Head = tuple[int, int]
HEADS = "heads.json"  # how a model's folder and a run call their head file
CHECKPOINT = re.compile(r"checkpoint-\d+")  # how a run calls its checkpoints, whatever the model


def load_heads(path: str | Path) -> list[Head]:
    """The (layer, head) pairs of a head file, zero-based, in the file's order; `heads` is the only field needed.

    Raises InputError naming the file and the field that is wrong.
    """
    content = _read(path)
    if "heads" not in content:
        raise InputError(
            f'{path}: field "heads" is missing, expected an object such as {{"heads": [[16, 2], [20, 9]]}}'
        )
    return parse_heads(content["heads"], f'{path}: field "heads"')


def load_threshold(path: str | Path) -> float:
    """The field `threshold` of a head file: where the scores of essential and redundant steps part, in units of
    uniform attention. Raises InputError naming the file where it is missing or no number above 0."""
    value = _read(path).get("threshold")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise InputError(
            f'{path}: field "threshold" is {value!r}, expected a number above 0, as `attnpo probe` and heads: auto '
            "measure it"
        )
    return float(value)


def _read(path: str | Path) -> dict[str, Any]:
    """The object in a file; one without fields where it holds something else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # not JSON, or not UTF-8
        raise InputError(f"{path}: not valid JSON: {error}") from None
    return content if isinstance(content, dict) else {}


def warn_of_other_model(path: str | Path, model: str) -> None:
    """Say on stderr that a head file names another model than `model` (name or folder), where it does.

    No error: the same weights go by several names. Nothing is said of a file in the model's own folder or in that of
    the run it is a checkpoint of, nor where either name is not known: "." was one folder where it was written down, and
    is another here.
    """
    recorded, folder = recorded_model(path), Path(model).resolve()
    own = {folder, folder.parent} if CHECKPOINT.fullmatch(folder.name) else {folder}
    if not (model and recorded.strip("./\\")) or Path(path).resolve().parent in own:
        return
    if not same_model(recorded, model):
        print(
            f"attnpo: {path} has the heads of the model {recorded}, found {model_name(model)}: the heads of one model "
            "say nothing about another (`attnpo probe` finds its own)",
            file=sys.stderr,
        )


def recorded_model(path: str | Path) -> str:
    """The name or folder of the model whose heads a file has; "" where it names none."""
    recorded = _read(path).get("model")
    return recorded if isinstance(recorded, str) else ""


def same_model(one: str, other: str) -> bool:
    """Whether two names or folders may be of one model: their last parts are equal, but for a checkpoint's number.

    Those of an existing folder are its own, not those it is called by: `.` and `checkpoint-100` depend on the place.
    """
    return _last_part(one) == _last_part(other)


def _last_part(name: str) -> str:
    if name and Path(name).is_dir():
        name = os.path.abspath(name)  # not resolved: a link is called what its user calls the model
    parts = [part for part in re.split(r"[/\\]", name) if part]
    while len(parts) > 1 and CHECKPOINT.fullmatch(parts[-1]):
        parts.pop()
    return parts[-1] if parts else ""


def parse_heads(value: Any, name: str) -> list[Head]:
    """Checked (layer, head) pairs from plain lists; `name` says in errors where they come from."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InputError(f"{name} is {value!r}, expected a non-empty list of [layer, head] pairs")
    heads: list[Head] = []
    for i, pair in enumerate(value):
        whole = isinstance(pair, Sequence) and len(pair) == 2 and all(type(part) is int for part in pair)
        if not whole or min(pair) < 0:
            raise InputError(f"{name}, entry {i} is {pair!r}, expected [layer, head], two integers from 0")
        heads.append((pair[0], pair[1]))
    if len(set(heads)) < len(heads):
        twice = next(head for i, head in enumerate(heads) if head in heads[:i])
        raise InputError(f"{name} names {list(twice)} twice, expected different heads")
    return heads


def save_heads(
    path: str | Path, heads: Sequence[Head], *, sra: Mapping[Head, float] | None = None, **fields: Any
) -> None:
    """Write a head file; `sra` maps heads to step ranking accuracies, `fields` (model, labels, …) go in as they are."""
    content: dict[str, Any] = {"heads": [list(head) for head in heads], **fields}
    if sra is not None:
        content["sra"] = {f"{layer},{head}": float(value) for (layer, head), value in sra.items()}
    # One line per field: a table of hundreds of heads stays readable.
    lines = (f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in content.items())
    write_whole(Path(path), ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def check_heads(model_config: Any, heads: Sequence[Head], source: str | Path = "heads") -> None:
    """Raise InputError, naming the layer or head and the model's counts, for a head that the model has not got.

    source: where the heads are from, as the message names it.
    """
    get_text_config = getattr(model_config, "get_text_config", None)
    config = get_text_config(decoder=True) if get_text_config is not None else model_config
    name = getattr(model_config, "_name_or_path", "") or getattr(model_config, "model_type", "the model")
    layers, per_layer = config.num_hidden_layers, getattr(config, "num_attention_heads", None)
    if not per_layer:
        raise InputError(f"{source}: {name} has no attention heads, expected a model with softmax attention")
    if not heads:
        raise InputError(f"{source}: the list is empty, expected at least one (layer, head)")
    for layer, head in heads:
        for what, index, count in (("layer", layer, layers), ("head", head, per_layer)):
            if not 0 <= index < count:
                raise InputError(
                    f"{source}: ({layer}, {head}): no {what} {index} in {name} ({layers} layers with {per_layer} heads "
                    f"each), expected a {what} from 0 to {count - 1}"
                )
