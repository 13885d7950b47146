"""Curves and frontiers: the recorded numbers, for plotly and as a table."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from attnpo.errors import InputError
from attnpo.report.elements import score
from attnpo.report.evaluation import Measure, read_evaluation
from attnpo.report.page import report_html
from attnpo.report.run import read_runs
from attnpo.report.views.behaviour import BEHAVIOUR, OVERVIEW, curves
from attnpo.report.views.compare import benchmark_charts, benchmark_table
from attnpo.report.views.frontier import Point, aes, frontier, frontier_chart, run_points, runs_table

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


def test_curves_have_the_recorded_numbers_and_a_table(run_folder, example_run):
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


@pytest.mark.parametrize(("last", "tick"), [(1, 1), (10, 1), (20, 2), (21, None)])
def test_steps_have_whole_ticks(run_folder, last, tick):
    rows = [{"step": 0.0, "reward": 0.0}, {"step": float(last), "reward": 1.0}]
    run = replace(read_runs([run_folder])[0], metrics=rows, evaluations=[])
    (chart,) = curves([run], OVERVIEW)
    assert chart.layout["xaxis"].get("dtick") == tick


@pytest.mark.parametrize(("reward", "span"), [(0.5001, [0.44505, 0.55505]), (0.7, None)])
def test_a_tiny_range_does_not_fill_the_plot(run_folder, reward, span):
    rows = [{"step": 0.0, "reward": 0.5}, {"step": 1.0, "reward": reward}]
    run = replace(read_runs([run_folder])[0], metrics=rows, evaluations=[])
    (chart,) = curves([run], OVERVIEW)
    assert chart.layout["yaxis"].get("range") == span


def test_the_axis_of_a_share_ends_near_one(run_folder):
    rows = [{"step": 0.0, "accuracy": 1.0}, {"step": 1.0, "accuracy": 1.0}]
    (chart,) = curves([replace(read_runs([run_folder])[0], metrics=rows, evaluations=[])], OVERVIEW)
    assert chart.layout["yaxis"]["range"] == [0.895, 1.005]


# --- frontiers


@pytest.mark.parametrize(
    ("accuracy", "tokens", "expected"), [(47.78, 4000, 0.74), (45.83, 3975, 0.62), (40.0, 9340, -0.58)]
)
def test_aes_is_that_of_the_evaluation(accuracy, tokens, expected):
    from attnpo.evaluation.aes import aes as reference_aes

    found = aes(accuracy, tokens, 45.21, 9340)
    assert found == pytest.approx(expected, abs=0.005)
    assert found == pytest.approx(reference_aes(accuracy, tokens, 45.21, 9340))


def test_aes_of_a_base_of_zero_is_none():
    assert aes(0.5, 100, 0.0, 100) is None
    assert aes(0.5, 100, 0.5, 0) is None


def test_the_frontier_has_the_points_that_none_beats_in_both():
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
    assert re.search(r"short\s+20\s+60\.0 %\s+\[50\.0, 70\.0\]\s+500\s+\[450, 560\]\s+\+0\.31", text)
    assert "start: 2 responses could not be graded and are left out." in text
    assert "4.25" in text
    for plot in ("plot-frontier-0", "plot-at-k-0"):
        assert f'id="{plot}"' in page
    assert "plot-at-budget-0" not in page
    assert 'id="responses"' not in page


def benchmark(**changes) -> dict:
    """results.json's `benchmarks` with one benchmark."""
    return {"math500": RESULTS["benchmarks"]["math500"] | changes}


def write_options(folder: Path, **options) -> Path:
    (folder / "eval.yaml").write_text(json.dumps(options))
    return folder


def asked(questions: str) -> dict:
    return {"math500": {"samples": 4, "problems": 20, "questions": questions}}


