"""Trackers are open from the first evaluation of a run to its last, whatever transformers does when training ends."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from attnpo.training import trackers
from attnpo.training.trackers import open_to_the_end, start_trackers
from processes import python_with


class Recorder(TrainerCallback):
    """Like the callback of a tracker: writes nothing unless it is open, and is closed by the end of training."""

    def __init__(self) -> None:
        self._initialized = False
        self.seen: list[str] = []

    def setup(self, args: Any, state: Any, model: Any) -> None:
        self.seen.append("open")
        self._initialized = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._initialized:
            self.setup(args, state, kwargs.get("model"))

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self._initialized
        self.seen.append("eval" if "eval_accuracy" in kwargs["logs"] else "train")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append("close")
        self._initialized = False


@pytest.fixture
def trainer(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "INTEGRATION_TO_CALLBACK", {"recorder": Recorder})
    kit = trainer_kit
    made = kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, responses=kit.MIXED, eval_data=kit.problems(2))
    made.add_callback(Recorder())
    return made


def test_one_tracker_run_from_the_first_evaluation_to_the_last(trainer):
    recorder = trainer.callback_handler.callbacks[-1]
    with open_to_the_end(trainer):
        trainer.evaluate()
        trainer.train()
        trainer.evaluate()
    assert [what for what in recorder.seen if what != "train"] == ["open", "eval", "eval", "close"]
    assert "train" in recorder.seen


def test_an_evaluation_after_training_opens_it_again(trainer):
    recorder = trainer.callback_handler.callbacks[-1]
    trainer.train()
    trainer.evaluate()
    assert recorder.seen[-3:] == ["close", "open", "eval"]
    start_trackers(trainer)  # open already
    assert recorder.seen[-1] == "eval"


def train_and_evaluate(trainer: Any) -> None:
    with open_to_the_end(trainer):
        trainer.train()
        trainer.evaluate()


def test_closed_after_an_error(trainer):
    recorder = trainer.callback_handler.callbacks[-1]
    trainer.evaluate = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        train_and_evaluate(trainer)
    assert recorder.seen[-1] == "close"
    assert "on_train_end" not in vars(recorder)


PACKAGES = {"trackio": [], "tensorboard": [], "wandb": ["wandb"], "mlflow": ["mlflow-skinny", "sqlalchemy", "alembic"]}
"""What a tracker needs beyond this package's own development packages."""


@pytest.mark.slow
@pytest.mark.parametrize("tracker", PACKAGES)
def test_real_tracker_package(tracker, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """A whole run with both evaluations and the package itself, offline: one run there, with both of them."""
    python = python_with(PACKAGES[tracker], tmp_path / "venv")
    trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl")
    more = ("--report_to", tracker, "--project", "attnpo-test", "--eval_dataset_name", str(data))
    argv = trainer_kit.command(tmp_path / "model", data, tmp_path / "run", *more)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }
    done = subprocess.run(
        [python, "-m", "attnpo", *argv],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    evaluations = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in evaluations] == [0, 1]
    runs, found = SEEN[tracker](tmp_path)
    assert (runs, found) == (1, 2)


def in_trackio(folder: Path) -> tuple[int, int]:
    """Runs, and evaluations with an accuracy."""
    (file,) = (folder / "trackio").glob("*.db")
    with sqlite3.connect(file) as database:
        rows = [json.loads(row) for (row,) in database.execute("select cast(metrics as text) from metrics")]
        (runs,) = database.execute("select count(distinct run_name) from metrics").fetchone()
    return runs, len([row for row in rows if "eval/accuracy" in row])


def in_mlflow(folder: Path) -> tuple[int, int]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        (runs,) = database.execute("select count(*) from runs").fetchone()
        (found,) = database.execute("select count(*) from metrics where key = 'eval_accuracy'").fetchone()
    return runs, found


def in_wandb(folder: Path) -> tuple[int, int]:
    files = list(folder.glob("wandb/offline-run-*/*.wandb"))
    (file,) = files
    # Protocol buffers, with plain names; a value is in the logged row and in the summary after it.
    return len(files), file.read_bytes().count(b"\reval/accuracy\x82") // 2


def in_tensorboard(folder: Path) -> tuple[int, int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = (folder / "run" / "tensorboard").glob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    return 1, len(events.Scalars("eval/accuracy"))


SEEN = {"trackio": in_trackio, "mlflow": in_mlflow, "wandb": in_wandb, "tensorboard": in_tensorboard}
