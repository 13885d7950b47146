"""Files of an evaluation folder: results.json and its tables, the screen, and how the model thinks."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from attnpo.evaluation.folder import read_evaluation, read_samples, sample_from_json
from attnpo.evaluation.metrics import behaviour
from attnpo.evaluation.results import (
    bar,
    print_results,
    scatter,
    sparkline,
    telling_budgets,
    truncation_notes,
    write_results,
)
from example_evaluation import sample_row, write_evaluation, write_samples


def screen(print_it, value, width: int) -> str:
    file = io.StringIO()
    print_it(value, Console(file=file, width=width, no_color=True, highlight=False))
    return file.getvalue()


def test_results_by_hand(tmp_path):
    rows = [
        sample_row("b", "p0", 0, 100, "right", "1"),
        sample_row("b", "p0", 1, 300, "wrong", "1"),
        sample_row("b", "p1", 0, 3000, "right", "2"),
        sample_row("b", "p1", 1, 1000, "timed_out", "2"),
    ]
    write_samples(tmp_path, "b", rows)
    results = write_results(tmp_path, budgets=[200, 2048])
    found = results["benchmarks"]["b"]
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert {key: found[key] for key in ("problems", "samples", "samples_per_problem", "ungraded")} == {
        "problems": 2,
        "samples": 4,
        "samples_per_problem": 2,
        "ungraded": 1,
    }
    values = {key: found[key]["value"] for key in ("accuracy", "tokens", "tokens_median", "truncated")}
    assert values == {"accuracy": 0.75, "tokens": 1100, "tokens_median": 650, "truncated": 0}
    assert found["accuracy"] == {"value": 0.75, "low": 0.5, "high": 1.0, "problems": 2}
    assert {k: v["value"] for k, v in found["pass_at_k"].items()} == {"1": 0.75, "2": 1.0}
    assert {k: v["value"] for k, v in found["accuracy_at_budget"].items()} == {"200": 0.25, "2048": 0.25}
    assert found["levels"]["1"]["accuracy"]["value"] == 0.5
    assert found["levels"]["2"] == {
        "problems": 1,
        "accuracy": {"value": 1.0, "low": None, "high": None, "problems": 1},
        "tokens": {"value": 2000.0, "low": None, "high": None, "problems": 1},
    }
    assert results["aes"] is None


def test_truncated_responses_are_reported(tmp_path):
    cut = [sample_row("a", f"p{n}", 0, 64 if n < 2 else 40, "no_answer", truncated=n < 2) for n in range(3)]
    write_samples(tmp_path, "a", cut)
    write_samples(tmp_path, "b", [sample_row("b", f"p{n}", 0, 3000, truncated=n < 1) for n in range(3)])
    results = write_results(tmp_path)
    note = "a: 67 % of the responses reached the limit of 64 tokens; raise --max-tokens"
    assert [line.startswith(note) for line in truncation_notes(results["benchmarks"])] == [True]
    assert f"\n- {note}" in (tmp_path / "results.md").read_text()
    assert note in screen(print_results, results, 120)
    assert "b: " not in screen(print_results, results, 120)


def test_budgets_that_repeat_the_accuracy_are_not_shown(tmp_path):
    write_samples(tmp_path, "a", [sample_row("a", "p0", 0, 300), sample_row("a", "p1", 0, 3000)])
    write_samples(tmp_path, "b", [sample_row("b", "p0", 0, 4096)])
    results = write_results(tmp_path)
    assert list(results["benchmarks"]["a"]["accuracy_at_budget"]) == ["2048", "4096", "8192", "16384", "32768"]
    found = telling_budgets(results["benchmarks"])
    assert [list(found[name]["accuracy_at_budget"]) for name in "ab"] == [["2048", "4096"]] * 2
    assert "8192" not in screen(print_results, results, 80)


def test_one_name_is_printed_once(tmp_path):
    write_samples(tmp_path, "b", [sample_row("b")])
    results = write_results(tmp_path)
    same, other = {**results, "name": "m", "model": "m"}, {**results, "name": "m", "model": "org/m"}
    assert [screen(print_results, each, 80).split("\n")[1].rstrip() for each in (same, other)] == ["m", "m org/m"]


def test_the_table_has_every_number_once(tmp_path):
    folder = write_evaluation(tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    rows = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    assert [row["benchmark"] for row in rows] == ["aime24", "math500"]
    for row in rows:
        found = results["benchmarks"][row["benchmark"]]
        assert float(row["accuracy_high"]) == found["accuracy"]["high"]
        assert float(row["pass_at_k_4"]) == found["pass_at_k"]["4"]["value"]
        assert float(row["steps"]) == found["behaviour"]["steps"]
    assert "| math500 | 20 | 80 | " in (folder / "results.md").read_text()


def test_aes_against_a_base(tmp_path):
    write_samples(tmp_path / "base", "b", [sample_row("b", "p0", 0, 1000), sample_row("b", "p1", 0, 1000, "wrong")])
    write_samples(tmp_path / "new", "b", [sample_row("b", "p0", 0, 400), sample_row("b", "p1", 0, 400)])
    found = write_results(tmp_path / "new", base=tmp_path / "base")["aes"]
    assert found == {"base": "base", "benchmarks": {"b": pytest.approx(0.6 + 3)}, "all": pytest.approx(0.6 + 3)}


def test_results_do_not_depend_on_the_order_of_arrival(tmp_path):
    folder = write_evaluation(tmp_path / "run")
    before = (folder / "results.json").read_text()
    file = folder / "samples" / "math500.jsonl"
    file.write_text("\n".join(reversed(file.read_text().splitlines())) + "\n")
    write_results(folder)
    assert (folder / "results.json").read_text() == before


def test_samples_are_read_as_they_were_written(tmp_path):
    row = sample_row("b", "p0", 3, 77, None, "2")
    (sample,) = read_samples(write_samples(tmp_path, "b", [row | {"later": "ignored"}]))
    assert sample.as_json() == row


def test_a_benchmark_without_a_sample_yet_is_left_out(tmp_path):
    write_samples(tmp_path, "a", [sample_row("a")])
    write_samples(tmp_path, "b", [])
    assert list(read_evaluation(tmp_path).samples) == ["a"]


def test_behaviour_by_hand():
    """One transition (Wait), in the 50 thinking tokens of two responses of 2 + 1 steps."""
    text = (
        "We add 3 and 4, the first of which is a number below 5 and the second one is a number below 5 too, so: 7.\n"
        "Wait, let me check this: 3 + 4 is 7, and nothing else can come out of it, as far as I can see. "
    )
    rows = [
        sample_row(text=f"{text}</think>7", thinking_tokens=40),
        sample_row(sample=1, text="It is 7.</think>7", thinking_tokens=10),
    ]
    found = behaviour([sample_from_json(row, "row") for row in rows])
    assert found["transition_per_1k"] == 1000 * 1 / 50
    assert found["branch_per_1k"] == 0
    assert found["steps"] == (2 + 1) / 2


def test_a_model_that_does_not_think_has_no_frequencies():
    row = sample_row(text="Wait, it is 7.", thinking_tokens=0)
    found = behaviour([sample_from_json(row, "row")])
    assert (found["transition_per_1k"], found["steps"]) == (None, 0)


@pytest.mark.parametrize("width", [80, 120])
def test_screen_shows_the_main_results(tmp_path, width):
    results = json.loads((write_evaluation(tmp_path / "run", ungraded=0.2) / "results.json").read_text())
    shown = screen(print_results, results, width)
    assert max(map(len, shown.splitlines())) <= width
    accuracy = results["benchmarks"]["math500"]["accuracy"]
    assert f"{100 * accuracy['value']:.1f} [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]" in shown
    for words in ("pass@k", "math500 by level", "could not be graded", "accuracy % within", "█"):
        assert words in shown


@given(st.lists(st.integers(0, 1000), max_size=30))
def test_a_sparkline_shows_every_count(counts):
    line = sparkline(counts)
    assert len(line) == len(counts)
    for count, drawn in zip(counts, line, strict=True):
        assert (drawn == " ") == (count == 0)
        assert (drawn == "█") >= (count == max(counts) > 0)


@given(st.floats(-1, 2), st.integers(1, 30))
def test_a_bar_has_its_width(share, width):
    drawn = bar(share, width)
    assert len(drawn) == width
    assert drawn.count("█") == min(max(int(8 * width * share + 0.5) // 8, 0), width) or 0 < share < 1


def test_points_are_drawn_at_their_positions():
    drawn = scatter({"a": (0, 0), "b": (10, 1), "c": (10, 1), "d": (5, 0.5)}, width=5, height=3)
    assert drawn == ["    +", "  d  ", "a    "]
