"""Accuracy against length (the frontier) and distributions of length, for the views Overview and Compare."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from attnpo.evaluation.aes import aes as score_of
from attnpo.report.elements import (
    NBSP,
    Chart,
    Key,
    Table,
    change,
    colour,
    count,
    dash,
    error_bars,
    mark,
    percent,
    points,
    score,
    short,
    symbol,
)
from attnpo.report.evaluation import Measure
from attnpo.report.run import Measured, Run
from attnpo.report.selection import Shelf

EXPLAINED = "Up and to the left is better. Bars: 95 % intervals. Dotted: what nothing else here beats in both."


@dataclass(frozen=True)
class Point:
    """One model at one step; `start`: the first evaluation of a run."""

    name: str
    accuracy: Measure
    tokens: Measure
    start: bool = False
    aes: float | None = None


def aes(accuracy: float, tokens: float, base_accuracy: float, base_tokens: float) -> float | None:
    """The accuracy–efficiency score with the paper's weights; None if accuracy or length of the base is 0."""
    found = score_of(accuracy, tokens, base_accuracy, base_tokens)
    return None if math.isnan(found) else found


def run_points(run: Run) -> list[Point]:
    """Accuracy and length of a run at each evaluation on held-out problems; empty if nothing was measured."""
    points: list[Point] = []
    for row in run.evaluations:
        accuracy, tokens = _measure(row, "accuracy"), _measure(row, "length/completion")
        if accuracy and tokens:
            base = points[0] if points else None
            found = aes(accuracy.value, tokens.value, base.accuracy.value, base.tokens.value) if base else None
            points.append(Point(f"step {row['step']:.0f}", accuracy, tokens, start=not points, aes=found))
    return points


def _measure(row: Measured, key: str) -> Measure | None:
    value = row.get(key)
    return None if value is None else Measure(value, row.get(f"{key}_low"), row.get(f"{key}_high"))


