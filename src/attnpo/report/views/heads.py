"""The Heads view: step ranking accuracy of the attention heads of a run, the chosen ones, and their stability.

Stability: whether the heads stay the same while the model is trained, as `attnpo evidence stability` measures it.
"""

from __future__ import annotations

import csv
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpo.errors import InputError
from attnpo.report.elements import Chart, Key, Table, View, error_bars, render, short
from attnpo.report.run import Run

Head = tuple[int, int]
BEST = 24  # heads in the chart of the best

EXPLAINED = (
    "Step ranking accuracy: the share of pairs of an essential and a redundant step of which a head looks more at the "
    "essential one while the final answer is written. 0.5 is chance."
)


def read_accuracy(run: Run) -> dict[Head, float]:
    """The field "sra" of heads.json by (layer, head); empty if it is missing.

    Raises InputError for anything but "layer,head" → a number from 0 to 1.
    """
    found = {}
    where = f'{run.path / "heads.json"}, field "sra"'
    given = run.heads.get("sra", {})
    if not isinstance(given, dict):
        raise InputError(f'{where}: found {type(given).__name__}, expected "layer,head" with a number each')
    for name, value in given.items():
        head = re.fullmatch(r"(\d{1,4}),(\d{1,4})", str(name))
        if head is None or isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f'{where}: found {name!r}: {value!r}, expected "layer,head" with a number from 0 to 1')
        found[int(head[1]), int(head[2])] = float(value)
    return found


def chosen_heads(run: Run) -> list[Head]:
    """The heads the run used. Raises InputError for a list of anything but pairs of numbers."""
    heads = run.heads.get("heads", [])
    try:
        return [(int(layer), int(head)) for layer, head in heads]
    except (TypeError, ValueError):
        raise InputError(
            f'{run.path / "heads.json"}, field "heads": found {heads!r}, expected [layer, head] pairs'
        ) from None


def described(run: Run) -> str:
    """A sentence on how the heads were measured; empty if they were not."""
    accuracy = read_accuracy(run)
    if not accuracy:
        return ""
    labels, traces = run.heads.get("labels", "not recorded"), run.heads.get("traces", "an unknown number of")
    median = statistics.median(accuracy.values())
    return f"{len(accuracy)} heads, median {median:.2f}, on {traces} responses; labels: {labels}."


def head_charts(run: Run, index: int) -> list[Chart]:
    """The map and the ranking of a run's heads; empty if they were not measured."""
    accuracy = read_accuracy(run)
    return [_map(run, accuracy, f"heads-{index}"), _order(run, accuracy, f"heads-order-{index}")] if accuracy else []


def chosen_table(run: Run) -> Table:
    """The measurements of the chosen heads."""
    accuracy = read_accuracy(run)
    rows = [
        (
            f"layer {layer}, head {head}",
            _number(accuracy.get((layer, head))),
            _interval(run, (layer, head)),
            _number(_of(run, "essential_over_uniform", (layer, head))),
            _number(_of(run, "redundant_over_uniform", (layer, head))),
        )
        for layer, head in chosen_heads(run)
    ]
    names = ("Chosen", "Accuracy", "Interval, 95 %", "Score of essential steps", "Score of redundant steps")
    kept = [place for place in range(len(names)) if place < 2 or any(row[place] != "–" for row in rows)]
    return Table(
        tuple(names[place] for place in kept),
        [tuple(row[place] for place in kept) for row in rows],
        "Scores in units of what uniform attention would give (the baseline at p = 1)." if len(kept) > 3 else "",
    )


def _map(run: Run, accuracy: dict[Head, float], name: str) -> Chart:
    layers, heads = sorted({layer for layer, _ in accuracy}), range(1 + max(head for _, head in accuracy))
    chosen = [head for head in chosen_heads(run) if head in accuracy]
    cells = {
        "type": "heatmap",
        "z": [[short(accuracy.get((layer, head))) for head in heads] for layer in layers],
        "y": [str(layer) for layer in layers],
        **{"zmin": 0, "zmax": 1, "colorscale": "Cividis", "xgap": 1, "ygap": 1},
        "hovertemplate": "layer %{y}, head %{x}: %{z:.3f}<extra></extra>",
        "colorbar": {"thickness": 12, "outlinewidth": 0},
    }
    layout = {
        "height": max(230, 70 + 20 * len(layers)),
        "xaxis": {"title": {"text": "head"}, "dtick": math.ceil(len(heads) / 16), "showgrid": False},
        "yaxis": {"title": {"text": "layer"}, "type": "category", "showgrid": False},
    }
    # Two rings, a dark one in a light one, are visible on every colour of the map.
    rings = [_ring(chosen, 16, "#ffffff", 5), _ring(chosen, 16, "#000000", 2)]
    return Chart(name, "Map of heads", EXPLAINED, [cells, *rings], layout, [Key("chosen", "--ink", "◯")])


def _ring(heads: list[Head], size: int, colour: str, width: int) -> dict[str, Any]:
    marker = {"symbol": "circle-open", "size": size, "color": colour, "line": {"width": width}}
    x, y = [head for _, head in heads], [str(layer) for layer, _ in heads]
    return {"x": x, "y": y, "mode": "markers", "hoverinfo": "skip", "marker": marker}


