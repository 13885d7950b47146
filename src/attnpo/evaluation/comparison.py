"""What `attnpo compare` leaves in its folder: comparison.json, table.csv, table.md and frontier.png.

A comparison on the screen: runs side by side, against the base, and the frontier as a field of characters.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from attnpo.evaluation.compare import Comparison
from attnpo.evaluation.frontier import draw_frontier, pareto, points_of
from attnpo.evaluation.results import cut_share, flat, new_table, print_columns, print_notes, scatter, shown
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


HEIGHT, WIDTH = 10, 50
LETTERS = string.ascii_uppercase + string.ascii_lowercase


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print what comparison.json holds, benchmark by benchmark, the macro average last."""
    console = console or Console(highlight=False, markup=False)  # names may hold [brackets]
    console.print()
    for benchmark, part in parts(comparison):
        _print_part(f"{benchmark} ({part['problems']} problems)", part, comparison["base"], console)
    rows = [((benchmark, name), found) for benchmark, part in parts(comparison) for name, found in part["runs"].items()]
    for key in ("pass_at_k", "accuracy_at_budget"):
        print_columns(("benchmark", "run"), rows, key, console)
    last, part = list(parts(comparison))[-1]
    _print_frontier(last, part["runs"], console)
    print_notes([*reading_notes(comparison), *comparison["notices"]], console)


def _print_part(title: str, part: dict[str, Any], base: str, console: Console) -> None:
    table = new_table(title, ("run", "accuracy %", "tokens", "truncated %"))
    for name, found in part["runs"].items():
        table.add_row(name, shown(found["accuracy"], 100, 1), shown(found["tokens"], 1, 0), cut_share(found))
    console.print(table)
    if not part["against_base"]:
        return
    table = new_table(f"against {base}", ("run", "accuracy, points", "tokens", "AES"))
    for name, versus in part["against_base"].items():
        accuracy, tokens, score = difference_cells(versus)
        table.add_row(name, _styled(accuracy, versus["accuracy"], 1), _styled(tokens, versus["tokens"], -1), score)
    console.print(table)


def _styled(cell: str, difference: dict[str, Any], good: int) -> Text:
    """A significant difference is marked in the text already; the colour says whether it is a good one."""
    if not cell.endswith("*"):
        return Text(cell)
    return Text(cell, "bold green" if difference["value"] * good > 0 else "bold red")


def _print_frontier(benchmark: str, runs: dict[str, Any], console: Console) -> None:
    points = points_of(runs)
    if len(points) < 2:
        return
    letters = dict(zip(points, LETTERS, strict=False))  # more runs than letters: nobody could read them either
    drawn = scatter({letters[name]: points[name] for name in letters}, WIDTH, HEIGHT)
    accuracies, tokens = [y for _, y in points.values()], [x for x, _ in points.values()]
    ends = {0: f"{100 * max(accuracies):.1f} %", HEIGHT - 1: f"{100 * min(accuracies):.1f} %"}
    console.print(Text(f"accuracy against tokens, {benchmark}: up and to the left is better", "bold"))
    for number, line in enumerate(drawn):
        console.print(Text(f"{ends.get(number, ''):>8} │{line}"))
    console.print(Text(" " * 9 + "└" + "─" * WIDTH))
    left, right = f"{min(tokens):.0f}", f"{max(tokens):.0f} tokens"
    console.print(Text(" " * 10 + left + right.rjust(WIDTH - len(left))))
    best = pareto(points)
    for name, letter in letters.items():
        length, accuracy = points[name]
        beaten = "on the frontier" if name in best else "beaten by " + _beater(name, points)
        console.print(Text(f"  {letter}  {name}: {100 * accuracy:.1f} % with {length:.0f} tokens, {beaten}"))
    console.print()


def _beater(name: str, points: dict[str, tuple[float, float]]) -> str:
    """One on the frontier that is no longer and no less accurate: the most accurate of them."""
    tokens, accuracy = points[name]
    better = [other for other in pareto(points) if points[other][0] <= tokens and points[other][1] >= accuracy]
    return max(better, key=lambda other: points[other][1])
