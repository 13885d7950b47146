"""What `attnpo evidence stability` wrote: do the heads stay the same while the model is trained."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from attnpo.errors import InputError
from attnpo.report.data.charts import Chart, Key, Table, error_bars, short

TABLE = "table.csv"
COLUMNS = ("model", "traces", "Pearson", "low", "high")
FOLDERS = (".", "stability", "evidence", "evidence/stability")  # of a run, where its own may lie


@dataclass(frozen=True)
class Stability:
    """Rows of a stability table, in the order of the models; the first one is the base and has no correlation."""

    name: str
    rows: list[dict[str, str]]


def find_stability(folder: Path, name: str) -> Stability | None:
    """The stability table of a run or of an output folder; None where there is none.

    Raises InputError for a table with such columns whose cells are no numbers.
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
                return []  # of another tool
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
    """Correlation of every head's accuracy with that in the first model, with intervals."""
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
