"""The heads of a run, where they are known before it begins: given, in the model's folder, or found earlier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from attnpo.attention.heads import (
    AUTO,
    HEADS,
    Head,
    check_heads,
    file_of_option,
    load_heads,
    recorded_model,
    same_model,
    warn_of_other_model,
)
from attnpo.credit.base import CreditMethod
from attnpo.errors import InputError
from attnpo.training.processes import from_main
from attnpo.training.records import HEADS_TRACES, RunFolder


class Trained(Protocol):
    """The public names of a trainer that this module reads."""

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
    """Return the heads to train with and their file, as far as known before the model has generated anything.

    Heads are None where the credit method needs none, or where they are to be found (`AttnPOTrainer.find_heads`). The
    file is None where they were `given` as numbers. A heads.json in the model's folder needs no option. The main
    process decides for all. Raises InputError for heads that the model does not have and for invalid files.
    """
    if "attention" not in trainer.credit.signals:
        return None, None
    config = _config(trainer)
    option, folder = trainer.args.heads, getattr(config, "_name_or_path", "")

    def read() -> tuple[list[Head] | None, Path | None]:
        heads, file = given, None
        if heads is None:
            named = file_of_option(option, folder)
            if named is None:
                return None, None
            file = Path(named)
            heads = load_heads(file)
            warn_of_other_model(file, folder)
        check_heads(config, heads, file or "heads")
        return heads, file

    return from_main(trainer.accelerator, read)


def kept_heads(trainer: Trained, resumed: str | bool) -> tuple[list[Head] | None, Path | None]:
    """Return the heads of a resumed run and their file.

    resumed: its checkpoint, or true for the last one in the trainer's folder. The heads are read from the folder of the
    checkpoint's run or from the trainer's folder. The trainer's heads stay where neither has any, and where they were
    given as numbers or by option; a heads.json that has appeared in the model's folder does not count as given. The
    main process decides and reads, because the folders may be on its disk only.
    """
    now = trainer.heads, trainer.heads_file
    given = trainer.args.heads not in (None, AUTO) or (trainer.heads is not None and trainer.heads_file is None)
    if given or "attention" not in trainer.credit.signals:
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
    """Return the heads that a run found for this model before it ended (`RunFolder.heads_of_a_start`); None: none."""

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
    """Return the line about `heads` that an earlier run found and wrote to `file`."""
    return f"key-focus heads found before, in {file}: {heads} (--overwrite_run true finds them again)"


def spare_found_heads(trainer: Trained) -> None:
    """Raise InputError where a new run would overwrite found heads, which are expensive to find."""

    def check() -> None:
        file = trainer.folder.heads_of_a_start
        if file is None or (trainer.heads_file is not None and trainer.heads_file.samefile(file)):
            return
        if not (trainer.needs_heads and _are_of(file, trainer)):
            raise found_already(file)

    from_main(trainer.accelerator, check)


def found_already(file: Path) -> InputError:
    """Return the error of a run that would overwrite the heads in `file`."""
    return InputError(
        f"option output_dir: {file.parent} already contains heads found for {recorded_model(file) or 'a model'} "
        f"({HEADS}, {HEADS_TRACES}). Use them with --heads {file}, choose another folder, or remove them with "
        "--overwrite_run true"
    )


def _are_of(file: Path, trainer: Trained) -> bool:
    """Whether a head file names the trainer's model."""
    recorded, name = recorded_model(file), getattr(_config(trainer), "_name_or_path", "")
    return bool(recorded and name) and same_model(recorded, name)


def _config(trainer: Trained) -> Any:
    return trainer.accelerator.unwrap_model(trainer.model).config
