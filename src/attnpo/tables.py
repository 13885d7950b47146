"""Tables of results: one type, written as CSV for programs and as Markdown for people."""

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
"""Seconds of the past that a bar's time left is estimated from: rich's own half minute holds no two steps of a run."""

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
        """A Markdown table; a name with a bar or a line break stays one cell."""
        lines = [self.columns, ["---"] * len(self.columns), *self.shown()]
        return "".join(f"| {' | '.join(map(_one_cell, line))} |\n" for line in lines)

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


def write_table(file: Path, table: Table) -> None:
    """One table, all digits. Raises InputError for a file that cannot be written to, RunError where the disk fails."""
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


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)
