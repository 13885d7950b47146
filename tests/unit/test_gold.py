"""The check of gold answers detects a wrong grader, and the command reports it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnpo.cli.main import main
from attnpo.evaluation.benchmarks import BENCHMARKS
from attnpo.evaluation.gold import CHOICE_FORMS, check_gold
from attnpo.evaluation.grading import Graded, Grader
from attnpo.evaluation.samples import Question
from attnpo.evaluation.variants import RESPELLINGS, boxed, near_misses, respellings
from attnpo.rewards.pool import VerifierPool
from attnpo.rewards.verdict import Verdict


def sums(*answers: str | None) -> list[Question]:
    return [
        Question(benchmark="math500", id=str(index), problem="?", kind="math", reference=answer)
        for index, answer in enumerate(answers)
    ]


CHOICE = Question(benchmark="mmlu", id="c", problem="?", kind="choice", reference="B", choices=("p", "q", "r"))
CODE = Question(benchmark="livecodebench", id="k", problem="?", kind="code", reference=None)


@pytest.fixture
def grader(session_pool: VerifierPool) -> Grader:
    made = Grader()
    made._pool = session_pool
    return made


def test_correct_grader_passes_the_check(grader: Grader) -> None:
    check = check_gold([*sums("72", r"\frac{1}{2}", "(3,4]", "72"), CHOICE], grader)
    assert (check.rows, check.right, check.failed, check.misread, check.accepted) == (5, 5, [], [], [])
    assert (check.others, check.foreign) == (3, [])  # each of the three golds for the next
    assert check.ways["box"].tried == 3 + len(CHOICE_FORMS) + 1  # the second 72 is the first again
    assert check.misses["another letter"].tried == 2
    assert all(tally.good == tally.tried > 0 for tally in (*check.ways.values(), *check.misses.values()))


def test_rules_are_counted_by_what_they_change(grader: Grader) -> None:
    """1,200 is read with separators by one rule, 1200 in bold by another; none makes a near-miss right."""
    rules = check_gold(sums("1200"), grader).rules
    assert rules["thousands"].respellings >= 2
    assert rules["font and colour"].respellings >= 3
    assert all(tally.harmful == [] for tally in rules.values())


def test_a_rule_that_makes_a_near_miss_right_is_named() -> None:
    class Generous(Grader):
        def grade(self, pairs, *, off=()):
            verdict = Verdict.WRONG if "anything goes" in off else Verdict.RIGHT
            return [Graded(verdict, "5", fired=("anything goes",)) for _ in pairs]

    tally = check_gold(sums("5"), Generous()).rules["anything goes"]
    assert tally.near_misses == len(tally.harmful) > 5


def test_equal_golds_and_what_cannot_be_read_or_checked(grader: Grader) -> None:
    check = check_gold([*sums("5", "x=5", "x^", None), CODE], grader, with_rules=False)
    assert (check.rows, check.right) == (5, 3)  # a letter-for-letter copy is right, whatever it is
    assert check.unchecked == {"no answer": ["3"], "no tests": ["k"]}
    assert check.foreign == ["0: gold '5', accepted 'x=5'"]


@pytest.mark.parametrize(
    ("verdict", "failed", "is_accepted"),
    [(Verdict.RIGHT, 0, True), (Verdict.WRONG, 2, False), (Verdict.TIMED_OUT, 2, False)],
)
def test_constant_grader_fails_the_check(verdict: Verdict, failed: int, is_accepted: bool) -> None:
    class Always(Grader):
        def grade(self, pairs, *, off=()):
            return [Graded(verdict, "5") for _ in pairs]

    check = check_gold(sums("5", "7"), Always())
    assert (len(check.failed), bool(check.accepted), bool(check.foreign)) == (failed, is_accepted, is_accepted)
    assert bool(check.misread) == (failed > 0)


def test_variants_of_one_gold() -> None:
    spelt, missed = dict(respellings(r"\frac{1}{2}")), [response for _, response in near_misses("(1,2]")]
    assert spelt["plain text"] == boxed("((1)/(2))")
    assert spelt["dfrac"] == boxed(r"\dfrac{1}{2}")
    assert boxed("(2,2]") in missed
    assert boxed("[1,2]") in missed
    assert boxed("4.3") not in [response for _, response in near_misses("4.2", tolerance=0.1)]
    turned = [response for way, response in near_misses(r"0,-1") if way == "turned sign"]
    assert turned == [boxed("0,+1")]  # -0 is 0
    assert len(RESPELLINGS) >= 30


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_check_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"problem": f"{number}?", "answer": str(number)} for number in (3, 4)]
    write_rows(tmp_path / "gsm8k_test.jsonl", [*rows, {"problem": "?"}])
    write_rows(tmp_path / "livecodebench_279.jsonl", [{"id": "a", "problem": "?", "answer": None}])
    command = ["benchmarks", "check", "--no-rules", "--data-dir", str(tmp_path), "--workers", "1", "--benchmarks"]
    assert main([*command, "gsm8k,livecodebench"]) == 0
    shown = capsys.readouterr().out
    assert "row 3: field 'answer' is missing" in shown
    assert "livecodebench_279.jsonl, not checked (no tests): 1 rows: a" in shown
    write_rows(tmp_path / "gsm8k_test.jsonl", [*rows, {"problem": "?", "answer": r"\frac{1}{"}])
    assert main([*command, "gsm8k"]) == 1
    said = capsys.readouterr()
    assert r"gold '\\frac{1}{'" in said.out  # no box of it closes
    assert "1 gold answers are not graded right" in said.err
    assert "spellings 'bold' are misread" in said.err


def test_a_web_page_in_place_of_a_file_fails_the_check_but_not_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gsm8k.jsonl").write_text("\n<!DOCTYPE html>\n<html>Not found</html>\n")
    write_rows(tmp_path / "math500.jsonl", [{"problem": "?", "answer": "5"}, {"problem": "?", "answer": "7"}])
    command = ["benchmarks", "check", "--data-dir", str(tmp_path), "--workers", "1", "--no-rules"]
    assert main([*command, "--benchmarks", "gsm8k,math500"]) == 1
    said = capsys.readouterr()
    assert "math500.jsonl 2 2 0" in " ".join(said.out.split())
    assert "gsm8k.jsonl: begins with '<' and looks like a web page" in said.out
    assert "1 file cannot be used" in said.err
    assert "math500.jsonl: 2 problems\n" in said.err
    assert all(line.strip() for line in said.err.splitlines())
    assert main(["benchmarks", "list", "--data-dir", str(tmp_path)]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["math500", "math", "2", "4", "math500.jsonl", "MIT"] in shown
    assert ["gsm8k", "math", "–", "4", "gsm8k.jsonl", "(not", "usable)", "MIT"] in shown


def test_sources_are_listed_unbroken_in_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["benchmarks", "list"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for benchmark in BENCHMARKS.values():
        assert (benchmark.hub_id or "this package") in shown
    assert "gated" in shown  # on a second line


def test_missing_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["list", "--data-dir", str(tmp_path / "none")], "no such folder"),
        (["check", "--data-dir", str(tmp_path)], "no file of any benchmark"),
        (["check", "--data-dir", str(tmp_path), "--benchmarks", "mmlu"], "no file for benchmark 'mmlu'"),
        (["check", "--benchmarks", "gsm9k"], "unknown, expected one of "),
        (["overlap", "--train", str(tmp_path / "none.jsonl"), "--benchmarks", "task"], "none.jsonl: no such file"),
    ):
        assert main(["benchmarks", *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["benchmarks", "list"]) == 0
    assert "Idavidrein/gpqa" in capsys.readouterr().out
