"""Which traces of a file are judged, and what the question about each of them is."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attnpo.data.traces import check_field, row_name, type_name
from attnpo.errors import InputError
from attnpo.labels.judge_prompt import judge_prompt
from attnpo.steps.response import answer_of, thinking_of
from attnpo.steps.trace_steps import steps_of

_ACCURACY_FIELDS = ("group_accuracy", "correct")


@dataclass(frozen=True)
class JudgedTrace:
    """One row. `skipped`: why it is not judged (then it has no prompt)."""

    row: dict[str, Any]
    steps: list[dict[str, Any]]
    prompt: str
    skipped: str | None = None


def prepare_traces(
    rows: Sequence[tuple[int, dict[str, Any]]],
    source: str | os.PathLike[str],
    *,
    lexicon: str = "paper",
    max_traces: int | None = None,
    min_accuracy: float | None = None,
) -> list[JudgedTrace]:
    """Steps and prompts of numbered rows, in order. Existing steps keep their offsets, other traces are segmented.

    min_accuracy: only traces of problems that are solved at least that often, after "group_accuracy" of the row or,
    without that, the share of rows with the same problem that are "correct". max_traces: the first that remain.

    Raises:
        InputError: a malformed field; names file, row and field. No row has an accuracy, and one is asked for.
    """
    accuracies = [None] * len(rows) if min_accuracy is None else _accuracies(rows, source)
    traces, judged = [], 0
    for (number, row), accuracy in zip(rows, accuracies, strict=True):
        where = row_name(source, number)
        steps = steps_of(row, lexicon, where=where)
        reference = row.get("reference")
        if reference is not None:
            check_field(row, "reference", where)
        answer, skipped = answer_of(row["response"]), None
        if answer is None:
            skipped = "no closing tag"
        elif len(steps) < 2:
            skipped = "fewer than two steps"
        elif min_accuracy is not None and accuracy is None:
            skipped = "no accuracy known"
        elif min_accuracy is not None and accuracy is not None and accuracy < min_accuracy:
            skipped = f"accuracy below {min_accuracy:g}"
        elif max_traces is not None and judged >= max_traces:
            skipped = f"beyond the first {max_traces}"
        prompt = ""
        if skipped is None:
            assert answer is not None
            judged += 1
            thinking = thinking_of(row["response"])
            texts = [thinking[step["start"] : step["end"]].strip() for step in steps]
            prompt = judge_prompt(row["problem"], reference, answer.strip(), texts)
        traces.append(JudgedTrace(row, steps, prompt, skipped))
    return traces


def _accuracies(rows: Sequence[tuple[int, dict[str, Any]]], source: str | os.PathLike[str]) -> list[float | None]:
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for number, row in rows:
        where = row_name(source, number)
        accuracy, correct = row.get("group_accuracy"), row.get("correct")
        if accuracy is not None and (type(accuracy) not in (int, float) or not 0 <= accuracy <= 1):
            raise InputError(f"{where}: field 'group_accuracy' is {accuracy!r}, expected a share from 0 to 1")
        if correct is not None and type(correct) is not bool:
            raise InputError(f"{where}: field 'correct' is {type_name(correct)}, expected true/false")
        if correct is not None:
            verdicts[row["problem"]].append(correct)
    found: list[float | None] = []
    for _, row in rows:
        shares = verdicts.get(row["problem"])
        share = sum(shares) / len(shares) if shares else None
        found.append(share if row.get("group_accuracy") is None else row["group_accuracy"])
    if all(accuracy is None for accuracy in found):
        raise InputError(f"--min-accuracy: no row of {source} has a field {' or '.join(map(repr, _ACCURACY_FIELDS))}")
    return found
