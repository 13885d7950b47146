"""`attnpo train` from start to end on a tiny model: what it prints, how it fails, how it is stopped and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from attnpo.training.records import RunFolder


@pytest.fixture
def argv(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """Arguments of a run of 8 problems, with these further options."""
    trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl", 8)

    def make(*more: str) -> list[str]:
        return trainer_kit.command(tmp_path / "model", data, tmp_path / "run", *more)

    return make


@pytest.fixture
def train(argv, one_pool, capfd):
    """Run the command in this process: exit code, standard output, standard error."""
    from attnpo.cli.main import main

    def run(*more: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(argv(*more))
        return code, *capfd.readouterr()

    return run


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_screen_of_a_run(train, tmp_path):
    """Nothing but the lines meant for the user: no bars of loading weights, no notices of renamed options."""
    code, out, err = train("--max_steps", "2", "--eval_dataset_name", str(tmp_path / "problems.jsonl"))
    assert code == 0
    assert err == ""
    lines = out.splitlines()
    recognised = "problem from 'problem', reference from 'reference' (as written)"
    assert lines[:4] == [f"train: {recognised}", f"eval: {recognised}", "train: 8 problems", "eval: 8 problems"]
    chosen = "thinking format: deepseek_r1 (<think> … </think>), shown by the added tokens; the prompt opens it"
    assert lines[4] == "an update: 4 responses, 2 to a problem; learning rate 2e-06"
    assert lines[5] == chosen
    assert lines[6].startswith("warning: held-out problems that are also in the training set: 8 word for word of 8.")
    lines = lines[7:]
    assert lines[0] == "evaluating the starting model …"
    assert lines[1].startswith("step 1: 100% of 4 responses were cut off")  # of a random model; test_diagnosis.py
    assert [line.split(": ")[0] for line in lines[2:5]] == ["prompt", "response (8 tokens, cut off)", "reference"]
    lines = lines[5:]
    assert lines[0].startswith("step 1/2 · accuracy 0% · length ")
    assert lines[0].endswith(" · reward 0.000")
    assert lines[1].startswith("step 2/2 · ")
    assert lines[1].endswith(" · 0 s left")
    assert lines[2] == "evaluating the trained model …"
    assert lines[3].startswith("run folder: ")
    assert "Held-out problems (n = 8)" in out
    evaluations = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in evaluations] == [0, 2]


def test_live_line():
    import io

    from rich.console import Console
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from attnpo.training.callbacks import LiveProgress, describe

    logs = {"loss": 0.1, "accuracy": 0.625, "length/completion": 239.4, "reward": 0.5633}
    assert describe(logs) == "accuracy 62% · length 239 · reward 0.563"
    assert describe({"loss": 0.1, "reward": None}) == "loss 0.1000, the same responses again"
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    live, args = LiveProgress(console), TrainingArguments(use_cpu=True)
    state = TrainerState(max_steps=4, is_world_process_zero=True)
    live.on_train_begin(args, state, TrainerControl())
    assert live.progress is not None
    clock = iter(range(0, 10**6, 120))  # two minutes between two looks at it
    live.progress.get_time = lambda: float(next(clock))
    live.progress.tasks[0]._get_time = live.progress.get_time
    state.global_step = 1
    live.on_log(args, state, TrainerControl(), logs=logs)
    state.global_step = 2
    live.on_log(args, state, TrainerControl(), logs=logs)
    assert live.progress.tasks[0].time_remaining is not None
    live.on_log(args, state, TrainerControl(), logs={"eval_accuracy": 1.0})
    live.close()
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "step 2/4" in text
    assert "accuracy 62% · length 239 · reward 0.563" in text
    assert "left" in text


@pytest.mark.parametrize("credit", ["attnpo", "outcome"])
def test_the_model_card_names_the_method(credit, train, tmp_path):
    assert train("--credit", credit)[0] == 0
    card = (tmp_path / "run" / "README.md").read_text()
    assert "DeepSeekMath" not in card
    assert ("Credit per step follows" in card) == (credit == "attnpo")


def test_the_start_need_not_be_evaluated(train, tmp_path):
    problems = str(tmp_path / "problems.jsonl")
    code, out, _ = train("--max_steps", "1", "--eval_dataset_name", problems, "--eval_on_start", "false")
    assert code == 0
    assert "evaluating the starting model" not in out
    (line,) = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 1


def test_no_evaluation_means_none(train, tmp_path):
    problems = str(tmp_path / "problems.jsonl")
    code, out, _ = train("--eval_dataset_name", problems, "--eval_strategy", "no")
    assert code == 0
    assert "evaluating" not in out
    assert not (tmp_path / "run" / "evaluations.jsonl").exists()
    again = ("--config", str(tmp_path / "run" / "config.yaml"), "--overwrite_run", "true")
    assert train(*again)[0] == 0
    assert not (tmp_path / "run" / "evaluations.jsonl").exists()
    more = ("--eval_strategy", "no", "--eval_on_start", "true", "--overwrite_run", "true")
    assert train("--eval_dataset_name", problems, *more)[0] == 0
    (line,) = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 0


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_handler_is_restored(first):
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from attnpo.training.stopping import StopOnInterrupt

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stop, args, control = StopOnInterrupt(), TrainingArguments(use_cpu=True), TrainerControl()
    stop.on_train_begin(args, TrainerState(), control)
    signal.raise_signal(first)
    assert stop.asked
    stop.on_step_end(args, TrainerState(), control)
    assert control.should_save
    assert control.should_training_stop
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    stop.on_train_end(args, TrainerState(), control)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_time_is_up_before_a_step_that_would_end_late(monkeypatch):
    """Two minutes: after steps of 50 s and 45 s (95 s gone) there is no room for another of 45."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from attnpo.training import stopping

    now = [1000.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    stop, args, control = stopping.StopAfterMinutes(2), TrainingArguments(use_cpu=True), TrainerControl()
    asked = []
    for seconds in (50, 45):
        stop.on_step_begin(args, TrainerState(), control)
        now[0] += seconds
        stop.on_step_end(args, TrainerState(), control)
        asked.append((stop.reached, control.should_training_stop, control.should_save))
    assert asked == [(False, False, False), (True, True, True)]


def test_run_stopped_by_its_time_limit_is_resumed(train, tmp_path):
    """It ends well, with a checkpoint and the last evaluation; resumed, it has its minutes anew."""
    held_out = ("--eval_dataset_name", str(tmp_path / "problems.jsonl"), "--eval_on_start", "false")
    code, out, err = train("--max_steps", "3", "--max_minutes", "0.0001", *held_out)
    assert (code, err) == (0, "")
    assert "stopped by max_minutes (0.0001) after step 1 of 3; the checkpoint is in" in out
    assert steps(tmp_path / "run") == [1]
    assert (tmp_path / "run" / "checkpoint-1" / "trainer_state.json").is_file()
    (line,) = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 1
    more = ("--max_steps", "3", "--max_minutes", "10", "--resume_from_checkpoint", "true")
    code, out, err = train(*more, *held_out)
    assert (code, err) == (0, "")
    assert "stopped by" not in out
    assert steps(tmp_path / "run") == [1, 2, 3]


def test_an_interrupt_of_one_process_stops_all(monkeypatch):
    import torch
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from attnpo.training.stopping import StopOnInterrupt

    def someone_else_asked(flags, operation):
        assert operation == torch.distributed.ReduceOp.MAX
        flags.fill_(1)

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", someone_else_asked)
    stop, control = StopOnInterrupt(), TrainerControl()
    stop.on_step_end(TrainingArguments(use_cpu=True), TrainerState(), control)
    assert stop.asked
    assert control.should_save
    assert control.should_training_stop


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_non_finite_loss_ends_the_run(what, train, tmp_path, monkeypatch):
    """The second step fails; the weights after the first are kept, can be loaded, and the run resumes from them."""
    import torch
    from transformers import AutoModelForCausalLM

    from attnpo import AttnPOTrainer

    inner = AttnPOTrainer._compute_loss

    def broken(self: Any, model: Any, inputs: Any) -> torch.Tensor:
        loss = inner(self, model, inputs)
        if self.state.global_step < 1:
            return loss
        if what == "loss":
            return loss * torch.nan
        loss.register_hook(lambda gradient: gradient * torch.inf)
        return loss + 0 * next(model.parameters()).sum()

    monkeypatch.setattr(AttnPOTrainer, "_compute_loss", broken)
    code, _, err = train("--max_steps", "3", "--max_skipped", "1")
    assert code == 1
    message = "step 2: the loss is nan" if what == "loss" else "step 2: a gradient is not finite"
    assert f"attnpo train: {message}. The weights before it are in {tmp_path}/run/checkpoint-1" in err
    assert "Traceback" not in err
    checkpoint = tmp_path / "run" / "checkpoint-1"
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert all(torch.isfinite(weights).all() for weights in model.parameters())
    assert steps(tmp_path / "run") == [1]
    monkeypatch.setattr(AttnPOTrainer, "_compute_loss", inner)
    code, _, err = train("--max_steps", "3", "--resume_from_checkpoint", "true")
    assert (code, err) == (0, "")
    assert steps(tmp_path / "run") == [1, 2, 3]


def test_resuming_a_finished_run_adds_nothing(train, tmp_path):
    assert train("--max_steps", "2")[0] == 0
    code, out, err = train("--max_steps", "2", "--resume_from_checkpoint", "true")
    assert (code, err) == (0, "")
    assert "all 2 steps are done already" in out
    assert steps(tmp_path / "run") == [1, 2]
    assert train("--max_steps", "3", "--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-2"))[0] == 0
    assert steps(tmp_path / "run") == [1, 2, 3]


