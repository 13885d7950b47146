"""The removal test as a picture: accuracy against how much of the thinking is gone, one line per arm."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from attnpo.evidence.figures import error_bars
from attnpo.evidence.removal import (
    ARMS,
    EVERYTHING,
    HIGHEST,
    LAST,
    LOWEST,
    NOTHING,
    RANDOM,
    RANDOM_HIGHEST,
    RANDOM_LOWEST,
)
from attnpo.tables import Table

LOOK = {
    HIGHEST: ("#b2182b", "o", "-"),
    LOWEST: ("#2166ac", "s", "-"),
    LAST: ("#b8860b", "v", ":"),
    RANDOM: ("#666666", "^", "--"),
    RANDOM_HIGHEST: ("#ef8a62", "o", ":"),
    RANDOM_LOWEST: ("#67a9cf", "s", ":"),
}
NAMES = {
    HIGHEST: "highest-scored steps",
    LOWEST: "lowest-scored steps",
    LAST: "last steps",
    RANDOM: "random steps",
    RANDOM_HIGHEST: "highest-scored, random heads",
    RANDOM_LOWEST: "lowest-scored, random heads",
}
COLUMNS_OF_LEGEND = 4


def draw_removal(table: Table, *, title: str) -> Figure:
    """Two panels with the same accuracies: over the share of steps and over the share of thinking tokens taken out.

    The second one tells whether an arm does worse only because its steps are longer.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    rows: list[dict[str, Any]] = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    arms = [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]
    for panel, (column, label) in zip(
        panels,
        (("share", "share of steps removed"), ("tokens removed", "share of thinking tokens removed")),
        strict=True,
    ):
        for arm in arms:
            # Every line starts where nothing and ends where everything is removed.
            points = [row for row in rows if row["arm"] in (NOTHING, arm, EVERYTHING) and row["accuracy"] is not None]
            points.sort(key=lambda row: row["share"])
            _draw_line(panel, arm, points, column)
        panel.set(xlabel=label, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("share of right answers")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(arms), COLUMNS_OF_LEGEND)
    )
    figure.suptitle(title)
    return figure


def _draw_line(panel: Any, arm: str, points: list[dict[str, Any]], column: str) -> None:
    color, marker, line = LOOK[arm]
    at, accuracy, low, high = ([row[name] for row in points] for name in (column, "accuracy", "low", "high"))
    bars = error_bars(accuracy, low, high)
    panel.errorbar(at, accuracy, yerr=bars, color=color, marker=marker, linestyle=line, capsize=3, label=NAMES[arm])