@pytest.mark.parametrize("how", ["count", "questions", "limit"])
def test_evaluations_on_other_problems_are_not_compared(tmp_path, how):
    problems = 16 if how == "count" else 20
    base = write_results(tmp_path / "base", {"name": "start", "aes": None})
    other = write_results(tmp_path / "o", {"name": "other", "aes": None, "benchmarks": benchmark(problems=problems)})
    if how == "questions":
        write_options(base, benchmarks=asked("a1")), write_options(other, benchmarks=asked("b2"))
    elif how == "limit":
        write_options(base, limit=20), write_options(other, limit=30)
    evaluations = [read_evaluation(base), read_evaluation(other)]
    table = benchmark_table(evaluations, "math500")
    assert [row[1] for row in table.rows] == ["20", str(problems)]
    assert table.rows[1][4] == "– (other problems)"
    assert "other: other problems than start: not comparable; `attnpo compare` pairs them." in table.caption
    (chart, _) = benchmark_charts(evaluations, "math500", 0)
    assert "not comparable" in chart.explained
    assert all(trace.get("name") for trace in chart.traces)  # no line of what nothing else beats


def test_the_same_questions_are_compared_whatever_the_limit(tmp_path):
    folders = [write_results(tmp_path / name, {"name": name, "aes": None}) for name in "ab"]
    for folder, limit in zip(folders, (None, 100), strict=True):
        write_options(folder, benchmarks=asked("a1"), limit=limit)
    table = benchmark_table([read_evaluation(folder) for folder in folders], "math500")
    assert [row[4] for row in table.rows] == ["–", "0.00"]  # the base, and an evaluation equal to it


def test_different_sampling_is_reported_on_the_page(tmp_path):
    folders = [write_results(tmp_path / name, {"name": "model", "aes": None}) for name in ("cool", "hot")]
    for folder, temperature in zip(folders, (0.6, 1.0), strict=True):
        write_options(folder, temperature=temperature, top_p=0.95)
    assert "sampled with different options: temperature 0.6 (model (cool)), 1.0 (model (hot))." in report_html(folders)


def test_a_model_without_a_benchmark_has_no_row(tmp_path):
    one = write_results(tmp_path / "one", {"name": "one"})
    other = write_results(tmp_path / "two", {"name": "two", "benchmarks": {"aime24": benchmark()["math500"]}})
    evaluations = [read_evaluation(one), read_evaluation(other)]
    assert [row[0] for row in benchmark_table(evaluations, "math500").rows] == ["one"]


@pytest.mark.parametrize(
    ("budgets", "drawn", "note"),
    [
        ((512, 1024), [512, 1024], "counts as wrong."),
        ((512, 1024, 2048), [512, 1024], "Only budgets that all were measured at."),
        ((1024, 2048), [1024, 2048], "Not all were measured at the same budgets."),
    ],
)
def test_a_chart_has_the_budgets_that_all_share(tmp_path, budgets, drawn, note):
    folders = [
        write_results(
            tmp_path / name,
            {"name": name, "benchmarks": benchmark(accuracy_at_budget={str(b): {"value": 0.5} for b in numbers})},
        )
        for name, numbers in (("a", (512, 1024)), ("b", budgets))
    ]
    charts = benchmark_charts([read_evaluation(folder) for folder in folders], "math500", 0)
    (chart,) = (chart for chart in charts if chart.id == "at-budget-0")
    assert chart.traces[1]["x"] == drawn
    assert chart.explained.endswith(note)


def test_a_page_of_runs_and_evaluations_has_a_neutral_title(run_folder, tmp_path):
    assert "<title>Report · attnpo report</title>" in report_html([run_folder, write_results(tmp_path / "short")])


@pytest.mark.parametrize(("value", "shown"), [(-0.00064, "0.00"), (-0.5, "−0.50"), (0.426, "+0.43"), (None, "–")])
def test_aes_has_two_decimals(value, shown):
    assert score(value) == shown


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
    ("change", "message"),
    [
        ({"benchmarks": 3}, "benchmarks: found 3, expected an object"),
        ({"benchmarks": {"x": {"accuracy": {"value": "high"}}}}, "x, accuracy: 'value' is 'high'"),
        ({"benchmarks": {"x": {"pass_at_k": {"k": 1}}}}, "found 'k', expected whole numbers"),
        ({"aes": [1]}, "aes: found [1], expected an object"),
    ],
)
def test_malformed_results_are_named(tmp_path, change, message):
    with pytest.raises(InputError) as caught:
        read_evaluation(write_results(tmp_path / "e", change))
    assert "results.json" in str(caught.value)
    assert message in str(caught.value)


def test_an_evaluation_that_has_not_ended(tmp_path):
    (tmp_path / "samples").mkdir()
    with pytest.raises(InputError, match=r"no results\.json"):
        report_html([tmp_path])