def test_overwriting_a_run(train, tmp_path):
    assert train("--max_steps", "2")[0] == 0
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert train("--max_steps", "1")[0] == 2
    assert steps(tmp_path / "run") == [1, 2]
    assert train("--max_steps", "1", "--overwrite_run", "true")[0] == 0
    assert steps(tmp_path / "run") == [1]
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.fixture
def search(monkeypatch):
    """In place of the search of `heads: auto`: writes its two files. What was in the folder when it was called."""
    seen: list[set[str]] = []

    def find(policy: Any, folder: RunFolder, say: Any) -> list[tuple[int, int]]:
        seen.append({path.name for path in folder.path.iterdir()})
        model = policy.model.config._name_or_path
        (folder.path / "heads.json").write_text(json.dumps({"heads": [[0, 1]], "model": model}))
        (folder.path / "heads-traces.jsonl.gz").write_bytes(b"")
        return [(0, 1)]

    monkeypatch.setattr("attnpo.training.trainer.find_own_heads", find)
    return seen


def config_of(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "config.yaml").read_text())


def heads_of(folder: Path) -> list[list[int]]:
    return json.loads((folder / "heads.json").read_text())["heads"]


def test_heads_are_recorded_as_asked_for(train, search, tmp_path):
    assert train("--heads", "auto")[0] == 0
    assert config_of(tmp_path / "run")["heads"] == "auto"
    assert train("--overwrite_run", "true")[0] == 0  # heads.json next to the model
    assert "heads" not in config_of(tmp_path / "run")
    assert heads_of(tmp_path / "run") == [[1, 0], [2, 3]]
    (tmp_path / "model" / "heads.json").unlink()
    assert train("--overwrite_run", "true")[0] == 0
    assert config_of(tmp_path / "run")["heads"] == "auto"
    assert len(search) == 2


