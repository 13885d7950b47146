"""Problems of `dataset_name` as in `attnpo train`, in verl's format; `heads: auto` before Ray starts."""

from __future__ import annotations

import os

os.environ["VERL_PLATFORM"] = "cpu"
os.environ["VERL_USE_EXTERNAL_MODULES"] = "attnpo.engines.verl.cpu"

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from attnpo.data.problems import load_rows
from attnpo.engines.verl import find_heads, launch
from attnpo.engines.verl.data import use_of, write_problems
from attnpo.engines.verl.options import VerlOptions
from attnpo.engines.verl.settings import compose, read_arguments
from attnpo.errors import InputError, RunError
from attnpo.rewards.accuracy import AccuracyReward
from attnpo.rewards.pool import VerifierPool
from attnpo.training.problems import Use, load_sets

UNREADABLE = r"\frac{1}{"


def file_of(tmp_path: Path, name: str, rows: list[dict[str, Any]]) -> str:
    file = tmp_path / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


@pytest.fixture
def files(tmp_path) -> tuple[str, str]:
    """A training set with one reference nobody can read and one prompt that is too long; a held-out set."""
    rows = [{"question": f"{i} + {i}?", "answer": str(2 * i), "level": i} for i in range(4)]
    rows += [{"question": "Halve the cake.", "answer": UNREADABLE, "level": 9}]
    rows += [{"question": "word " * 300, "answer": "1", "level": 9}]
    return file_of(tmp_path, "train.jsonl", rows), file_of(tmp_path, "eval.jsonl", rows[:1])


@pytest.fixture
def words(tiny_folder, tmp_path) -> list[str]:
    heads = tmp_path / "heads.json"
    heads.write_text(json.dumps({"heads": [[1, 0]]}), encoding="utf-8")
    given = ["trainer.device=cpu", "trainer.n_gpus_per_node=1", "trainer.total_training_steps=1"]
    given += ["data.train_batch_size=2", "actor_rollout_ref.actor.ppo_mini_batch_size=2"]
    given += ["actor_rollout_ref.rollout.n=4", "data.max_prompt_length=100", "data.max_response_length=100"]
    given += [f"actor_rollout_ref.model.path={tiny_folder}", "--output_dir", str(tmp_path / "run")]
    return [*given, "--heads", str(heads)]


@pytest.fixture
def not_started(monkeypatch) -> None:
    monkeypatch.setattr(launch, "run", lambda config: None)


def tokenizer_of(words: list[str]) -> Any:
    return AutoTokenizer.from_pretrained(compose(read_arguments(words)).actor_rollout_ref.model.path)


def written(words: list[str], tmp_path: Path) -> tuple[list[dict], list[dict], list[str]]:
    """Both files and what was said."""
    config = compose(read_arguments(words))
    tokenizer = tokenizer_of(words)
    said: list[str] = []
    train, held_out = tmp_path / "out" / "train.parquet", tmp_path / "out" / "eval.parquet"
    write_problems(VerlOptions.of(config.attnpo), use_of(config), tokenizer, train, held_out, said.append)
    return load_rows(str(train)), load_rows(str(held_out)), said


def test_same_messages_and_problems_as_attnpo_train(words, files, tmp_path):
    """The same sentences and the same problems from the same options."""
    from attnpo.training.options import DataConfig

    train, held_out = files
    rows, others, said = written([*words, "--dataset_name", train, "--eval_dataset_name", held_out], tmp_path)
    options = DataConfig(dataset_name=train, eval_dataset_name=held_out)
    expected: list[str] = []
    with VerifierPool(1) as pool:
        sets = load_sets(
            options, tokenizer_of(words), AccuracyReward(pool), expected.append, Use(max_prompt_tokens=100)
        )
    assert said == expected
    assert said[2] == (
        "train: 4 problems (left out: 1 with a reference the verifier cannot read, "
        "1 with a prompt of more than 100 tokens)"
    )
    assert [row["reward_model"]["ground_truth"] for row in rows] == sets.train["reference"] == ["0", "2", "4", "6"]
    assert [row["prompt"] for row in rows] == sets.train["prompt"]
    assert rows[2]["extra_info"] == {"id": "3", "index": 2, "place": 2}
    assert len(others) == 1


