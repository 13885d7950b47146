"""`attnpo segment`: its output, and its error messages for input that it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attnpo import segment_steps
from attnpo.cli.main import main
from attnpo.data.jsonl import read_jsonl

LONG = "we double the 12 and see 24, and the answer is what we get when we check it all the way."
ROW: dict[str, Any] = {"id": "a", "response": f"<think>{LONG} No,{LONG}</think>24", "extra": {"kept": [1.5, None]}}
PAPER = [{"start": 0, "end": 89, "kind": "forward"}, {"start": 89, "end": 180, "kind": "confused"}]


@pytest.fixture
def segment(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Writes rows, runs the command on them; gives (exit code, rows written or None, standard error)."""

    def run(*rows: object, options: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]] | None, str]:
        source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        code = main(["segment", str(source), "-o", str(target), *options])
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        return code, list(read_jsonl(target)) if target.exists() else None, captured.err

    return run


def test_adds_steps_and_keeps_every_other_field(segment):
    code, rows, err = segment(ROW, {"response": ""})
    assert code == 0
    assert rows == [{**ROW, "steps": PAPER}, {"response": "", "steps": []}]
    assert "2 traces, 2 steps" in err


def test_lexicon(segment):
    assert segment(ROW, options=("--lexicon", "released"))[1] == [
        {**ROW, "steps": [{"start": 0, "end": 180, "kind": "forward"}]}
    ]


def test_labels_stay_where_the_spans_are_the_same(segment):
    labelled = [{"start": 0, "end": 89, "essential": True}, {"start": 89, "end": 180, "essential": False, "score": 0.1}]
    expected = [{**PAPER[0], "essential": True}, {**PAPER[1], "essential": False, "score": 0.1}]
    assert segment({**ROW, "steps": labelled})[1] == [{**ROW, "steps": expected}]


def test_labels_of_other_spans_are_refused_unless_overridden(segment):
    row = {
        **ROW,
        "steps": [{"start": 0, "end": 100, "essential": True}, {"start": 100, "end": 180, "essential": False}],
    }
    code, rows, err = segment(ROW, row)
    assert (code, rows) == (2, None)
    assert "in.jsonl, row 2: its 2 steps carry 'essential', and their spans differ from the 2 steps found" in err
    assert segment(row, options=("--discard-labels",))[1] == [{**ROW, "steps": PAPER}]


def test_steps_without_labels_are_replaced(segment):
    assert segment({**ROW, "steps": [{"start": 0, "end": 5, "kind": "x"}]})[1] == [{**ROW, "steps": PAPER}]
    assert segment({**ROW, "steps": []})[1] == [{**ROW, "steps": PAPER}]
    assert segment({**ROW, "steps": None})[1] == [{**ROW, "steps": PAPER}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 1, "problem": "p"}, "in.jsonl, row 2: field 'response' is missing (found id, problem)"),
        ({"response": None}, "row 2: field 'response' is null, expected text"),
        ([1], "row 2: found a list, expected one JSON object per line"),
        ({**ROW, "steps": 3}, "row 2: field 'steps' is a number, expected a list"),
        ({**ROW, "steps": [3]}, "row 2: steps[0] is a number, expected an object"),
        ({**ROW, "steps": [{"end": 3}]}, "row 2: steps[0] field 'start' is missing"),
        ({**ROW, "steps": [{"start": 0, "end": True}]}, "row 2: steps[0] field 'end' is true/false"),
    ],
)
def test_bad_rows_exit_with_2_and_write_nothing(segment, row: object, message: str):
    code, rows, err = segment(ROW, row)
    assert (code, rows) == (2, None)
    assert err.startswith("attnpo segment: ")
    assert message in err


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["segment", str(tmp_path / "absent.jsonl"), "-o", str(tmp_path / "out.jsonl")]) == 2
    assert "absent.jsonl: no such file" in capsys.readouterr().err
    assert main(["segment", "in.jsonl"]) == 2
    assert "option -o: expected where to write" in capsys.readouterr().err
    assert main(["segment", "in.jsonl", "-o", "out.jsonl", "--lexicon", "other"]) == 2
    assert "lexicon 'other' does not exist; choose one of: paper, released" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["segment", "in.jsonl", "--stats", "--suggest"])
    assert caught.value.code == 2


def test_a_file_can_be_segmented_in_place_and_again(tmp_path: Path):
    path = tmp_path / "traces.jsonl.gz"
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(ROW) + "\n")
    assert main(["segment", str(source), "-o", str(path)]) == 0
    first = path.read_bytes()
    assert main(["segment", str(path), "-o", str(path)]) == 0
    assert path.read_bytes() == first
    (row,) = read_jsonl(path)
    assert [step["end"] for step in row["steps"]] == [step.end for step in segment_steps(f"{LONG} No,{LONG}")]
