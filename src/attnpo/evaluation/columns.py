"""Rows as they are published → :class:`Question`.

One reader serves the Hub's columns and the rows of a data folder: sources differ in the names of a few columns, and
each oddity of a source stands in a function of its own below.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from attnpo.data.jsonl import type_name
from attnpo.errors import InputError
from attnpo.evaluation.benchmarks import Benchmark
from attnpo.evaluation.code_tests import read_tests
from attnpo.evaluation.grading.code_checks import read_test
from attnpo.evaluation.records import Question

Row = Mapping[str, Any]

ID = ("id", "unique_id", "question_id", "Record ID", "ID")
PROBLEM = ("problem", "question", "question_content", "Question", "Problem")
ANSWER = ("answer", "final_answer", "reference", "Correct Answer", "Answer")
LEVEL = {
    "math500": ("level",),
    "olympiadbench": ("subfield",),
    "livecodebench": ("difficulty",),
    "gpqa_diamond": ("High-level domain",),
    "mmlu": ("subject",),
    "minerva": ("type",),
    "task": ("difficulty",),
}
"""Columns that group the questions of a benchmark."""


def to_question(benchmark: Benchmark, row: Row, number: int, where: str) -> Question:
    """The question in row `number` (from 1); `where` names the row in messages.

    Raises:
        InputError: a field is missing or of the wrong type; names row and field.
    """
    fields = _READERS.get(benchmark.name, _math)(row, where)
    level = next((row[name] for name in LEVEL.get(benchmark.name, ()) if row.get(name) is not None), None)
    identity = next((row[name] for name in ID if row.get(name) not in (None, "")), number - 1)
    return Question(
        benchmark=benchmark.name,
        id=str(identity),
        kind=benchmark.kind,
        level=None if level is None else str(level),
        **fields,
    )


def _math(row: Row, where: str) -> dict[str, Any]:
    return {"problem": _text(row, PROBLEM, where), "reference": _answer(row, where)}


def _gsm8k(row: Row, where: str) -> dict[str, Any]:
    """The Hub's answer is the worked solution; the number stands behind `####`."""
    fields = _math(row, where)
    return {**fields, "reference": fields["reference"].rpartition("####")[2].strip().replace(",", "")}


def _contest(row: Row, where: str) -> dict[str, Any]:
    """Answers of AMC and AIME are whole numbers, which some sources write as 27.0 or 033."""
    fields = _math(row, where)
    whole = re.fullmatch(r"0*(\d+)(?:\.0+)?", fields["reference"])
    return {**fields, "reference": whole[1]} if whole else fields


def _olympiadbench(row: Row, where: str) -> dict[str, Any]:
    """Some problems lean on a context; the Hub's answers are lists of one text that may hold several answers."""
    answer = _field(row, ANSWER, where)
    if isinstance(answer, list) and len(answer) == 1:
        row = {**row, "answer": answer[0]}
    problem, context = _text(row, PROBLEM, where), row.get("context")
    reference = _answer(row, where).replace("$", "").strip().rstrip(".")
    # "f(x)=a x+b, where b is an arbitrary integer …": the formula is the answer, the sentence behind it is not read.
    reference = re.split(r",?\s*\bwhere\b", reference)[0]
    if row.get("answer_type") == "Interval":
        reference = re.sub(r"^[a-z](?=[\[(])", "", reference)  # t(0,4] for the values of t
    return {
        "problem": f"{context}\n\n{problem}" if isinstance(context, str) and context.strip() else problem,
        "reference": reference,
        "extra": {
            "answer_type": row.get("answer_type"),
            "unit": row.get("unit") or None,
            "tolerance": _tolerance(row, where),
        },
    }


def _tolerance(row: Row, where: str) -> float | None:
    value = row.get("error") or None
    try:
        return None if value is None else float(value)
    except ValueError as error:
        raise InputError(f"{where}: field 'error' is {value!r}, expected a number") from error


def _minerva(row: Row, where: str) -> dict[str, Any]:
    """Quantities computed from data, as LaTeX; one is a line of NumPy, one a formula cut in two."""
    fields = _math(row, where)
    reference = fields["reference"].replace("$", "").replace("np.", "\\").strip()
    return {**fields, "reference": reference, "extra": {"measured": True}}


def _mmlu(row: Row, where: str) -> dict[str, Any]:
    """The answer is an index on the Hub, a letter in most files."""
    choices, answer = row.get("choices"), _field(row, ANSWER, where)
    if not isinstance(choices, list) or len(choices) < 2:
        raise InputError(f"{where}: field 'choices' is {type_name(choices)}, expected a list of at least two")
    letters = [chr(ord("A") + index) for index in range(len(choices))]
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        answer = letters[answer]
    if answer not in letters:
        raise InputError(f"{where}: field 'answer' is {answer!r}, expected one of {', '.join(letters)}")
    return {
        "problem": _text(row, PROBLEM, where),
        "reference": answer,
        "choices": tuple(str(choice) for choice in choices),
    }


def _gpqa(row: Row, where: str) -> dict[str, Any]:
    """The right answer comes first on the Hub: the choices are shuffled, the same way every time."""
    if "choices" in row:
        return _mmlu(row, where)
    problem = _text(row, PROBLEM, where)
    right = _text(row, ("Correct Answer",), where).strip()
    wrong = [_text(row, (f"Incorrect Answer {number}",), where).strip() for number in (1, 2, 3)]
    order = [right, *wrong]
    random.Random(f"gpqa/{problem}").shuffle(order)
    return {"problem": problem, "reference": "ABCD"[order.index(right)], "choices": tuple(order)}


def _livecodebench(row: Row, where: str) -> dict[str, Any]:
    tests = tuple(read_tests(row, where))
    for number, test in enumerate(tests, start=1):  # a malformed one is found here, not after hours of sampling
        read_test(test, f"{where}, test {number}")
    return {
        "problem": _text(row, PROBLEM, where),
        "reference": None,
        "tests": tests,
        "extra": {"starter_code": row.get("starter_code") or "", "date": row.get("contest_date")},
    }


_READERS: dict[str, Callable[[Row, str], dict[str, Any]]] = {
    "gsm8k": _gsm8k,
    "amc23": _contest,
    "aime24": _contest,
    "aime25": _contest,
    "olympiadbench": _olympiadbench,
    "minerva": _minerva,
    "mmlu": _mmlu,
    "gpqa_diamond": _gpqa,
    "livecodebench": _livecodebench,
}


def _field(row: Row, names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if name in row:
            return row[name]
    raise InputError(f"{where}: field {names[0]!r} is missing (found {', '.join(map(str, row)) or 'no fields'})")


def _text(row: Row, names: tuple[str, ...], where: str) -> str:
    value = _field(row, names, where)
    if not isinstance(value, str) or not value.strip():
        found = "empty" if isinstance(value, str) else type_name(value)
        raise InputError(f"{where}: field {names[0]!r} is {found}, expected text")
    return value


def _answer(row: Row, where: str) -> str:
    value = _field(row, ANSWER, where)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = json.dumps(value)
    return _text({"answer": value}, ("answer",), where).strip()