def test_custom_reward_function_keeps_unverifiable_references(words, files, tmp_path):
    own = ["reward.custom_reward_function.path=mine.py", "data.filter_overlong_prompts=false"]
    rows, _, said = written([*words, *own, "--dataset_name", files[0]], tmp_path)
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["0", "2", "4", "6", UNREADABLE, "1"]
    assert [row["extra_info"]["level"] for row in rows] == [0, 1, 2, 3, 9, 9]
    assert said[1] == "train: 6 problems"


def test_splits_of_the_hub(words, tmp_path, monkeypatch):
    """Configuration and splits go where `attnpo train` has them go."""
    asked = []

    def load_dataset(source, config=None, *, split, revision=None, **more):
        asked.append((source, config, split))
        return Dataset.from_list([{"problem": f"{len(asked)} + {i}?", "answer": "1"} for i in range(3)])

    monkeypatch.setattr("attnpo.data.problems.load_dataset", load_dataset)
    hub = ["--dataset_name", "some/set", "--dataset_config", "main", "--dataset_train_split", "easy"]
    config = compose(read_arguments([*words, *hub, "--eval_dataset_name", "other/set"]))
    tokenizer = tokenizer_of(words)
    out = tmp_path / "train.parquet", tmp_path / "eval.parquet"
    write_problems(VerlOptions.of(config.attnpo), use_of(config), tokenizer, *out, lambda said: None)
    assert asked == [("some/set", "main", "easy"), ("other/set", "main", "test")]


def test_without_held_out_problems_nothing_is_evaluated(words, files, tmp_path):
    given = [*words, "--dataset_name", files[0]]
    config = compose(read_arguments(given))
    assert (config.trainer.test_freq, config.trainer.val_before_train) == (-1, False)
    _, held_out, said = written(given, tmp_path)
    assert said[-1] == "no held-out problems: nothing is evaluated (--eval_dataset_name)"
    assert len(held_out) == 1
    said = r"found 5, but there are no held-out problems; give --eval_dataset_name, or trainer.test_freq=-1$"
    with pytest.raises(InputError, match=rf"key trainer.test_freq of .* {said}"):
        compose(read_arguments([*given, "trainer.test_freq=5"]))
    with pytest.raises(InputError, match=r"key trainer.val_before_train of .* found True, but there are no held-out"):
        compose(read_arguments([*given, "trainer.val_before_train=true"]))


def test_a_system_prompt_and_a_template(words, files, tmp_path):
    more = ["--system_prompt", r"Be brief.\nThink.", "--prompt_template", r"Q: {problem}\nA:"]
    rows, _, _ = written([*words, "--dataset_name", files[0], *more], tmp_path)
    assert rows[0]["prompt"] == [
        {"role": "system", "content": "Be brief.\nThink."},
        {"role": "user", "content": "Q: 0 + 0?\nA:"},
    ]


BAD = [
    ([{"question": "1 + 1?", "answer": UNREADABLE}] * 4, r"no reference can be read by the verifier, e.g. '"),
    ([{"text": "1 + 1?", "answer": "2"}] * 4, r"train.jsonl.*problem_column"),
    ([{"question": "1 + 1?", "answer": "2"}] * 3 + [{"question": "1 + 1?", "answer": None}], r"row 4: column 'answer'"),
    ([{"question": "word " * 300, "answer": "2"}] * 4, r"option max_prompt_length: all 4 prompts have more than 100"),
]


