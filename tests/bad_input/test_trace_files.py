"""Trace files: error messages name file, row and field; nothing is lost when writing fails."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnpo.data.jsonl import read_jsonl, read_numbered_jsonl, write_jsonl
from attnpo.errors import InputError, RunError

GOOD = {"id": "1", "problem": "1+1?", "response": "2</think>2"}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def write(folder: Path, *lines: str | bytes, name: str = "traces.jsonl") -> Path:
    path = folder / name
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines) + b"\n")
    return path


def error_of(path: Path, *required: str) -> str:
    with pytest.raises(InputError) as caught:
        list(read_jsonl(path, required))
    message = str(caught.value)
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "7", "problem": "p"}', ", row 2: field 'response' is missing (found id, problem)"),
        ("{}", ", row 2: field 'response' is missing (found no fields)"),
        ('{"response": null}', ", row 2: field 'response' is null, expected text"),
        ('{"response": 7}', ", row 2: field 'response' is a number, expected text"),
        ('{"response": ["a"]}', ", row 2: field 'response' is a list, expected text"),
        ("[1, 2]", ", row 2: found a list, expected one JSON object per line"),
        ('"text"', ", row 2: found text, expected one JSON object per line"),
        ("null", ", row 2: found null, expected one JSON object per line"),
        ('{"response": "a",}', ", row 2, column 18: not valid JSON"),
        ("response", ", row 2, column 1: not valid JSON"),
        ('{"response": "a"', ", row 2, column 17: not valid JSON"),
        ('{"response": ' + "[" * 100_000, ", row 2: JSON nested too deeply"),
        ('{"response": ' + "1" * 5000 + "}", ", row 2: not valid JSON"),
        (b'{"response": "\xff"}', ", row 2, byte 15: not UTF-8 text"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: str | bytes, message: str):
    path = write(tmp_path, json.dumps(GOOD), line, json.dumps(GOOD))
    assert error_of(path, "response").startswith(message)


def test_required_types(tmp_path: Path):
    path = write(tmp_path, '{"id": true, "steps": {}, "reference": 3, "extra": 3}')
    assert "field 'id' is true/false, expected text or a number" in error_of(path, "id")
    assert "field 'steps' is an object, expected a list" in error_of(path, "steps")
    assert "field 'reference' is a number, expected text" in error_of(path, "reference")
    assert list(read_jsonl(path, ["extra"])) == list(read_jsonl(path))  # fields of no known type are not checked


def test_bad_files(tmp_path: Path):
    assert error_of(tmp_path / "absent.jsonl") == ": no such file"
    assert error_of(tmp_path) == ": is a folder, expected a JSON Lines file"
    assert error_of(write(tmp_path, "", "  ")) == ": the file has no rows; expected one JSON object per line"
    (tmp_path / "empty.jsonl").touch()
    assert "no rows" in error_of(tmp_path / "empty.jsonl")
    whole = gzip.compress(json.dumps(GOOD).encode() * 50)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-20])
    assert "damaged gzip" in error_of(tmp_path / "cut.jsonl.gz")
    (tmp_path / "broken.jsonl.gz").write_bytes(whole[:14] + b"\xff\xff\xff" + whole[17:])
    assert "damaged gzip" in error_of(tmp_path / "broken.jsonl.gz")
    assert ", row 1, column 2: not valid JSON" in error_of(
        write(tmp_path, "[", '{"id": 1}', "]")
    )  # a JSON array is not JSON Lines


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_an_unreadable_file(tmp_path: Path):
    path = write(tmp_path, "{}")
    path.chmod(0)
    assert "cannot be read" in error_of(path)


def test_rows_are_streamed_with_their_line_numbers(tmp_path: Path):
    path = write(tmp_path, "\ufeff" + '{"a": 1}', "", '{"a": "\u2028 \u0085"}\r', "nonsense")
    rows = read_numbered_jsonl(path)
    assert next(rows) == (1, {"a": 1})
    assert next(rows) == (3, {"a": "\u2028 \u0085"})  # only a newline ends a row
    with pytest.raises(InputError, match="row 4"):
        next(rows)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=4))
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_written_rows_are_read_back(tmp_path: Path, name: str, rows: list[dict[str, Any]]):
    path = tmp_path / name
    assert write_jsonl(path, rows) == len(rows)
    assert list(read_jsonl(path)) == rows
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    before = path.read_bytes()
    write_jsonl(path, read_jsonl(path))  # onto itself
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_surrogate_pair_survives(tmp_path: Path):
    path = write(tmp_path, '{"a": "\\ud83d é"}')
    write_jsonl(path, read_jsonl(path))
    assert next(read_jsonl(path)) == {"a": "\ud83d é"}


def test_a_failure_leaves_the_old_file(tmp_path: Path):
    path = write(tmp_path, '{"old": 1}')

    def rows():
        yield {"new": 1}
        raise InputError("row 2 is bad")

    with pytest.raises(InputError, match="row 2 is bad"):
        write_jsonl(path, rows())
    with pytest.raises(TypeError):
        write_jsonl(path, [{"new": 1}, {"new": {1, 2}}])
    assert path.read_text() == '{"old": 1}\n'
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError):
        write_jsonl(tmp_path / "other.jsonl", rows())
    assert list(tmp_path.iterdir()) == [path]


def test_bad_targets(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder"):
        write_jsonl(tmp_path, [GOOD])
    with pytest.raises(InputError, match="does not exist"):
        write_jsonl(tmp_path / "absent" / "out.jsonl", [GOOD])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_raises_run_error():
    with pytest.raises(RunError, match=r"/dev/full: writing failed \(No space left"):
        write_jsonl("/dev/full", [GOOD] * 1000)


def test_links_and_modes_are_kept(tmp_path: Path):
    path, link = write(tmp_path, "{}"), tmp_path / "link.jsonl"
    path.chmod(0o640)
    link.symlink_to(path)
    write_jsonl(link, [GOOD])
    assert link.is_symlink()
    assert list(read_jsonl(path)) == [GOOD]
    assert path.stat().st_mode & 0o777 == 0o640
