"""The folder of an evaluation that is about to run: may it be written to, and with which options was it begun."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from attnpo.errors import InputError
from attnpo.evaluation.environment import ENVIRONMENT
from attnpo.evaluation.folder import OPTIONS, SAMPLES, read_options
from attnpo.evaluation.options import check_same
from attnpo.evaluation.results import CSV, JSON, MARKDOWN


def check_folder(folder: Path, resolved: dict[str, Any], *, overwrite: bool) -> None:
    """Whether a run can be written or continued here.

    Raises:
        InputError: a file, a folder of something else, or a run with other options.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {folder}: found a file, expected a folder")
    if not folder.exists():
        return
    if not (folder / OPTIONS).is_file():
        if any(folder.iterdir()):
            raise InputError(f"-o {folder}: found a folder without {OPTIONS}, expected an evaluation or nothing")
    elif not overwrite and any(file.stat().st_size for file in (folder / SAMPLES).glob("*.jsonl")):
        found = read_options(folder / OPTIONS)
        if not isinstance(found.get("benchmarks"), dict):
            raise InputError(f"{folder / OPTIONS}: found no mapping of benchmarks; --overwrite begins anew")
        check_same(found, resolved, folder)


def clear(folder: Path) -> None:
    """Remove what an evaluation has written, and nothing else."""
    shutil.rmtree(folder / SAMPLES, ignore_errors=True)
    for name in (OPTIONS, ENVIRONMENT, JSON, CSV, MARKDOWN):
        (folder / name).unlink(missing_ok=True)


def write_options(folder: Path, resolved: dict[str, Any]) -> None:
    """eval.yaml, put in place whole."""
    partial = folder / f".{OPTIONS}"
    partial.write_text(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), encoding="utf-8")
    partial.replace(folder / OPTIONS)
