"""What `attnpo compare` leaves in its folder: comparison.json, table.csv, table.md and frontier.png."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attnpo.evaluation.compare import Comparison
from attnpo.evaluation.frontier import draw_frontier
from attnpo.evaluation.results import flat, shown
from attnpo.tables import Table, write_table, writing

SIGNIFICANT = 0.05
FILES = JSON, CSV, MARKDOWN, FRONTIER = "comparison.json", "table.csv", "table.md", "frontier.png"


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write the four files. Raises InputError where they cannot be written, RunError where the disk fails."""
    with writing(folder / JSON) as path:
        path.write_text(json.dumps(comparison, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    write_table(folder / CSV, comparison_table(comparison))
    with writing(folder / MARKDOWN) as path:
        path.write_text(markdown(comparison), encoding="utf-8")
    with writing(folder / FRONTIER) as path:
        draw_frontier(comparison).savefig(path, dpi=150)


def parts(comparison: Comparison) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, numbers) of every benchmark, and of the macro average (`all`) where there is one."""
    yield from comparison["benchmarks"].items()
    if comparison["all"]:
        yield "all", comparison["all"]


def comparison_table(comparison: Comparison) -> Table:
    """One row per benchmark and run with all numbers; `difference_…` and `aes` are against the base."""
    rows = []
    for benchmark, part in parts(comparison):
        for name, found in part["runs"].items():
            row = {"benchmark": benchmark, "run": name, "problems": part["problems"]} | flat(found)
            for key, value in part["against_base"].get(name, {}).items():
                row |= flat({key if key == "aes" else f"difference_{key}": value})
            rows.append(row)
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(names, [tuple(row.get(name) for name in names) for row in rows])


def markdown(comparison: Comparison) -> str:
    """The comparison for people, with what has to be known to read it."""
    rows = []
    for benchmark, part in parts(comparison):
        for name, found in part["runs"].items():
            versus = part["against_base"].get(name)
            cells = difference_cells(versus) if versus else ("", "", "")
            rows.append((benchmark, name, shown(found["accuracy"], 100, 1), shown(found["tokens"], 1, 0), *cells))
    columns = ("benchmark", "run", "accuracy %", "tokens", "accuracy: points", "tokens: difference", "AES")
    notes = [*reading_notes(comparison), *comparison["notices"]]
    listed = "".join(f"- {note}\n" for note in notes)
    return f"# Comparison\n\n{Table(columns, rows).markdown()}\n{listed}\n![accuracy against length]({FRONTIER})\n"


def difference_cells(versus: dict[str, Any]) -> tuple[str, str, str]:
    """Accuracy in points, tokens and AES against the base, with intervals; `*`: significant."""
    accuracy, tokens, score = versus["accuracy"], versus["tokens"], versus["aes"]
    return (
        shown(accuracy, 100, 1, "+") + mark(accuracy["p"]),
        shown(tokens, 1, 0, "+") + mark(tokens["p"]),
        shown(score, 1, 2, "+"),
    )


def mark(p: float | None) -> str:
    return " *" if p is not None and p < SIGNIFICANT else ""


def reading_notes(comparison: Comparison) -> list[str]:
    """What has to be known to read the tables."""
    weights = comparison["weights"]
    notes = [
        f"Differences and AES are against {comparison['base']}, on the same problems; in brackets 95 % intervals, "
        "from problems resampled for both runs at once.",
        f"*: p < {SIGNIFICANT} in a sign-flip permutation test over problems, not corrected for the number of tests.",
        f"AES = {weights['length']:g}·ΔL + {weights['gain']:g}·ΔA, or − {weights['loss']:g}·|ΔA| where accuracy fell.",
    ]
    if comparison["all"]:
        notes.append(f"all: the mean over {', '.join(comparison['all']['benchmarks'])}, each counting the same.")
    for benchmark, part in comparison["benchmarks"].items():
        notes += [
            f"{benchmark}: {found['ungraded']} of {found['samples']} responses of {name} are ungraded and left out of "
            "every accuracy."
            for name, found in part["runs"].items()
            if found["ungraded"]
        ]
    return notes
