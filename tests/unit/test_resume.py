"""Resuming a run: refused with the differences if it would become another run, and the parts that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from attnpo.errors import InputError
from attnpo.training.checkpoints import checkpoints, last_checkpoint, what_is_broken
from attnpo.training.records import locked
from attnpo.training.resume import changes, check_changes, comparable_from, described, fingerprint, keep_history


@pytest.fixture
def train(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, one_pool, capfd):
    from attnpo.cli.main import main

    trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl", 8)

    def run(*more: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(trainer_kit.command(tmp_path / "model", data, tmp_path / "run", *more))
        return code, *capfd.readouterr()

    return run


def test_changes_that_are_detected():
    old = described({"learning_rate": 1e-3, "max_steps": 2}, {"processes": 1, "derived": {"credit_delay": 1}})
    new = described({"learning_rate": 1e-3, "max_steps": 9, "save_steps": 3}, {"derived": {"credit_delay": 4}})
    assert changes(old, new) == {}
    # Half the batch on two processes is the same update.
    on_two = {"processes": 2, "problem_fingerprints": {"train": "a"}}
    assert (
        changes(
            described({"gradient_accumulation_steps": 4}, {"problem_fingerprints": {"train": "a"}}),
            described({"gradient_accumulation_steps": 2}, on_two),
        )
        == {}
    )
    found = changes(
        described({"num_generations": 4}, {"problem_fingerprints": {"train": "a"}}),
        described({"num_generations": 8, "beta": 0.1}, {"problem_fingerprints": {"train": "b"}}),
    )
    assert found == {"num_generations": (4, 8), "beta": (None, 0.1), "train problems": ("a", "b")}
    # Options of a later version, at their defaults, are no change of a run of an earlier one.
    new = {"thinking": "yes", "seed": 1}
    assert changes({"seed": 0}, new, {"thinking": "yes", "seed": 1}) == {"seed": (0, 1)}
    assert changes({"seed": 1}, {**new, "thinking": "no"}, {"thinking": "yes"}) == {"thinking": (None, "no")}
    with pytest.raises(InputError, match=r"(?s)\n  beta: was None, is 0\.1\n  num_generations: was 4, is 8\n"):
        check_changes(found, accepted=False)
    check_changes(found, accepted=True)
    check_changes({}, accepted=False)


def test_a_fingerprint_sees_prompts_and_references():
    rows = [{"prompt": "a", "reference": "1", "id": "x"}, {"prompt": "b", "reference": "2"}]
    assert fingerprint(rows) == fingerprint([{**row, "id": "y"} for row in rows])
    assert len({fingerprint(rows), fingerprint(rows[::-1]), fingerprint([{**rows[0], "reference": "3"}, rows[1]])}) == 3


def test_evaluations_compare_after_the_last_change_of_what_is_measured(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    assert comparable_from(tmp_path) == 0
    for step in (3, 7):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    keep_history(tmp_path, str(tmp_path / "checkpoint-3"), {"eval problems": ("a", "b")})
    keep_history(tmp_path, str(tmp_path / "checkpoint-7"), {"beta": (0.0, 0.1)})
    keep_history(tmp_path, str(tmp_path / "checkpoint-9"), {})
    rows = [json.loads(line) for line in (tmp_path / "config-history.jsonl").read_text().splitlines()]
    assert [(row["until_step"], row["config"]) for row in rows] == [(3, {"seed": 1}), (7, {"seed": 1})]
    assert comparable_from(tmp_path) == 4


def test_resuming_as_another_run_is_refused(train, tmp_path):
    assert train()[0] == 0
    config = (tmp_path / "run" / "config.yaml").read_text()
    more = ("--max_steps", "2", "--resume_from_checkpoint", "true", "--num_generations", "4")
    code, _, err = train(*more)
    assert code == 2
    assert "\n  num_generations: was 2, is 4\n" in err
    assert "--resume_with_changes true" in err
    assert (tmp_path / "run" / "config.yaml").read_text() == config
    rows = [{"problem": f"What is {i} + 2?", "reference": str(i + 2)} for i in range(8)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = train(*more[:4])
    assert code == 2
    assert "  train problems: was " in err
    code, _, err = train(*more, "--resume_with_changes", "true")
    assert (code, err) == (0, "")
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "config-history.jsonl").read_text().splitlines()]
    assert row["until_step"] == 1
    assert row["config"] == yaml.safe_load(config)
    assert row["changes"].keys() == {"num_generations", "train problems"}


def test_two_runs_in_one_folder(train, tmp_path):
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"):
        code, _, err = train()
    assert code == 2
    assert f"a run is already writing into {tmp_path}/run: process " in err
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert train()[0] == 0  # given back
    with locked(tmp_path / "run"), pytest.raises(InputError, match="another folder"), locked(tmp_path / "run"):
        pass


def test_the_trained_model_is_in_the_run_folder(train, tmp_path):
    """Whatever is said about checkpoints: weights, tokenizer, heads and card."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert train("--save_strategy", "no", "--learning_rate", "0.1")[0] == 0
    run = tmp_path / "run"
    assert not list(run.glob("checkpoint-*"))
    assert AutoTokenizer.from_pretrained(run).chat_template
    assert {"heads.json", "README.md"} <= {path.name for path in run.iterdir()}
    card = (run / "README.md").read_text()
    assert f"`{tmp_path / 'model'}` trained to think shorter" in card
    assert "None" not in card
    model = AutoModelForCausalLM.from_pretrained(run)
    assert model.num_parameters() > 0
    assert train("--overwrite_run", "true", "--max_steps", "1")[0] == 0
    last = AutoModelForCausalLM.from_pretrained(run / "checkpoint-1").state_dict()
    final = AutoModelForCausalLM.from_pretrained(run).state_dict()
    assert all((last[name] == final[name]).all() for name in last)


