"""Evaluations and scored traces on the page, flips, lengths; by hand and without a browser."""

from __future__ import annotations

import json
import re

import pytest

from attnpo.errors import InputError
from attnpo.evaluation.folder import write_questions
from attnpo.evaluation.results import write_results
from attnpo.evaluation.samples import Question
from attnpo.report.evaluation import read_evaluations, read_sampled
from attnpo.report.page import report_html
from attnpo.report.rollouts import read_traced, response_of
from attnpo.report.selection import (
    FLIPS,
    PROBLEMS,
    Flips,
    count_flips,
    flip,
    flips_between,
    pick_pairs,
    shelve_evaluations,
)
from attnpo.report.views.frontier import bin_width, lengths_chart
from example_evaluation import sample_row, write_evaluation, write_samples


def response(id: str, verdict: str | None):
    row = {"id": id, "text": "a</think>b", "thinking_start": 0, "thinking_end": 1, "verdict": verdict}
    return response_of({**row, "tokens": {"completion": 9}}, "here")


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("wrong", "right", "gained"),
        ("no_answer", "right", "gained"),
        ("right", "no_answer", "lost"),
        ("right", "right", None),
        ("wrong", "no_answer", None),
        ("timed_out", "right", None),  # it is not about the answer
        ("right", None, None),
    ],
)
def test_definition_of_a_flip(before, after, found):
    assert flip(response("a", before), response("a", after)) == found


def test_flips_are_counted_over_the_first_response_of_each_problem():
    first = [
        response(*pair) for pair in (("a", "right"), ("b", "wrong"), ("c", "right"), ("d", "wrong"), ("e", "right"))
    ]
    last = [
        response(*pair) for pair in (("a", "right"), ("b", "right"), ("c", "wrong"), ("d", "no_answer"), ("e", None))
    ]
    counts = count_flips([*first, response("a", "wrong")], last)
    assert counts == Flips(both=1, gained=1, lost=1, neither=1)
    assert counts.sentence("problems").startswith("Of 4 problems 1 went from not right to right and 1 from right")


def test_flips_are_added_to_the_other_problems():
    first = [response(f"{k:03d}", "wrong") for k in range(200)]
    last = [response(f"{k:03d}", "right" if k % 4 == 0 else "wrong") for k in range(200)]
    chosen = pick_pairs(first, last)
    assert len(chosen) == PROBLEMS + FLIPS
    assert all(flip(pair.before, pair.after) for pair in chosen[PROBLEMS:])
    assert len({pair.before.id for pair in chosen}) == len(chosen)


def two(tmp_path):
    """Two evaluations with a flip in each direction; questions.jsonl of the first has one question."""
    for name, verdicts in (("base", "right wrong right"), ("short", "right right wrong")):
        rows = [sample_row(id=f"p{k}", verdict=v, tokens=100 * (k + 1)) for k, v in enumerate(verdicts.split())]
        write_samples(tmp_path / name, "math500", rows)
        write_results(tmp_path / name)
    asked = Question(
        benchmark="math500", id="p1", problem="What is <2>?", kind="choice", reference="A", choices=("a", "b")
    )
    write_questions(tmp_path / "base", {"math500": [asked]})
    return [tmp_path / "base", tmp_path / "short"]


def test_an_evaluation_has_its_responses_and_the_flips_first(tmp_path):
    sampled = [read_sampled(one) for one in read_evaluations(two(tmp_path))]
    assert flips_between(sampled) == [("math500", "base", "short", Flips(both=1, gained=1, lost=1, neither=0))]
    shelves = shelve_evaluations(sampled, 1_000_000)
    assert [[row["id"] for row in shelf.chunks[0].catalogue] for shelf in shelves] == [["p1", "p2", "p0"]] * 2
    assert shelves[0].left_out == ["math500: 3 of 3 problems, of each the first response"]
    (first, *_) = [one for one in sampled[0].responses["math500"] if one.id == "p1"]
    assert first.problem == "What is <2>?\n(A) a\n(B) b"
    assert first.thinking.startswith("First, ")
    assert first.answer.startswith("The sum is")
    page = report_html(two(tmp_path / "again"))
    assert 'name="gained"' in page
    assert 'name="attenuated"' not in page
    assert "Of 3 problems of math500, from base to short," in page
    assert 'id="plot-lengths-of-0"' in page


