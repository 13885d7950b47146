"""`attnpo eval` on a tiny random model: seeds, batches, continued runs, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from attnpo.errors import InputError, RunError
from attnpo.evaluation import run as run_module
from attnpo.evaluation.options import EvalOptions
from attnpo.evaluation.run import evaluate, print_problems

Run = Callable[..., Path]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, new_tiny_qwen2, tiny_tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model = new_tiny_qwen2()
    # A random model hardly ever ends; this one often does, so that rows of a batch end at different times.
    model.generation_config.eos_token_id = list(range(40, 50))
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def run(model_folder: Path) -> Run:
    def call(folder: Path, **options: Any) -> Path:
        small = {"model": str(model_folder), "benchmarks": ["task"], "limit": 5, "samples": 2, "max_tokens": 60}
        evaluate(EvalOptions(output=folder, **{**small, "temperature": 1.0, "batch_size": 4, **options}))
        return folder

    return call


def lines(folder: Path) -> list[str]:
    return sorted((folder / "samples" / "task.jsonl").read_text(encoding="utf-8").splitlines())


def rows(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["id"], row["sample"]): row for row in map(json.loads, lines(folder))}


@pytest.fixture(scope="module")
def whole(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    options = {"model": str(model_folder), "benchmarks": ["task"], "limit": 5, "samples": 2, "max_tokens": 60}
    evaluate(EvalOptions(output=folder, temperature=1.0, batch_size=4, **options))
    return folder


def test_folder_is_complete(whole: Path):
    found = rows(whole)
    assert len(found) == 10
    assert {row["truncated"] for row in found.values()} == {True, False}  # or the tests below show little
    for row in found.values():
        assert row["tokens"] <= 60
        assert row["truncated"] == (row["tokens"] == 60)
        if "</think>" not in row["text"]:  # the chat template opens the thinking
            assert row["verdict"] == "no_answer"
            assert (row["thinking_tokens"], row["answer_tokens"]) == (row["tokens"], 0)
    assert json.loads((whole / "environment.json").read_text())["thinking"] is True
    assert json.loads((whole / "results.json").read_text())["benchmarks"]["task"]["samples"] == 10


def test_seeds_differ_and_decide(whole: Path, run: Run, tmp_path: Path):
    seeds = [row["seed"] for row in rows(whole).values()]
    assert len(set(seeds)) == len(seeds)
    same, other = run(tmp_path / "same"), run(tmp_path / "other", seed=1)
    assert lines(same) == lines(whole)
    assert all(row["text"] != rows(whole)[key]["text"] for key, row in rows(other).items() if row["truncated"])


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_batches_change_nothing(whole: Path, run: Run, tmp_path: Path, batch_size: int):
    assert lines(run(tmp_path / "run", batch_size=batch_size)) == lines(whole)


def test_fewer_problems_have_the_same_samples(whole: Path, run: Run, tmp_path: Path):
    few = rows(run(tmp_path / "few", limit=2))
    assert len(few) == 4
    assert all(rows(whole)[key] == row for key, row in few.items())


def interrupt_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C once so many samples have been read."""
    read, seen = run_module.ungraded_sample, []

    def counted(*args: Any):
        seen.append(args)
        if len(seen) > count:
            raise KeyboardInterrupt
        return read(*args)

    monkeypatch.setattr(run_module, "ungraded_sample", counted)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_interrupted_and_continued_is_uninterrupted(
    whole: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_after(count, patch)
        with pytest.raises(RunError, match=f"interrupted: {count} of 10 samples.*the same command continues"):
            run(folder)
    file = folder / "samples" / "task.jsonl"
    before = file.read_bytes() if count else b""
    assert before.count(b"\n") == count
    if count:
        with open(file, "ab") as opened:
            opened.write(b'{"benchmark": "task", "id": "test-0-')  # a line that a kill cut off
    run(folder)
    assert lines(folder) == lines(whole)
    assert file.read_bytes().startswith(before)
    calls = json.loads((folder / "environment.json").read_text())["calls"]
    assert [call["samples"] for call in calls] == [count, 10 - count]


def test_finished_run_samples_nothing(whole: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    before = lines(whole)
    monkeypatch.setattr(run_module, "load_engine", lambda *args: pytest.fail("the model is not needed"))
    assert lines(run(whole)) == before


def test_finished_run_is_not_done_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = run(tmp_path / "run", limit=1)
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "Prompter", lambda *args: pytest.fail("no prompt is needed"))
        run(folder, limit=1)
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == times
    (folder / "results.md").unlink()
    run(folder, limit=1)
    assert (folder / "results.md").is_file()
    run(folder, limit=1, budgets=[7])
    assert set(json.loads((folder / "results.json").read_text())["benchmarks"]["task"]["accuracy_at_budget"]) == {"7"}


def test_results_follow_the_base(run: Run, tmp_path: Path):
    base = run(tmp_path / "base", limit=2)
    folder = run(tmp_path / "run", limit=2, seed=1, base=base)
    before = (folder / "results.json").stat().st_mtime_ns
    run(base, limit=2, seed=2, overwrite=True)
    run(folder, limit=2, seed=1, base=base)
    assert (folder / "results.json").stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 0.6}, r"--temperature is 1\.0 in the folder, now 0\.6\. It"),
        ({"temperature": 0.0, "samples": None}, r"--temperature is 1\.0 in the folder, now 0\.0\. It"),
        ({"seed": 3, "max_tokens": 50}, "--max-tokens is 60 in the folder, now 50; --seed is 0 in the folder, now 3"),
        ({"batch_size": 5}, "--batch-size is 4 in the folder, now 5"),
        (
            {"limit": 4},
            r"options: --limit is 5 in the folder, now 4\. It cannot be extended: batches, .*--overwrite",
        ),
        ({"limit": None}, "other options: --limit is 5 in the folder, now not given. It"),
        ({"samples": 3}, r"--samples is 2 in the folder, now 3 \(of task\)"),
        ({"benchmarks": ["gsm8k"], "data_dir": "DATA"}, "--benchmarks has task in the folder, and now lacks it"),
    ],
)
def test_other_options_are_refused(whole: Path, run: Run, tmp_path: Path, changed: dict[str, Any], message: str):
    if changed.get("data_dir"):
        (tmp_path / "gsm8k.jsonl").write_text('{"id": "1", "problem": "1 + 1?", "answer": "2"}\n')
        changed = {**changed, "data_dir": tmp_path}
    before = lines(whole)
    with pytest.raises(InputError, match=message):
        run(whole, **changed)
    assert lines(whole) == before


