"""A chart as plain data: traces and layout for plotly, and a legend and a table that say the same without a picture.

Where a `color` begins with two dashes it is the name of a CSS variable: the page looks it up when it draws, so that
light and dark share one figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

COLOURS = 6  # --run-0 … in page.css: Okabe and Ito's, darkened or lightened until they can be read
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
MARKS = ("●", "■", "◆", "▲", "✚", "★")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a `mark` for points, else a line of the given `dash`."""

    label: str
    colour: str
    mark: str = ""
    dash: str = "solid"
    faint: bool = False


@dataclass(frozen=True)
class Table:
    """Cells as they are read; the first of every row names it."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    caption: str = ""


@dataclass(frozen=True)
class Chart:
    """A titled plot; `layout` is laid over what all plots of the page share."""

    id: str
    title: str
    explained: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    legend: list[Key] = field(default_factory=list)
    table: Table | None = None

    def figure(self) -> dict[str, Any]:
        """What the page hands to plotly."""
        return {"id": f"plot-{self.id}", "traces": self.traces, "layout": self.layout}


def colour(index: int) -> str:
    return f"--run-{index % COLOURS}"


def symbol(index: int) -> str:
    return SYMBOLS[index % len(SYMBOLS)]


def mark(index: int) -> str:
    return MARKS[index % len(MARKS)]


def dash(index: int) -> str:
    return DASHES[index % len(DASHES)]


def short(value: float | None) -> float | None:
    """Six digits are more than a plot can show."""
    return None if value is None else float(f"{value:.6g}")


def error_bars(
    values: Sequence[float | None], low: Sequence[float | None], high: Sequence[float | None], colour: str
) -> dict[str, Any]:
    """plotly's error bars from the ends of intervals."""
    return {
        "type": "data",
        "symmetric": False,
        "array": _differences(high, values),
        "arrayminus": _differences(values, low),
        "color": colour,
        "thickness": 1.5,
        "width": 4,
    }


def _differences(upper: Sequence[float | None], lower: Sequence[float | None]) -> list[float | None]:
    pairs = zip(upper, lower, strict=True)
    return [None if a is None or b is None else short(max(0.0, a - b)) for a, b in pairs]