def whole_checkpoint(folder: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file({"a": torch.zeros(100), "b": torch.ones(3)}, folder / "model.safetensors")
    torch.save({"state": torch.zeros(50)}, folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text('{"global_step": 1}')
    return folder


BREAK = {
    "it has no trainer_state.json": ("trainer_state.json", None),
    "trainer_state.json is not valid": ("trainer_state.json", 9),
    "model.safetensors is truncated": ("model.safetensors", 300),
    "optimizer.pt is truncated": ("optimizer.pt", 200),
}


@pytest.mark.parametrize("message", BREAK)
def test_a_cut_off_checkpoint_is_named_and_passed_over(message, tmp_path):
    before, last = (whole_checkpoint(tmp_path / f"checkpoint-{step}") for step in (9, 10))
    assert last_checkpoint(tmp_path) == last
    name, size = BREAK[message]
    if size is None:
        (last / name).unlink()
    else:
        (last / name).write_bytes((last / name).read_bytes()[:size])
    assert (what_is_broken(last) or "").startswith(message)
    assert what_is_broken(before) is None
    assert last_checkpoint(tmp_path) == before
    assert checkpoints(tmp_path) == [last, before]


def test_a_missing_shard(tmp_path):
    folder = whole_checkpoint(tmp_path / "checkpoint-1")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    assert what_is_broken(folder) == "model-00001-of-00002.safetensors is missing"


def test_resuming_past_a_half_written_checkpoint(train, tmp_path):
    run = tmp_path / "run"
    assert train("--max_steps", "2", "--save_steps", "1")[0] == 0
    weights = run / "checkpoint-2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    more = ("--max_steps", "3", "--save_steps", "1", "--resume_from_checkpoint")
    code, _, err = train(*more, str(run / "checkpoint-2"))
    assert code == 2
    assert "checkpoint-2 is damaged: model.safetensors is truncated" in err
    code, out, err = train(*more, "true")
    assert (code, err) == (0, "")
    assert "checkpoint-2 is skipped: model.safetensors is truncated; resuming from" in out
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]


def test_checkpoints_by_time_keep_the_newest(monkeypatch, tmp_path):
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from attnpo.training import saving

    now = [0.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    args, state, control = TrainingArguments(str(tmp_path), use_cpu=True), TrainerState(), TrainerControl()
    timed, saved = saving.SaveByTime(10), []
    timed.on_train_begin(args, state, control)
    for step in range(1, 8):
        state.global_step, control.should_save = step, step == 4  # save_steps: 4
        now[0] += 6 * 60
        timed.on_step_end(args, state, control)
        if control.should_save:
            saved.append(step)
            (tmp_path / f"checkpoint-{step}").mkdir()
            timed.on_save(args, state, control)
    assert saved == [2, 4, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-6"]
    state.best_model_checkpoint = str(tmp_path / "checkpoint-6")  # read again at the end of the run
    for step in (8, 9):
        state.global_step, control.should_save = step, False
        now[0] += 6 * 60
        timed.on_step_end(args, state, control)
    (tmp_path / "checkpoint-9").mkdir()
    timed.on_save(args, state, control)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-6", "checkpoint-9"]
    args.save_strategy = "no"  # pyright: ignore
    now[0] += 3600
    control.should_save = False
    timed.on_step_end(args, state, control)
    assert not control.should_save


def test_several_held_out_sets(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """Each has its line and its responses, under its name; the page shows one and names it."""
    from attnpo.report.run import read_run

    kit = trainer_kit
    sets: Any = {"hard": kit.problems(3), "easy": kit.problems(2)}
    trainer = kit.make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, responses=kit.MIXED, eval_data=sets)
    trainer.evaluate()
    rows = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert [(row["set"], row["n"]) for row in rows] == [("hard", 3), ("easy", 2)]
    names = sorted(path.name for path in (tmp_path / "rollouts").iterdir())
    assert names == ["eval-000000-easy.jsonl.gz", "eval-000000-hard.jsonl.gz"]
    run = read_run(tmp_path)
    assert [row["n"] for row in run.evaluations] == [2]
    assert [path.name for path in run.eval_files] == names[:1]
    assert any("evaluations of easy, hard; those of easy are shown" in notice for notice in run.notices)


def test_the_best_model_needs_a_number_that_evaluations_have(tmp_path):
    from attnpo import AttnPOConfig

    options: Any = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True}
    args = AttnPOConfig(str(tmp_path), use_cpu=True, report_to="none", **options)
    assert (args.metric_for_best_model, args.greater_is_better) == ("accuracy", True)
    with pytest.raises(InputError, match=r"metric_for_best_model: found 'loss'.* expected accuracy"):
        AttnPOConfig(str(tmp_path), use_cpu=True, metric_for_best_model="loss", **options)


def test_a_row_without_a_prompt_is_recorded():
    from attnpo.training.records import prompt_text

    assert prompt_text("") == ""
