"""`heads: auto`: the responses it uses, its files, and its refusals; labels are given, not measured."""

from __future__ import annotations

import copy
import gzip
import json
from typing import Any

import pytest
import torch

from attnpo import AttnPOTrainer
from attnpo.attention.heads import load_heads
from attnpo.cli.main import main
from attnpo.errors import InputError, RunError
from attnpo.training import own_heads
from attnpo.training.own_heads import _batches


@pytest.fixture
def gold(monkeypatch, trainer_kit):
    """Labels as the canned responses have them. `flip` turns some round."""

    def install(flip=lambda i: False):
        def labels(*args: Any) -> list[list[bool]]:
            return [[label != flip(i) for label in row] for i, row in enumerate(trainer_kit.gold_labels(*args))]

        monkeypatch.setattr(own_heads, "causal_labels", labels)

    return install


@pytest.fixture
def auto(trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    """A trainer without heads whose responses are canned, and its output."""

    def make(responses: list[Any], **changes: Any):
        options = {"heads_traces": 16, "per_device_eval_batch_size": 8, "num_generations": 4, **changes}
        return trainer_kit.make_trainer(
            trainer_kit.sharpen(tiny_qwen2), tiny_tokenizer, tmp_path / "run", responses=responses, heads=None,
            data=trainer_kit.problems(options.pop("problems", 12)), **options,
        )  # fmt: skip

    return make


def written(folder) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    with gzip.open(folder / "heads-traces.jsonl.gz", "rt", encoding="utf-8") as file:
        return json.loads((folder / "heads.json").read_text()), [json.loads(line) for line in file]


def test_heads_are_found_and_written_down(auto, gold, trainer_kit, tmp_path, read_rollouts):
    gold()
    trainer = auto([trainer_kit.USUAL, trainer_kit.LONG, trainer_kit.USUAL, trainer_kit.FALSE])
    assert (trainer.heads, trainer.args.heads, trainer.needs_heads) == (None, None, True)
    said: list[str] = []
    trainer.model.train()
    trainer.find_heads(say=said.append)
    content, rows = written(tmp_path / "run")
    assert trainer.heads == load_heads(tmp_path / "run" / "heads.json")
    assert 1 <= len(trainer.heads) <= 3
    assert all(content["sra"][f"{layer},{head}"] >= 0.7 for layer, head in trainer.heads)
    # Three of four right, so each problem is easy; the false one is not taken.
    assert content["traces"] == len(rows) == 16
    assert all("\\boxed{42}" in row["response"] for row in rows)
    assert [step["essential"] for step in rows[1]["steps"]] == [True, False, False, True]
    # At most two of each, so that sixteen come from eight problems, not from the first six.
    assert len({row["problem"] for row in rows}) == 8
    assert [row["id"] for row in rows] != sorted((row["id"] for row in rows), key=lambda name: int(name[1:]))
    # Two problems are sampled at a time: of 32 responses 8 are false and one of each problem more than is needed.
    assert content["left_out"] == {"wrong": 8, "without steps to compare, or not needed": 8}
    assert "no head file" in said[0]
    assert "16 of 32 responses can be used" in said[1]
    # The trainer is unchanged, and continues with these heads.
    assert trainer.model.training
    assert not len(trainer._batch)
    assert not any(trainer._metrics["eval"].values())
    trainer.train()
    scored = [step["score"] for r in read_rollouts(tmp_path / "run", "train-000001") for step in r["steps"]]
    assert any(score is not None for score in scored)


def test_few_problems_fill_a_round_of_any_size(auto, gold, trainer_kit, monkeypatch):
    gold()
    trainer = auto([trainer_kit.USUAL], problems=3, per_device_eval_batch_size=256, num_generations_eval=6)
    asked: list[list[str]] = []
    inner = trainer._generate
    monkeypatch.setattr(trainer, "_generate", lambda prompts: asked.append(prompts) or inner(prompts))
    with pytest.raises(
        RunError, match="12 responses gave 6 with essential and redundant steps, to 3 problems, expected"
    ):
        trainer.find_heads(say=lambda text: None)
    assert [len(prompts) for prompts in asked] == [12]
    assert len(set(asked[0])) == 3
    assert trainer.num_generations_eval == 6


def test_hard_problems_do_not_count(auto, gold, trainer_kit):
    gold()
    half = [trainer_kit.USUAL, trainer_kit.FALSE, trainer_kit.USUAL, trainer_kit.FALSE]
    with pytest.raises(RunError, match=r"48 responses gave 0 with essential and redundant steps, to 0 problems"):
        auto(half).find_heads(say=lambda text: None)


def test_responses_to_a_few_problems_are_too_few(auto, gold, trainer_kit):
    gold()
    with pytest.raises(RunError, match=r"gave 24 with .* to 5 problems, expected at least 16 to at least 8 problems"):
        auto([trainer_kit.USUAL], problems=5, heads_traces=64).find_heads(say=lambda text: None)


def test_hard_problems_at_the_start_of_a_file_are_not_asked_first(auto, gold, trainer_kit, tmp_path, monkeypatch):
    """Of 96 problems the first 64 are hard: as many as it asks before it gives up."""
    gold()
    trainer = auto([trainer_kit.USUAL], problems=96)
    asked: list[int] = []

    def says(prompts, completions, **kwargs):
        numbers = [int(prompt.split()[2]) - 12 for prompt in prompts]  # "What is 12 + 30?" is the first
        asked.extend(numbers)
        return [float(number >= 64) for number in numbers]

    says.__name__ = "accuracy"
    monkeypatch.setattr(trainer, "reward_funcs", [says, *trainer.reward_funcs[1:]])
    state = torch.get_rng_state()
    trainer.find_heads(say=lambda text: None)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(asked) < 256
    order = [int(row["prompt"].split()[2]) - 12 for rows in _batches(trainer.policy) for row in rows[::4]]
    assert sorted(order) == list(range(96))
    assert asked[::4] == order[: len(asked) // 4]  # drawn from the seed: the same each time, on every process


def test_refused_with_the_figures_where_no_head_separates(auto, gold, trainer_kit, tmp_path):
    gold(flip=lambda i: i % 2 == 1)  # what one trace calls essential the next calls redundant
    with pytest.raises(RunError, match=r"no head separates .* of 12 heads on 16 responses: layer \d head \d: 0\.5"):
        auto([trainer_kit.USUAL]).find_heads(say=lambda text: None)
    assert not (tmp_path / "run" / "heads.json").exists()


def test_train_finds_them_first_and_a_resumed_run_keeps_them(auto, gold, trainer_kit, tmp_path, monkeypatch):
    gold()
    responses = [trainer_kit.USUAL, trainer_kit.LONG]
    trainer = auto(responses, save_strategy="steps", save_steps=1)
    trainer.train()
    found = trainer.heads
    monkeypatch.setattr(own_heads, "causal_labels", None)  # would fail if it were called
    again = auto(responses, max_steps=2)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert again.heads == found
    assert again.state.global_step == 2


def test_a_run_resumed_in_another_folder_keeps_them(auto, gold, trainer_kit, tmp_path, monkeypatch):
    gold()
    trainer = auto([trainer_kit.USUAL, trainer_kit.LONG], save_strategy="steps", save_steps=1)
    trainer.train()
    monkeypatch.setattr(own_heads, "causal_labels", None)  # would fail if it were called
    old = (tmp_path / "run").rename(tmp_path / "old")
    again = auto([trainer_kit.USUAL, trainer_kit.LONG], max_steps=2)
    again.train(resume_from_checkpoint=str(old / "checkpoint-1"))
    assert (again.heads, again.heads_file) == (trainer.heads, old / "heads.json")


def test_with_lora_the_heads_are_those_of_the_adapted_model(
    gold, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, read_rollouts
):
    peft = pytest.importorskip("peft")
    gold()
    # Weights that change the attention from the start.
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "k_proj"], init_lora_weights=False, task_type="CAUSAL_LM")

    def make(name: str, model: Any):
        return trainer_kit.make_trainer(
            model, tiny_tokenizer, tmp_path / name, responses=[trainer_kit.USUAL, trainer_kit.LONG], heads=None,
            heads_traces=16, per_device_eval_batch_size=8,
        )  # fmt: skip

    base = trainer_kit.sharpen(tiny_qwen2)
    adapted = peft.get_peft_model(copy.deepcopy(base), lora)
    merged = copy.deepcopy(adapted).merge_and_unload()
    found = {}
    for name, model in (("lora", adapted), ("merged", merged), ("base", base)):
        trainer = make(name, model)
        trainer.find_heads()
        found[name] = written(tmp_path / name)[0]["sra"]
        if name == "lora":
            trainer.train()
            scored = read_rollouts(tmp_path / "lora", "train-000001")[0]["steps"]
            assert all(step["score"] is not None for step in scored)
    assert found["lora"] == pytest.approx(found["merged"], abs=1e-6)
    assert found["lora"] != pytest.approx(found["base"], abs=0.1)


