"""JSON lines as a run leaves them behind, also after a crash.

A run that was killed while it wrote leaves exactly one kind of damage: the last line is cut off, or the gzip stream
ends early. That much is tolerated and reported; anything else that is malformed is an error with file and row.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

from attnpo.errors import InputError

Row = tuple[int, dict[str, Any]]  # the number of the line, from 1, and the object on it


def read_rows(path: Path) -> tuple[list[Row], str | None]:
    """The rows of a .jsonl or .jsonl.gz file, and a notice in plain language if its end is missing.

    Raises InputError (file and row) for a line that is not a JSON object, unless it is an unfinished last line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    complete = True
    if path.suffix == ".gz":
        data, complete = _gunzip(data, path)
    *finished, rest = data.split(b"\n")
    rows = [(row, _parse(line, path, row)) for row, line in enumerate(finished, 1) if line.strip()]
    if rest.strip():
        try:
            rows.append((len(finished) + 1, _parse(rest, path, len(finished) + 1)))
        except InputError:
            return rows, f"{path.name}: the last line is unfinished (cut off while writing); left out."
    if not complete:
        return (
            rows,
            f"{path.name}: the file ends early (cut off while writing); {len(rows)} rows were read.",
        )
    return rows, None


def _gunzip(data: bytes, path: Path) -> tuple[bytes, bool]:
    """All members of a gzip file, and whether it is complete. (`gzip.open` drops what precedes a missing end.)"""
    parts, complete = [], bool(data)
    while data and complete:
        member = zlib.decompressobj(wbits=31)
        try:
            parts.append(member.decompress(data))
        except zlib.error as error:
            raise InputError(f"{path}: not a gzip file, or damaged ({error}); expected gzipped JSON lines") from error
        complete, data = member.eof, member.unused_data
    return b"".join(parts), complete


def _parse(line: bytes, path: Path, row: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise InputError(f"{path}, row {row}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}, row {row}: found {type(value).__name__}, expected a JSON object")
    return value


def number(row: dict[str, Any], key: str, where: str) -> float | None:
    """row[key] as a float; None where it is absent, null or not finite. InputError for anything else."""
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: {key!r} is {value!r}, expected a number or null")
    return float(value) if math.isfinite(value) else None


def whole(row: dict[str, Any], key: str, where: str) -> int:
    """row[key] as an int of at least 0; InputError when it is absent or something else."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{where}: {key!r} is {value!r}, expected a whole number of at least 0")
    return value
