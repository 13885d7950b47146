"""The Traces view: how many traces of a file have scores, and how much the answer attends to each kind of step."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from attnpo.report.elements import Table, View, count, percent, render, small
from attnpo.report.rollouts import TracedFile


def traced(files: list[TracedFile]) -> View:
    """The view: figures of every file; the traces are in the Responses view."""
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
    """Per kind of step: count, share, and attention of the answer in multiples of an even spread."""
    rows = []
    for kind in sorted({kind for kind, _, _ in steps}):
        of = [(score, even) for name, score, even in steps if name == kind]
        multiples = [score / even for score, even in of if score is not None and even]
        mean = f"{small(fmean(multiples), digits=2)}×" if multiples else "–"
        rows.append((kind, count(len(of)), percent(len(of) / len(steps)), mean))
    columns = ("Kind of step", "Steps", "Share", "Attention of the answer")
    return Table(columns, rows, "Attention: the mean multiple of an even spread.")
