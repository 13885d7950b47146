"""Reading and writing of JSON Lines, plain or gzip, and of complete files, for the whole package.

Rows are plain dictionaries; unknown fields are kept and passed through. A run that is killed while writing leaves
exactly one kind of damage: the last line is cut off, or the gzip stream ends early. `read_unfinished_jsonl` tolerates
and reports that; anything else malformed raises an error with file and row.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from attnpo.errors import InputError, RunError

_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Types of the fields of a trace that a command may require.
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str, int),
    "problem": (str,),
    "response": (str,),
    "reference": (str,),
    "steps": (list,),
}
_TYPE_NAMES = {str: "text", int: "a number", list: "a list", dict: "an object", float: "a number", bool: "true/false"}


def read_jsonl(path: str | os.PathLike[str], required: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """Stream the rows of a JSON Lines file; see `read_numbered_jsonl`."""
    for _, row in read_numbered_jsonl(path, required):
        yield row


def read_numbered_jsonl(
    path: str | os.PathLike[str],
    required: Iterable[str] = (),
    *,
    on_bad_row: Callable[[InputError], None] | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream (row number, row) of a JSON Lines file. Row numbers are line numbers, from 1; blank lines are skipped.

    Args:
        path: a UTF-8 file, plain or gzip (recognised by content).
        required: names of fields that every row must have. ``id``, ``problem``, ``response``, ``reference`` and
            ``steps`` must then also have the type they have in a trace.
        on_bad_row: called with the error of every bad row, which is then left out; without it the first one is raised.

    Raises:
        InputError: the file is missing, unreadable or without rows, a row is not a JSON object, or a required field
            is missing or of the wrong type. The message names file, row and field.
    """
    required = list(required)
    empty = True
    for number, line in _numbered_lines(path):
        if not line.strip():
            continue
        empty = False
        try:
            row = _parse_row(line, where := row_name(path, number))
            for name in required:
                check_field(row, name, where)
        except InputError as error:
            if on_bad_row is None:
                raise
            on_bad_row(error)
        else:
            yield number, row
    if empty:
        raise InputError(f"{path}: the file has no rows; expected one JSON object per line")


def row_name(path: str | os.PathLike[str], number: int) -> str:
    """The name of a row in error messages: ``traces.jsonl, row 3``."""
    return f"{os.fspath(path)}, row {number}"


def check_field(row: Mapping[str, Any], name: str, where: str) -> None:
    """Check that a row has a field, with the type of that field in a trace.

    Raises:
        InputError: it is missing or of the wrong type.
    """
    if name not in row:
        raise InputError(f"{where}: field '{name}' is missing (found {', '.join(map(str, row)) or 'no fields'})")
    value, expected = row[name], _FIELD_TYPES.get(name)
    if expected and (not isinstance(value, expected) or isinstance(value, bool)):
        names = " or ".join(_TYPE_NAMES[kind] for kind in expected)
        raise InputError(f"{where}: field '{name}' is {type_name(value)}, expected {names}")


def type_name(value: object) -> str:
    """The JSON type of a value, in words."""
    return "null" if value is None else _TYPE_NAMES.get(type(value), type(value).__name__)


