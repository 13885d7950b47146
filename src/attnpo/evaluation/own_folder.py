"""The folder of an evaluation that is about to run: may it be written to, and with which options was it begun."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from attnpo.data.jsonl import write_whole
from attnpo.errors import InputError
from attnpo.evaluation.environment import ENVIRONMENT, versions
from attnpo.evaluation.folder import OPTIONS, SAMPLES, read_options
from attnpo.evaluation.options import check_same
from attnpo.evaluation.results import CSV, JSON, MARKDOWN, Results


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
        benchmarks = found.get("benchmarks")
        if not isinstance(benchmarks, dict) or not all(map(_is_resolved, benchmarks.values())):
            raise InputError(
                f"{folder / OPTIONS}: found no samples and questions of every benchmark; --overwrite begins anew"
            )
        check_same(found, resolved, folder)


def _is_resolved(benchmark: Any) -> bool:
    return isinstance(benchmark, dict) and {"samples", "questions"} <= benchmark.keys()


def finished_results(folder: Path, resolved: dict[str, Any], base: Path | None) -> Results | None:
    """What results.json holds, if a run with these options has ended and no file it depends on changed since."""
    try:
        if read_options(folder / OPTIONS) != resolved:
            return None
        environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        if environment.get("finished") != stamp(folder, base):
            return None
        return json.loads((folder / JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what is missing is made, and what is damaged is reported by who needs it
        return None


def stamp(folder: Path, base: Path | None) -> str:
    """A hash of samples (of the base too), results and versions. Raises OSError where a file of results is missing."""
    samples = [file for run in (folder, base) if run is not None for file in sorted((run / SAMPLES).glob("*.jsonl"))]
    digest = hashlib.blake2b(json.dumps(versions()).encode(), digest_size=16)
    for file in (*samples, *(folder / name for name in (JSON, CSV, MARKDOWN))):
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "blake2b").digest())
    return digest.hexdigest()


def clear(folder: Path) -> None:
    """Remove what an evaluation has written, and nothing else."""
    shutil.rmtree(folder / SAMPLES, ignore_errors=True)
    for name in (OPTIONS, ENVIRONMENT, JSON, CSV, MARKDOWN):
        (folder / name).unlink(missing_ok=True)


def write_options(folder: Path, resolved: dict[str, Any]) -> None:
    """eval.yaml, put in place whole."""
    write_whole(folder / OPTIONS, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, encoding="utf-8"))
