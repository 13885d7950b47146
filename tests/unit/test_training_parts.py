"""The parts of the trainer, each tested separately, without a trainer or TRL."""

from __future__ import annotations

import gzip
import json
import math
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from attnpo.attention.capture import score_steps
from attnpo.credit.base import CreditResult
from attnpo.rewards.length import get_length_reward
from attnpo.training.batch import GenerationBatch, StepTensors
from attnpo.training.callbacks import ReturnMemory
from attnpo.training.capture import ForwardCapture, Wanted
from attnpo.training.recording import HeldOutEvaluation, PhaseTimer, Recorder, new_records, step_means
from attnpo.training.records import RunFolder
from attnpo.training.rewards import RewardSetup
from attnpo.training.run_state import isolated_random_state

STEP = "Two and three are to be added here, which is easy enough to do at once: it is five, I think.\n"
CHECK = "Wait, let me count once more on the fingers, one after the other: three, four and then five.\n"
NAN = math.nan
PROMPT = [5, 6, 7]


def judge(completions: list[Any], **columns: Any) -> list[float]:
    return [1.0] * len(completions)


@pytest.fixture
def texts() -> list[str]:
    """Two responses to one prompt: two steps and an answer; one step, cut off."""
    return [f"{STEP}{CHECK}</think>\nFive.", STEP]


