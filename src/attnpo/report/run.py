"""A run folder as dataclasses: configuration, measurements, and the paths of its rollouts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from attnpo.data.jsonl import number, read_unfinished_jsonl, whole
from attnpo.errors import InputError
from attnpo.report.elements import plural


def distinct(named: list[tuple[str, Path]]) -> list[str]:
    """Return a unique name for each (name, folder): equal names get their folder's name, or else a number, appended.

    >>> distinct([("same", Path("one")), ("same", Path("two")), ("same", Path("two")), ("own", Path("three"))])
    ['same (one)', 'same (two)', 'same (two) #2', 'own']
    """
    names: list[str] = []
    for name, path in named:
        shared = sum(name == other for other, _ in named) > 1
        folder = path.resolve().name
        base = f"{name} ({folder})" if shared and folder != name else name
        candidates = [base, *(f"{base} #{count}" for count in range(2, len(named) + 1))]
        names.append(next(candidate for candidate in candidates if candidate not in names))
    return names


RUN_FILES = ("config.yaml", "metrics.jsonl", "evaluations.jsonl", "rollouts")
ROLLOUT_NAME = re.compile(r"(train|eval)-(\d+)(-.+)?\.jsonl\.gz")
METHODS = {
    ("rloo", "none", "outcome"): "plain RLOO",
    ("rloo", "tlmre", "outcome"): "TLMRE",
    ("rloo", "tlmre", "attnpo"): "AttnPO",
}
# Fields that the page reads: anything but a number or null in them is an error.
KNOWN = frozenset(
    [
        *(f"{name}{end}" for name in ("accuracy", "length/completion") for end in ("", "_low", "_high")),
        *("length/thinking", "length/answer", "truncated", "n", "confidence", "seconds"),
        *("steps/attenuated", "steps/protected", "steps/mean_scale", "steps/per_response"),
        *("reward", "groups/without_signal"),
        *(f"phrases/{kind}_per_1k" for kind in ("transition", "branch", "forward", "backward", "answer")),
    ]
)

Measured = dict[str, float | None]


@dataclass(frozen=True)
class Run:
    """One run folder. `metrics` and `evaluations` are sorted by step, one entry per step; None: a missing value."""

    path: Path
    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    heads: dict[str, Any]
    metrics: list[Measured]
    evaluations: list[Measured]
    train_files: list[Path]
    eval_files: list[Path]
    notices: list[str]
    warnings: list[str] = field(default_factory=list)
    """The warnings of the run (warnings.jsonl), in order."""

    @property
    def model(self) -> str:
        return str(self.config.get("model_name_or_path") or self.config.get("model") or "model not recorded")

    @property
    def choices(self) -> dict[str, str]:
        """The three independent choices of the method, as far as the configuration names them."""
        return {key: str(self.config[key]) for key in ("advantage", "length_reward", "credit") if key in self.config}

    @property
    def method(self) -> str | None:
        """The usual name of this combination of choices; None if it has none."""
        choices = self.choices
        return METHODS.get((choices.get("advantage", ""), choices.get("length_reward", ""), choices.get("credit", "")))

    @property
    def last_step(self) -> int:
        steps = [row["step"] for row in self.metrics + self.evaluations]
        return int(max((step for step in steps if step is not None), default=0))


def read_run(path: Path) -> Run:
    """Read a run folder without its rollouts. Missing parts become notices.

    Raises InputError if `path` is not a run folder, and for malformed files (with the row).
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise InputError(f"{path}: found {found}, expected a run folder (a folder with {_listed(RUN_FILES)})")
    if not any((path / name).exists() for name in RUN_FILES):
        raise InputError(f"{path}: no run folder: looked for {_listed(RUN_FILES)} in it and found none of them")
    notices: list[str] = []
    config = _read_mapping(path / "config.yaml", notices, "the model and the method are not known")
    environment = _read_mapping(path / "environment.json", notices, "versions and seeds are not known")
    derived = environment.get("derived")
    config = {**(derived if isinstance(derived, dict) else {}), **config}
    heads = _read_mapping(path / "heads.json", None, "")
    metrics = _read_measured(path / "metrics.jsonl", notices, "there are no training curves")
    evaluations = _read_measured(path / "evaluations.jsonl", notices, "nothing was measured on held-out problems")
    train_files, eval_files = (_rollout_files(path / "rollouts", split) for split in ("train", "eval"))
    if not train_files:
        notices.append("No rollouts/train-*.jsonl.gz: there are no training responses to show.")
    if not eval_files:
        notices.append("No rollouts/eval-*.jsonl.gz: there are no held-out responses to show.")
    name = str(config.get("run_name") or path.resolve().name)
    warnings = _read_warnings(path / "warnings.jsonl", notices)  # warnings before the first step become notices
    return Run(path, name, config, environment, heads, metrics, evaluations, train_files, eval_files, notices, warnings)