def test_no_search_with_known_heads(auto, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    folder = trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    trainer = trainer_kit.make_trainer(str(folder), tiny_tokenizer, tmp_path / "run", heads=None)
    assert trainer.heads == [(1, 0), (2, 3)]  # heads.json in the model's folder
    assert trainer.heads_file == folder / "heads.json"
    assert trainer.args.heads is None  # as asked for: another trainer may get the same options
    args = trainer_kit.options(tmp_path / "run", heads="auto")  # asked for all the same
    asked = AttnPOTrainer(str(folder), trainer_kit.says_42, args, trainer_kit.problems(8), None, tiny_tokenizer)
    assert (asked.heads, asked.heads_file, asked.needs_heads) == (None, None, True)


def test_streamed_problems_are_refused(auto, trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path):
    trainer = auto([trainer_kit.USUAL])
    trainer.train_dataset = trainer_kit.problems(8).to_iterable_dataset()
    with pytest.raises(InputError, match="option heads: auto needs a data set with a length"):
        trainer.find_heads(say=lambda text: None)


def test_the_command_stops_where_no_response_can_be_used(
    trainer_kit, tiny_qwen2, tiny_tokenizer, tmp_path, one_pool, capsys
):
    """A random model answers nothing."""
    folder = trainer_kit.save_model(tmp_path / "model", tiny_qwen2, tiny_tokenizer)
    (folder / "heads.json").unlink()
    data = trainer_kit.write_problems(tmp_path / "problems.jsonl")
    assert main(trainer_kit.command(folder, data, tmp_path / "run")) == 1
    said = capsys.readouterr()
    assert "heads: auto: 16 responses gave 0 with essential and redundant steps, to 0 problems, expected" in said.err
    assert "100% of 16 responses were cut off at max_completion_length (" in said.err
    assert "Give a head file" not in said.err  # it would not help
    assert "no head file" in said.out
