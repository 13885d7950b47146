"""A run that a Python program starts writes the same description as one of the command line."""

from __future__ import annotations

import json
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from attnpo.attention.heads import load_heads
from attnpo.errors import InputError
from attnpo.report.run import read_run
from attnpo.training.records import HISTORY


@pytest.fixture
def run(tmp_path, trainer_kit, new_tiny_qwen2, tiny_tokenizer):
    def make(folder: str = "run", **changes):
        kit = trainer_kit
        return kit.make_trainer(new_tiny_qwen2(), tiny_tokenizer, tmp_path / folder, responses=kit.MIXED, **changes)

    return make


def test_run_folder_describes_the_run(run, tmp_path, trainer_kit, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train it.py", "--fast"])
    run(learning_rate=0.5, num_generations=4).train()
    folder = tmp_path / "run"
    options = yaml.safe_load((folder / "config.yaml").read_text())
    assert (options["learning_rate"], options["num_generations"], options["credit"]) == (0.5, 4, "attnpo")
    assert options["reward_funcs"] == ["accuracy"]
    assert "dataset_name" not in options  # the program's own rows are no built-in task
    about = json.loads((folder / "environment.json").read_text())
    assert "trl" in about["versions"]
    assert about["command"].endswith("'train it.py' --fast")
    assert list(about["problem_fingerprints"]) == ["train"]
    assert load_heads(folder / "heads.json") == trainer_kit.HEADS
    found = read_run(folder)
    assert not [notice for notice in found.notices if "config.yaml" in notice or "environment.json" in notice]
    assert found.method == "AttnPO"


def test_values_that_yaml_does_not_know_go_in_as_text(run, tmp_path):
    trainer = run()
    trainer.args.chat_template_kwargs = {"precision": torch.float16}
    trainer.train()
    assert "torch.float16" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_resumed_program_with_other_settings_is_refused_until_confirmed(run, tmp_path, trainer_kit):
    run(max_steps=1, save_strategy="steps", save_steps=1).train()
    other = run(max_steps=2, temperature=0.7)
    with pytest.raises(InputError, match=r"temperature: was 1\.0, is 0\.7"):
        other.train(resume_from_checkpoint=True)
    with pytest.raises(InputError, match="train problems: was"):
        run(max_steps=2, data=trainer_kit.problems(9)).train(resume_from_checkpoint=True)
    run(max_steps=2, temperature=0.7, resume_with_changes=True).train(resume_from_checkpoint=True)
    (row,) = map(json.loads, (tmp_path / "run" / HISTORY).read_text().splitlines())
    assert row["until_step"] == 1
    assert row["changes"] == {"temperature": [1.0, 0.7]}


def test_new_folder_needs_no_confirmation(run, tmp_path):
    run(max_steps=1, save_strategy="steps", save_steps=1).train()
    run("more", max_steps=2, temperature=0.7).train(resume_from_checkpoint=None)
    assert yaml.safe_load((tmp_path / "more" / "config.yaml").read_text())["temperature"] == 0.7


def test_a_longer_run_moves_from_its_first_step_and_keeps_its_delay(run, tmp_path):
    """The schedule of a run that has ended gives 0; resumed with more steps it is that of the longer run."""
    changes = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "linear", "learning_rate": 0.08}
    run(max_steps=2, credit_delay=None, **changes).train()
    first = json.loads((tmp_path / "run" / "environment.json").read_text())["derived"]["credit_delay"]
    assert first == 1  # half of the run
    longer = run(max_steps=4, credit_delay=None, **changes)
    assert longer.args.credit_delay == 2
    longer.train(resume_from_checkpoint=True)
    assert longer.args.credit_delay == longer.credit.delay == 1
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.08, 0.04, 0.04, 0.02])  # (4 - 2)/4, (4 - 3)/4
    start, end = (load_file(tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors") for step in (2, 3))
    assert any(not torch.equal(start[name], end[name]) for name in start)


def test_accuracy_reward_function_is_recorded(run, tmp_path, trainer_kit):
    def tidy(completions, **kwargs):
        return [0.5] * len(completions)

    trainer = run(reward=[tidy, trainer_kit.says_42], correct_threshold=0.9)
    trainer.train()
    folder = tmp_path / "run"
    assert json.loads((folder / "environment.json").read_text())["right_or_wrong"] == "accuracy, from 0.9 on"
    trainer.create_model_card()
    card = (folder / "README.md").read_text()
    assert "| reward_funcs | ['tidy', 'accuracy'] |" in card
    assert "| right or wrong | accuracy, from 0.9 on |" in card
    with pytest.raises(InputError, match=r"found .length., expected one of tidy, accuracy$"):
        run("other", reward=[tidy, trainer_kit.says_42], correct_reward="length")


def test_other_answers_are_other_problems_whatever_their_column_is_called(run, trainer_kit):
    def rows(answer):
        return trainer_kit.problems(8, solution=answer)

    run(max_steps=1, save_strategy="steps", save_steps=1, data=rows("a")).train()
    with pytest.raises(InputError, match="train problems: was"):
        run(max_steps=2, data=rows("b")).train(resume_from_checkpoint=True)
    run(max_steps=2, data=rows("a")).train(resume_from_checkpoint=True)


def test_run_of_an_earlier_version_is_resumed(run, tmp_path):
    """Options that have come since are no difference, at their defaults."""
    run(max_steps=1, save_strategy="steps", save_steps=1).train()
    file = tmp_path / "run" / "config.yaml"
    old = {k: v for k, v in yaml.safe_load(file.read_text()).items() if k != "dynamic_sampling"}
    file.write_text(yaml.safe_dump(old))
    run(max_steps=2).train(resume_from_checkpoint=True)


def test_a_checkpoint_of_any_name_and_another_server_port(run, tmp_path):
    run(max_steps=1, save_strategy="steps", save_steps=1).train()
    best = (tmp_path / "run" / "checkpoint-1").rename(tmp_path / "run" / "best")
    again = run(max_steps=2, vllm_server_port=9001, temperature=0.7, resume_with_changes=True)
    again.train(resume_from_checkpoint=str(best))
    (row,) = map(json.loads, (tmp_path / "run" / HISTORY).read_text().splitlines())
    assert row["until_step"] == 1
    assert list(row["changes"]) == ["temperature"]
