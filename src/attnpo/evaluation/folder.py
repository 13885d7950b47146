"""An evaluation as it lies on disk: its options and its samples, every row checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from attnpo.data.jsonl import read_numbered_jsonl, row_name, type_name
from attnpo.errors import InputError
from attnpo.evaluation.records import Sample
from attnpo.rewards.verdict import Verdict

OPTIONS, SAMPLES = "eval.yaml", "samples"

_COUNTS = {"sample", "prompt_tokens", "tokens", "thinking_tokens", "answer_tokens"}
_KINDS = {
    **dict.fromkeys(("benchmark", "id", "text"), (str, "text")),
    **dict.fromkeys(("extracted", "verdict", "reference", "level"), (str | None, "text or null")),
    **dict.fromkeys((*_COUNTS, "seed"), (int, "a whole number")),
    "truncated": (bool, "true or false"),
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The samples of one model, by benchmark. `step`: of a training run's own evaluations, None for others.

    `options`: what eval.yaml says of the sampling, as far as it is recorded.
    """

    name: str
    model: str
    path: Path
    samples: dict[str, list[Sample]]
    step: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def is_evaluation(path: Path) -> bool:
    return (path / SAMPLES).is_dir()


def read_evaluation(path: Path, name: str | None = None) -> Evaluation:
    """Read an evaluation folder; benchmarks without a sample are left out. `name`: None for its own.

    Raises:
        InputError: no such folder, no sample at all, or a row that is not a sample. The message names file and row.
    """
    if not is_evaluation(path):
        found = "a folder without samples/" if path.is_dir() else "a file" if path.exists() else "nothing"
        raise InputError(f"{path}: found {found}, expected an evaluation folder (with samples/BENCHMARK.jsonl in it)")
    files = [file for file in sorted((path / SAMPLES).glob("*.jsonl")) if file.stat().st_size]
    if not files:
        raise InputError(f"{path}: no samples in {SAMPLES}/*.jsonl; nothing was evaluated")
    options = read_options(path / OPTIONS)
    return Evaluation(
        name=name or str(options.get("name") or path.resolve().name),
        model=str(options.get("model") or "model not recorded"),
        path=path,
        samples={file.stem: read_samples(file) for file in files},
        options=options,
    )


def read_options(file: Path) -> dict[str, Any]:
    """A YAML file of options; an absent one has none. Raises InputError where it is no mapping."""
    if not file.exists():
        return {}
    try:
        options = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    if not isinstance(options, dict | None):
        raise InputError(f"{file}: found {type_name(options)}, expected a mapping of options")
    return options or {}


def read_samples(file: Path) -> list[Sample]:
    """The samples of one benchmark, in the order of the file.

    Raises:
        InputError: a row is no sample, belongs to another benchmark, or is there twice; names file, row and field.
    """
    samples: list[Sample] = []
    seen: dict[tuple[str, int], int] = {}
    for number, row in read_numbered_jsonl(file):
        where = row_name(file, number)
        sample = sample_from_json(row, where)
        if sample.benchmark != file.stem:
            raise InputError(f"{where}: field 'benchmark' is {sample.benchmark!r}, expected {file.stem!r}")
        first = seen.setdefault((sample.id, sample.sample), number)
        if first != number:
            raise InputError(f"{where}: sample {sample.sample} of problem {sample.id!r} is in row {first} already")
        samples.append(sample)
    return samples


def sample_from_json(row: dict[str, Any], where: str) -> Sample:
    """One row as a Sample; unknown fields are ignored. Raises InputError, beginning with `where`."""
    values = {}
    for name in (one.name for one in fields(Sample)):
        if name not in row:
            raise InputError(f"{where}: field '{name}' is missing (found {', '.join(row) or 'no fields'})")
        kind, expected = _KINDS[name]
        value = row[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise InputError(f"{where}: field '{name}' is {type_name(value)}, expected {expected}")
        if name in _COUNTS and value < 0:
            raise InputError(f"{where}: field '{name}' is {value}, expected at least 0")
        values[name] = value
    if values["verdict"] is not None:
        values["verdict"] = read_verdict(values["verdict"], where)
    return Sample(**values)


def read_verdict(text: str, where: str) -> Verdict:
    """Raises InputError for a word that is no verdict."""
    if text not in set(Verdict):
        raise InputError(f"{where}: field 'verdict' is {text!r}, expected {', '.join(Verdict)} or null")
    return Verdict(text)