def read_runs(paths: list[Path]) -> list[Run]:
    """Read several run folders; equal names are distinguished by their folders or else by a number."""
    runs = [read_run(path) for path in paths]
    names = distinct([(run.name, run.path) for run in runs])
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " or " + names[-1]


def _read_mapping(path: Path, notices: list[str] | None, consequence: str) -> dict[str, Any]:
    """Read a YAML or JSON object; a missing file gives {} and a notice (`notices` None: the file is optional)."""
    if not path.exists():
        if notices is not None:
            notices.append(f"No {path.name}: {consequence}.")
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{path}: found {type(value).__name__}, expected a mapping of names to values")
    return {str(key): item for key, item in value.items()}


def _read_measured(path: Path, notices: list[str], consequence: str) -> list[Measured]:
    if not path.exists():
        notices.append(f"No {path.name}: {consequence}.")
        return []
    rows, notice = read_unfinished_jsonl(path)
    if notice:
        notices.append(notice)
    if not rows and not notice:
        notices.append(f"{path.name} is empty: {consequence}.")
    sets = sorted({str(row["set"]) for _, row in rows if row.get("set") is not None})
    if len(sets) > 1:
        notices.append(f"{path.name}: evaluations of {', '.join(sets)}; those of {sets[0]} are shown.")
        rows = [(index, row) for index, row in rows if row.get("set") in (None, sets[0])]
    by_step: dict[int, Measured] = {}
    repeated: set[int] = set()
    for index, row in rows:
        where = f"{path}, row {index}"
        step = whole(row, "step", where)
        if step in by_step:
            repeated.add(step)
        # Other fields are not read and may hold anything.
        by_step[step] = {key: number(row, key, where) for key in row if key in KNOWN} | {"step": float(step)}
    if repeated:
        # A resumed run repeats the steps after its checkpoint: the later record belongs to the run that continued.
        notices.append(
            f"{path.name}: records of {plural(len(repeated), 'step')} ({min(repeated)} to {max(repeated)}) occur more "
            "than once (a resumed run); the later one counts."
        )
    return [by_step[step] for step in sorted(by_step)]


def _read_warnings(path: Path, notices: list[str]) -> list[str]:
    """Read the warnings of a run, with their steps and examples; none if the file is missing."""
    if not path.exists():
        return []
    rows, notice = read_unfinished_jsonl(path)
    if notice:
        notices.append(notice)
    warnings = []
    for index, row in rows:
        where = f"{path}, row {index}"
        message, step = row.get("message"), whole(row, "step", where)
        if not isinstance(message, str):
            raise InputError(f"{where}: field 'message' is {message!r}, expected a text")
        if not step:
            notices.append(message)
            continue
        warnings.append(f"Step {step}: {message}")
        if isinstance(row.get("example"), str):
            warnings[-1] += f"\n{row['example']}"
    return warnings


def _rollout_files(folder: Path, split: str) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [(match, path) for path in folder.iterdir() if (match := ROLLOUT_NAME.fullmatch(path.name))]
    found = [(match, path) for match, path in found if match[1] == split]
    first = min((match[3] or "" for match, _ in found), default="")  # one of several held-out sets, as _read_measured
    return [path for _, path in sorted((int(m[2]), path) for m, path in found if (m[3] or "") == first)]
