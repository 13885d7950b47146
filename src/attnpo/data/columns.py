"""The columns of the problem and its reference answer in data sets of any origin.

A column is named by a dotted path: ``reward_model.ground_truth`` is the field ground_truth of the object in column
reward_model, ``0.value`` the field value of the first element of a list. The columns of GSM8K, MATH and NuminaMath,
open-r1, OpenThoughts, DeepScaleR, DeepMath, verl (DAPO, Skywork-OR1, Eurus), Tülu's RLVR, OpenMathReasoning and TRL's
own examples are found without being named.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnpo.data.jsonl import row_name, type_name
from attnpo.data.messages import EXPECTED, Message, is_conversation, read_messages, split_conversation
from attnpo.data.references import Reference, read_reference
from attnpo.errors import InputError

PROBLEM_COLUMNS = ("problem", "question", "prompt", "query", "messages", "conversations")
REFERENCE_COLUMNS = (
    "reference",
    "answer",
    "final_answer",
    "expected_answer",
    "ground_truth",
    "reward_model.ground_truth",
    "ground_truth_answer",
    "gt_answer",
    "solution",
    "ground_truth_solution",
    "extra_info.answer",
    "response",
    "messages",
    "conversations",
)
REPLIES = ("response", "messages", "conversations")
"""Columns that count as reference columns only if their texts mark the answer."""

SYSTEM_COLUMN = "system"
"""The column of the system message in data sets whose conversations lack it (OpenThoughts)."""

SAMPLE = 200
"""Number of rows that decide which known column is read: the first one that is readable in at least half of them."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """The problem in one row. `turns`: the messages before the question; `how`: where its cell has the reference."""

    turns: list[Message]
    text: str
    reference: str
    how: str
    is_conversation: bool


@dataclass(frozen=True)
class Columns:
    """The columns of problem and reference in one data set, as dotted paths. `source` names it in messages."""

    source: str
    problem: str
    reference: str

    def read(self, row: Row, number: int) -> Problem:
        """Read the problem in row `number`, from 1.

        Raises:
            InputError: a cell has another content; names row and column, what was found and what is expected.
        """
        turns, text, spoken = read_problem(row, self.problem, row_name(self.source, number))
        value = cell(row, self.reference)
        found = _read_answer(value)
        if found is None and isinstance(value, str):
            found = Reference(value)  # the verifier reports unreadable references, and such problems are left out
        if found is None:
            raise InputError(
                f"{row_name(self.source, number)}: column {self.reference!r} is {_shown(value)}, expected an answer: "
                f"a text, a number, or a list of these{_inside(value, 'reference', self.reference)}"
            )
        return Problem(turns, text, found.text, found.how, spoken)

    def sentence(self, problems: Sequence[Problem]) -> str:
        """The recognised columns, in one line."""
        about = ""
        if any(problem.is_conversation for problem in problems):
            roles = sorted({turn["role"] for problem in problems for turn in problem.turns})
            about = f" (messages{', with those of ' + ' and '.join(roles) + ' before' if roles else ''})"
        hows = Counter(problem.how for problem in problems)
        ways = [how if len(hows) == 1 else f"{how} {count / len(problems):.0%}" for how, count in hows.most_common()]
        return f"problem from '{self.problem}'{about}, reference from '{self.reference}' ({', '.join(ways)})"


def find_columns(rows: Sequence[Row], source: str, problem: str | None = None, reference: str | None = None) -> Columns:
    """The columns of a data set; `problem` and `reference` name columns that cannot be found automatically.

    Raises:
        InputError: there is no such column; names the columns found and the option to use.
    """
    return Columns(
        source,
        _find(rows, problem, PROBLEM_COLUMNS, "problem", source, lambda name, value: _is_problem(value)),
        _find(rows, reference, REFERENCE_COLUMNS, "reference", source, _is_answer),
    )


def find_problem_column(rows: Sequence[Row], source: str, asked: str | None, option: str) -> str:
    """The column of the problem, for data without answers; see `find_columns`. `option`: its option in messages."""
    return _find(rows, asked, PROBLEM_COLUMNS, "problem", source, lambda name, value: _is_problem(value), option)


def _find(
    rows: Sequence[Row],
    asked: str | None,
    known: Sequence[str],
    what: str,
    source: str,
    fits: Callable[[str, Any], bool],
    option: str | None = None,
) -> str:
    """The requested column, else the first known one whose values fit in at least half of the first rows, else the
    first known one present (columns of replies aside). Raises InputError if there is none."""
    sample = rows[:SAMPLE]
    present = []
    for name in [asked] if asked else known:
        name = _spelled(sample, name)
        cells = [cell(row, name) for row in sample if has_cell(row, name)]
        if not cells:
            continue
        if asked or 2 * sum(fits(name, value) for value in cells) >= len(sample):
            return name
        present += [] if what == "reference" and name in REPLIES else [name]
    if present:
        return present[0]
    expected = " or ".join(repr(name) for name in ([asked] if asked else known))
    raise InputError(
        f"data set {source!r}: no {what} column; expected {expected}, found {_columns(rows[0])}. Name it with "
        f"{option or f'--{what}_column'} (a.b for the field b of a column a)"
    )


def read_problem(row: Row, column: str, where: str) -> tuple[list[Message], str, bool]:
    """The messages before the question, its text, and whether the cell contains a conversation.

    Raises:
        InputError: neither a text nor messages; `where` names the row.
    """
    value = cell(row, column)
    if isinstance(value, str) and value.strip() and not is_conversation(_parsed(value)):
        return [], value, False
    value = _parsed(value)
    if not is_conversation(value):
        raise InputError(
            f"{where}: column {column!r} is {_shown(value)}, expected a text or {EXPECTED}"
            f"{_inside(value, 'problem', column)}"
        )
    named = f"{where}, column {column!r}"
    turns, text, _ = split_conversation(read_messages(value, named), named)
    system = row.get(SYSTEM_COLUMN)
    if isinstance(system, str) and system.strip() and not any(turn["role"] == "system" for turn in turns):
        turns = [{"role": "system", "content": system}, *turns]
    return turns, text, True


def cell(row: Row, path: str) -> Any:
    """The value at a dotted path in a row; None if there is none.

    >>> cell({"reward_model": {"ground_truth": "21"}}, "reward_model.ground_truth"), cell({"a.b": 1}, "a.b")
    ('21', 1)
    """
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        value = _parsed(value)
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def has_cell(row: Row, path: str) -> bool:
    """Whether a row has such a column; its value may be null."""
    if path in row:
        return True
    parent, _, name = path.rpartition(".")
    holder = _parsed(cell(row, parent)) if parent else None
    return (isinstance(holder, Mapping) and name in holder) or (
        isinstance(holder, list) and name.isdecimal() and int(name) < len(holder)
    )


def _spelled(rows: Sequence[Row], name: str) -> str:
    """A column's name in the spelling of the data set: Problem for problem."""
    if any(has_cell(row, name) for row in rows):
        return name
    return next((str(key) for row in rows[:1] for key in row if str(key).lower() == name.lower()), name)


