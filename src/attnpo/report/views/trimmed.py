"""The Trimmed view: files of `attnpo trim`, with removed steps struck through and the reason for stopping."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from attnpo.data.jsonl import number, read_numbered_jsonl, row_name, whole
from attnpo.errors import InputError
from attnpo.report.elements import Table, View, change, count, percent, plural, render
from attnpo.report.selection import evenly
from attnpo.steps.formats import format_of_trim
from attnpo.steps.response import answer_of, thinking_of

SHOWN = 60
"""Traces of a file, evenly spaced."""


@dataclass(frozen=True)
class Step:
    """A step of the long response; `score`: the value that it was ranked by, or None."""

    text: str
    kind: str
    score: float | None
    removed: bool
    kept_for_value: bool


@dataclass(frozen=True)
class TrimmedTrace:
    """One row. long, short: thinking tokens before and after; answer: sampled from the trimmed thinking, or None."""

    id: str
    problem: str
    reason: str
    final: str
    answer: str | None
    drop: float | None
    long: int
    short: int
    steps: tuple[Step, ...]

    @property
    def heading(self) -> str:
        return f"{self.id}: {self.long:,} → {self.short:,} tokens, {plural(len(self.steps), 'step')}. {self.reason}"


@dataclass(frozen=True)
class TrimmedFile:
    """A file of `attnpo trim`."""

    name: str
    ranking: str
    verify: str
    traces: list[TrimmedTrace]


def is_trimmed(path: Path) -> bool:
    """Whether the first row is of `attnpo trim`, or at least not a trace with steps. Raises InputError for a file that
    is not JSON Lines."""
    row = next(read_numbered_jsonl(path))[1]
    return "trim" in row or "steps" not in row


def read_trimmed(path: Path) -> TrimmedFile:
    """Read a file of `attnpo trim`. Raises InputError, with row and field, for any other rows."""
    traces, trim = [], {}
    for index, row in read_numbered_jsonl(path, required=("problem", "response")):
        where = row_name(path, index)
        trim = row.get("trim")
        if not isinstance(trim, dict):
            raise InputError(
                f"{where}: field 'trim' is missing, expected a file of `attnpo trim` or `attnpo score` (or a folder)"
            )
        traces.append(_trace(row, trim, index, where))
    return TrimmedFile(path.name, str(trim.get("ranking")), str(trim.get("verify")), traces)


def _trace(row: dict[str, Any], trim: dict[str, Any], index: int, where: str) -> TrimmedTrace:
    response, steps, tokens = trim.get("response"), trim.get("steps"), trim.get("tokens")
    if not isinstance(response, str) or not isinstance(steps, list) or not isinstance(tokens, dict):
        raise InputError(f"{where}: field 'trim' lacks response, steps or tokens, expected a file of `attnpo trim`")
    form = format_of_trim(trim, where)
    thinking, found = thinking_of(response, form), []
    for place, step in enumerate(steps):
        here = f"{where}, step {place}"
        if not isinstance(step, dict):
            raise InputError(f"{here}: found {step!r}, expected an object")
        start, end = whole(step, "start", here), whole(step, "end", here)
        text = thinking[start:end]
        flags = (step.get("removed") is True, step.get("kept_for_value") is True)
        found.append(Step(text, str(step.get("kind", "step")), number(step, "score", here), *flags))
    return TrimmedTrace(
        id=str(row.get("id", f"row {index}")),
        problem=row["problem"],
        reason=str(trim.get("reason", "")),
        final=(answer_of(response, form) or "").strip(),
        answer=None if trim.get("answer") is None else str(trim["answer"]).strip(),
        drop=number(trim, "drop", where),
        long=whole(tokens, "long", where),
        short=whole(tokens, "short", where),
        steps=tuple(found),
    )


def trimmed(files: list[TrimmedFile]) -> View:
    """The view: every file with its figures and traces."""
    return View("trimmed", "Trimmed", render("trimmed.html", files=[_figures(file) for file in files]))


def _figures(file: TrimmedFile) -> dict[str, Any]:
    steps = [step for trace in file.traces for step in trace.steps]
    long, short = (fmean(getattr(trace, name) for trace in file.traces) for name in ("long", "short"))
    rows = [
        ("traces", count(len(file.traces))),
        ("ranking, verified by", f"{file.ranking}, {file.verify}"),
        ("thinking tokens, mean", f"{count(long)} → {count(short)} ({change(long, short)})"),
        ("steps removed", percent(sum(step.removed for step in steps) / len(steps)) if steps else "–"),
        ("steps kept for their value", count(sum(step.kept_for_value for step in steps))),
    ]
    shown = [file.traces[index] for index in evenly(len(file.traces), SHOWN)]
    return {
        "name": file.name,
        "numbers": Table(("", "result"), rows),
        "shown": shown,
        "left_out": len(shown) < len(file.traces),
    }
