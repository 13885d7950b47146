"""Small pictures made of characters, readable without colours.

The results of an evaluation on the screen: a first look that needs no browser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attnpo.evaluation.results import Results, shown, truncation_notes

EIGHTHS = " ▁▂▃▄▅▆▇█"
BAR = " ▏▎▍▌▋▊▉█"


def sparkline(counts: Sequence[int]) -> str:
    """One character per count, the largest one full; a count above 0 is never blank.

    >>> sparkline([0, 1, 4, 8])
    ' ▁▄█'
    """
    top = max(counts, default=0)
    return "".join(EIGHTHS[-(-8 * count // top)] if count else " " for count in counts)


def bar(share: float, width: int) -> str:
    """A bar of `width` characters of which `share` (0 … 1) is filled.

    >>> bar(0.5, 5)
    '██▌  '
    """
    eighths = round(8 * width * min(max(share, 0.0), 1.0))
    full, rest = divmod(eighths, 8)
    return ("█" * full + (BAR[rest] if rest else "")).ljust(width)


def scatter(points: Mapping[str, tuple[float, float]], width: int, height: int) -> list[str]:
    """Points drawn as the first character of their name in a field of `width` × `height`, higher values further up.

    A character that is taken is drawn as `+`: two points or more at one place.
    """
    field = [[" "] * width for _ in range(height)]
    places = {}
    for axis, size in ((0, width), (1, height)):
        values = [point[axis] for point in points.values()]
        low, span = min(values), (max(values) - min(values)) or 1.0
        places[axis] = [round((value - low) / span * (size - 1)) for value in values]
    for name, column, row in zip(points, places[0], places[1], strict=True):
        line = field[height - 1 - row]
        line[column] = name[0] if line[column] == " " else "+"
    return ["".join(line) for line in field]


LEVELS_BAR, MOST_LEVELS = 20, 20


def print_results(results: Results, console: Console | None = None) -> None:
    """Print what results.json holds: accuracy, lengths, pass@k, budgets, levels and what was left out."""
    console = console or Console(highlight=False, markup=False)  # names may hold [brackets]
    benchmarks = results["benchmarks"]
    console.print()
    names = dict.fromkeys((results["name"], results["model"]))  # often the same
    console.print(*(Text(name, style) for name, style in zip(names, ("bold", ""), strict=False)))
    table = new_table("", ("benchmark", "problems", "accuracy %", "tokens", "truncated %"))
    for name, found in benchmarks.items():
        size = f"{found['problems']} × {found['samples_per_problem']}"
        table.add_row(name, size, shown(found["accuracy"], 100, 1), shown(found["tokens"], 1, 0), cut_share(found))
    console.print(table)
    for note in truncation_notes(benchmarks):
        console.print(Text(note, "bold"))
    _print_lengths(benchmarks, console)
    rows = [((name,), found) for name, found in telling_budgets(benchmarks).items()]
    for part in ("pass_at_k", "accuracy_at_budget"):
        print_columns(("benchmark",), rows, part, console)
    for name, found in benchmarks.items():
        _print_levels(name, found["levels"], console)
    if results["aes"]:
        scores = {**results["aes"]["benchmarks"], **({"all": results["aes"]["all"]} if len(benchmarks) > 1 else {})}
        listed = ", ".join(f"{name} {'–' if score is None else f'{score:+.2f}'}" for name, score in scores.items())
        console.print(f"AES against {results['aes']['base']}: {listed}")
    print_notes(["In brackets: 95 % intervals, problems resampled.", *ungraded_notes(benchmarks)], console)


def telling_budgets(benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    """The results without budgets that only repeat the accuracy: those after the first that no response exceeds."""
    longest = max(found["longest"] for found in benchmarks.values())
    budgets = sorted({int(budget) for found in benchmarks.values() for budget in found["accuracy_at_budget"]})
    last = next((budget for budget in budgets if budget >= longest), longest)
    return {
        name: {**found, "accuracy_at_budget": {k: v for k, v in found["accuracy_at_budget"].items() if int(k) <= last}}
        for name, found in benchmarks.items()
    }


def new_table(title: str, columns: Sequence[str], left: int = 1) -> Table:
    """A table without vertical lines; all columns but the first `left` are numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.pad_edge = False  # 80 columns hold three intervals
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < left else "right", overflow="fold")
    return table


def print_columns(
    heads: Sequence[str],
    rows: Iterable[tuple[Sequence[str], Mapping[str, Any]]],
    part: str,
    console: Console,
) -> None:
    """pass@k or accuracy under budgets, one column for each k or budget any row has; nothing where none has one."""
    rows = list(rows)
    keys = sorted({key for _, found in rows for key in found[part]}, key=int)
    if not keys or (part == "pass_at_k" and keys == ["1"]):  # which is the accuracy
        return
    title = "pass@k %" if part == "pass_at_k" else "accuracy % within so many tokens"
    table = new_table(title, (*heads, *keys), left=len(heads))
    for names, found in rows:
        cells = [found[part].get(key, {"value": None})["value"] for key in keys]
        table.add_row(*names, *("–" if value is None else f"{100 * value:.1f}" for value in cells))
    console.print(table)


def cut_share(found: Mapping[str, Any]) -> str:
    """Share of truncated responses, in percent."""
    return f"{100 * found['truncated']['value']:.1f}"


def ungraded_notes(benchmarks: Mapping[str, Any], of: str = "") -> list[str]:
    """What was left out of the accuracies; `of`: whose responses these are."""
    return [
        f"{name}: {found['ungraded']} of {found['samples']} responses{of} could not be graded; no accuracy counts them."
        for name, found in benchmarks.items()
        if found["ungraded"]
    ]


def print_notes(notes: Iterable[str], console: Console) -> None:
    for note in notes:
        console.print(Text(note, "dim"))


def _print_lengths(benchmarks: Mapping[str, Any], console: Console) -> None:
    table = new_table("how long the responses are, in tokens", ("benchmark", "", "", "", "median"))
    for name, found in benchmarks.items():
        lengths = found["lengths"]
        line = Text(sparkline(lengths["counts"]), "cyan")
        table.add_row(name, "0", line, str(lengths["edges"][-1]), f"{found['tokens_median']['value']:.0f}")
    console.print(table)


def _print_levels(name: str, levels: Mapping[str, Any], console: Console) -> None:
    if len(levels) < 2:
        return
    if len(levels) > MOST_LEVELS:
        console.print(f"{name}: {len(levels)} levels, see results.json")
        return
    table = new_table(f"{name} by level", ("level", "", "accuracy %", "tokens", "problems"), left=2)
    for level, found in levels.items():
        accuracy, tokens = found["accuracy"]["value"], found["tokens"]["value"]
        cells = ("", "–") if accuracy is None else (bar(accuracy, LEVELS_BAR), f"{100 * accuracy:.1f}")
        table.add_row(level, Text(cells[0], "cyan"), cells[1], f"{tokens:.0f}", str(found["problems"]))
    console.print(table)
