"""A stage between rewards and loss: its signal reaches the method, gates reach the loss, rows may be left out."""

from __future__ import annotations

import gzip
import json
import math
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from attnpo.credit import base
from attnpo.credit.base import CreditInputs, CreditResult, mask_padding, register_credit
from attnpo.errors import InputError
from attnpo.training import stages
from trainer_kit import MIXED, make_trainer, spy

ROWS = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")


class FirstHalf:
    """Makes the signal "marks": 1 on the first three tokens. With `drop`, it leaves only the first four rows."""

    def __init__(self, method, policy):
        self.drop = method.drop
        self.tools = policy

    def __call__(self, batch, rollouts):
        self.tools.note("extra/rollout_tokens", 5)
        self.tools.note("extra/rollout_tokens", 2)
        assert [len(ids) for ids in rollouts.completion_ids] == batch["completion_mask"].sum(1).tolist()
        assert (rollouts.group_size, rollouts.first, len(rollouts.rows)) == (4, 0, 8)
        judged = self.tools.judge(rollouts.rows, rollouts.completion_ids)
        assert [value == 1 for value in judged] == batch["correct"].tolist()
        marks = torch.zeros_like(batch["completion_mask"])
        marks[:, :3] = 1
        batch["signal/marks"] = marks
        if self.drop:
            for name, value in batch.items():
                if isinstance(value, list) or value.dim():
                    batch[name] = value[:4]
        return batch


@dataclass(frozen=True)
class OnlyMarked:
    drop: bool = False
    name: ClassVar[str]
    signals: ClassVar[frozenset[str]] = frozenset({"marks"})

    def __call__(self, inputs: CreditInputs) -> CreditResult:
        advantages = mask_padding(inputs.advantages[:, None].expand(inputs.step_ids.shape), inputs.completion_mask)
        return CreditResult(advantages=advantages, gates=inputs.signals["marks"].bool())


@pytest.fixture(autouse=True)
def _method(monkeypatch):
    monkeypatch.setitem(stages.STAGES, "marks", f"{__name__}:FirstHalf")
    monkeypatch.setattr(stages, "import_module", lambda module: sys.modules[module])
    register_credit("only_marked")(OnlyMarked)
    yield
    base._METHODS.forget("only_marked")


@pytest.mark.parametrize("drop", [False, True])
def test_signal_gates_and_rows(tiny_qwen2, tiny_tokenizer, tmp_path, drop):
    trainer = make_trainer(
        tiny_qwen2, tiny_tokenizer, tmp_path, responses=MIXED, credit="only_marked", credit_kwargs={"drop": drop}
    )
    seen = spy(trainer)
    trainer.train()
    (batch,) = seen.batches
    assert len(batch["completion_ids"]) == (4 if drop else 8)
    assert (batch["tool_mask"][:, :3] == 1).all()
    assert not batch["tool_mask"][:, 3:].any()
    # The loss is that of the marked tokens alone: dapo's mean, over the tokens of the whole batch, at a ratio of 1.
    marked = (batch["advantages"] * batch["tool_mask"] * batch["completion_mask"]).sum()
    assert seen.losses[0] == pytest.approx(-(marked / batch["num_items_in_batch"]).item(), abs=1e-6)
    metrics = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert metrics["extra/rollout_tokens"] == 7
    assert metrics["seconds/stages"] > 0


def test_rows_left_out_are_recorded_with_no_advantage(tiny_qwen2, tiny_tokenizer, tmp_path):
    trainer = make_trainer(
        tiny_qwen2, tiny_tokenizer, tmp_path, responses=MIXED, credit="only_marked", credit_kwargs={"drop": True}
    )
    trainer.train()
    with gzip.open(tmp_path / "rollouts/train-000001.jsonl.gz", "rt") as file:
        records = [json.loads(line) for line in file]
    assert len(records) == 8
    assert [record["mean_token_advantage"] for record in records[4:]] == [0] * 4
    assert any(record["mean_token_advantage"] for record in records[:4])
    kept = records[0]
    assert [step["advantage"] for step in kept["steps"]] == pytest.approx([kept["advantage"]] * len(kept["steps"]))


def test_signal_without_a_stage_is_refused(tiny_qwen2, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.delitem(stages.STAGES, "marks")
    with pytest.raises(InputError, match="credit 'only_marked' asks for the signal 'marks'; there are: attention"):
        make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, credit="only_marked")


def test_missing_reward_is_not_wrong(tiny_qwen2, tiny_tokenizer, tmp_path):
    """A reward function may return None or NaN for "unknown"."""

    def accuracy(completions, **columns):
        return [math.nan, None, 1.0, 0.5][: len(completions)]

    trainer = make_trainer(tiny_qwen2, tiny_tokenizer, tmp_path, reward=accuracy, credit="outcome")
    rows = [{"prompt": "1 + 1?", "reference": "2"}] * 4
    assert trainer.policy.judge(rows, [[5]] * 4) == [None, None, True, False]