def _order(run: Run, accuracy: dict[Head, float], name: str) -> Chart:
    best = sorted(accuracy, key=lambda head: (-accuracy[head], head))[:BEST]
    chosen = set(chosen_heads(run))
    traces, legend = [], []
    for label, colour, symbol, mark, of in (
        ("chosen", "--run-1", "diamond", "◆", True),
        ("not chosen", "--run-0", "circle-open", "○", False),
    ):
        heads = [head for head in best if (head in chosen) == of]
        if not heads:
            continue
        values = [accuracy[head] for head in heads]
        ends = [_ends(run, head) or (None, None) for head in heads]
        trace = {
            "name": label,
            "x": [best.index(head) + 1 for head in heads],
            "y": [short(value) for value in values],
            "text": [f"layer {layer}, head {head}" for layer, head in heads],
            "mode": "markers",
            "marker": {"color": colour, "size": 9, "symbol": symbol},
            "hovertemplate": "%{text}: %{y:.3f}<extra></extra>",
        }
        if any(low is not None for low, _ in ends):
            trace["error_y"] = error_bars(values, [low for low, _ in ends], [high for _, high in ends], colour)
        traces.append(trace)
        legend.append(Key(label, colour, mark))
    rows = [(f"layer {head[0]}, head {head[1]}", f"{accuracy[head]:.3f}", _interval(run, head)) for head in best]
    layout = {
        "xaxis": {"title": {"text": "rank"}, "showgrid": False},
        "yaxis": {"title": {"text": "step ranking accuracy"}},
    }
    table = Table(("Head", "Accuracy", "Interval"), rows)
    title = "Heads in order" if len(accuracy) <= BEST else f"The best {BEST} heads"
    explained = "Bars: 95 % intervals over problems." if run.heads.get("sra_interval") else "No intervals recorded."
    return Chart(name, title, explained, traces, layout, legend, table)


def _ends(run: Run, head: Head) -> tuple[float, float] | None:
    recorded = run.heads.get("sra_interval")
    ends = recorded.get(f"{head[0]},{head[1]}") if isinstance(recorded, dict) else None
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, int | float) for end in ends):
        return None
    return float(ends[0]), float(ends[1])


def _interval(run: Run, head: Head) -> str:
    ends = _ends(run, head)
    return "–" if ends is None else f"[{ends[0]:.2f}, {ends[1]:.2f}]"


def _of(run: Run, field: str, head: Head) -> float | None:
    values = run.heads.get(field)
    value = values.get(f"{head[0]},{head[1]}") if isinstance(values, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


TABLE = "table.csv"
COLUMNS = ("model", "traces", "Pearson", "low", "high")
FOLDERS = (".", "stability", "evidence", "evidence/stability")  # of a run, where its table may be


@dataclass(frozen=True)
class Stability:
    """Rows of a stability table, in the order of the models; the first model is the base and has no correlation."""

    name: str
    rows: list[dict[str, str]]


def find_stability(folder: Path, name: str) -> Stability | None:
    """Read the stability table of a run or of an output folder; None if there is none.

    Raises InputError for a table with these columns whose cells are not numbers.
    """
    for inner in FOLDERS:
        path = folder / inner / TABLE
        if path.is_file() and (rows := _read(path)):
            return Stability(name, rows)
    return None


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                return []  # a table of another tool
            rows = [{key: value or "" for key, value in row.items() if isinstance(key, str)} for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    for number, row in enumerate(rows, 2):
        for column in COLUMNS[2:]:
            try:
                float(row[column] or 0)
            except ValueError:
                raise InputError(
                    f"{path}, row {number}: {column!r} is {row[column]!r}, expected a number or nothing"
                ) from None
    return rows


def stability_chart(stability: Stability, index: int) -> Chart:
    """The correlation of all heads' accuracies with those in the first model, with intervals."""
    after = [row for row in stability.rows if row["Pearson"]]
    values = [float(row["Pearson"]) for row in after]
    low, high = ([float(row[end]) if row[end] else None for row in after] for end in ("low", "high"))
    trace = {
        "name": "Pearson correlation",
        "x": [row["model"] for row in after],
        "y": [short(value) for value in values],
        "mode": "lines+markers",
        "line": {"color": "--run-0", "width": 2},
        "marker": {"color": "--run-0", "size": 9},
        "error_y": error_bars(values, low, high, "--run-0"),
    }
    columns = tuple(stability.rows[0])
    rows = [tuple(_shown(row.get(column, "")) for column in columns) for row in stability.rows]
    return Chart(
        f"stability-{index}",
        "Do the heads stay the same?",
        "Correlation of the accuracy of all heads with that in the first model; 95 % intervals over problems.",
        [trace],
        {"xaxis": {"type": "category", "showgrid": False}, "yaxis": {"rangemode": "normal"}},
        [Key("Pearson correlation with the first model", "--run-0", "●")],
        Table(columns, rows),
    )


def _shown(cell: str) -> str:
    return f"{float(cell):.3f}" if "." in cell and cell.replace(".", "", 1).lstrip("-").isdigit() else cell


def heads(runs: list[Run], stabilities: list[Stability]) -> View:
    """The view: a map, a ranking and a table per run that recorded its heads; then stability, if measured."""
    shown = [
        {
            "name": run.name,
            "charts": head_charts(run, index),
            "described": described(run),
            "chosen": chosen_table(run),
        }
        for index, run in enumerate(runs)
        if run.heads
    ]
    stable = [(stability.name, stability_chart(stability, index)) for index, stability in enumerate(stabilities)]
    html = render("heads.html", runs=shown, several_runs=len(runs) > 1, stabilities=stable)
    charts = [chart for one in shown for chart in one["charts"]]
    return View("heads", "Heads", html, [*charts, *(chart for _, chart in stable)])