def test_a_truncated_response_is_all_thinking_and_one_without_thinking_all_answer(tmp_path):
    rows = [
        sample_row(id="cut", text="Still going", truncated=True, verdict="no_answer", tokens=9),
        sample_row(id="plain", text="It is 4.", thinking_tokens=0, answer_tokens=4),
    ]
    rows[0] |= {"thinking_tokens": 9, "answer_tokens": 0}
    write_samples(tmp_path, "math500", rows)
    (evaluation,) = read_evaluations([tmp_path])  # it has not ended: no results.json
    assert "has not ended" in evaluation.notices[0]
    cut, plain = read_sampled(evaluation).responses["math500"]
    assert (cut.thinking, cut.answer) == ("Still going", "")
    assert (plain.thinking, plain.answer) == ("", "It is 4.")
    assert "has not ended" in report_html([tmp_path])


def test_a_sample_without_a_text_is_named(tmp_path):
    folder = write_evaluation(tmp_path / "one", benchmarks={"math500": 1}, samples=1)
    (folder / "samples" / "math500.jsonl").write_text(json.dumps({"id": "a", "text": 3}) + "\n")
    with pytest.raises(InputError, match=r"math500\.jsonl, row 1: 'text' is 3, expected a text"):
        report_html([folder])


def trace(score: float | None, **changes):
    step = {"start": 0, "end": 4, "kind": "forward", "score": score}
    row = {
        "id": 7,
        "problem": "p",
        "response": "One.</think>1",
        "steps": [step],
        "answer_tokens": 2,
        "total_tokens": 20,
    }
    return {**row, "baseline": None if score is None else 0.1, **changes}


def test_scored_traces_have_a_page(tmp_path, example_run):
    rows = [trace(0.05), trace(0.4), trace(None, skipped="too long", answer_tokens=None, total_tokens=None)]
    example_run.write_jsonl(tmp_path / "scored.jsonl.gz", rows)
    file = read_traced(tmp_path / "scored.jsonl.gz")
    assert [one.even_share for one in file.traces] == [0.1, 0.1, None]
    text = re.sub("<.*?>", " ", report_html([tmp_path / "scored.jsonl.gz"])).replace("\xa0", " ")
    assert re.search(r"not scored: too long\s+1\b", text)
    assert re.search(r"steps below the baseline: redundant by the method\s+50 %", text)
    assert re.search(r"forward\s+3\s+100 %\s+2\.2×", text)  # the mean of 0.5 and 4 times, in two digits
    assert "1 trace" not in text
    assert "3 of 3 traces" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"steps": [{"start": 0, "end": 99}]}, "row 1, step 0"), ({"total_tokens": None}, "without 'total_tokens'")],
)
def test_damaged_traces_are_named(tmp_path, example_run, changes, message):
    example_run.write_jsonl(tmp_path / "scored.jsonl", [trace(0.05, **changes)])
    with pytest.raises(InputError, match=message):
        report_html([tmp_path / "scored.jsonl"])


def test_lengths_are_shares_over_common_ranges():
    chart = lengths_chart("l", "Lengths", {"before": [100.0, 350.0], "after": [10.0, 20.0, 30.0, 120.0], "none": []})
    assert chart is not None
    assert chart.table is not None
    assert chart.table.columns == ("Tokens", "before", "after")
    assert chart.table.rows[0] == ("0\xa0–\xa019", "0.0\xa0%", "25.0\xa0%")
    assert [trace["y"] for trace in chart.traces] == [
        [0, 0, 0, 0, 0, 0.5, *[0] * 11, 0.5, 0],
        [0.25, 0.5, 0, 0, 0, 0, 0.25, *[0] * 11, 0],
    ]
    assert chart.traces[0]["x"][-1] == 360
    assert "before 225; after 25" in chart.explained
    assert bin_width(350) == 20
    assert lengths_chart("l", "Lengths", {"a": [3.0]}) is None


def test_a_run_has_lengths_and_flips(example_run, tmp_path):
    page = report_html([example_run.write_run(tmp_path / "run", steps=10)])
    assert 'id="plot-lengths-0"' in page
    assert "recorded held-out problems" in page
    assert 'name="lost"' in page
    single = report_html([example_run.write_run(tmp_path / "single", steps=2)])
    assert 'id="plot-lengths-0"' not in single
    assert 'name="lost"' not in single
