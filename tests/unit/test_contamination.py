"""Overlap of training problems with benchmarks, on texts a person can compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnpo.cli.main import main
from attnpo.evaluation.contamination import Overlap, OverlapIndex, find_overlaps, words_of
from attnpo.evaluation.records import Question

TRAIN = (
    "A train travels 270 miles in 3 hours. At the same rate, how long would it take to travel an additional 180 miles?"
)


def question(problem: str, choices: tuple[str, ...] = ()) -> Question:
    return Question(benchmark="gsm8k", id="q", problem=problem, kind="math", reference="1", choices=choices)


def overlaps(problem: str, *questions: Question) -> list[Overlap]:
    return list(find_overlaps([("t", problem)], questions))


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


def test_choices_belong_to_the_question() -> None:
    stem = "Which of the following statements is true?"
    assert overlaps(stem, question(stem, ("p", "q"))) == []
    assert [o.degree for o in overlaps(f"{stem}\n(p)\n(q)", question(stem, ("p", "q")))] == ["same"]


def test_two_equal_questions_are_both_found() -> None:
    assert len(list(OverlapIndex([question(TRAIN), question(TRAIN)]).find("t", TRAIN))) == 2


def test_overlap_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"problem": TRAIN, "answer": "2"}, {"problem": "What is 6 times 7?", "answer": "42"}]
    (tmp_path / "gsm8k_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = tmp_path / "train.jsonl"
    train.write_text(json.dumps({"question": "What?"}) + "\n" + json.dumps({"question": TRAIN}) + "\n")
    command = ["benchmarks", "overlap", "--train", str(train), "--data-dir", str(tmp_path)]
    assert main([*command, "-o", str(tmp_path / "pairs.jsonl")]) == 0
    assert f"same    gsm8k 0: {train}, row 2" in capsys.readouterr().out
    pair = json.loads((tmp_path / "pairs.jsonl").read_text())
    assert (pair["degree"], pair["train_row"], pair["problem"]) == ("same", 2, TRAIN)
    assert main([*command, "--strict"]) == 1
    train.write_text(json.dumps({"question": 3}) + "\n")
    assert main(command) == 2
    assert "row 1: column 'question' is 3" in capsys.readouterr().err
