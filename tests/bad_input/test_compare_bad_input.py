"""Wrong input of `attnpo compare`, and its error messages."""

from __future__ import annotations

import pytest

from attnpo.cli.main import main
from attnpo.errors import InputError
from attnpo.evaluation.folder import read_samples
from example_evaluation import sample_row, write_samples
from example_run import write_run


@pytest.fixture
def runs(tmp_path):
    for name in ("one", "two"):
        write_samples(tmp_path / name, "b", [sample_row("b", f"p{i}") for i in range(3)])
    return [str(tmp_path / "one"), str(tmp_path / "two")]


def refused(capsys, tmp_path, *arguments: str) -> str:
    assert main(["compare", *arguments, "-o", str(tmp_path / "out")]) == 2
    return capsys.readouterr().err


def test_no_evaluation(runs, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, found in (("absent", "nothing"), ("file", "a file"), ("empty", "a folder without either")):
        said = refused(capsys, tmp_path, runs[0], str(tmp_path / name))
        assert f"{name}: found {found}, expected an evaluation (samples/), a training run (rollouts/)" in said


def test_no_samples(runs, tmp_path, capsys):
    write_samples(tmp_path / "none", "b", [])
    assert "none: no samples in samples/*.jsonl" in refused(capsys, tmp_path, runs[0], str(tmp_path / "none"))


def test_a_training_run_without_evaluations(runs, tmp_path, capsys):
    run = write_run(tmp_path / "run", steps=1)
    for file in (run / "rollouts").glob("eval-*"):
        file.unlink()
    assert "a training run without rollouts/eval-*" in refused(capsys, tmp_path, runs[0], str(run))


def test_single_run_is_refused(runs, tmp_path, capsys):
    assert "expected at least two to compare" in refused(capsys, tmp_path, runs[0])


def test_duplicate_name(runs, tmp_path, capsys):
    assert "two runs are called 'one'" in refused(capsys, tmp_path, runs[0], runs[0])
    assert "two runs are called 'A'" in refused(capsys, tmp_path, *runs, "--names", "A,A")


def test_names_of_unknown_runs(runs, tmp_path, capsys):
    assert "--names: found 3 for 2 runs" in refused(capsys, tmp_path, *runs, "--names", "A,B,C")


def test_an_unknown_base(runs, tmp_path, capsys):
    assert "--base: found 'three', expected one of one, two" in refused(capsys, tmp_path, *runs, "--base", "three")


def test_bad_budgets_and_weights(runs, tmp_path, capsys):
    assert "--budgets: found 'few'" in refused(capsys, tmp_path, *runs, "--budgets", "few")
    assert "AES weight gain: found nan" in refused(capsys, tmp_path, *runs, "--aes-gain", "nan")


def test_no_problem_in_common(runs, tmp_path, capsys):
    write_samples(tmp_path / "other", "b", [sample_row("b", "q0")])
    write_samples(tmp_path / "another", "c", [sample_row("c", "p0")])
    said = refused(capsys, tmp_path, runs[0], str(tmp_path / "other"), str(tmp_path / "another"))
    assert "nothing to compare" in said
    assert "b: no problem that two of its runs have" in said
    assert "c: only another has it" in said


def test_the_same_id_for_another_problem(runs, tmp_path, capsys):
    write_samples(tmp_path / "other", "b", [sample_row("b", "p1", reference="-1")])
    said = refused(capsys, tmp_path, runs[0], str(tmp_path / "other"))
    assert "b, problem 'p1': reference" in said
    assert "'-1' in other; expected the same problems" in said


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": "many"}, "field 'tokens' is text, expected a whole number"),
        ({"tokens": True}, "field 'tokens' is true/false, expected a whole number"),
        ({"tokens": -1}, "field 'tokens' is -1, expected at least 0"),
        ({"verdict": "correct"}, "field 'verdict' is 'correct', expected right, wrong"),
        ({"truncated": None}, "field 'truncated' is null, expected true or false"),
        ({"id": 3}, "field 'id' is a number, expected text"),
        ({"benchmark": "c"}, "field 'benchmark' is 'c', expected 'b'"),
        ({"id": "p0"}, "sample 0 of problem 'p0' is in row 1 already"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
    file = write_samples(tmp_path, "b", [sample_row("b", "p0"), sample_row("b", "p1") | row])
    with pytest.raises(InputError) as error:
        read_samples(file)
    assert str(error.value).startswith(f"{file}, row 2: {message}")


def test_missing_field_and_truncated_line(tmp_path):
    row = sample_row("b", "p0")
    del row["verdict"]
    with pytest.raises(InputError, match=r"b.jsonl, row 1: field 'verdict' is missing"):
        read_samples(write_samples(tmp_path, "b", [row]))
    file = write_samples(tmp_path, "b", [sample_row("b", "p0"), sample_row("b", "p1")])
    file.write_text(file.read_text()[:-20])
    with pytest.raises(InputError, match=r"b.jsonl, row 2, column \d+: not valid JSON"):
        read_samples(file)


def test_options_must_be_a_mapping(runs, tmp_path, capsys):
    (tmp_path / "two" / "eval.yaml").write_text("- model\n")
    assert "eval.yaml: found a list, expected a mapping of options" in refused(capsys, tmp_path, *runs)