def _is_problem(value: Any) -> bool:
    return (isinstance(value, str) and bool(value.strip())) or is_conversation(value)


def _is_answer(name: str, value: Any) -> bool:
    found = _read_answer(value)
    return found is not None and (found.is_marked or name not in REPLIES)


def _read_answer(value: Any) -> Reference | None:
    """The answer in a cell; in a conversation, the answer that its reply marks."""
    value = _parsed(value)
    if not is_conversation(value):
        return read_reference(value)
    messages = read_messages(value, "a conversation")
    if messages[-1]["role"] != "assistant":
        return None
    found = read_reference(messages[-1]["content"])
    return found if found is not None and found.is_marked else None


def _parsed(value: Any) -> Any:
    """The value of a cell, decoded if it is an object or a conversation stored as a JSON text."""
    if not isinstance(value, str) or not value.startswith(("{", "[{")):
        return value
    try:
        parsed = json.loads(value)
    except ValueError:
        return value
    return parsed if isinstance(parsed, dict) or is_conversation(parsed) else value


def _columns(row: Row) -> str:
    return ", ".join(f"{name} ({', '.join(map(str, value))})" if isinstance(value, Mapping) else str(name)
                     for name, value in row.items())  # fmt: skip


def _shown(value: Any) -> str:
    if isinstance(value, Mapping | list) and value:
        return type_name(value)
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:79] + "…"


def _inside(value: Any, what: str, column: str) -> str:
    """A hint that names the fields of an object; empty for other values."""
    if not isinstance(value, Mapping) or not value:
        return ""
    fields = ", ".join(map(str, value))
    return f". It has the fields {fields}: name one with --{what}_column {column}.{next(iter(value))}"
