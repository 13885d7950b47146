"""The definition of a benchmark: the source of its problems, how a row becomes a question, and the prompt.

The benchmarks in `BENCHMARKS` of every file of this folder are registered. A new benchmark is one such file, in this
folder or elsewhere (`--benchmarks MODULE:NAME`); docs/writing-a-benchmark.md has an example.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from attnpo.data.jsonl import type_name
from attnpo.errors import InputError
from attnpo.evaluation.samples import AnswerKind, Question

CONTEST_SAMPLES, SAMPLES = 16, 4
"""Responses per problem: contests have 30 or 40 problems, too few for four responses each."""

Row = Mapping[str, Any]

ID = ("id", "unique_id", "question_id", "Record ID", "ID")
PROBLEM = ("problem", "question", "question_content", "Question", "Problem")
ANSWER = ("answer", "final_answer", "reference", "Correct Answer", "Answer")
"""Names of the same column in different sources; the first one that a row has is read."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: for ``--benchmarks``, result files and `Question`.
        title: the name used in papers.
        kind: how its answers are checked.
        read: a row and its name in messages → fields of the question: problem, reference, choices, tests, extra.
        message: returns the user message for a question, in plain text. System message and thinking tag come from the
            chat template.
        level: the column that groups the questions.
        rows: problems in the Hub's split.
        licence: of the texts, in short; details are in docs/benchmarks.md.
        files: names, without ending, looked for in a data folder; the first one found is used.
        hub_id, hub_config, hub_split, hub_revision: the data set on the Hub; None if no download is needed.
        hub_file: a file of the data set to read instead of a split, for a data set with a loading script.
        make: returns the rows of a benchmark that needs no file.
        gated: the Hub allows downloads only to accounts that have accepted its terms.
        samples: responses per problem.
        also: other files of a data folder in this benchmark's format: never evaluated by default, but checked.
    """

    name: str
    title: str
    kind: AnswerKind
    read: Callable[[Row, str], dict[str, Any]]
    message: Callable[[Question], str]
    rows: int
    licence: str
    files: tuple[str, ...]
    hub_id: str | None = None
    hub_config: str | None = None
    hub_split: str | None = None
    hub_revision: str | None = None
    hub_file: str | None = None
    make: Callable[[], Iterable[Row]] | None = None
    gated: bool = False
    samples: int = SAMPLES
    level: str | None = None
    also: tuple[str, ...] = ()

    @property
    def url(self) -> str | None:
        """Page of the data set, on which the terms of a gated one are accepted."""
        return None if self.hub_id is None else f"https://huggingface.co/datasets/{self.hub_id}"

    def question(self, row: Row, number: int, where: str) -> Question:
        """Convert row `number` (from 1) to a question; `where` names the row in messages.

        Raises:
            InputError: a field is missing or of the wrong type; names row and field.
        """
        fields = self.read(row, where)
        level = None if self.level is None else row.get(self.level)
        identity = next((row[name] for name in ID if row.get(name) not in (None, "")), number - 1)
        return Question(
            benchmark=self.name,
            id=str(identity),
            kind=self.kind,
            level=None if level is None else str(level),
            **fields,
        )


def field_of(row: Row, names: tuple[str, ...], where: str) -> Any:
    """The value of the first of these fields that a row has. Raises InputError if it has none."""
    for name in names:
        if name in row:
            return row[name]
    raise InputError(f"{where}: field {names[0]!r} is missing (found {', '.join(map(str, row)) or 'no fields'})")


def text_of(row: Row, names: tuple[str, ...], where: str) -> str:
    """The text of the first of these fields. Raises InputError if it is empty or not a text."""
    value = field_of(row, names, where)
    if not isinstance(value, str) or not value.strip():
        found = "empty" if isinstance(value, str) else type_name(value)
        raise InputError(f"{where}: field {names[0]!r} is {found}, expected text")
    return value


def answer_of(row: Row, where: str) -> str:
    """The gold answer as text; a number is converted as in JSON."""
    value = field_of(row, ANSWER, where)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = json.dumps(value)
    return text_of({"answer": value}, ("answer",), where).strip()
