"""The model card contains the figures of a run folder's records."""

from __future__ import annotations

import json

import pytest
import yaml

from attnpo.cli.main import main
from attnpo.evaluation.card import licence_of
from attnpo.training.card import write_card
from example_evaluation import write_evaluation
from example_run import write_run


def evaluation(step: int, accuracy: float, tokens: float) -> dict[str, float]:
    ends = {"accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.1}
    lengths = {"length/completion_low": tokens - 20, "length/completion_high": tokens + 20}
    return {"step": step, "accuracy": accuracy, "length/completion": tokens, "n": 64, **ends, **lengths}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "shorter"
    folder.mkdir()
    options = {"advantage": "rloo", "length_reward": "tlmre", "credit": "attnpo", "max_steps": 20}
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    about = {"versions": {"attnpo": "1.2", "trl": "9.9"}, "derived": {"learning_rate": 0.5}}
    (folder / "environment.json").write_text(json.dumps(about))
    (folder / "heads.json").write_text(json.dumps({"heads": [[2, 3], [0, 1]]}))
    return folder


def evaluated(run, *rows) -> str:
    (run / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_card(run, "org/base", tags=["mine"])
    return (run / "README.md").read_text()


def test_complete_card(run):
    card = evaluated(run, evaluation(0, 0.5, 300), evaluation(10, 0.55, 250), evaluation(20, 0.625, 200))
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["base_model"] == "org/base"
    assert head["tags"] == ["attnpo", "mine", "reasoning", "trl"]
    assert "| | step 0 | step 20 |" in card
    assert "| accuracy | 50.0% (40.0% to 60.0%) | 62.5% (52.5% to 72.5%) |" in card
    assert "| tokens per response | 300 (280 to 320) | 200 (180 to 220) |" in card
    assert "| key-focus heads | layer 2 head 3, layer 0 head 1 (heads.json) |" in card
    assert "| learning_rate | 0.5 |" in card  # followed from others
    assert 'from_pretrained("shorter")' in card
    assert (run / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_only_comparable_evaluations_after_a_change_of_problems(run):
    row = {"until_step": 10, "changes": {"eval problems": ["a", "b"]}, "config": {}}
    (run / "config-history.jsonl").write_text(json.dumps(row) + "\n")
    card = evaluated(run, evaluation(0, 0.5, 300), evaluation(20, 0.625, 200))
    assert "| | step 20 |" in card
    assert "300" not in card
    assert "frontier" not in card


def test_warnings_of_the_run_are_in_the_card(run):
    row = {"step": 0, "message": "held-out problems that are also in the training set: 6 of 14"}
    (run / "warnings.jsonl").write_text(json.dumps(row) + "\n")
    card = evaluated(run, evaluation(0, 0.5, 300))
    assert "The run warned: held-out problems that are also in the training set" in card


def test_evaluations_of_other_problems_are_not_compared(run):
    other = {**evaluation(20, 1.0, 100), "n": 9}
    card = evaluated(run, evaluation(0, 0.5, 300), other)
    assert "9 responses to held-out problems" in card
    assert "300" not in card


@pytest.mark.parametrize("base", ["", "models/gone away", "/no/such/folder"])
def test_only_a_name_of_the_hub_is_a_base_model(base, run):
    write_card(run, base, name="me/shorter", datasets=["me/problems"])
    card = (run / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert "base_model" not in head
    assert head["datasets"] == ["me/problems"]
    assert 'from_pretrained("me/shorter")' in card


def test_a_folder_without_records(tmp_path):
    write_card(tmp_path, "a local model")
    assert "Nothing was measured on held-out problems." in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# Base", "mit"),
        ("# license: mit", None),
        ("---\nlicense: [a, b]\n---\n", None),
        ("---\na: [\n---\n", None),
    ],
)
def test_the_licence_is_the_base_models_own(text, expected, tmp_path):
    (tmp_path / "README.md").write_text(text)
    assert licence_of(str(tmp_path)) == expected
    assert licence_of("overthinker") == "apache-2.0"
    assert licence_of(str(tmp_path / "none")) is None


@pytest.fixture
def before_and_after(tmp_path):
    start = write_evaluation(tmp_path / "start", benchmarks={"math500": 20}, model="overthinker")
    end = write_evaluation(tmp_path / "trimmed", benchmarks={"math500": 20}, accuracy=0.7, tokens=500, seed=1)
    return [str(start), str(end)]


def compare_with_card(runs, model, out, *more: str) -> int:
    return main(["compare", *runs, "-o", str(out), "--card", str(model), *more])


def test_the_card_of_a_compared_model(before_and_after, run, tmp_path, capsys):
    (run / "config.json").write_text("{}")
    assert compare_with_card(before_and_after, run, tmp_path / "compared") == 0
    assert f"model card: {run / 'README.md'}" in capsys.readouterr().out
    card = (run / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["license"], head["tags"], head["model_name"]) == ("apache-2.0", ["attnpo", "reasoning"], "shorter")
    assert "base_model" not in head  # a shipped model is not on the Hub
    assert "`overthinker` trained to think shorter" in card
    assert "`start` is the base model, `trimmed` this one." in card
    table = (tmp_path / "compared" / "table.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| math500 |")]
    assert len(rows) == 2
    assert all(row in card for row in rows)
    assert "Key-focus heads: layer 2 head 3, layer 0 head 1 (heads.json)." in card
    assert (run / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_a_card_needs_a_model_and_its_run(before_and_after, run, tmp_path, capsys):
    out = tmp_path / "compared"
    assert compare_with_card(before_and_after, run, out) == 2
    assert f"--card {run}: found no config.json there, expected the folder of a model" in capsys.readouterr().err
    (run / "config.json").write_text("{}")
    assert compare_with_card(before_and_after, run, out, "--base", "trimmed") == 2
    assert "--card: the last run, 'trimmed', is the base" in capsys.readouterr().err
    other = write_evaluation(tmp_path / "other", benchmarks={"math500": 20}, model=str(tmp_path))
    assert compare_with_card([before_and_after[0], str(other)], run, out) == 2
    assert f"the last run, 'other', is of {tmp_path}, expected that of this model" in capsys.readouterr().err
    assert not (run / "README.md").exists()
    assert not (out / "comparison.json").exists()


def test_a_training_run_needs_no_such_card(before_and_after, run, tmp_path, capsys):
    (run / "config.json").write_text("{}")
    write_run(tmp_path / "trained")
    assert compare_with_card([str(tmp_path / "trained")], run, tmp_path / "compared") == 2
    assert "is a training run, which has a card already; expected evaluations" in capsys.readouterr().err
