"""Read labelled traces from a file, check them, and select and tokenise the usable ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from attnpo.data.jsonl import row_name
from attnpo.errors import InputError
from attnpo.steps.formats import BY_MARKS, Form, marks_of
from attnpo.steps.response import thinking_of
from attnpo.traces.origins import AUTO
from attnpo.traces.prepared import PreparedTrace, prepare_trace
from attnpo.traces.read import NumberedRow, read_traces
from attnpo.traces.steps import check_tiling, steps_of

ONE_KIND = "steps of one kind only"
NO_LABELS = "no labels"

Labels = list[bool | None]


@dataclass(frozen=True)
class LabelledTraces:
    """The usable traces of a file, in order, with their rows and the label of each step (None: not counted).

    counts: how many rows are "used" or left out, by reason.
    """

    source: str
    rows: list[dict[str, Any]]
    traces: list[PreparedTrace]
    labels: list[Labels]
    counts: Counter[str]

    @property
    def problems(self) -> tuple[str, ...]:
        """The problem of each trace: several responses to one problem are not independent."""
        return tuple(row["problem"] for row in self.rows)


def read_labelled(
    source: str | Path, origin: str = AUTO, form: Form = BY_MARKS
) -> tuple[list[NumberedRow], list[Labels]]:
    """Return the rows of a file and their labels, checked without a model. origin: see `read_traces`.

    Raises InputError for bad files and rows, labels that are not true, false or null, and labelled steps that do not
    cover the thinking text.
    """
    rows = list(read_traces(source, ("problem", "response", "steps"), origin, marks=marks_of(form)))
    labels = [step_labels(row["steps"], row_name(source, number)) for number, row in rows]
    for (number, row), row_labels in zip(rows, labels, strict=True):
        if any(label is not None for label in row_labels):
            where = row_name(source, number)
            check_tiling(steps_of(row, where=where, form=form), thinking_of(row["response"], form), where)
    return rows, labels


def prepare_labelled(
    source: str | Path,
    rows: Sequence[NumberedRow],
    labels: Sequence[Labels],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None,
    max_traces: int | None = None,
    form: Form = BY_MARKS,
) -> LabelledTraces:
    """Return the first `max_traces` usable rows as tokens of a model. Raises InputError if there are none."""
    traces = [
        prepare_trace(row, tokenizer, max_length=max_length, where=row_name(source, number), form=form)
        for number, row in rows
    ]
    reasons = [_why_not(trace, row) for trace, row in zip(traces, labels, strict=True)]
    used = [i for i, reason in enumerate(reasons) if reason is None][:max_traces]
    if not used:
        found = ", ".join(f"{count} with {reason}" for reason, count in Counter(reasons).items())
        raise InputError(f"{source}: no row can be used (found {found}), expected steps of both kinds in a response")
    counts = Counter(used=len(used)) + Counter(reason for reason in reasons if reason is not None)
    return LabelledTraces(
        str(source), [rows[i][1] for i in used], [traces[i] for i in used], [list(labels[i]) for i in used], counts
    )


def usable(trace: PreparedTrace, labels: Sequence[bool | None]) -> bool:
    """Whether a trace can be scored and has both kinds of step."""
    return trace.skipped is None and has_both_kinds(torch.tensor([bool(x) for x in labels if x is not None]))


def has_both_kinds(essential: Tensor) -> bool:
    """Whether at least one step is essential and one redundant."""
    return bool(essential.any()) and not bool(torch.all(essential))


def step_labels(steps: Sequence[Any], where: str) -> Labels:
    """Return the labels of a row, None for a step without one. Raises InputError unless true, false or null."""
    labels: Labels = []
    for index, step in enumerate(steps):
        label = step.get("essential") if isinstance(step, dict) else None
        if label is not None and not isinstance(label, bool):
            raise InputError(f"{where}: steps[{index}], field 'essential' is {label!r}, expected true, false or null")
        labels.append(label)
    return labels


def longest(config: Any, given: int | None) -> int | None:
    """Return the most tokens of a row: the given number, or what the model's configuration allows."""
    return given if given is not None else getattr(config, "max_position_embeddings", None)


def _why_not(trace: PreparedTrace, labels: Labels) -> str | None:
    """Return why a trace cannot be used; None if it can."""
    if usable(trace, labels):
        return None
    given = [label for label in labels if label is not None]
    if not given:
        return NO_LABELS
    return ONE_KIND if not has_both_kinds(torch.tensor(given)) else trace.skipped
