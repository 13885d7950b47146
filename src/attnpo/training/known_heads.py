"""Which heads a run trains with, where that is known before it begins: given, beside the model, or found earlier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnpo.attention.heads import Head, check_heads, load_heads, warn_of_other_model
from attnpo.training.processes import from_main
from attnpo.training.records import HEADS

if TYPE_CHECKING:
    from attnpo.training.trainer import AttnPOTrainer

AUTO = "auto"


def known_heads(trainer: AttnPOTrainer, given: list[Head] | None) -> tuple[list[Head] | None, Path | None]:
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
        beside = Path(folder) / "heads.json"
        heads, file = given, None
        if heads is None:
            if asked == AUTO or (asked is None and not (folder and beside.is_file())):
                return None, None
            file = beside if asked is None else Path(asked)
            heads = load_heads(file)
            warn_of_other_model(file, folder)
        check_heads(config, heads)
        return heads, file

    return from_main(trainer.accelerator, read)


def kept_heads(trainer: AttnPOTrainer) -> list[Head] | None:
    """The heads that the run in the trainer's folder has found for itself; None: none yet.

    The main process decides, and reads: the folder may be on its disk only.
    """
    file = trainer.folder.path / HEADS

    def read() -> list[Head] | None:
        if not file.is_file():
            return None
        heads = load_heads(file)
        check_heads(_config(trainer), heads)
        return heads

    return from_main(trainer.accelerator, read)


def _config(trainer: AttnPOTrainer) -> Any:
    return trainer.accelerator.unwrap_model(trainer.model).config
