"""Curves over training: drawn by plotly in the browser, with the same numbers as tables beneath.

Colours are names of CSS variables (``--run-0`` …): page.js looks them up, so that light and dark mode share one page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attnpo.report.data.run import Measured, Run
from attnpo.report.words import count, esc, percent, small

COLOURS = 6  # --run-0 … in page.css
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
MARKS = ("●", "■", "◆", "▲", "✚", "★")
DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class Series:
    """One line of a chart. `held_out`: few points with intervals, else a thin line over every step."""

    label: str
    rows: list[Measured]
    key: str
    run: int
    colour: str
    dash: str = "solid"
    held_out: bool = False

    def column(self, end: str = "") -> list[float | None]:
        return [row.get(self.key + end) for row in self.rows]


@dataclass(frozen=True)
class Chart:
    """A titled plot; `format` writes one value in the table, `tick` is plotly's format of the y axis."""

    id: str
    title: str
    explained: str
    format: Callable[[float | None], str]
    tick: str
    range: str  # plotly's rangemode: "tozero" or "normal"
    series: list[Series]


def charts(runs: list[Run]) -> list[Chart]:
    """The charts that have at least one value, over all `runs`."""
    made = [
        Chart(
            "length",
            "Response length",
            "Tokens of a response, mean.",
            count,
            "",
            "tozero",
            _measured(runs, "length/completion"),
        ),
        Chart(
            "accuracy",
            "Accuracy",
            "Share of right final answers.",
            _share,
            ".0%",
            "normal",
            _measured(runs, "accuracy"),
        ),
        Chart(
            "effects",
            "Attenuated and protected steps",
            "Share of all steps whose advantage the method made smaller.",
            _share,
            ".0%",
            "tozero",
            _effects(runs),
        ),
        Chart(
            "scale",
            "Mean scale γ",
            "1 leaves every step its full advantage.",
            small,
            "",
            "tozero",
            [_training(run, index, len(runs), "steps/mean_scale") for index, run in enumerate(runs)],
        ),
    ]
    for chart in made:
        chart.series[:] = [series for series in chart.series if any(v is not None for v in series.column())]
    return [chart for chart in made if chart.series]


def _share(value: float | None) -> str:
    return percent(value, 1)


def _named(run: Run, runs: int, what: str) -> str:
    return f"{run.name}, {what}" if runs > 1 else what


def _training(run: Run, index: int, runs: int, key: str, what: str = "training") -> Series:
    return Series(_named(run, runs, what), run.metrics, key, index, f"--run-{index % COLOURS}")


def _measured(runs: list[Run], key: str) -> list[Series]:
    found: list[Series] = []
    for index, run in enumerate(runs):
        held_out = _named(run, len(runs), "held-out problems")
        found.append(_training(run, index, len(runs), key))
        found.append(Series(held_out, run.evaluations, key, index, f"--run-{index % COLOURS}", held_out=True))
    return found


def _effects(runs: list[Run]) -> list[Series]:
    # One colour per effect, as in the responses below; runs differ by their dashes.
    return [
        Series(
            _named(run, len(runs), effect),
            run.metrics,
            f"steps/{effect}",
            index,
            f"--{effect}",
            DASHES[index % len(DASHES)],
        )
        for index, run in enumerate(runs)
        for effect in ("attenuated", "protected")
    ]


def figures(found: list[Chart]) -> list[dict[str, Any]]:
    """What page.js hands to plotly, one figure per chart."""
    return [
        {
            "id": f"plot-{chart.id}",
            "tick": chart.tick,
            "range": chart.range,
            "traces": [_trace(series) for series in chart.series],
        }
        for chart in found
    ]


def _trace(series: Series) -> dict[str, Any]:
    steps, values = [row["step"] for row in series.rows], series.column()
    trace: dict[str, Any] = {
        "name": series.label,
        "x": steps,
        "y": [_short(value) for value in values],
        "mode": "lines+markers" if series.held_out or len(steps) == 1 else "lines",
        "opacity": 0.5 if _faint(series) else 1,
        "line": {"color": series.colour, "width": 2.5 if series.held_out else 1.5, "dash": series.dash},
        "marker": {"color": series.colour, "size": 8, "symbol": SYMBOLS[series.run % len(SYMBOLS)]},
    }
    low, high = series.column("_low"), series.column("_high")
    if series.held_out and any(value is not None for value in low):
        up, down = _differences(high, values), _differences(values, low)
        trace["error_y"] = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
        trace["error_y"] |= {"color": series.colour, "thickness": 1.5, "width": 4}
    return trace


def _faint(series: Series) -> bool:
    """Training lines stand back where held-out points share the plot with them."""
    return not series.held_out and not series.key.startswith("steps/")


def _differences(upper: list[float | None], lower: list[float | None]) -> list[float | None]:
    pairs = zip(upper, lower, strict=True)
    return [None if a is None or b is None else _short(max(0.0, a - b)) for a, b in pairs]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def curves_html(found: list[Chart]) -> str:
    """The plots' places, their legends, and their numbers as tables."""
    if not found:
        return '<p class="notice">No curves: no metrics and no evaluations were found.</p>'
    return '<div class="charts">' + "".join(_figure(chart) for chart in found) + "</div>"


def _figure(chart: Chart) -> str:
    legend = "".join(_legend_item(series) for series in chart.series)
    title = esc(chart.title)
    return (
        f'<figure id="{chart.id}"><figcaption><h3>{title}</h3><p>{esc(chart.explained)}</p></figcaption>'
        f'<ul class="legend">{legend}</ul>'
        f'<div class="plot" id="plot-{chart.id}" role="img" aria-label="{title} over training steps; '
        f'the numbers are in the table below"></div>'
        f"<details><summary>{title} as a table</summary>{_table(chart)}</details></figure>\n"
    )


def _legend_item(series: Series) -> str:
    mark = MARKS[series.run % len(MARKS)] if series.held_out else ""
    shape = "held-out" if series.held_out else f"{series.dash} thin" if _faint(series) else series.dash
    key = f'<span class="key {shape}" style="--colour: var({series.colour})" aria-hidden="true">{mark}</span>'
    return f"<li>{key}{esc(series.label)}</li>"


def _table(chart: Chart) -> str:
    """One row per step, one column per series."""
    cells: dict[float, dict[int, str]] = {}
    for column, series in enumerate(chart.series):
        for row in series.rows:
            if (step := row["step"]) is not None and row.get(series.key) is not None:
                shown = chart.format(row[series.key])
                low, high = row.get(f"{series.key}_low"), row.get(f"{series.key}_high")
                if series.held_out and low is not None and high is not None:
                    shown += f" [{chart.format(low)}, {chart.format(high)}]"
                cells.setdefault(step, {})[column] = shown
    head = "".join(f'<th scope="col">{esc(series.label)}</th>' for series in chart.series)
    body = "".join(
        f'<tr><th scope="row">{step:.0f}</th>'
        + "".join(f"<td>{cells[step].get(column, '')}</td>" for column in range(len(chart.series)))
        + "</tr>\n"
        for step in sorted(cells)
    )
    return (
        f'<div class="scroll tall" tabindex="0" role="region" aria-label="{esc(chart.title)}, numbers">'
        f'<table><thead><tr><th scope="col">Step</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