@pytest.fixture
def batch(texts, tiny_tokenizer) -> GenerationBatch:
    """The second process's part of a batch of two groups of two."""
    ids = [tiny_tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    ids[0].append(tiny_tokenizer.eos_token_id)
    rows = [{"prompt": "2 + 3?", "id": "b", "reference": "5"}] * 2
    found = GenerationBatch(rows, group_size=2, first=2)
    found.add_responses([PROMPT] * 2, ids, tiny_tokenizer, "paper", [tiny_tokenizer.eos_token_id])
    return found


SETUP = RewardSetup([judge], get_length_reward("none"), 100, None)
REWARDS = torch.tensor([[1.0], [1.0], [1.0], [NAN]])
ONE = torch.ones(1)


def test_a_batch_knows_its_responses(batch, texts):
    assert [row.text.removesuffix("<|im_end|>") for row in batch.located] == texts
    assert [len(row.steps) for row in batch.located] == [2, 1]
    assert batch.truncated == [False, True]
    assert batch.own == slice(2, 4)
    start, end = batch.located[0].answer
    assert batch.longest_answer == end - start == len(batch.completion_ids[0]) - start


def test_verdicts_are_those_of_the_own_responses(batch):
    batch.add_rewards(torch.tensor([[0.0], [NAN], [1.0], [NAN]]), SETUP)
    assert batch.verdicts == [True, None]


def test_loss_inputs_of_a_batch(batch, texts):
    """The second group has 0.5 and nothing: alone with a reward, a response has advantage 0; 0.5 is not right."""
    batch.add_rewards(torch.tensor([[1.0], [0.0], [0.5], [NAN]]), SETUP)
    batch.records = new_records(batch, SETUP, names=["judge"], weights=ONE, split="train", step=1)
    width = max(map(len, batch.completion_ids)) + 1
    entries, advantages = batch.outcome(SETUP, ONE, "rloo", width)
    assert advantages.tolist() == [1.0, -1.0, 0.0, 0.0]
    assert entries["outcome_advantages"].tolist() == [0.0, 0.0]
    assert entries["group_accuracy"].tolist() == [0.0, 0.0]
    assert entries["correct"].tolist() == [False, False]
    assert entries["rewards"][0] == 0.5
    assert entries["total_tokens"].tolist() == [len(PROMPT) + len(ids) for ids in batch.completion_ids]
    assert entries["rollout_rows"].tolist() == [0, 1]
    assert entries["prompts"] == ["2 + 3?"] * 2
    assert entries["completions"] == [row.text for row in batch.located]
    assert entries["step_ids"].shape == (2, width)
    assert entries["num_steps"].tolist() == [2, 1]


def test_records_count_groups_over_all_processes(batch):
    batch.add_rewards(REWARDS, SETUP)
    records = new_records(batch, SETUP, names=["judge"], weights=2 * ONE, split="train", step=7)
    assert [(r["step"], r["group"], r["index"], r["split"]) for r in records] == [
        (7, 1, 0, "train"),
        (7, 1, 1, "train"),
    ]
    assert [r["reward"] for r in records] == [2.0, None]
    assert [r["rewards"] for r in records] == [{"judge": 1.0}, {}]
    assert [r["correct"] for r in records] == [True, False]
    assert [r["tokens"]["prompt"] for r in records] == [3, 3]


class Forward:
    """In place of TRL's method: numbers of the positions, and how it was called."""

    def __init__(self, model: Any = None) -> None:
        self.model, self.calls = model, []

    def __call__(self, ids, mask, width, batch_size, entropy):
        self.calls.append((len(ids), batch_size, entropy))
        if self.model is not None:
            self.model(input_ids=ids, attention_mask=mask)
        numbers = ids[:, -width:].float()
        return -numbers, numbers / 2 if entropy else None, ids.float().mean()


def padded(batch: GenerationBatch) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Prompts and completions as TRL pads them, their mask, and the width of the completions."""
    width = max(map(len, batch.completion_ids))
    rows = [p + c + [0] * (width - len(c)) for p, c in zip(batch.prompt_ids, batch.completion_ids, strict=True)]
    masks = [[1] * (len(PROMPT) + len(c)) + [0] * (width - len(c)) for c in batch.completion_ids]
    return torch.tensor(rows), torch.tensor(masks), width


def test_forward_outside_the_capture_is_not_read(batch):
    capture, forward = ForwardCapture(), Forward()
    ids, mask, width = padded(batch)
    with capture.next_forward(None) as signals:
        logps, entropy, _ = capture.run(forward, None, ids, mask, width, 1, False)
    assert forward.calls == [(2, 1, False)]
    assert (signals, entropy) == ({}, None)
    assert torch.equal(logps, -ids[:, -width:].float())


@pytest.mark.parametrize("asked", [False, True])
def test_entropies_are_computed_only_if_required(batch, asked):
    capture, forward, given = ForwardCapture(), Forward(), []
    ids, mask, width = padded(batch)
    with capture.next_forward(Wanted(batch, heads=None, entropy=True, then=given.append)) as signals:
        logps, entropy, loss = capture.run(forward, None, ids, mask, width, 1, asked)
        assert given == [signals]  # before the caller had anything
        capture.run(forward, None, ids, mask, width, None, False)  # of a reference, say
    capture.run(forward, None, ids, mask, width, None, False)
    assert forward.calls == [(1, None, True), (1, None, True), (2, None, False), (2, None, False)]
    assert set(signals) == {"entropy"}
    assert torch.equal(signals["entropy"], ids[:, -width:] / 2)
    assert torch.equal(logps, -ids[:, -width:].float())
    assert (entropy is not None) == asked
    assert loss is not None
    assert loss.item() == pytest.approx(ids.float().mean(dim=1).mean().item())


def test_failed_forward_closes_the_capture(batch):
    capture, forward = ForwardCapture(), Forward()
    with pytest.raises(MemoryError), capture.next_forward(Wanted(batch, heads=None, entropy=True)):
        raise MemoryError
    ids, mask, width = padded(batch)
    capture.run(forward, None, ids, mask, width)
    assert forward.calls == [(2, None, False)]


@pytest.mark.parametrize("size", [None, 1])
def test_attention_is_that_of_score_steps(batch, tiny_qwen2, size):
    """Mean over the heads; nothing for the second response, which has one step and no answer."""
    heads, shift = [(1, 0), (2, 3)], len(PROMPT)
    ids, mask, width = padded(batch)
    spans = [[(start + shift, end + shift) for start, end in row.spans] for row in batch.located]
    start, end = batch.located[0].answer
    expected = score_steps(
        tiny_qwen2, ids, mask, steps=spans, answers=[(start + shift, end + shift), None], heads=heads
    )
    steps = StepTensors.pack(batch.located, width)
    for given in (None, steps):  # before the rewards the located steps, in the loss those of the micro-batch
        capture, forward = ForwardCapture(), Forward(tiny_qwen2)
        with torch.no_grad(), capture.next_forward(Wanted(batch, heads, entropy=False, steps=given)) as signals:
            capture.run(forward, tiny_qwen2, ids, mask, width, size)
        assert signals["attention"].shape == (2, 2)
        torch.testing.assert_close(signals["attention"][0], expected[0].mean(dim=0))
        assert not signals["attention"][1].any()


def test_the_first_rows_of_a_batch_can_be_read_alone(batch):
    wanted = Wanted(batch, heads=None, entropy=True)
    assert wanted.steps_of(torch.zeros(1, 9, dtype=torch.long), 200).num_steps.tolist() == [2]


def test_step_means_by_hand():
    values, ids = torch.tensor([[1.0, 3.0, 5.0, 9.0]]), torch.tensor([[0, 0, 1, 3]])  # the last outside of all steps
    assert step_means(values, ids, torch.tensor([[2, 1, 0]])).tolist() == [[2.0, 5.0, 0.0]]


def credited(rows: list[int], means: list[float], scales: list[list[float]]) -> tuple[dict[str, Any], CreditResult]:
    """A micro-batch of two tokens a row, as the recorder reads it."""
    batch = {"rollout_rows": torch.tensor(rows), "completion_mask": torch.ones(len(rows), 2, dtype=torch.long)}
    tokens = torch.tensor(means)[:, None].expand(-1, 2)
    return batch, CreditResult(advantages=tokens, scales=torch.tensor(scales))


def recorded(batch: GenerationBatch, step: int) -> list[dict[str, Any]]:
    return new_records(batch, SETUP, names=["judge"], weights=ONE, split="train", step=step)


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(folder / "rollouts" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_credit_reaches_the_records_in_any_order(batch, tmp_path):
    batch.add_rewards(REWARDS, SETUP)
    other = [{"step": 3, "group": 0, "of": "the other process"}]
    recorder = Recorder(RunFolder(tmp_path), "paper", gather=lambda records: other + records)
    assert not recorder.complete
    assert recorder.close() == []  # none is open: the other processes' are not gathered either
    recorder.open(recorded(batch, 3))
    recorder.note(*credited([1, -1], [0.25, 9.0], [[1.0, 1.0], [5.0, 5.0]]), {})
    recorder.open(recorded(batch, 3))  # what was noted is forgotten
    recorder.note(*credited([1], [0.25], [[1.0, 1.0]]), {})
    assert not recorder.complete
    scores = torch.tensor([[0.75, 0.25], [7.0, 7.0]])  # the second row is no response of the batch
    recorder.note(*credited([0, -1], [0.5, 9.0], [[0.5, 1.0], [5.0, 5.0]]), {"attention": scores})
    assert recorder.complete
    first, *records = recorder.close()
    assert first is other[0]
    assert [r["mean_token_advantage"] for r in records] == [0.5, 0.25]
    assert [step["scale"] for step in records[0]["steps"]] == [0.5, 1.0]
    assert [step["score"] for step in records[0]["steps"]] == [0.75, 0.25]
    assert [step["score"] for step in records[1]["steps"]] == [None]
    assert recorder.close() == []


def test_rows_left_out_by_a_method_are_credited_too(batch, tmp_path):
    batch.add_rewards(REWARDS, SETUP)
    recorder = Recorder(RunFolder(tmp_path), "paper")
    recorder.open(recorded(batch, 1))
    recorder.all_credited()
    assert recorder.complete
    assert [r["mean_token_advantage"] for r in recorder.close()] == [0.0, 0.0]


def test_a_step_is_written_whole(batch, tmp_path):
    """Two generation batches of step 1, then one of step 2: two files, groups counted on."""
    batch.add_rewards(REWARDS, SETUP)
    recorder = Recorder(RunFolder(tmp_path), "paper")
    assert recorder.end_step() == {}
    assert recorder.add_to_step(recorded(batch, 1)) == {}
    assert recorder.add_to_step(recorded(batch, 1)) == {}
    assert not (tmp_path / "rollouts").exists()
    metrics = recorder.add_to_step(recorded(batch, 2))
    assert (metrics["accuracy"], metrics["steps/per_response"], metrics["truncated"]) == (0.5, 1.5, 0.5)
    assert [row["group"] for row in read(tmp_path, "train-000001")] == [1, 1, 3, 3]
    assert recorder.end_step()["accuracy"] == 0.5
    assert [row["group"] for row in read(tmp_path, "train-000002")] == [1, 1]
    assert recorder.end_step() == {}


def test_only_the_main_process_writes(batch, tmp_path):
    batch.add_rewards(REWARDS, SETUP)
    recorder = Recorder(RunFolder(tmp_path), "paper", writes=False)
    recorder.add_to_step(recorded(batch, 1))
    assert recorder.end_step()["accuracy"] == 0.5
    held_out = HeldOutEvaluation(RunFolder(tmp_path), "paper", writes=False)
    held_out.add(recorded(batch, 1))
    assert held_out.finish(step=1, seconds=0.0)["n"] == 2
    assert not list(tmp_path.iterdir())


def test_a_phase_inside_another_counts_for_itself(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr("attnpo.training.recording.time.perf_counter", lambda: next(clock))
    timer = PhaseTimer()
    with timer("verify"), timer("credit"):
        pass
    assert timer.take() == {"seconds/credit": 3.0, "seconds/verify": 7.0}
    assert timer.take() == {}


def test_an_evaluation_leaves_out_what_was_repeated(batch, tmp_path):
    """Three responses, of which two processes were handed four; the first of this one are the examples."""
    batch.add_rewards(REWARDS, SETUP)
    held_out = HeldOutEvaluation(RunFolder(tmp_path), "paper", examples=3, gather=lambda records: records * 2)
    for _ in range(2):  # an evaluation begins anew
        held_out.begin()
        assert held_out.to_score(2) == 2
        held_out.add(recorded(batch, 4))
        assert held_out.to_score(2) == 1
    metrics = held_out.finish(step=4, seconds=1.23456, responses=3)
    assert (metrics["n"], metrics["accuracy"]) == (3, pytest.approx(2 / 3))
    held_out.add(recorded(batch, 4))
    assert held_out.to_score(2) == 0
    assert len(read(tmp_path, "eval-000004")) == 3
    (line,) = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    assert (json.loads(line)["step"], json.loads(line)["seconds"], json.loads(line)["n"]) == (4, 1.235, 3)


def drawn() -> tuple[float, float, float]:
    return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002


@pytest.mark.parametrize("fails", [False, True])
def test_an_evaluation_draws_numbers_of_its_own(fails):
    """The same with the same seed, and the training's go on as if it had not been, also where it fails."""
    inside = []
    for evaluates in (False, True, True):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        if evaluates:
            try:
                with isolated_random_state(5):
                    inside.append(drawn())
                    if fails:
                        raise MemoryError
            except MemoryError:
                pass
        after = drawn()
        first = after if not evaluates else first
        assert after == first
    assert inside[0] == inside[1] != first


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_freed_memory_returns_to_the_system_once_a_minute():
    """200 MiB in tensors of 16 KiB, of which the last stays, so that the end of the heap is in use."""

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    def fragment() -> torch.Tensor:
        return [torch.ones(4096) for _ in range(12_800)][-1]

    callback, cpu = ReturnMemory(), SimpleNamespace(device=torch.device("cpu"))
    last = [fragment()]
    before = resident()
    callback.on_step_end(SimpleNamespace(device=torch.device("cuda")), None, None)
    assert resident() > before - 10
    callback.on_step_end(cpu, None, None)
    assert resident() < before - 150
    last.append(fragment())
    again = resident()
    callback.on_step_end(cpu, None, None)  # within the same minute
    assert resident() > again - 10
    callback.every = 0.0
    callback.on_step_end(cpu, None, None)
    assert resident() < again - 150