def test_old_heads_are_removed_with_their_run(train, search, tmp_path):
    run = tmp_path / "run"
    assert train("--heads", "auto")[0] == 0
    (run / "notes.txt").write_text("mine")
    assert train("--heads", "auto", "--overwrite_run", "true")[0] == 0
    assert "notes.txt" in search[1]
    assert not {"heads.json", "heads-traces.jsonl.gz", "metrics.jsonl"} & search[1]
    assert train("--credit", "outcome", "--overwrite_run", "true")[0] == 0
    assert not list(run.glob("heads*"))
    assert (run / "notes.txt").exists()


def test_heads_given_from_the_run_that_is_replaced(train, search, tmp_path):
    run = tmp_path / "run"
    assert train("--heads", "auto")[0] == 0
    assert train("--heads", str(run / "heads.json"), "--overwrite_run", "true")[0] == 0
    assert heads_of(run) == [[0, 1]]
    assert not (run / "heads-traces.jsonl.gz").exists()
    assert len(search) == 1


def test_a_resumed_run_keeps_its_heads(train, search, tmp_path):
    """Also in another folder, and where the model has got a head file meanwhile."""
    model, old, new = (tmp_path / name for name in ("model", "old", "new"))
    moved = (model / "heads.json").rename(tmp_path / "later.json")
    assert train("--max_steps", "1", "--output_dir", str(old))[0] == 0
    moved.rename(model / "heads.json")
    resumed = ("--max_steps", "2", "--resume_from_checkpoint")
    assert train(*resumed, str(old / "checkpoint-1"), "--output_dir", str(new))[0] == 0
    assert train(*resumed, "true", "--output_dir", str(old))[0] == 0
    for run in (old, new):
        assert heads_of(run) == [[0, 1]]
        assert (run / "heads-traces.jsonl.gz").exists()
        assert config_of(run)["heads"] == "auto"
    assert len(search) == 1
    # Heads that are asked for count all the same.
    given = ("--heads", str(model / "heads.json"), "--output_dir", str(old))
    assert train("--max_steps", "3", "--resume_from_checkpoint", "true", *given)[0] == 0
    assert heads_of(old) == [[1, 0], [2, 3]]


