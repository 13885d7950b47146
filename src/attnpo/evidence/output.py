"""What every tool leaves: table.csv, table.md and figure.png in one folder, and the table on the screen."""

from __future__ import annotations

import csv
import errno
import io
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from attnpo.errors import InputError, RunError

Cell = str | int | float | None

TABLE, MARKDOWN, FIGURE, COMMAND = "table.csv", "table.md", "figure.png", "command.txt"
DISK_FAILS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


@dataclass(frozen=True)
class Table:
    """Rows of cells under column names; None is an empty cell."""

    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows)

    def shown(self) -> list[list[str]]:
        """The cells as they are read by people: three places for numbers."""
        return [[_shown(cell) for cell in row] for row in self.rows]

    def markdown(self) -> str:
        """A Markdown table."""
        lines = [self.columns, ["---"] * len(self.columns), *self.shown()]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def csv(self) -> str:
        """All digits, for programs."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


def check_folder(folder: str | Path) -> Path:
    """The folder, made if need be, and seen before the work that it can be written to. Raises InputError if not."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be made: {error.strerror or error}") from None
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written to: {error.strerror or error}") from None
    return path


def write_evidence(folder: Path, table: Table, figure: Figure) -> None:
    """table.csv, table.md, figure.png and the command that made them. Raises as `write_table` does."""
    with _writing(folder / COMMAND) as path:
        path.write_text(shlex.join(sys.argv) + "\n", encoding="utf-8")
    write_table(folder / TABLE, table)
    with _writing(folder / MARKDOWN) as path:
        path.write_text(table.markdown(), encoding="utf-8")
    with _writing(folder / FIGURE) as path:
        figure.savefig(path, dpi=150)


def write_table(file: Path, table: Table) -> None:
    """One table, all digits. Raises InputError for a file that cannot be written to, RunError where the disk fails."""
    with _writing(file) as path:
        path.write_text(table.csv(), encoding="utf-8")


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


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    try:
        yield path
    except OSError as error:
        kind = RunError if error.errno in DISK_FAILS else InputError
        raise kind(f"{path}: cannot be written: {error.strerror or error}") from None


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)
