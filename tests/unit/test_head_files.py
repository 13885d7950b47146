"""The model that a head file belongs to: cases with and without a warning."""

from __future__ import annotations

import json

import pytest

from attnpo.attention.heads import same_model, save_heads, warn_of_other_model
from attnpo.cli.main import main
from attnpo.models import OVERTHINKER, model_name, resolve_model


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("org/Model-1.5B", "org/Model-1.5B", True),
        ("org/Model-1.5B", "/data/models/Model-1.5B/", True),
        ("org/Model-1.5B", "org/Model-7B", False),
        ("runs/a/checkpoint-100", "/data/runs/a/checkpoint-2000", True),
        ("runs/a/checkpoint-100", "runs/b/checkpoint-100", False),
        ("runs/a", "runs/a/checkpoint-100", True),
        ("checkpoint-100", "checkpoint-200", False),
        (OVERTHINKER, resolve_model(), True),
    ],
)
def test_same_model(one, other, same):
    assert same_model(one, other) == same_model(other, one) == same


def test_same_model_of_folders_called_by_their_place(tmp_path, monkeypatch):
    """`.`, `..` and `checkpoint-100` are the folders that they are where the command runs."""
    (tmp_path / "M" / "checkpoint-100").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "M")
    monkeypatch.chdir(tmp_path / "M")
    for name in (".", "./", "checkpoint-100", str(tmp_path / "link" / ".." / "M")):
        assert same_model(name, "org/M")
        assert same_model("M", name)
        assert not same_model(name, "org/N")
    monkeypatch.chdir(tmp_path / "M" / "checkpoint-100")
    assert same_model(".", "org/M")
    assert same_model("..", "org/M")
    monkeypatch.chdir(tmp_path)
    assert same_model("link", "org/link")
    assert not same_model("", "org/M")


def test_no_warning_where_the_recorded_folder_is_called_by_its_place(tmp_path, monkeypatch, capsys):
    """`attnpo probe --model . -o heads.json`, used elsewhere: "." is no name."""
    save_heads(tmp_path / "heads.json", [(1, 0)], model="./")
    monkeypatch.chdir("/")
    warn_of_other_model(tmp_path / "heads.json", "org/M")
    assert capsys.readouterr().err == ""


def test_warning_names_both(tmp_path, capsys):
    save_heads(tmp_path / "heads.json", [(1, 0)], model="org/small")
    warn_of_other_model(tmp_path / "heads.json", "org/large")
    said = capsys.readouterr()
    assert f"{tmp_path / 'heads.json'} has the heads of the model org/small, found org/large" in said.err
    assert said.out == ""
    warn_of_other_model(tmp_path / "heads.json", resolve_model())
    assert ", found overthinker: " in capsys.readouterr().err


@pytest.mark.parametrize("fields", [{}, {"model": None}, {"model": ""}, {"model": "org/M"}, {"model": ["M"]}])
def test_no_warning_without_two_names(fields, tmp_path, capsys):
    """`["M"]` is no name; an unnamed model is one made in memory."""
    save_heads(tmp_path / "heads.json", [(1, 0)], **fields)
    warn_of_other_model(tmp_path / "heads.json", "" if fields.get("model") == "org/M" else "org/large")
    assert capsys.readouterr().err == ""


def test_no_warning_for_head_files_of_the_model_or_its_run(tmp_path, capsys):
    save_heads(tmp_path / "heads.json", [(1, 0)], model="org/M")
    for model in (tmp_path, tmp_path / "checkpoint-20"):
        model.mkdir(exist_ok=True)
        warn_of_other_model(tmp_path / "heads.json", str(model))
    assert capsys.readouterr().err == ""
    (tmp_path / "another").mkdir()  # a folder of models is no run
    warn_of_other_model(tmp_path / "heads.json", str(tmp_path / "another"))
    assert "found" in capsys.readouterr().err


def test_name_of_the_packaged_model():
    assert model_name(resolve_model()) == model_name(OVERTHINKER) == OVERTHINKER
    assert [model_name(name) for name in ("", "org/M", "./M")] == ["", "org/M", "./M"]


@pytest.mark.parametrize(("recorded", "warnings"), [("org/other", 1), ("somewhere/model", 0)])
def test_score_and_train_warn_once(
    recorded, warnings, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, one_pool, capsys
):
    model = trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    save_heads(tmp_path / "heads.json", [(1, 0)], model=recorded)
    (tmp_path / "in.jsonl").write_text(json.dumps({"problem": "1?", "response": "It is 1.\nSo 1.</think>1"}) + "\n")
    problems = trainer_kit.write_problems(tmp_path / "problems.jsonl")
    given = ["--heads", str(tmp_path / "heads.json")]
    score = ["score", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--model", str(model)]
    for argv in ([*score, *given], trainer_kit.command(model, problems, tmp_path / "run", *given)):
        assert main(argv) == 0
        assert capsys.readouterr().err.count("has the heads of the model org/other") == warnings
