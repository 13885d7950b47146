"""Traces with steps, as `attnpo score` and `attnpo segment` write them: figures of a file, and its responses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from attnpo.data.jsonl import number, read_numbered_jsonl, row_name
from attnpo.errors import InputError
from attnpo.report.elements import Table, View, count, percent, plural, render, small
from attnpo.report.packing import Shelf, evenly, fitting
from attnpo.report.rollouts import Response, response_of
from attnpo.steps.formats import BY_MARKS
from attnpo.steps.response import split_response

CARRIED = 200  # traces of a file


@dataclass(frozen=True)
class TracedFile:
    """A file of traces. `skipped`: how many could not be scored, by the reason that stands in them."""

    name: str
    traces: list[Response]
    skipped: dict[str, int]


def read_traced(path: Path) -> TracedFile:
    """Raises InputError, with row and field, for rows that are not what `attnpo score` or `attnpo segment` writes."""
    traces: list[Response] = []
    skipped: dict[str, int] = {}
    for index, row in read_numbered_jsonl(path, required=("response", "steps")):
        where = row_name(path, index)
        traces.append(response_of(_as_rollout(row, index, where), where))
        if row.get("skipped") is not None:
            skipped[str(row["skipped"])] = skipped.get(str(row["skipped"]), 0) + 1
    return TracedFile(path.name, traces, skipped)


def _as_rollout(row: dict[str, Any], index: int, where: str) -> dict[str, Any]:
    """A trace as a row of rollouts. Of its tokens only those of the final answer and of all are recorded."""
    text = row["response"]
    parts = split_response(text, BY_MARKS)
    answer, total = number(row, "answer_tokens", where), number(row, "total_tokens", where)
    if answer is not None and total is None:
        raise InputError(f"{where}: 'answer_tokens' without 'total_tokens', expected both, as `attnpo score` has them")
    return {
        **{"id": row.get("id", f"row {index}"), "index": index, "problem": row.get("problem"), "text": text},
        **{"reference": row.get("reference"), "verdict": row.get("verdict"), "steps": row["steps"]},
        **{"thinking_start": parts.thinking_start, "thinking_end": parts.thinking_end},
        **{"answer_start": parts.answer_start, "answer_end": parts.answer_end, "baseline": row.get("baseline")},
        "tokens": {"answer": answer, "prompt": None if total is None else 0, "completion": total},
    }


def traced(files: list[TracedFile]) -> View:
    """The figures of every file; the traces themselves are among the responses."""
    return View("traces", "Traces", render("traces.html", files=[_figures(file) for file in files]))


def _figures(file: TracedFile) -> dict[str, Any]:
    steps = [(trace, step) for trace in file.traces for step in trace.steps]
    scored = [(trace, step) for trace, step in steps if step.score is not None]
    rows = [
        ("traces", count(len(file.traces))),
        ("with scores", count(sum(trace.scored for trace in file.traces))),
        *((f"not scored: {reason}", count(many)) for reason, many in file.skipped.items()),
        ("steps of a trace, mean", small(len(steps) / len(file.traces))),
    ]
    below = [step.score < trace.baseline for trace, step in scored if step.score is not None and trace.baseline]
    if below:
        rows.append(("steps below the baseline: redundant by the method", percent(fmean(below))))
    kinds = _kinds([(step.kind, step.score, trace.even_share) for trace, step in steps])
    return {"name": file.name, "numbers": Table(("", "result"), rows), "kinds": kinds}


def _kinds(steps: list[tuple[str, float | None, float | None]]) -> Table:
    """Per kind of step: how many, and how much the answer looks at them, in multiples of an even spread."""
    rows = []
    for kind in sorted({kind for kind, _, _ in steps}):
        of = [(score, even) for name, score, even in steps if name == kind]
        multiples = [score / even for score, even in of if score is not None and even]
        mean = f"{small(fmean(multiples), digits=2)}×" if multiples else "–"
        rows.append((kind, count(len(of)), percent(len(of) / len(steps)), mean))
    columns = ("Kind of step", "Steps", "Share", "Attention of the answer")
    return Table(columns, rows, "Attention: the mean multiple of an even spread.")


def shelve(files: list[TracedFile], budget: int) -> list[Shelf]:
    """One shelf per file: up to CARRIED of its traces, at even distances."""
    shelves = []
    for file in files:
        picked = [file.traces[index] for index in evenly(len(file.traces), CARRIED)]
        chunk = fitting("traces-0", "traces", 0, picked, len(file.traces), budget // len(files), file.name)
        shown = 0 if chunk is None else len(chunk.catalogue)
        said = f"{shown:,} of {plural(len(file.traces), 'trace')}"
        shelves.append(Shelf(file.name, [] if chunk is None else [chunk], [], [said], [], "traces"))
    return shelves
