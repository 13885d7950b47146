"""Which heads a run trains with, where that is known before it begins: given, beside the model, or found earlier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from attnpo.attention.heads import (
    HEADS,
    Head,
    check_heads,
    load_heads,
    recorded_model,
    same_model,
    warn_of_other_model,
)
from attnpo.credit.base import CreditMethod
from attnpo.errors import InputError
from attnpo.training.processes import from_main
from attnpo.training.records import HEADS_TRACES, RunFolder

AUTO = "auto"


class Trained(Protocol):
    """What is read of a trainer here: public names only."""

    accelerator: Any
    args: Any
    model: Any
    credit: CreditMethod
    folder: RunFolder
    heads: list[Head] | None
    heads_file: Path | None

    @property
    def needs_heads(self) -> bool: ...


def known_heads(trainer: Trained, given: list[Head] | None) -> tuple[list[Head] | None, Path | None]:
    """The heads to train with and their file, as far as known before the model has answered anything.

    No heads: the credit method needs none, or they are to be found (`AttnPOTrainer.find_heads`). No file: they were
    `given` as numbers. A model folder with a heads.json needs no option. The main process decides for all.
    Raises InputError for heads the model has not got and for bad files.
    """
    if "attention" not in trainer.credit.signals:
        return None, None
    config = _config(trainer)
    asked, folder = trainer.args.heads, getattr(config, "_name_or_path", "")

    def read() -> tuple[list[Head] | None, Path | None]:
        beside = Path(folder) / HEADS
        heads, file = given, None
        if heads is None:
            if asked == AUTO or (asked is None and not (folder and beside.is_file())):
                return None, None
            file = beside if asked is None else Path(asked)
            heads = load_heads(file)
            warn_of_other_model(file, folder)
        check_heads(config, heads, file or "heads")
        return heads, file

    return from_main(trainer.accelerator, read)


def kept_heads(trainer: Trained, resumed: str | bool) -> tuple[list[Head] | None, Path | None]:
    """The heads that a resumed run goes on with and their file: those it has, wherever it found them.

    resumed: its checkpoint, or true for the last one in the trainer's folder. Its heads lie beside the checkpoint, or
    in the trainer's folder. What the trainer has stays where there are none, and where it was asked for as numbers or
    by its file; a heads.json that has appeared beside the model was not. The main process decides, and reads: the
    folders may be on its disk only.
    """
    now = trainer.heads, trainer.heads_file
    asked_for = trainer.args.heads not in (None, AUTO) or (trainer.heads is not None and trainer.heads_file is None)
    if asked_for or "attention" not in trainer.credit.signals:
        return now
    folders = [trainer.folder.path] if isinstance(resumed, bool) else [Path(resumed).resolve().parent]
    folders.append(trainer.folder.path)

    def read() -> tuple[list[Head] | None, Path | None]:
        for file in (folder / HEADS for folder in folders):
            if file.is_file():
                heads = load_heads(file)
                check_heads(_config(trainer), heads, file)
                return heads, file
        return now

    return from_main(trainer.accelerator, read)


def found_at_start(trainer: Trained, say: Callable[[str], None]) -> list[Head] | None:
    """The heads found for this model by a run that got no further (`RunFolder.heads_of_a_start`); None: none."""

    def read() -> list[Head] | None:
        file = trainer.folder.heads_of_a_start
        if file is None or not _are_of(file, trainer):
            return None
        heads = load_heads(file)
        check_heads(_config(trainer), heads, file)
        say(found_before(file, heads))
        return heads

    return from_main(trainer.accelerator, read)


def found_before(file: Path, heads: list[Head]) -> str:
    """The line about `heads` that are taken out of `file`, where an earlier run has found them."""
    return f"key-focus heads found before, in {file}: {heads} (--overwrite_run true finds them anew)"


def spare_found_heads(trainer: Trained) -> None:
    """InputError where a new run would put other heads in the place of found ones, or none: a search is not cheap."""

    def check() -> None:
        file = trainer.folder.heads_of_a_start
        if file is None or (trainer.heads_file is not None and trainer.heads_file.samefile(file)):
            return
        if not (trainer.needs_heads and _are_of(file, trainer)):
            raise found_already(file)

    from_main(trainer.accelerator, check)


def found_already(file: Path) -> InputError:
    """The error of a run that would put others in the place of the heads in `file`."""
    return InputError(
        f"option output_dir: {file.parent} already holds heads found for {recorded_model(file) or 'a model'} "
        f"({HEADS}, {HEADS_TRACES}). Use them with --heads {file}, choose another folder, or remove them with "
        "--overwrite_run true"
    )


def _are_of(file: Path, trainer: Trained) -> bool:
    """Whether a head file names the trainer's model."""
    recorded, name = recorded_model(file), getattr(_config(trainer), "_name_or_path", "")
    return bool(recorded and name) and same_model(recorded, name)


def _config(trainer: Trained) -> Any:
    return trainer.accelerator.unwrap_model(trainer.model).config
