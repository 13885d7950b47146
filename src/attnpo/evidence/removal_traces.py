"""The traces of a file that the removal test can use, and how long an answer may get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from attnpo.data.traces import check_field, read_numbered_jsonl, row_name
from attnpo.errors import InputError
from attnpo.probe.labelled import Labels, NumberedRow, step_labels
from attnpo.probe.prepare import PreparedTrace, prepare_trace
from attnpo.steps.lexicon import load_lexicon
from attnpo.steps.response import thinking_of
from attnpo.steps.trace_steps import check_tiling, steps_of

LEAST_ROOM = 64
"""Tokens that an answer may have at least, however short the trace's own is."""


@dataclass(frozen=True)
class Options:
    """Options of the test; InputError names one that is out of range.

    max_traces: use the first ones; None: all. max_length: tokens of a trace; None: what the model allows.
    max_answer: tokens of an answer; None: twice those of the trace's own answer, at least `LEAST_ROOM`. Much more lets
    a model think again behind the closing tag, and the test then says nothing about the steps.
    random_heads: how many sets of random heads remove the highest- and the lowest-scored steps too.
    """

    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    random_seeds: int = 3
    max_traces: int | None = None
    batch_size: int = 32
    max_length: int | None = None
    max_answer: int | None = None
    lexicon: str = "paper"
    random_heads: int = 0

    def __post_init__(self) -> None:
        if not self.shares or len(set(self.shares)) < len(self.shares) or not all(0 < one < 1 for one in self.shares):
            found = ",".join(map(str, self.shares))
            raise InputError(f"--shares: found {found!r}, expected different shares above 0 and below 1")
        for name in ("random_seeds", "max_traces", "batch_size", "max_length", "max_answer"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}, expected at least 1")
        if self.random_heads < 0:
            raise InputError(f"--random-heads is {self.random_heads}, expected at least 0")
        load_lexicon(self.lexicon)

    def room(self, trace: PreparedTrace) -> int:
        """How many tokens a new answer of a trace may have."""
        return self.max_answer or max(LEAST_ROOM, 2 * trace.answer_tokens)


@dataclass(frozen=True)
class UsedTraces:
    """The traces used, in order, with their rows and labels, how many tokens an answer of each may have, and how many
    rows are "used" or, under the reason, left out."""

    rows: list[NumberedRow]
    traces: list[PreparedTrace]
    labels: list[Labels]
    rooms: list[int]
    counts: Counter[str]

    @property
    def problems(self) -> list[str]:
        """The problem that each trace answers."""
        return [row["problem"] for _, row in self.rows]


def read_rows(source: str | Path, lexicon: str = "paper") -> list[NumberedRow]:
    """The rows of a file, checked as far as that needs no model.

    Raises InputError for bad files and rows, references and labels of another type, and steps that do not cover the
    thinking text.
    """
    rows = []
    for number, row in read_numbered_jsonl(source, required=("problem", "response")):
        where = row_name(source, number)
        if row.get("reference") is not None:
            check_field(row, "reference", where)
        steps = steps_of(row, lexicon, where=where)
        step_labels(steps, where)
        check_tiling(steps, thinking_of(row["response"]), where)
        rows.append((number, row))
    if not any(row.get("reference") for _, row in rows):
        raise InputError(f"{source}: no row has a reference answer (field 'reference'), expected one to verify with")
    return rows


def choose_traces(
    source: str | Path,
    rows: Sequence[NumberedRow],
    tokenizer: PreTrainedTokenizerBase,
    *,
    unreadable: Collection[str],
    longest: int | None,
    options: Options,
) -> UsedTraces:
    """The first `max_traces` usable rows as tokens of a model. Raises InputError when there are none.

    unreadable: references that the verifier cannot read. longest: tokens of a trace, its new answer included.
    """
    traces = [
        prepare_trace(row, tokenizer, lexicon=options.lexicon, max_length=longest, where=row_name(source, number))
        for number, row in rows
    ]
    reasons = [
        _why_not(row, trace, unreadable) or _no_room(trace, longest, options)
        for (_, row), trace in zip(rows, traces, strict=True)
    ]
    counts = Counter(reason for reason in reasons if reason is not None)
    used = [place for place, reason in enumerate(reasons) if reason is None][: options.max_traces]
    if not used:
        found = ", ".join(f"{count} with {reason}" for reason, count in counts.items())
        raise InputError(f"{source}: no row can be used (found {found}), expected a reference, an answer and two steps")
    chosen = [traces[place] for place in used]
    labels = [step_labels(trace.steps, trace.where) for trace in chosen]
    rooms = [options.room(trace) for trace in chosen]
    return UsedTraces([rows[place] for place in used], chosen, labels, rooms, Counter(used=len(used)) + counts)


def _why_not(row: dict[str, Any], trace: PreparedTrace, unreadable: Collection[str]) -> str | None:
    """Why a trace cannot be used; None if it can."""
    if not row.get("reference"):
        return "no reference answer"
    if row["reference"] in unreadable:
        return "a reference answer that cannot be read"
    if trace.skipped is None and sum(end > start for start, end in trace.spans) < 2:
        return "fewer than two steps"
    return trace.skipped


def _no_room(trace: PreparedTrace, longest: int | None, options: Options) -> str | None:
    """Why a new answer behind the whole thinking text could get too long for the model; None if it cannot."""
    if longest is None or len(trace.ids) - trace.answer_tokens + options.room(trace) <= longest:
        return None
    return f"no room for a new answer within {longest} tokens"