def check_target(path: str | os.PathLike[str], *, read: str | os.PathLike[str] | None = None) -> Path:
    """The file to write for `path`, with links resolved so that they keep pointing to it.

    read: the input file, which must not be overwritten.
    Raises InputError if `path` is a folder, is in no existing folder, or is the file `read`.
    """
    target = Path(path).resolve()
    if target.is_dir():
        raise InputError(f"{path}: is a folder, expected a file to write")
    if not target.parent.is_dir():
        raise InputError(f"{path}: the folder {target.parent} does not exist")
    if read is not None and target.exists() and Path(read).exists() and target.samefile(read):
        raise InputError(f"{path}: is the input file, which would be overwritten; expected another file to write")
    return target


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows to a JSON Lines file (gzip if the name ends in .gz) and return their number.

    The rows are written to a temporary file in the folder of `path`, which replaces it at the end. If anything fails,
    also in `rows`, an existing file is not changed; so `rows` may be read from the same file.

    Raises:
        InputError: `path` cannot be written to.
        RunError: writing failed half-way (disk full, …).
    """
    target = check_target(path)
    if target.exists() and not target.is_file():  # a pipe or /dev/stdout: nothing there to protect
        return _write_rows(target, rows, path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        count = _write_rows(temporary, rows, path)
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _write_rows(file_path: Path, rows: Iterable[Mapping[str, Any]], named: str | os.PathLike[str]) -> int:
    try:
        raw = open(file_path, "wb")  # noqa: SIM115 (opening and writing fail with different errors)
    except OSError as error:
        raise InputError(f"{named}: cannot be written ({error.strerror})") from error
    count = 0
    try:
        with raw, _compressed(raw) if os.fspath(named).endswith(".gz") else raw as file:
            for row in rows:
                file.write(json_line(row))
                count += 1
    except OSError as error:
        raise RunError(f"{named}: writing failed ({error.strerror})") from error
    return count


def _compressed(raw: IO[bytes]) -> IO[bytes]:
    # no name and no time in the header, so that equal rows give equal files
    return cast("IO[bytes]", gzip.GzipFile("", "wb", fileobj=raw, mtime=0))


def json_line(row: Mapping[str, Any]) -> bytes:
    """A row as a line of a file. Half of a surrogate pair, which UTF-8 cannot represent, is written as an escape."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _numbered_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """(number, line) as bytes: only a newline ends a row, and a bad byte affects only its row."""
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder, expected a JSON Lines file")
    try:
        with open(path, "rb") as raw:
            compressed = raw.peek(2)[:2] == _GZIP_MAGIC
            lines = gzip.GzipFile(fileobj=raw) if compressed else raw
            for number, line in enumerate(lines, start=1):
                yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip file ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _parse_row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode().rstrip("\r\n"))  # else a missing bracket is reported in the next line, column 1
    except UnicodeDecodeError as error:
        raise InputError(f"{where}, byte {error.start + 1}: not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{where}, column {error.colno}: not valid JSON ({error.msg})") from error
    except RecursionError:
        raise InputError(f"{where}: JSON nested too deeply") from None
    except ValueError as error:  # a number with thousands of digits
        raise InputError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: found {type_name(row)}, expected one JSON object per line")
    return row


Row = tuple[int, dict[str, Any]]  # line number, from 1, and the object on that line


def read_unfinished_jsonl(path: Path) -> tuple[list[Row], str | None]:
    """The rows of a .jsonl or .jsonl.gz file, and a notice for the user if its end is missing.

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
    rows = [(row, _parse_row(line, row_name(path, row))) for row, line in enumerate(finished, 1) if line.strip()]
    if rest.strip():
        try:
            rows.append((len(finished) + 1, _parse_row(rest, row_name(path, len(finished) + 1))))
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


def number(row: dict[str, Any], key: str, where: str) -> float | None:
    """row[key] as a float; None if it is absent, null or not finite. InputError for anything else."""
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: {key!r} is {value!r}, expected a number or null")
    return float(value) if math.isfinite(value) else None


def whole(row: dict[str, Any], key: str, where: str) -> int:
    """row[key] as an int of at least 0; InputError if it is absent or anything else."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{where}: {key!r} is {value!r}, expected a whole number of at least 0")
    return value


def write_whole(file: Path, content: bytes) -> None:
    """Write `content` to a file atomically: a process killed meanwhile leaves the old file unchanged."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def drop_unfinished_line(file: Path) -> int:
    """Truncate a file after its last line break and return its new size."""
    content = file.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with open(file, "r+b") as opened:
            opened.truncate(end)
    return end
