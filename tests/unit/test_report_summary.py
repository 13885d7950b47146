"""`attnpo report` as a command, and the sentence and the table at the top of its page."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from attnpo.cli.main import main
from attnpo.errors import InputError
from attnpo.report.elements import percent, points, small
from attnpo.report.page import write_report
from attnpo.report.rollouts import read_responses
from attnpo.report.run import read_run
from attnpo.report.views.overview import before_after, findings, sentence


@pytest.fixture(scope="module")
def run_folder(example_run, tmp_path_factory) -> Path:
    return example_run.write_run(tmp_path_factory.mktemp("report") / "run", steps=20)


def test_the_sentence_of_the_example(run_folder):
    assert sentence(read_run(run_folder)).replace("\xa0", " ") == (
        "After 20 steps responses are 43 % shorter (261 → 149 tokens) and accuracy shows no clear change (71 % → 74 %)."
    )


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0, 100, 0.5), (8, 130, 0.4), "After 8 steps responses are 30 % longer (100 → 130 tokens) and accuracy went "
         "from 50 % to 40 %."),
        ((5, 9340, 0.712), (6, 9341, 0.714), "From step 5 to 6 responses are as long as before (9,340 → 9,341 tokens) "
         "and accuracy stayed at 71 %."),
        ((0, None, None), (1, 50, 0.5), "One evaluation so far, after 1 step: responses of 50 tokens, accuracy 50 %."),
        ((0, 100, None), (1, 50, 0.5), "After 1 step responses are 50 % shorter (100 → 50 tokens) and accuracy is not "
         "known."),
    ],
)  # fmt: skip
def test_sentences(run_folder, before, after, expected):
    keys = ("step", "length/completion", "accuracy")
    run = replace(read_run(run_folder), evaluations=[dict(zip(keys, row, strict=True)) for row in (before, after)])
    assert sentence(run).replace("\xa0", " ") == expected


@pytest.mark.parametrize(
    ("before", "after", "clear"),
    [
        ((100, 90, 110), (89, 80, 98), False),  # 11 apart: less than √(10² + 9²) = 13.5
        ((100, 90, 110), (86, 77, 95), True),  # 14 apart
        ((0.5, 0.4, 0.6), (0.65, 0.55, 0.7), True),  # upwards: 0.15 against √(0.1² + 0.1²) = 0.141
        ((0.5, 0.4, 0.6), (0.64, 0.54, 0.7), False),
        ((0.5, 0.4, 0.6), (0.5, 0.4, 0.6), False),
        ((0.5, None, None), (0.51, None, None), True),  # no intervals: nothing to doubt by
    ],
)
def test_a_change_within_its_interval_is_not_clear(before, after, clear):
    from attnpo.report.views.overview import is_clear

    keys = ("accuracy", "accuracy_low", "accuracy_high")
    first, last = (dict(zip(keys, row, strict=True)) for row in (before, after))
    assert is_clear(first, last, "accuracy") == clear


def test_the_headline_of_few_problems_is_careful(run_folder):
    row = {"step": 0, "length/completion": 366.0, "length/completion_low": 250.0, "length/completion_high": 482.0}
    last = {**row, "step": 9, "length/completion": 326.0, "accuracy": 0.5}
    run = replace(read_run(run_folder), evaluations=[{**row, "accuracy": 0.5}, last])
    assert "the length of responses shows no clear change (366 → 326 tokens)" in sentence(run)
    assert "shorter" not in sentence(run)


def test_without_evaluations_the_sentence_names_training_as_its_source(run_folder):
    metrics = [{"step": float(s), "length/completion": 100.0 - s, "accuracy": 0.5} for s in range(1, 5)]
    run = replace(read_run(run_folder), evaluations=[], metrics=metrics)
    # Means of the first two and the last two of four steps: (99 + 98) / 2 and (97 + 96) / 2.
    assert "(98 → 96 tokens)" in sentence(run)
    assert "nothing was measured on held-out problems" in sentence(run)
    assert sentence(replace(run, metrics=[])) == "Nothing was measured yet."


@pytest.mark.parametrize(
    ("lengths", "clear"),
    [
        ([366, 326], False),  # one update each: their variation by chance is unknown
        ([102, 98, 82, 78], False),  # 20 apart; half an interval is 12.71 × √8/√2 = 25.4 at both ends, together 36 …
        ([101, 99, 81, 79], True),  # … and here 18
        ([100, 100, 80, 80], True),
    ],
)
def test_the_headline_of_training_updates_is_clear_only_beyond_their_spread(run_folder, lengths, clear):
    metrics = [{"step": float(s), "length/completion": float(n), "accuracy": 0.5} for s, n in enumerate(lengths, 1)]
    text = sentence(replace(read_run(run_folder), evaluations=[], metrics=metrics))
    assert ("shows no clear change" in text) != clear
    assert ("shorter" in text) == clear


def test_the_table_has_intervals_and_changes(run_folder):
    table = before_after(read_run(run_folder))
    assert table is not None
    text = " ".join([*(cell for row in table.rows for cell in row), table.caption]).replace("\xa0", " ")
    for part in (
        "71.0 % [68.2, 73.6]",
        "74.0 % [71.2, 76.6]",
        "+3.0 points",
        "261 [257, 266]",
        "−43 %",
        "95 % interval",
    ):
        assert part in text


def test_findings_name_what_changed(run_folder):
    run = read_run(run_folder)
    steps = [{"step": float(s), "steps/per_response": 9.0 - s, "steps/attenuated": s / 10} for s in (1, 2, 3, 4)]
    found = findings(replace(run, evaluations=[], metrics=steps))
    assert [text.replace("\xa0", " ") for text in found] == [
        "A response takes 5.5 steps in training batches, instead of 7.5.",  # means of two and two
        "The method attenuated 35 % of the steps in the last training batches (15 % in the first).",
    ]
    assert findings(replace(run, evaluations=[], metrics=[])) == []


def test_formatted_numbers():
    assert (percent(0.7149), percent(-0.001), percent(None)) == ("71\xa0%", "0\xa0%", "–")
    assert (points(-0.004), points(0.0)) == ("−0.4\xa0points", "0.0\xa0points")
    assert (small(-0.12345, signed=True), small(0.5, signed=True), small(0.0), small(None)) == (
        "−0.123",
        "+0.5",
        "0",
        "–",
    )


def test_the_command_writes_one_page_and_prints_its_path(run_folder, tmp_path, capsys):
    output = tmp_path / "new" / "page.html"
    assert main(["report", str(run_folder), "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    assert str(output) in printed
    assert "2.2 MB" in printed or "2.3 MB" in printed
    assert [path.name for path in output.parent.iterdir()] == ["page.html"]
    assert output.stat().st_size < 3_000_000


def test_a_failed_report_keeps_the_existing_page(run_folder, tmp_path, capsys):
    output = tmp_path / "page.html"
    output.write_text("old")
    assert main(["report", str(run_folder), str(tmp_path / "nowhere"), "-o", str(output)]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert output.read_text() == "old"
    with pytest.raises(InputError, match="cannot be written"):
        write_report([run_folder], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_report_needs_neither_torch_nor_numpy():
    code = (
        "import sys, attnpo.report.page; print({'torch', 'trl', 'transformers', 'numpy', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_recorded_response_of_the_example_can_be_read(run_folder):
    responses, notice = read_responses(run_folder / "rollouts" / "train-000001.jsonl.gz")
    assert (len(responses), notice) == (32, None)
    assert {response.verdict for response in responses} <= {"right", "wrong"}