def test_heads_of_a_run_that_took_no_step_are_used(train, search, tmp_path, monkeypatch):
    run = tmp_path / "run"
    traces = run / "heads-traces.jsonl.gz"

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("attnpo.training.run.run_steps", die)
        assert train("--heads", "auto")[0] != 0
    traces.write_bytes(b"kept")
    # Other heads do not take their place, nor do they go, unasked.
    for other in ((), ("--heads", str(tmp_path / "model" / "heads.json")), ("--credit", "outcome")):
        code, _, err = train(*other)
        assert code == 2
        assert f"{run} already contains heads found for {tmp_path / 'model'}" in err
    with monkeypatch.context() as patch:
        patch.setattr("attnpo.training.run.run_steps", lambda *args: None)
        patch.setattr("attnpo.training.run.print_summary", lambda *args: None)
        assert train("--heads", str(run / "heads.json"))[0] == 0
        code, out, _ = train("--heads", "auto")
        assert code == 0
        assert f"key-focus heads found before, in {run}/heads.json: [(0, 1)]" in out.replace("\n", "")
        assert (heads_of(run), traces.read_bytes(), len(search)) == ([[0, 1]], b"kept", 1)
        (run / "heads.json").write_text('{"heads": [[0, 1]], "model": "org/other"}')
        assert train("--heads", "auto")[0] == 2
        assert traces.read_bytes() == b"kept"
        assert train("--heads", "auto", "--overwrite_run", "true")[0] == 0
    assert len(search) == 2


def test_only_a_runs_own_files_are_removed(tmp_path):
    (tmp_path / "heads.json").write_text("mine")
    RunFolder(tmp_path).clear()
    assert (tmp_path / "heads.json").read_text() == "mine"
    (tmp_path / "heads-traces.jsonl.gz").write_bytes(b"")  # a run that was stopped before its first step
    RunFolder(tmp_path).clear()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("how", "exit_code"), [(signal.SIGINT, 1), (signal.SIGTERM, 75)])
def test_interrupted_and_resumed(how, exit_code, argv, tmp_path):
    """Ctrl-C in a real process: the step is finished, a checkpoint saved, exit code 1; resuming completes the run."""
    command = [sys.executable, "-m", "attnpo", *argv("--max_steps", "400", "--save_steps", "1000")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 2/"):
            process.send_signal(how)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == exit_code, out + err
    again = "; Ctrl-C again stops at once" if how == signal.SIGINT else ""
    assert f"Stopping after this step with a checkpoint{again}." in err
    assert "attnpo train: stopped after step" in err
    assert "resume with --resume_from_checkpoint true" in err
    assert "Traceback" not in err
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    done = int(checkpoint.name.split("-")[1])
    assert steps(tmp_path / "run") == list(range(1, done + 1))
    more = ["--max_steps", str(done + 2), "--resume_from_checkpoint", "true"]
    again = subprocess.run([*command, *more], capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert again.returncode == 0, again.stderr
    assert steps(tmp_path / "run") == list(range(1, done + 3))