def frontier(points: list[Point]) -> list[Point]:
    """The points that no other point beats in both length and accuracy, sorted by length."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.tokens.value, -p.accuracy.value)):
        if not best or point.accuracy.value > best[-1].accuracy.value:
            best.append(point)
    return best


def frontier_chart(
    name: str, title: str, groups: dict[str, list[Point]], explained: str = EXPLAINED, *, lined: bool = True
) -> Chart:
    """Draw one mark per model; for a run (a group of several points) the path from its start (open mark) to its end.

    lined: draw the frontier, which has no meaning among models that answered different problems.
    """
    every = [point for points in groups.values() for point in points]
    line = frontier(every) if lined else []
    traces: list[dict[str, Any]] = []
    if len(line) > 1:
        traces.append(
            {
                "x": [short(p.tokens.value) for p in line],
                "y": [short(p.accuracy.value) for p in line],
                **{"mode": "lines", "hoverinfo": "skip", "line": {"color": "--quiet", "dash": "dot", "width": 1}},
            }
        )
    traces += [_trace(label, points, index) for index, (label, points) in enumerate(groups.items())]
    legend = [Key(label, colour(index), mark(index)) for index, label in enumerate(groups)]
    if any(point.start for point in every):
        legend.append(Key("open: where a run began", "--quiet", "○"))
    layout = {
        "height": 320,
        "xaxis": {"title": {"text": "tokens of a response"}, "rangemode": "normal"},
        "yaxis": {"title": {"text": "accuracy"}, "tickformat": ".0%"},
        "hovermode": "closest",
    }
    return Chart(name, title, explained, traces, layout, legend, None)


def _trace(label: str, points: list[Point], index: int) -> dict[str, Any]:
    shade, shape = colour(index), symbol(index)
    accuracy, tokens = [p.accuracy for p in points], [p.tokens for p in points]
    trace: dict[str, Any] = {
        "name": label,
        "x": [short(m.value) for m in tokens],
        "y": [short(m.value) for m in accuracy],
        "text": [point.name for point in points],
        "mode": "lines+markers" if len(points) > 1 else "markers",
        "line": {"color": shade, "width": 1.5},
        "marker": {
            "color": shade,
            "size": [11 if point in (points[0], points[-1]) else 6 for point in points],
            "opacity": 1,
            "symbol": [f"{shape}-open" if point.start else shape for point in points],
            "line": {"color": shade, "width": 2},
        },
        "hovertemplate": "%{fullData.name}, %{text}: %{x:,.0f} tokens, %{y:.1%}<extra></extra>",
    }
    for axis, measures in (("error_y", accuracy), ("error_x", tokens)):
        if any(m.low is not None for m in measures):
            values, low, high = [m.value for m in measures], [m.low for m in measures], [m.high for m in measures]
            trace[axis] = error_bars(values, low, high, shade) | {"thickness": 1}
    return trace


def runs_table(runs: list[Run]) -> Table:
    """One row per run, with values before and after training."""
    rows, unmeasured = [], []
    for run in runs:
        found = run_points(run)
        if not found:
            unmeasured.append(run.name)
            continue
        first, last = found[0], found[-1]
        before, after = first.tokens.value, last.tokens.value
        rows.append(
            (
                run.name,
                run.method or "–",
                last.name.removeprefix("step "),
                share_of(first.accuracy),
                share_of(last.accuracy),
                tokens_of(first.tokens),
                tokens_of(last.tokens),
                f"{points(last.accuracy.value - first.accuracy.value)}, {change(before, after)}",
                score(last.aes),
            )
        )
    columns = ("Run", "Method", "Steps", "Accuracy before", "after", "Tokens before", "after", "Change", "AES")
    return Table(
        columns,
        rows,
        "Held-out problems at the first and the last evaluation, 95 % intervals in brackets. AES: accuracy–efficiency "
        "score against the run's own start: the share of tokens saved, plus 3 times a relative gain or minus 5 times a "
        "relative loss of accuracy." + (f" Not measured: {', '.join(unmeasured)}." if unmeasured else ""),
    )


def share_of(measure: Measure) -> str:
    return percent(measure.value, 1) + interval(measure, lambda value: percent(value, 1).removesuffix(f"{NBSP}%"))


def tokens_of(measure: Measure) -> str:
    return count(measure.value) + interval(measure, count)


def interval(measure: Measure, shown: Callable[[float], str]) -> str:
    if measure.low is None or measure.high is None:
        return ""
    return f" [{shown(measure.low)}, {shown(measure.high)}]"


BINS = 20
NICE = (1, 2, 5)


def bin_width(longest: float, bins: int = BINS) -> int:
    """The smallest width of 1, 2 or 5 times a power of ten with which `bins` ranges extend beyond `longest`.

    >>> bin_width(512), bin_width(19), bin_width(20)
    (50, 1, 2)
    """
    power = 0
    while True:
        for nice in NICE:
            if nice * 10**power * bins > longest:
                return nice * 10**power
        power += 1


def lengths_chart(name: str, title: str, groups: dict[str, list[float]]) -> Chart | None:
    """Draw one stepped line per group of lengths, over shared ranges; None if fewer than two lengths are known."""
    groups = {label: values for label, values in groups.items() if values}
    every = [value for values in groups.values() for value in values]
    if len(every) < 2:
        return None
    width = bin_width(max(every))
    last = math.floor(max(every) / width)
    shares = {
        label: [sum(math.floor(value / width) == place for value in values) / len(values) for place in range(last + 1)]
        for label, values in groups.items()
    }
    traces = [
        {
            "name": label,
            "x": [width * place for place in range(last + 2)],
            "y": [*(short(share) for share in found), 0],
            "mode": "lines",
            "fill": "tozeroy" if len(groups) <= 2 else "none",
            "opacity": 0.9,
            "line": {"color": colour(index), "width": 2, "dash": dash(index), "shape": "hv"},
            "hovertemplate": "from %{x:,} tokens: %{y:.1%}<extra>%{fullData.name}</extra>",
        }
        for index, (label, found) in enumerate(shares.items())
    ]
    ranges = [f"{width * place:,}{NBSP}–{NBSP}{width * (place + 1) - 1:,}" for place in range(last + 1)]
    rows = [(label, *(percent(found[place], 1) for found in shares.values())) for place, label in enumerate(ranges)]
    medians = "; ".join(f"{label} {count(median(values))}" for label, values in groups.items())
    layout = {
        "xaxis": {"title": {"text": "tokens of a response"}, "rangemode": "tozero", "showgrid": False},
        "yaxis": {"tickformat": ".0%", "rangemode": "tozero"},
        "hovermode": "x unified",
    }
    legend = [Key(label, colour(index), dash=dash(index)) for index, label in enumerate(groups)]
    explained = f"Share of responses by length. Medians: {medians}."
    return Chart(name, title, explained, traces, layout, legend, Table(("Tokens", *groups), rows))


def run_lengths(shelf: Shelf, index: int, *, several: bool) -> Chart | None:
    """The lengths at the first and the last evaluation of a run, over all of its problems."""
    if len(shelf.lengths) < 2:
        return None
    of = f" of {shelf.run}" if several else ""
    return lengths_chart(f"lengths-{index}", f"Lengths before and after{of}", shelf.lengths)
