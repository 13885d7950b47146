"""Sets of attention heads: reading and writing head files, and checking heads against a model."""

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
HEADS = "heads.json"  # name of the head file in the folder of a model or a run
AUTO = "auto"
CHECKPOINT = re.compile(r"checkpoint-\d+")  # folder names of a run's checkpoints, whatever the model


def file_of_option(option: str | None, folder: str) -> str | Path | None:
    """Return the head file that the option `heads` of training names; None: heads are to be found.

    option: a file, "auto", or None for the heads.json in the model's folder, if there is one.
    """
    if option is not None:
        return None if option == AUTO else option
    of_model = Path(folder) / HEADS
    return of_model if folder and of_model.is_file() else None


def load_heads(path: str | Path) -> list[Head]:
    """The (layer, head) pairs of a head file, zero-based, in the file's order; `heads` is the only required field.

    Raises InputError naming the file and the malformed field.
    """
    content = _read(path)
    if "heads" not in content:
        raise InputError(
            f'{path}: field "heads" is missing, expected an object such as {{"heads": [[16, 2], [20, 9]]}}'
        )
    return parse_heads(content["heads"], f'{path}: field "heads"')


def load_threshold(path: str | Path) -> float:
    """The field `threshold` of a head file: the score that separates essential from redundant steps, in units of
    uniform attention. Raises InputError naming the file if it is missing or not a number above 0."""
    value = _read(path).get("threshold")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise InputError(
            f'{path}: field "threshold" is {value!r}, expected a number above 0, as `attnpo probe` and heads: auto '
            "measure it"
        )
    return float(value)


def _read(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if it contains something else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # not JSON, or not UTF-8
        raise InputError(f"{path}: not valid JSON: {error}") from None
    return content if isinstance(content, dict) else {}


def warn_of_other_model(path: str | Path, model: str) -> None:
    """Warn on stderr if a head file names another model than `model` (name or folder).

    No error, because the same weights may have several names. No warning for a file in the model's own folder or in the
    folder of the run it is a checkpoint of, nor if either name is unknown: "." may have meant another folder when the
    file was written.
    """
    recorded, folder = recorded_model(path), Path(model).resolve()
    own = {folder, folder.parent} if CHECKPOINT.fullmatch(folder.name) else {folder}
    if not (model and recorded.strip("./\\")) or Path(path).resolve().parent in own:
        return
    if not same_model(recorded, model):
        print(
            f"attnpo: {path} has the heads of the model {recorded}, found {model_name(model)}: heads of one model do "
            "not apply to another (`attnpo probe` finds those of a model)",
            file=sys.stderr,
        )


def recorded_model(path: str | Path) -> str:
    """The name or folder of the model that a head file names; "" if it names none."""
    recorded = _read(path).get("model")
    return recorded if isinstance(recorded, str) else ""


def same_model(one: str, other: str) -> bool:
    """Whether two names or folders may be the same model: their last parts are equal, checkpoint numbers ignored.

    Existing folders are compared by their absolute path, because `.` and `checkpoint-100` depend on the current folder.
    """
    return _last_part(one) == _last_part(other)


def _last_part(name: str) -> str:
    if name and Path(name).is_dir():
        name = os.path.abspath(name)  # links are not resolved: the name of a link is the user's name for the model
    parts = [part for part in re.split(r"[/\\]", name) if part]
    while len(parts) > 1 and CHECKPOINT.fullmatch(parts[-1]):
        parts.pop()
    return parts[-1] if parts else ""


def parse_heads(value: Any, name: str) -> list[Head]:
    """Checked (layer, head) pairs from plain lists; `name` is their source in error messages."""
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
    """Write a head file. `sra`: step ranking accuracy by head; `fields` (model, labels, …) are written unchanged."""
    content: dict[str, Any] = {"heads": [list(head) for head in heads], **fields}
    if sra is not None:
        content["sra"] = {f"{layer},{head}": float(value) for (layer, head), value in sra.items()}
    # One line per field: a table of hundreds of heads stays readable.
    lines = (f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in content.items())
    write_whole(Path(path), ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def check_heads(model_config: Any, heads: Sequence[Head], source: str | Path = "heads") -> None:
    """Raise InputError, naming the layer or head and the model's counts, for a head that the model does not have.

    source: the source of the heads in the message.
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