def test_run_without_samples_accepts_other_options(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: Any):
        raise InputError("--dtype: the model cannot have it")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "load_engine", fail)
        with pytest.raises(InputError, match="--dtype"):
            run(tmp_path / "run", limit=1, dtype="float16")
    run(tmp_path / "run", limit=1, max_tokens=3)
    assert yaml.safe_load((tmp_path / "run/eval.yaml").read_text())["dtype"] == "float32"


def test_changed_questions_are_refused(run: Run, tmp_path: Path):
    data = tmp_path / "gsm8k.jsonl"
    data.write_text('{"id": "1", "problem": "1 + 1?", "answer": "2"}\n')
    options: dict[str, Any] = {"benchmarks": ["gsm8k"], "data_dir": tmp_path, "max_tokens": 3}
    run(tmp_path / "run", **options)
    data.write_text('{"id": "1", "problem": "1 + 1?", "answer": "3"}\n')
    with pytest.raises(InputError, match=r"other options: the questions of gsm8k have changed since\. It"):
        run(tmp_path / "run", **options)
    run(tmp_path / "run", **options, samples=1, overwrite=True)
    assert json.loads((tmp_path / "run/samples/gsm8k.jsonl").read_text())["reference"] == "3"


def test_a_benchmark_can_be_added(run: Run, tmp_path: Path, whole: Path):
    (tmp_path / "gsm8k.jsonl").write_text('{"id": "1", "problem": "1 + 1?", "answer": "2"}\n')
    folder = run(tmp_path / "run")
    run(folder, benchmarks=["gsm8k", "task"], data_dir=tmp_path, name="other")
    assert lines(folder) == lines(whole)
    options = yaml.safe_load((folder / "eval.yaml").read_text())
    assert (options["name"], list(options["benchmarks"])) == ("other", ["gsm8k", "task"])
    assert set(json.loads((folder / "results.json").read_text())["benchmarks"]) == {"gsm8k", "task"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda row: {k: v for k, v in row.items() if k != "seed"}, "row 1: field 'seed' is missing"),
        (lambda row: {**row, "seed": 1}, "has seed 1, expected [0-9]+; --overwrite"),
        (lambda row: {**row, "id": "none"}, "problem 'none' has seed [0-9]+, expected no such sample"),
    ],
)
def test_damaged_samples_are_refused(run: Run, tmp_path: Path, damage: Callable[[dict], dict], message: str):
    folder = run(tmp_path / "run", limit=1, samples=1)
    file = folder / "samples" / "task.jsonl"
    file.write_text(json.dumps(damage(json.loads(file.read_text()))) + "\n")
    with pytest.raises(InputError, match=message):
        run(folder, limit=1, samples=1)


