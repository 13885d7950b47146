"""Curves and frontiers: the recorded numbers, for plotly and as a table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from attnpo.errors import InputError
from attnpo.report.data.curves import BEHAVIOUR, OVERVIEW, curves
from attnpo.report.data.evaluation import Measure, read_evaluation
from attnpo.report.data.frontier import Point, aes, frontier, frontier_chart, run_points, runs_table
from attnpo.report.data.run import read_runs
from attnpo.report.page import report_html

RESULTS = {
    "model": "m",
    "name": "short",
    "benchmarks": {
        "math500": {
            **{"problems": 20, "samples": 80, "samples_per_problem": 4, "ungraded": 2},
            "accuracy": {"value": 0.6, "low": 0.5, "high": 0.7},
            "tokens": {"value": 500, "low": 450, "high": 560},
            "truncated": {"value": None, "low": None, "high": None},
            "pass_at_k": {"1": {"value": 0.6}, "2": {"value": 0.7}},
            "behaviour": {"transition_per_1k": 4.25, "steps": 7.5},
        }
    },
    "aes": {"base": "start", "benchmarks": {"math500": 0.31}, "all": 0.31},
}


@pytest.fixture(scope="module")
def run_folder(example_run, tmp_path_factory) -> Path:
    return example_run.write_run(tmp_path_factory.mktemp("report") / "run", steps=20)


def write_results(folder: Path, changes: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(RESULTS | (changes or {})))
    return folder


def test_curves_carry_the_recorded_numbers_and_a_table(run_folder, example_run):
    charts = curves(read_runs([run_folder]), OVERVIEW)
    assert [chart.id for chart in charts] == ["length", "accuracy", "reward", "scale"]
    training, held_out = charts[0].traces
    recorded = example_run.read_jsonl(run_folder / "metrics.jsonl")
    assert training["x"] == [row["step"] for row in recorded]
    assert training["y"] == pytest.approx([row["length/completion"] for row in recorded], rel=1e-5)
    assert held_out["y"] == [261, 205, 149]
    assert held_out["error_y"]["array"] == [5, 5, 5]
    assert held_out["error_y"]["arrayminus"] == [4, 4, 4]
    assert charts[0].table is not None
    rows = {row[0]: row[1:] for row in charts[0].table.rows}
    assert rows["10"][1] == "205 [201, 210]"


def test_behaviour_that_was_recorded_is_drawn(run_folder):
    charts = {chart.id: chart for chart in curves(read_runs([run_folder]), BEHAVIOUR)}
    assert charts.keys() == {"effects", "phrases", "steps", "split", "truncated", "signal"}
    assert [key.label for key in charts["split"].legend[:2]] == ["thinking", "final answer"]
    # Never by colour alone: lines differ by dashes, points by marks.
    assert len({trace["line"]["dash"] for trace in charts["effects"].traces}) == 2
    assert len({key.mark for key in charts["split"].legend[:2]}) == 2


def test_several_runs_are_overlaid_with_distinct_names(example_run, tmp_path):
    folders = [example_run.write_run(tmp_path / name, steps=2, name="same") for name in ("one", "two")]
    runs = read_runs([*folders, folders[0]])
    assert [run.name for run in runs] == ["same (one)", "same (two)", "same (one) #2"]
    length = curves(runs, OVERVIEW)[0]
    assert len(length.traces) == 6
    assert len({trace["line"]["color"] for trace in length.traces}) == 3
    assert [key.label for key in length.legend[:3]] == [run.name for run in runs]
    # Two keys of two runs would be four colours in one chart.
    assert [chart.id for chart in curves(runs[:2], BEHAVIOUR) if chart.id.startswith("split")] == [
        "split-thinking",
        "split-final answer",
    ]


# --- frontiers


@pytest.mark.parametrize(
    ("accuracy", "tokens", "expected"), [(47.78, 4000, 0.74), (45.83, 3975, 0.62), (40.0, 9340, -0.58)]
)
def test_aes_is_that_of_the_evaluation(accuracy, tokens, expected):
    from attnpo.evaluation.aes import aes as reference_aes

    found = aes(accuracy, tokens, 45.21, 9340)
    assert found == pytest.approx(expected, abs=0.005)
    assert found == pytest.approx(reference_aes(accuracy, tokens, 45.21, 9340))


def test_aes_needs_something_to_divide_by():
    assert aes(0.5, 100, 0.0, 100) is None
    assert aes(0.5, 100, 0.5, 0) is None


def test_the_frontier_is_what_nothing_beats_in_both():
    def point(name: str, accuracy: float, tokens: float) -> Point:
        return Point(name, Measure(accuracy), Measure(tokens))

    points = [point("a", 0.5, 100), point("b", 0.7, 200), point("worse", 0.6, 250), point("same length", 0.4, 100)]
    assert [p.name for p in frontier(points)] == ["a", "b"]
    chart = frontier_chart("f", "F", {p.name: [p] for p in points})
    assert chart.traces[0]["x"] == [100, 200]
    assert len(chart.traces) == 5


def test_a_run_before_and_after(run_folder):
    runs = read_runs([run_folder])
    points = run_points(runs[0])
    assert [(p.name, p.tokens.value, p.start) for p in points] == [
        ("step 0", 261, True),
        ("step 10", 205, False),
        ("step 20", 149, False),
    ]
    # (261 − 149) / 261 + 3 · 0.03 / 0.71 = 0.429 + 0.127
    assert points[-1].aes == pytest.approx(0.556, abs=0.001)
    row = runs_table(runs).rows[0]
    assert [cell.replace("\xa0", " ") for cell in row[3:]] == [
        *("71.0 % [68.2, 73.6]", "74.0 % [71.2, 76.6]", "261 [257, 266]", "149 [145, 154]"),
        *("+3.0 points, −43 %", "+0.56"),
    ]


# --- evaluation folders


def test_evaluations_have_a_table_and_charts(tmp_path):
    base = write_results(tmp_path / "base", {"name": "start", "aes": None})
    page = report_html([base, write_results(tmp_path / "short")])
    text = re.sub("<.*?>", " ", page).replace("\xa0", " ")
    assert "Evaluation report" in text
    assert re.search(r"short\s+60\.0 %\s+\[50\.0, 70\.0\]\s+500\s+\[450, 560\]\s+\+0\.31", text)
    assert "start: 2 responses could not be graded and are left out." in text
    assert "4.25" in text
    for plot in ("plot-frontier-0", "plot-at-k-0"):
        assert f'id="{plot}"' in page
    assert "plot-at-budget-0" not in page
    assert 'id="responses"' not in page


def test_the_written_results_can_be_read(tmp_path):
    example_evaluation = pytest.importorskip("example_evaluation")
    folders = [
        example_evaluation.write_evaluation(tmp_path / name, tokens=tokens) for name, tokens in (("a", 900), ("b", 500))
    ]
    one = read_evaluation(folders[0])
    assert set(one.benchmarks) == {"math500", "aime24"}
    assert one.benchmarks["math500"].problems == 20
    assert one.benchmarks["math500"].measures["tokens"].low is not None
    page = report_html(folders)
    assert 'id="plot-frontier-mean"' in page
    assert "AES: accuracy–efficiency score against a." in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"benchmarks": 3}, "benchmarks: found 3, expected an object"),
        ({"benchmarks": {"x": {"accuracy": {"value": "high"}}}}, "x, accuracy: 'value' is 'high'"),
        ({"benchmarks": {"x": {"pass_at_k": {"k": 1}}}}, "found 'k', expected whole numbers"),
        ({"aes": [1]}, "aes: found [1], expected an object"),
    ],
)
def test_malformed_results_are_named(tmp_path, change, said):
    with pytest.raises(InputError) as caught:
        read_evaluation(write_results(tmp_path / "e", change))
    assert "results.json" in str(caught.value)
    assert said in str(caught.value)


def test_an_evaluation_that_has_not_ended(tmp_path):
    (tmp_path / "samples").mkdir()
    with pytest.raises(InputError, match=r"no results\.json"):
        report_html([tmp_path])
