"""The pictures of the tools that judge heads."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attnpo.probe.head_table import CHANCE, HeadTable
from attnpo.tables import Cell, Table

BLUE, GREY = "#2f6690", "#9aa5ad"


def draw_stability(table: Table, tables: Sequence[HeadTable]) -> Figure:
    """Every head's accuracy in the first and in the last model; the correlation along the models between."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    first, last = tables[0].mean(), tables[-1].mean()
    left.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    left.plot(list(first.values()), [last[head] for head in first], "o", color=BLUE, markersize=4, alpha=0.7)
    names = [str(row[0]) for row in table.rows]
    left.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title="step ranking accuracy of every head")
    left.set(xlabel=names[0], ylabel=names[-1])
    places = range(1, len(names))
    right.plot(places, [_number(row[5]) for row in table.rows[1:]], "o--", color=GREY, label="with the one before")
    right.plot(places, [_number(row[2]) for row in table.rows[1:]], "o-", color=BLUE, label="with the first")
    right.set_xticks(places, names[1:], rotation=45, ha="right")
    right.set(ylim=(min(0.0, *right.get_ylim()), 1.02), title="Pearson correlation of the heads' accuracies")
    right.legend(loc="lower left")
    return figure


def draw_transfer(table: Table, easy: HeadTable, hard: HeadTable) -> Figure:
    """Every head's accuracy on easy and on hard traces; the sets of the table as bars."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    one, two = easy.mean(), hard.mean()
    left.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    left.plot(list(one.values()), [two[head] for head in one], "o", color=BLUE, markersize=4, alpha=0.7)
    left.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title="step ranking accuracy of every head")
    left.set(xlabel="easy traces", ylabel="hard traces")
    names = [f"{row[0]} → {row[1]}" for row in table.rows]
    _intervals(right, list(range(len(names))), table.rows, 2, BLUE)
    right.set_xticks(range(len(names)), names, rotation=20, ha="right")
    right.set(ylim=(0, 1.02), title="sets of heads: chosen on → measured on")
    return figure


def draw_head_sets(table: Table, alone: HeadTable) -> Figure:
    """Accuracy against the number of heads, best and random; and of every head over the layers."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    everywhere = table.rows[0][1]
    for kind, colour in (("best", BLUE), ("random", GREY)):
        rows = [row for row in table.rows if row[0] == kind and row[1] == everywhere]
        if rows:
            _intervals(left, [float(row[2] or 0) for row in rows], rows, 3, colour, kind)
    left.axhline(CHANCE, color="black", linewidth=1, linestyle=":")
    left.set_xscale("log", base=2)
    numbers = sorted({int(row[2] or 0) for row in table.rows if row[1] == everywhere})
    left.set_xticks(numbers, [str(number) for number in numbers])
    left.minorticks_off()
    left.set(ylim=(0, 1.02), xlabel="number of heads", ylabel="step ranking accuracy", title="of the heads' mean score")
    left.legend(loc="lower left")
    accuracy = alone.mean()
    right.plot([head[0] for head in accuracy], list(accuracy.values()), "o", color=BLUE, markersize=4, alpha=0.6)
    best = [max(value for head, value in accuracy.items() if head[0] == layer) for layer in alone.layers]
    right.plot(alone.layers, best, color=GREY, linewidth=1)
    right.axhline(CHANCE, color="black", linewidth=1, linestyle=":")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(ylim=(0, 1.02), xlabel="layer", title="every head by itself")
    return figure


def error_bars(values: Sequence[float], low: Sequence[float], high: Sequence[float]) -> list[list[float]]:
    """What matplotlib takes for intervals: lengths below and above the values.

    An interval of resampled problems may leave out its mean by a rounding error; a bar must not be negative.
    """
    below = [max(0.0, value - end) for value, end in zip(values, low, strict=True)]
    above = [max(0.0, end - value) for value, end in zip(values, high, strict=True)]
    return [below, above]


def _number(cell: Cell) -> float:
    """A cell as matplotlib takes it: an empty one is a gap."""
    return float(cell) if isinstance(cell, int | float) else float("nan")


def _intervals(
    axes: Axes, places: Sequence[float], rows: Sequence[tuple], column: int, colour: str, label: str = ""
) -> None:
    """The values of `column` with the bounds in the two columns after it."""
    values, low, high = ([row[column + shift] for row in rows] for shift in range(3))
    axes.errorbar(places, values, yerr=error_bars(values, low, high), fmt="o", color=colour, capsize=3, label=label)