def test_long_prompts_are_left_out(run: Run, tmp_path: Path):
    long = "1 + " * 1200  # the context is 1,024 tokens
    rows_ = [{"id": "long", "problem": long, "answer": "1"}, {"id": "short", "problem": "1 + 1?", "answer": "2"}]
    (tmp_path / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_))
    folder = run(tmp_path / "run", benchmarks=["gsm8k"], data_dir=tmp_path, max_tokens=5)
    left_out = json.loads((folder / "environment.json").read_text())["left_out"]["gsm8k"]
    assert len(left_out) == 1
    assert "problem long: a prompt of" in left_out[0]
    (tmp_path / "gsm8k.jsonl").write_text(json.dumps(rows_[0]) + "\n")
    with pytest.raises(InputError, match="every prompt is longer than the model's context of 1024"):
        run(tmp_path / "none", benchmarks=["gsm8k"], data_dir=tmp_path)


def test_reasons_are_shown_without_markup(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A row's own text is in them, which the screen must not read as markup."""
    (tmp_path / "gsm8k.jsonl").write_text('{"id": "1", "problem": "1 + 1?", "answer": "2"}\n{"[/INST]": 1}\n')
    run(tmp_path / "run", benchmarks=["gsm8k"], data_dir=tmp_path, max_tokens=3)
    assert "found [/INST]" in capsys.readouterr().err.replace("\n", " ")


def test_omitted_rows_are_reported_by_kind(capsys: pytest.CaptureFixture[str]):
    reasons = [
        "f.jsonl, row 2: field 'problem' is missing (found id, answer)",
        "f.jsonl, row 3: field 'problem' is missing (found answer)",
        "gsm8k, problem a: a prompt of 4801 tokens, expected less than 1024, the model's context",
        "gsm8k, problem b: a prompt of 2000 tokens, expected less than 1024, the model's context",
        "f.jsonl, row 9: id 'x' was seen before, expected every id once",
        "f.jsonl, row 10: id 'y' was seen before, expected every id once",
        "f.jsonl, row 11: field 'answer' is missing (found problem)",
    ]
    print_problems(Console(width=200), {"gsm8k": 1, "task": 2}, {"gsm8k": reasons, "task": []})
    assert capsys.readouterr().out.splitlines() == [
        "gsm8k: 1 problem (left out: 7, see environment.json)",
        *(f"  2 left out; the first: {reasons[first]}" for first in (0, 2, 4)),
        "task: 2 problems",
    ]


def test_folders_of_something_else_are_refused(run: Run, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"found a folder without eval\.yaml"):
        run(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="found a file"):
        run(tmp_path / "notes.txt")


def test_a_judge_is_asked_about_what_the_verifier_cannot_decide(
    run: Run, tmp_path: Path, judge_stub, monkeypatch: pytest.MonkeyPatch
):
    judge_stub.stub.reply = lambda seen: judge_stub.says(json.dumps({"same": True}))
    load, read = run_module.load_questions, run_module.ungraded_sample

    def unreadable(name: str, **options: Any):
        loaded = load(name, **options)
        return replace(loaded, questions=[replace(one, reference=r"\frac{1}{") for one in loaded.questions])

    monkeypatch.setattr(run_module, "load_questions", unreadable)
    monkeypatch.setattr(run_module, "ungraded_sample", lambda *args: (r"\boxed{half}", read(*args)[1]))
    judged = run(tmp_path / "judged", limit=2, answer_judge=f"{judge_stub.stub.url}#m")
    assert {row["verdict"] for row in rows(judged).values()} == {"judged_right"}
    results = json.loads((judged / "results.json").read_text(encoding="utf-8"))
    assert results["benchmarks"]["task"]["accuracy"]["value"] == 1.0
    with pytest.raises(InputError, match=r"--answer-judge is .* in the folder, now not given"):
        run(judged, limit=2)
