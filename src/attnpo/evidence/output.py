"""What every tool leaves: table.csv, table.md and figure.png in one folder, and the table on the screen."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from attnpo.tables import Table, write_table, writing

TABLE, MARKDOWN, FIGURE, COMMAND = "table.csv", "table.md", "figure.png", "command.txt"


def write_evidence(folder: Path, table: Table, figure: Figure) -> None:
    """table.csv, table.md, figure.png and the command that made them. Raises as `write_table` does."""
    with writing(folder / COMMAND) as path:
        path.write_text(shlex.join(sys.argv) + "\n", encoding="utf-8")
    write_table(folder / TABLE, table)
    with writing(folder / MARKDOWN) as path:
        path.write_text(table.markdown(), encoding="utf-8")
    with writing(folder / FIGURE) as path:
        figure.savefig(path, dpi=150)


def print_table(table: Table, title: str, notes: Sequence[str] = ()) -> None:
    """The table on standard output, with what has to be known to read it."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table as Screen

    # Nine columns fit into a terminal.
    screen = Screen(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for index, name in enumerate(table.columns):
        numbers = all(isinstance(row[index], int | float | None) for row in table.rows)
        screen.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in table.shown():
        screen.add_row(*row)
    console = Console()
    console.print(screen)
    for note in notes:
        console.print(note, style="dim", highlight=False)