@pytest.mark.parametrize(("rows", "message"), BAD, ids=["references", "column", "cell", "long"])
def test_bad_problems_are_refused_as_in_attnpo_train(words, tmp_path, not_started, rows, message):
    from attnpo.training.options import DataConfig

    file = file_of(tmp_path, "train.jsonl", rows)
    with pytest.raises(InputError, match=message) as here:
        launch.main([*words, "--dataset_name", file])
    options, use, tokenizer = DataConfig(dataset_name=file), Use(max_prompt_tokens=100), tokenizer_of(words)
    with VerifierPool(1) as pool, pytest.raises(InputError) as there:
        load_sets(options, tokenizer, AccuracyReward(pool), lambda said: None, use)
    assert str(here.value) == str(there.value)
    assert not (tmp_path / "run").exists()


def test_problems_are_described_in_the_run_folder(words, files, tmp_path, not_started, capsys):
    launch.main([*words, "--dataset_name", files[0], "--eval_dataset_name", files[1]])
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["problems"]["train"]["with a reference the verifier cannot read"] == 1
    assert set(environment["problem_fingerprints"]) == {"train", "eval"}
    overlap = "warning: held-out problems that are also in the training set: 1 word for word of 1"
    assert overlap in capsys.readouterr().out
    (line,) = (tmp_path / "run" / "warnings.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 0


# -------------------------------------------------------------------- heads: auto


@pytest.fixture
def search(monkeypatch) -> list[list[str]]:
    """A search that is played: writes what a search writes. What it was called with."""
    calls: list[list[str]] = []

    def played(line: list[str]) -> int:
        calls.append(line)
        folder = Path(line[line.index("--output_dir") + 1])
        folder.mkdir()
        model = line[line.index("--model_name_or_path") + 1]
        (folder / "heads.json").write_text(json.dumps({"heads": [[2, 3]], "model": Path(model).name}))
        (folder / "heads-traces.jsonl.gz").write_bytes(b"")
        return 0

    monkeypatch.setattr(find_heads, "_run", played)
    return calls


def without(words: list[str], option: str) -> list[str]:
    at = words.index(option)
    return words[:at] + words[at + 2 :]


def test_heads_of_an_earlier_failed_start_are_reused(words, files, tmp_path, not_started, search, capsys):
    auto = [*without(words, "--heads"), "--dataset_name", files[0], "--heads", "auto"]
    launch.main(auto)
    assert len(search) == 1
    assert not (tmp_path / "run" / "heads-search").exists()
    launch.main(auto)
    assert len(search) == 1
    assert "key-focus heads found before" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"already contains heads found for .*Use them with --heads"):
        launch.main([*words, "--dataset_name", files[0]])
    launch.main([*auto, "--overwrite_run", "true"])
    assert len(search) == 2
    assert json.loads((tmp_path / "run" / "heads.json").read_text())["heads"] == [[2, 3]]


def test_failed_head_search(words, files, tmp_path, not_started, monkeypatch):
    auto = [*without(words, "--heads"), "--dataset_name", files[0], "--heads", "auto"]
    for code, kind in ((find_heads.REFUSED, InputError), (1, RunError)):
        monkeypatch.setattr(find_heads, "_run", lambda line, code=code: code)
        with pytest.raises(kind, match="heads: auto: the search before the run"):
            launch.main(auto)
    assert not (tmp_path / "run" / "heads.json").exists()


def test_head_search_ends_with_the_launcher():
    """The launcher is killed with SIGKILL."""
    child = "import time; from threading import Thread; from attnpo.engines.verl.find_heads import end_with\n"
    child += "Thread(target=end_with, args=(0,), daemon=True).start(); print('up', flush=True); time.sleep({})"
    parent = "import sys; from attnpo.engines.verl.find_heads import _run; sys.exit(_run([sys.executable, '-c', {!r}]))"
    assert subprocess.run([sys.executable, "-c", parent.format(child.format(0))], check=False).returncode == 0
    parent = parent.format(child.format(60))
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (left,) = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
    until = time.monotonic() + 20
    while left.is_running() and left.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)
