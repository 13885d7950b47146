"""Overlap of training problems with benchmarks, on texts a person can compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnpo.cli.main import main
from attnpo.evaluation.contamination import Overlap, OverlapIndex, find_overlaps, words_of
from attnpo.evaluation.samples import Question

TRAIN = (
    "A train travels 270 miles in 3 hours. At the same rate, how long would it take to travel an additional 180 miles?"
)


def question(problem: str, choices: tuple[str, ...] = ()) -> Question:
    return Question(benchmark="gsm8k", id="q", problem=problem, kind="math", reference="1", choices=choices)


def overlaps(problem: str, *questions: Question, choices: tuple[str, ...] = ()) -> list[Overlap]:
    return list(find_overlaps([("t", problem, choices)], questions))


@pytest.mark.parametrize(
    ("problem", "degree"),
    [
        (TRAIN, "same"),
        (TRAIN.upper().replace(",", " ,").replace(".", "…\n"), "same"),
        (TRAIN.replace("270", "1,200").replace("3", "4"), "numbers"),
        ("Yesterday: " + TRAIN + " Explain.", "near"),
        (TRAIN.replace("A train", "A plane"), "near"),
        (TRAIN.replace("travel an additional 180 miles", "arrive"), "near"),
    ],
)
def test_degrees(problem: str, degree: str) -> None:
    found = overlaps(problem, question(TRAIN))
    assert [overlap.degree for overlap in found] == [degree]
    assert found[0].train_id == "t"


@pytest.mark.parametrize(
    "problem",
    [
        "",
        "At the same rate, how long would it take to paint a fence?",
        "A train is 270 metres long. How long would it take the train to travel through a tunnel of 3 kilometres?",
    ],
)
def test_other_problems_do_not_overlap(problem: str) -> None:
    assert overlaps(problem, question(TRAIN)) == []


def test_share_is_of_the_questions_own_sequences() -> None:
    words = words_of(TRAIN)
    assert len(words) == 23
    half = " ".join(words[:15])  # 8 of the 16 sequences of 8 words
    assert [overlap.share for overlap in overlaps(half, question(TRAIN))] == [0.5]
    assert overlaps(" ".join(words[:14]), question(TRAIN)) == []  # 7 of 16


def test_short_questions_must_be_the_same() -> None:
    assert [o.degree for o in overlaps("What is 2+3?", question("What is 2 + 3 ?"))] == ["same"]
    assert overlaps("What is 2+3?", question("What is 2+4?")) == []


STEM = "Which of the following statements is true?"
SHORT = "A frameshift mutation is created when"
LONG = ("a nucleotide is added to the sequence of a gene or deleted from it", "telomeric sequences are lost from DNA")


@pytest.mark.parametrize("text", [f"{SHORT}\n(p)\n(q)", SHORT])
def test_choices_may_stand_in_the_training_problem_or_be_missing(text: str) -> None:
    assert [o.degree for o in overlaps(text, question(SHORT, ("p", "q")))] == ["same"]


def test_a_long_statement_is_the_same_whatever_its_choices_are() -> None:
    for choices in ((), ("90 miles", "60 miles"), LONG):
        found = overlaps(TRAIN, question(TRAIN, LONG), choices=choices)
        assert [(o.degree, o.share) for o in found] == [("same", 1.0)]


def test_the_choices_of_a_training_row_tell_short_statements_apart() -> None:
    assert [o.degree for o in overlaps(STEM, question(STEM, LONG), choices=LONG)] == ["same"]
    assert overlaps(STEM, question(STEM, LONG), choices=("p", "q")) == []


def test_short_statement_of_several_questions_needs_choices_to_match() -> None:
    several = (question(STEM, ("p", "q")), question(STEM, ("r", "s")))
    assert overlaps(STEM, *several) == []
    assert [o.question for o in overlaps(STEM, *several, choices=("r", "s"))] == [several[1]]


def test_two_equal_questions_are_both_found() -> None:
    assert len(list(OverlapIndex([question(TRAIN), question(TRAIN)]).find("t", TRAIN))) == 2


def test_overlap_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"problem": TRAIN, "answer": "2"}, {"problem": "What is 6 times 7?", "answer": "42"}]
    (tmp_path / "gsm8k_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = tmp_path / "train.jsonl"
    train.write_text(json.dumps({"question": "What?"}) + "\n" + json.dumps({"question": TRAIN}) + "\n")
    command = ["benchmarks", "overlap", "--train", str(train), "--data-dir", str(tmp_path)]
    assert main([*command, "-o", str(tmp_path / "pairs.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert f"rows of {train}:\nsame    1.00  gsm8k 0, row 2\n    A train travels 270 miles" in shown
    pair = json.loads((tmp_path / "pairs.jsonl").read_text())
    assert (pair["degree"], pair["train_row"], pair["problem"]) == ("same", 2, TRAIN)
    assert main([*command, "--strict"]) == 1
    train.write_text(json.dumps({"question": 3}) + "\n")
    assert main(command) == 2
    assert "row 1: column 'question' is 3" in capsys.readouterr().err


def test_a_benchmark_file_as_training_data_is_the_same_throughout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"problem": SHORT, "choices": LONG, "answer": "A"},
        {"problem": STEM, "choices": ["2", "3"], "answer": "A"},
        {"problem": STEM, "choices": ["5", "7"], "answer": "B"},
        {"problem": TRAIN, "choices": ["60", "90"], "answer": "B"},
    ]
    file = tmp_path / "mmlu.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["benchmarks", "overlap", "--train", str(file), "--data-dir", str(tmp_path)]) == 0
    assert "mmlu 4 4 0 0" in " ".join(capsys.readouterr().out.split())


def test_worst_pairs_are_shown_first_in_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gsm8k.jsonl").write_text(json.dumps({"id": "a", "problem": TRAIN, "answer": "2"}) + "\n")
    train = tmp_path / "train.jsonl"
    words = TRAIN.split()
    texts = (" ".join(words[:18]), " ".join(words[:20]), TRAIN.replace("270", "90"), f"\x1b[1m {TRAIN}", TRAIN)
    train.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    command = ["benchmarks", "overlap", "--train", str(train), "--data-dir", str(tmp_path)]
    assert main(command) == 2
    assert "no problem column" in (said := capsys.readouterr().err)
    assert "--problem-column" in said
    assert main([*command, "--problem-column", "text"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "gsm8k 1 1 0 0" in " ".join(lines[1].split())  # a question counts once, by its worst pair
    pairs = [line.split() for line in lines if "gsm8k a, row" in line]
    assert [(pair[0], pair[-1]) for pair in pairs] == [
        ("same", "5"),
        ("numbers", "3"),
        ("near", "4"),
        ("near", "2"),
        ("near", "1"),
    ]
    assert max(len(line) for line in lines if "train.jsonl" not in line) <= 80
