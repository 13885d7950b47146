"""Curves over training steps, and the Behaviour view: phrases, steps, lengths of the parts, effects of the method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from attnpo.report.elements import (
    Chart,
    Key,
    Table,
    View,
    colour,
    count,
    dash,
    error_bars,
    mark,
    percent,
    render,
    short,
    small,
    symbol,
)
from attnpo.report.run import Measured, Run

Format = Callable[[float | None], str]


def share(value: float | None) -> str:
    return percent(value, 1)


def tokens(value: float | None) -> str:
    return count(value)


def number(value: float | None) -> str:
    return small(value)


TICKS: dict[Format, str] = {share: ".0%"}


@dataclass(frozen=True)
class Quantity:
    """One chart over training; `keys` are (key in the metrics, label, colour or "" for the default)."""

    id: str
    title: str
    explained: str
    keys: tuple[tuple[str, str, str], ...]
    format: Format
    from_zero: bool = True
    least_span: float = 0.1
    """The smallest range of a y axis that does not begin at 0, so that noise does not look like a change."""

    @property
    def own_colours(self) -> bool:
        return all(colour for _, _, colour in self.keys)


OVERVIEW = (
    Quantity("length", "Response length", "Tokens of a response, mean.", (("length/completion", "", ""),), tokens),
    Quantity("accuracy", "Accuracy", "Share of right final answers.", (("accuracy", "", ""),), share, from_zero=False),
    Quantity("reward", "Reward", "Mean of all parts together.", (("reward", "", ""),), number, from_zero=False),
    Quantity(
        "scale", "Mean scale γ", "1 leaves every step its full advantage.", (("steps/mean_scale", "", ""),), number
    ),
)
PHRASES = ("transition", "branch", "forward", "backward", "answer")
BEHAVIOUR = (
    Quantity(
        "effects",
        "Attenuated and protected steps",
        "Share of all steps whose advantage the method made smaller.",
        (("steps/attenuated", "attenuated", "--attenuated"), ("steps/protected", "protected", "--protected")),
        share,
    ),
    Quantity(
        "phrases",
        "Phrases",
        "How often the phrases that begin a step occur, per 1,000 thinking tokens.",
        tuple((f"phrases/{name}_per_1k", name, "") for name in PHRASES),
        number,
    ),
    Quantity("steps", "Steps of a response", "Mean number.", (("steps/per_response", "", ""),), number),
    Quantity(
        "split",
        "Thinking and answer",
        "Mean tokens before and after the closing tag.",
        (("length/thinking", "thinking", ""), ("length/answer", "final answer", "")),
        tokens,
    ),
    Quantity("truncated", "Cut off", "Share of responses that met the token limit.", (("truncated", "", ""),), share),
    Quantity(
        "signal",
        "Prompts without a signal",
        "Share of prompts whose responses all have advantage 0.",
        (("groups/without_signal", "", ""),),
        share,
    ),
)


@dataclass(frozen=True)
class Series:
    """One line. Held-out points have marks and intervals; training is drawn fainter."""

    label: str
    rows: list[Measured]
    key: str
    colour: str
    mark: int  # which of the symbols
    dash: str = "solid"
    held_out: bool = False
    faint: bool = False
    about: str = ""  # the label without its source

    def column(self, end: str = "") -> list[float | None]:
        return [row.get(self.key + end) for row in self.rows]

    def trace(self) -> dict[str, Any]:
        steps, values = [row["step"] for row in self.rows], self.column()
        trace: dict[str, Any] = {
            "name": self.label,
            "x": steps,
            "y": [short(value) for value in values],
            "mode": "lines+markers" if self.held_out or len(steps) == 1 else "lines",
            "opacity": 0.5 if self.faint else 1,
            "line": {"color": self.colour, "width": 2.5 if self.held_out else 1.5, "dash": self.dash},
            "marker": {"color": self.colour, "size": 8, "symbol": symbol(self.mark)},
        }
        low, high = self.column("_low"), self.column("_high")
        if self.held_out and any(value is not None for value in low):
            trace["error_y"] = error_bars(values, low, high, self.colour)
        return trace

    def legend(self) -> Key:
        return Key(self.label, self.colour, mark(self.mark) if self.held_out else "", self.dash, self.faint)


def curves(runs: list[Run], quantities: tuple[Quantity, ...]) -> list[Chart]:
    """Return a chart per quantity that at least one run recorded.

    With several runs, lines of several keys would be indistinguishable: each key gets its own chart, unless the keys
    have fixed colours, which leaves the dashes for the runs.
    """
    charts = []
    for quantity in quantities:
        for part in _parts(quantity) if len(runs) > 1 and not quantity.own_colours else [quantity]:
            found = [series for series in _series(runs, part) if any(v is not None for v in series.column())]
            if found:
                charts.append(_chart(part, found))
    return charts


def _parts(quantity: Quantity) -> Iterator[Quantity]:
    if len(quantity.keys) == 1:
        yield quantity
        return
    for key, label, _ in quantity.keys:
        title = f"{quantity.title}: {label}"
        yield Quantity(
            f"{quantity.id}-{label}", title, quantity.explained, ((key, "", ""),), quantity.format, quantity.from_zero
        )


def _series(runs: list[Run], quantity: Quantity) -> Iterator[Series]:
    several = len(quantity.keys) > 1
    for index, run in enumerate(runs):
        for position, (key, label, own) in enumerate(quantity.keys):
            drawn = own or colour(position if several else index)
            shown = position if several else index
            style = dash(index if len(runs) > 1 else position)
            evaluated = any(row.get(key) is not None for row in run.evaluations)
            for held_out, rows in ((False, run.metrics), (True, run.evaluations)):
                source = ("held-out problems" if held_out else "training") if evaluated or not label else ""
                name = ", ".join(part for part in (run.name if len(runs) > 1 else "", label, source) if part)
                about = ", ".join(part for part in (run.name if len(runs) > 1 else "", label) if part)
                line = "solid" if held_out else style
                yield Series(name, rows, key, drawn, shown, line, held_out, evaluated and not held_out, about)


def _chart(quantity: Quantity, series: list[Series]) -> Chart:
    layout = {
        "xaxis": {"title": {"text": "training step"}, "showgrid": False} | _whole_steps(series),
        "yaxis": {
            "tickformat": TICKS.get(quantity.format, ""),
            "rangemode": "tozero" if quantity.from_zero else "normal",
        }
        | ({} if quantity.from_zero else _spanning(series, quantity)),
        "hovermode": "x unified",
    }
    return Chart(
        quantity.id,
        quantity.title,
        quantity.explained,
        [one.trace() for one in series],
        layout,
        _legend(series),
        _table(series, quantity.format),
    )


def _whole_steps(series: list[Series]) -> dict[str, Any]:
    """Ticks at integer steps: with few steps plotly would also label halves."""
    steps = [step for one in series for row in one.rows if (step := row["step"]) is not None]
    span = max(steps) - min(steps)
    return {} if span > 20 else {"tick0": 0, "dtick": 1 if span <= 10 else 2}


def _spanning(series: list[Series], quantity: Quantity) -> dict[str, Any]:
    """The range of an axis whose values span less than `least_span`, centred on them; empty for a wider span."""
    least = quantity.least_span
    ends = ("", "_low", "_high")
    values = [value for one in series for end in ends for value in one.column(end) if value is not None]
    low, high = min(values), max(values)
    middle = (low + high) / 2
    if quantity.format is share:
        middle = min(max(middle, least / 2), 1 - least / 2)
    return {} if high - low >= least else {"range": [short(middle - 0.55 * least), short(middle + 0.55 * least)]}


def _legend(series: list[Series]) -> list[Key]:
    """One entry per line, or one per pair of lines if each pair has a training and a held-out line."""
    held_out = [one for one in series if one.held_out]
    if len(held_out) < 2 or len(series) != 2 * len(held_out):
        return [one.legend() for one in series]
    marked = [Key(one.about, one.colour, mark(one.mark)) for one in held_out]
    return [*marked, Key("with marks: held-out problems; without: training", "--quiet", faint=True)]


def _table(series: list[Series], shown: Format) -> Table:
    """One row per step, one column per series."""
    cells: dict[float, dict[int, str]] = {}
    for column, one in enumerate(series):
        for row in one.rows:
            if (step := row["step"]) is not None and row.get(one.key) is not None:
                text = shown(row[one.key])
                low, high = row.get(f"{one.key}_low"), row.get(f"{one.key}_high")
                if one.held_out and low is not None and high is not None:
                    text += f" [{shown(low)}, {shown(high)}]"
                cells.setdefault(step, {})[column] = text
    rows = [(f"{step:.0f}", *(cells[step].get(column, "") for column in range(len(series)))) for step in sorted(cells)]
    return Table(("Step", *(one.label for one in series)), rows)


def behaviour(runs: list[Run]) -> View:
    charts = curves(runs, BEHAVIOUR)
    return View("behaviour", "Behaviour", render("behaviour.html", curves=charts), charts)
