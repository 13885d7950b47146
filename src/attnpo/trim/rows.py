"""Read the rows to trim from a file of traces or from the samples of an evaluation, and name unusable rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpo.data.jsonl import check_field, read_jsonl, row_name
from attnpo.errors import InputError
from attnpo.evaluation.benchmarks import Benchmark, get_benchmark, user_message
from attnpo.evaluation.folder import QUESTIONS, read_evaluation
from attnpo.evaluation.load import find_file, load_questions
from attnpo.evaluation.samples import Question
from attnpo.steps.formats import THINK, ThinkingFormat
from attnpo.traces.labelled import NumberedRow
from attnpo.traces.read import read_traces

MATH = "math"
"""The kind of answers that trimming can verify."""


@dataclass(frozen=True)
class LeftOut:
    """A row without an example. `where`: file and row."""

    row: int
    id: Any
    where: str
    reason: str

    @classmethod
    def of(cls, source: str | Path, row: NumberedRow, reason: str) -> LeftOut:
        """Return a row left out; file and row are removed from the beginning of the reason."""
        number, fields = row
        where = row_name(source, number)
        return cls(number, fields.get("id"), where, reason.removeprefix(where).lstrip(":, "))


def read_source(source: str | Path, marks: ThinkingFormat = THINK) -> tuple[list[NumberedRow], list[LeftOut]]:
    """Return the rows with all fields of a trace, with their numbers from 1, and the others.

    source: a file of traces of any known tool (`attnpo.traces.read`), or a folder of `attnpo eval`, whose samples are
    traces of the evaluated model. marks: as for `read_traces`.
    Raises InputError for an unreadable file or folder. Samples of benchmarks whose answers are not mathematical are
    among the others.
    """
    return _read_samples(Path(source)) if Path(source).is_dir() else _read_file(source, marks)


def _read_file(source: str | Path, marks: ThinkingFormat) -> tuple[list[NumberedRow], list[LeftOut]]:
    rows: list[NumberedRow] = []
    bad: list[InputError] = []
    without = []
    for number, row in read_traces(source, marks=marks, on_bad_row=bad.append):
        where = row_name(source, number)
        try:
            for field in ("problem", "response"):
                check_field(row, field, where)
            if row.get("reference") is not None:
                check_field(row, "reference", where)
        except InputError as error:
            without.append(LeftOut.of(source, (number, row), str(error)))
        else:
            rows.append((number, row))
    without += [LeftOut.of(source, (_number_in(str(error), source), {}), str(error)) for error in bad]
    return rows, without


def _number_in(message: str, source: str | Path) -> int:
    """Return the row number at the beginning of a message of `read_traces`."""
    found = re.match(r"\d+", message.removeprefix(row_name(source, 0)[:-1]))
    assert found is not None
    return int(found[0])


def _read_samples(folder: Path) -> tuple[list[NumberedRow], list[LeftOut]]:
    evaluation = read_evaluation(folder)
    data_dir = evaluation.options.get("data_dir")
    rows, without = [], []
    for name, samples in evaluation.samples.items():
        kind = get_benchmark(name).kind
        questions = _questions(folder, name, None if data_dir is None else Path(data_dir)) if kind == MATH else []
        places = {question.id: place for place, question in enumerate(questions)}
        for sample in sorted(samples, key=lambda one: (places.get(one.id, len(places)), one.sample)):
            number = len(rows) + len(without) + 1
            row = {"id": f"{sample.id}/{sample.sample}", "response": sample.text, "reference": sample.reference}
            if kind != MATH:
                without.append(
                    LeftOut.of(folder, (number, row), f"benchmark {name} has answers of kind {kind}, expected {MATH}")
                )
                continue
            if sample.id not in places:
                without.append(LeftOut.of(folder, (number, row), "its question is no longer in the benchmark"))
                continue
            question = questions[places[sample.id]]
            if sample.truncated:
                without.append(LeftOut.of(folder, (number, row), "cut off"))
            else:
                level = {} if question.level is None else {"level": question.level}
                rows.append((number, {**row, "problem": user_message(question), **level}))
    return rows, without


def _questions(folder: Path, name: str, data_dir: Path | None) -> list[Question]:
    """Return a benchmark's questions; if its file was moved, those that the evaluation recorded, without levels."""
    benchmark, file = get_benchmark(name), folder / QUESTIONS
    if data_dir is None or not file.is_file() or not _is_gone(benchmark, data_dir):
        return load_questions(name, data_dir=data_dir).questions
    rows = [row for row in read_jsonl(file, ("benchmark", "id", "problem")) if row["benchmark"] == name]
    return [
        Question(
            benchmark=name,
            id=row["id"],
            problem=row["problem"],
            kind=benchmark.kind,
            reference=None,
            choices=tuple(row.get("choices") or ()),
        )
        for row in rows
    ]


def _is_gone(benchmark: Benchmark, data_dir: Path) -> bool:
    """Return whether the file that an evaluation read its questions from is not there any more."""
    if benchmark.make is not None:  # without a file its questions are made
        return not data_dir.is_dir()
    try:
        find_file(benchmark, data_dir)
    except InputError:
        return True
    return False
