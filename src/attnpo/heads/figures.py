"""Figures of heads; writes and prints the tables and figures of `attnpo probe` and `attnpo evidence`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from attnpo.attention.heads import Head
from attnpo.credentials import hide
from attnpo.errors import InputError
from attnpo.heads.table import ACCURACY, CHANCE, HeadTable
from attnpo.tables import Cell, Table, write_table, writing

TABLE, MARKDOWN, FIGURE, COMMAND = "table.csv", "table.md", "figure.png", "command.txt"


def write_evidence(folder: Path, table: Table, figure: Figure) -> None:
    """Write table.csv, table.md, figure.png and the command that produced them. Raises as `write_table` does."""
    with writing(folder / COMMAND) as path:
        path.write_text(hide(shlex.join(sys.argv)) + "\n", encoding="utf-8")
    write_table(folder / TABLE, table)
    with writing(folder / MARKDOWN) as path:
        path.write_text(table.markdown(), encoding="utf-8")
    with writing(folder / FIGURE) as path:
        figure.savefig(path, dpi=150)


def print_table(table: Table, title: str, notes: Sequence[str] = ()) -> None:
    """Print the table on standard output, followed by the notes."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table as Screen

    # Nine columns fit into a terminal.
    screen = Screen(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for index, name in enumerate(table.columns):
        numbers = all(isinstance(row[index], int | float | None) for row in table.rows)
        screen.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in table.shown():
        screen.add_row(*row)
    console = Console()
    console.print(screen)
    for note in notes:
        # unchanged: a command can be copied from any terminal, and [THINK] is not markup
        console.print(note, style="dim", highlight=False, markup=False, soft_wrap=True)


BLUE, GREY = "#2f6690", "#9aa5ad"


def draw_stability(table: Table, tables: Sequence[HeadTable]) -> Figure:
    """Draw every head's accuracy in the first and in the last model, and the correlation for all models."""
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
    """Draw every head's accuracy on easy and on hard traces, and the sets of the table with intervals."""
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
    """Draw accuracy against the number of heads, best and random, and the accuracy of every head against its layer."""
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
    right.set(ylim=(0, 1.02), xlabel="layer", title="every head alone")
    return figure


def error_bars(values: Sequence[float], low: Sequence[float], high: Sequence[float]) -> list[list[float]]:
    """Return intervals as matplotlib takes them: lengths below and above the values.

    The mean may lie outside of its bootstrap interval by a rounding error; a length must not be negative.
    """
    below = [max(0.0, value - end) for value, end in zip(values, low, strict=True)]
    above = [max(0.0, end - value) for value, end in zip(values, high, strict=True)]
    return [below, above]


def _number(cell: Cell) -> float:
    """Return a cell as a float; an empty one is NaN, which matplotlib draws as a gap."""
    return float(cell) if isinstance(cell, int | float) else float("nan")


def _intervals(
    axes: Axes, places: Sequence[float], rows: Sequence[tuple], column: int, colour: str, label: str = ""
) -> None:
    """Draw the values of `column` with the bounds in the two columns after it."""
    values, low, high = ([row[column + shift] for row in rows] for shift in range(3))
    axes.errorbar(places, values, yerr=error_bars(values, low, high), fmt="o", color=colour, capsize=3, label=label)


HALO = [withStroke(linewidth=4, foreground="white")]  # a black ring cannot be seen on the darkest cells


def draw_head_map(table: HeadTable, chosen: Sequence[Head], target: str | Path, *, title: str) -> None:
    """Write the map (chosen heads are ringed) and a histogram next to it; the format follows from the file's name.

    Raises InputError when the file cannot be written.
    """
    accuracy = table.figures[:, ACCURACY].mean(dim=0).numpy()
    layers, heads = accuracy.shape
    figure = Figure(figsize=(max(6.5, 3.2 + 0.28 * heads), max(3.2, 1.2 + 0.22 * layers)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 1])
    image = left.imshow(accuracy, vmin=0, vmax=1, cmap="RdBu", aspect="auto", origin="lower")
    for layer, head in chosen:
        left.plot(
            head,
            table.layers.index(layer),
            "o",
            markersize=11,
            fillstyle="none",
            color="black",
            mew=1.6,
            path_effects=HALO,
        )
    left.set(xlabel="head", ylabel="layer", title=title)
    ticks = range(0, layers, max(1, layers // 14))
    left.set_yticks(list(ticks), [str(table.layers[tick]) for tick in ticks])
    left.set_xticks(range(0, heads, max(1, heads // 16)))
    figure.colorbar(image, ax=left, label="step ranking accuracy", fraction=0.05)
    right.hist(accuracy.ravel(), bins=20, range=(0, 1), color="#5b7fa6")
    right.axvline(CHANCE, color="black", linewidth=1, linestyle=":")
    right.set(xlabel="accuracy", ylabel="number of heads", xlim=(0, 1))
    try:
        figure.savefig(target, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"--figure {target}: cannot be written: {error}") from error
