"""Read files of traces, of this package and of other tools; all commands that read traces use it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from attnpo.data.jsonl import check_field, read_numbered_jsonl, row_name
from attnpo.errors import InputError
from attnpo.steps.detect import choose_format, format_of_file
from attnpo.steps.formats import THINK, Form, ThinkingFormat, marks_of
from attnpo.traces.origins import AUTO, CONVERTERS, OWN, Row, origin_of

ORIGINS = (AUTO, OWN, *CONVERTERS)
NumberedRow = tuple[int, Row]


def read_traces(
    source: str | os.PathLike[str],
    required: Iterable[str] = (),
    origin: str = AUTO,
    *,
    marks: ThinkingFormat = THINK,
    on_bad_row: Callable[[InputError], None] | None = None,
) -> Iterator[NumberedRow]:
    """Stream (row number, trace) of a file. A row with several responses yields several traces with its number.

    Args:
        source: JSON Lines (.gz too), .json, .parquet, or a log of inspect (.eval).
        required: fields every trace must have, as for `read_numbered_jsonl`.
        origin: which tool wrote the file, one of `ORIGINS`; auto: recognised by the first row.
        marks: the format whose marks are put around thinking that a file stores separately from the answer.
        on_bad_row: called with the error of every bad row, which is left out; without it the first error is raised.

    Raises:
        InputError: the file or a row cannot be read, or lacks a required field; names file, row and field.
    """
    if origin not in ORIGINS:
        raise InputError(f"--from {origin}: expected one of {', '.join(ORIGINS)}")
    required = list(required)
    seen: set[tuple[Any, ...]] = set()
    for number, row in _rows(source, on_bad_row):
        if origin == AUTO:
            origin = origin_of(row)
        where = row_name(source, number)
        try:
            traces = [row] if origin == OWN else list(CONVERTERS[origin](row, where, marks))
            for trace in traces:
                for name in required:
                    check_field(trace, name, where)
        except InputError as error:
            if on_bad_row is None:
                raise
            on_bad_row(error)
            continue
        for trace in traces:
            if origin == "lm-eval":  # every filter of a task repeats its documents
                key = (trace.get("id"), hash(trace["response"]))
                if key in seen:
                    continue
                seen.add(key)
            yield number, trace


def rows_for_model(
    rows: list[NumberedRow],
    source: str | os.PathLike[str],
    origin: str,
    thinking_format: str,
    tokenizer: Any,
    say: Callable[[str], None],
) -> tuple[Form, list[NumberedRow]]:
    """Return the format of a file's rows for a model that reads them (`format_of_file`), and the rows.

    Thinking that a tool stores separately is put between the marks that this model writes; the file is read again for
    that.

    Raises:
        InputError: as `read_traces` and `format_of_file`.
    """
    marks = marks_of(choose_format(thinking_format, tokenizer).form)
    if (marks.opener, marks.bridge) != (THINK.opener, THINK.bridge):
        rows = list(read_traces(source, ("problem", "response"), origin, marks=marks))
    return format_of_file(thinking_format, tokenizer, rows, say), rows


def _rows(
    source: str | os.PathLike[str], on_bad_row: Callable[[InputError], None] | None = None
) -> Iterator[NumberedRow]:
    path = Path(source)
    if path.is_file() and zipfile.is_zipfile(path):
        yield from _inspect_archive(path)
    elif path.suffix == ".json" and path.is_file():
        yield from _json_file(path)
    elif path.suffix in (".parquet", ".arrow", ".csv"):
        yield from _table(path)
    else:
        yield from read_numbered_jsonl(source, on_bad_row=on_bad_row)


def _json_file(path: Path) -> Iterator[NumberedRow]:
    """Yield the samples of an inspect log, otherwise rows: one array, or lines."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if isinstance(content, dict) and isinstance(content.get("samples"), list):
        yield from enumerate(content["samples"], start=1)
    else:
        yield from _table(path)


def _table(path: Path) -> Iterator[NumberedRow]:
    from attnpo.data.problems import load_rows  # imports `datasets`, which takes a second

    yield from enumerate(load_rows(str(path)), start=1)


def _inspect_archive(path: Path) -> Iterator[NumberedRow]:
    """Yield the samples of an inspect log, a zip file with one JSON file per id and epoch."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("samples/") and name.endswith(".json")]
        if not names:
            found = ", ".join(archive.namelist()[:5]) or "nothing"
            raise InputError(f"{path}: a zip file with {found}, expected a log of inspect with samples")
        for number, name in enumerate(sorted(names), start=1):
            try:
                yield number, json.loads(archive.read(name))
            except (ValueError, zipfile.BadZipFile) as error:
                raise InputError(f"{path}, {name}: not valid JSON ({error})") from error
