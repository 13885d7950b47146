"""The accuracy–length frontier of a comparison (Pareto-optimal runs), and its plot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Bbox

Point = tuple[float, float]
"""Mean tokens and accuracy."""

COLOURS = ("#2f6690", "#b2182b", "#3a7d44", "#b8860b", "#6a4c93", "#d1603d", "#00798c", "#666666")
MARKERS = "osD^vPX*"
COLUMNS = 3
# Possible offsets of a label from its marker, in points: at the sides, above, below, then further away.
PLACES = [
    (r * math.cos(angle), r * math.sin(angle))
    for r in (9, 18, 30, 44, 60)
    for angle in (math.pi * eighth / 4 for eighth in (1, 7, 3, 5, 0, 2, 6, 4))
]


def pareto(points: Mapping[str, Point]) -> list[str]:
    """The names of the points that no other one dominates, from short to long.

    A point is dominated by one that is no longer and no less accurate, and better in one of the two.
    """
    best = [
        name
        for name, (tokens, accuracy) in points.items()
        if not any(t <= tokens and a >= accuracy and (t, a) != (tokens, accuracy) for t, a in points.values())
    ]
    return sorted(best, key=lambda name: points[name])


def points_of(runs: Mapping[str, Any]) -> dict[str, Point]:
    """(tokens, accuracy) of the runs of a comparison that have both."""
    return {
        name: (found["tokens"]["value"], found["accuracy"]["value"])
        for name, found in runs.items()
        if found["accuracy"]["value"] is not None
    }


def draw_frontier(comparison: dict[str, Any]) -> Figure:
    """Draw one panel per benchmark, and one for the macro average if there are several."""
    panels = {"all benchmarks": comparison["all"]} if comparison["all"] else {}
    panels |= comparison["benchmarks"]
    across = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(max(6.0, 4.6 * across), 4.0 * down + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    names = list(comparison["runs"])
    looks = {name: (COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]) for k, name in enumerate(names)}
    for panel, (title, part) in zip(axes, panels.items(), strict=False):
        panel.set_title(f"{title} ({part['problems']} problems)", parse_math=False)
        _draw_points(panel, part["runs"], looks)
    for panel in axes[len(panels) :]:
        panel.remove()
    figure.draw_without_rendering()  # computes the layout, because labels are placed in pixels
    figure.set_layout_engine("none")
    for panel, part in zip(figure.axes, panels.values(), strict=True):
        _label(panel, part["runs"], looks)
    return figure


def _draw_points(panel: Axes, runs: Mapping[str, Any], looks: Mapping[str, tuple[str, str]]) -> None:
    points = points_of(runs)
    for name, (tokens, accuracy) in points.items():
        colour, marker = looks[name]
        across, up = _bars(runs[name]["tokens"]), _bars(runs[name]["accuracy"])
        panel.errorbar(tokens, accuracy, up, across, color=colour, marker=marker, markersize=7, capsize=2, elinewidth=1)
    line = pareto(points)
    # A staircase: the accuracy reached with at most that many tokens.
    panel.plot(
        [points[name][0] for name in line],
        [points[name][1] for name in line],
        color="#9aa5ad",
        linestyle="--",
        linewidth=1,
        drawstyle="steps-post",
        zorder=0,
    )
    panel.margins(0.15)
    panel.set_xlim(left=max(0, panel.get_xlim()[0]))
    panel.grid(alpha=0.25)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: f"{tokens:,.0f}"))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    panel.set(xlabel="tokens per response", ylabel="accuracy")


def _bars(value: dict[str, Any]) -> list[list[float]] | None:
    """Lengths of the interval below and above the value, in the form that matplotlib takes."""
    if value["low"] is None:
        return None
    return [[value["value"] - value["low"]], [value["high"] - value["value"]]]


def _label(panel: Axes, runs: Mapping[str, Any], looks: Mapping[str, tuple[str, str]]) -> None:
    """Write each name next to its point, at the first place that overlaps no marker, interval, other name or border.

    If there is no such place, use the one with the smallest overlap.
    """
    points = points_of(runs)
    figure = panel.get_figure(root=True)
    assert figure is not None
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()
    inside = panel.get_window_extent(renderer)
    taken = [box for name in points for box in _obstacles(panel, runs[name])]
    for name, point in points.items():
        best: tuple[float, Any, Bbox] | None = None
        for place in PLACES:
            text = panel.annotate(
                name,
                point,
                xytext=place,
                textcoords="offset points",
                ha="left" if place[0] > 1 else "right" if place[0] < -1 else "center",
                va="bottom" if place[1] > 1 else "top" if place[1] < -1 else "center",
                fontsize=9,
                color=looks[name][0],
                parse_math=False,
                arrowprops={"arrowstyle": "-", "color": looks[name][0], "linewidth": 0.5, "alpha": 0.5},
            )
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)  # without the line to its point
            overlap = _outside(box, inside) + sum(_area(box, other) for other in taken)
            if best is None or overlap < best[0]:
                if best is not None:
                    best[1].remove()
                best = (overlap, text, box)
            else:
                text.remove()
            if not overlap:
                break
        assert best is not None
        taken.append(best[2])


def _obstacles(panel: Axes, found: Mapping[str, Any]) -> list[Bbox]:
    """The boxes of a marker and its two intervals, in pixels."""
    tokens, accuracy = found["tokens"], found["accuracy"]
    boxes = [((tokens["value"], accuracy["value"]), (tokens["value"], accuracy["value"]))]
    if tokens["low"] is not None:
        boxes.append(((tokens["low"], accuracy["value"]), (tokens["high"], accuracy["value"])))
    if accuracy["low"] is not None:
        boxes.append(((tokens["value"], accuracy["low"]), (tokens["value"], accuracy["high"])))
    margins = [6, *[1] * (len(boxes) - 1)]
    return [Bbox(panel.transData.transform(box)).padded(margin) for box, margin in zip(boxes, margins, strict=True)]


def _area(one: Bbox, other: Bbox) -> float:
    common = Bbox.intersection(one, other)
    return 0.0 if common is None else common.width * common.height


def _outside(box: Bbox, inside: Bbox) -> float:
    return box.width * box.height - _area(box, inside)
