"""Tables of results, written as CSV for programs and as Markdown for people; checks of output paths."""

from __future__ import annotations

import csv
import errno
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attnpo.errors import InputError, RunError

Cell = str | int | float | None

TIME_LEFT_FROM = 3600.0
"""Seconds from which progress bars estimate the remaining time: rich's default, 30 s, covers less than two steps."""

DISK_FAILS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


@dataclass(frozen=True)
class Table:
    """Rows of cells with column names; None is an empty cell."""

    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows)

    def shown(self) -> list[list[str]]:
        """Cells as text for people, numbers with three decimals."""
        return [[_cell_text(cell) for cell in row] for row in self.rows]

    def markdown(self) -> str:
        """A Markdown table; bars and line breaks in a name are escaped."""
        lines = [self.columns, ["---"] * len(self.columns), *self.shown()]
        return "".join(f"| {' | '.join(map(_one_cell, line))} |\n" for line in lines)

    def csv(self) -> str:
        """CSV with all digits, for programs."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


def check_folder(folder: str | Path) -> Path:
    """Create the folder if necessary and check that it is writable. Raises InputError if it is not."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be created: {error.strerror or error}") from None
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written to: {error.strerror or error}") from None
    return path


def write_table(file: Path, table: Table) -> None:
    """Write a table as CSV. Raises InputError for a file that cannot be written, RunError where the disk fails."""
    with writing(file) as path:
        path.write_text(table.csv(), encoding="utf-8")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Turn a failure to write into InputError, or into RunError where the disk fails."""
    try:
        yield path
    except OSError as error:
        kind = RunError if error.errno in DISK_FAILS else InputError
        raise kind(f"{path}: cannot be written: {error.strerror or error}") from None


def _one_cell(text: str) -> str:
    return " ".join(text.splitlines()).replace("|", "\\|")


def _cell_text(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)
