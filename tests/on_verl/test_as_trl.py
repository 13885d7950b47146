"""One batch through TRL's trainer and through verl's parts: scores, advantages and loss, method by method.

TRL's side is a whole step of `AttnPOTrainer`. verl's side: the ledger finds the steps, verl's FSDP engine scores them,
the ledger forms the advantages, and verl's vanilla loss is taken of them, on-policy. Prints the largest differences.
"""

from __future__ import annotations

import os

os.environ["VERL_PLATFORM"] = "cpu"
os.environ["VERL_USE_EXTERNAL_MODULES"] = "attnpo.engines.verl.cpu"

from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
from verl.workers.config import ActorConfig

from attnpo.engines.verl.ledger import Ledger, Rows
from attnpo.engines.verl.options import VerlOptions
from attnpo.steps.formats import THINK
from verl_batch import rows_of
from verl_runs import torchrun

METHODS = {
    "attnpo": {},
    "attnpo, grpo": {"advantage": "grpo", "credit_threshold": "0.5"},
    "attnpo, sharp": {"credit_sharp": True},
    "attnpo, no length reward": {"length_reward": "none"},
    "outcome": {"credit": "outcome"},
    "outcome, dr_grpo": {"credit": "outcome", "length_reward": "none", "advantage": "dr_grpo"},
    "first_correct": {"credit": "first_correct", "credit_kwargs": {"keep": 0.25}},
}


@pytest.fixture(scope="module")
def rows(trainer_kit, tiny_tokenizer) -> Rows:
    return rows_of(trainer_kit, tiny_tokenizer, trainer_kit.problems(2))


def ledger_of(folder: Path, tokenizer, heads, **options) -> Ledger:
    given = VerlOptions.of({"credit_delay": 0, **options, "output_dir": str(folder), "max_completion_length": 1000})
    ends = [tokenizer.eos_token_id]
    heads = heads if given.credit == "attnpo" else None
    return Ledger(given, tokenizer, THINK, end_ids=ends, group_size=4, steps=1, heads=heads)


@pytest.fixture(scope="module")
def scores(trainer_kit, tiny_tokenizer, tiny_folder, rows, tmp_path_factory) -> list[torch.Tensor]:
    """Of verl's engine, in verl's order."""
    folder = tmp_path_factory.mktemp("scores")
    spans = ledger_of(folder / "run", tiny_tokenizer, trainer_kit.HEADS).locate(rows)
    ids = [torch.tensor(prompt + response) for prompt, response in zip(rows.prompts, rows.responses, strict=True)]
    torch.save({"rows": ids, "spans": spans, "heads": trainer_kit.HEADS}, folder / "batch.pt")
    torchrun(1, Path(__file__).parent / "scores_process.py", tiny_folder, folder / "batch.pt", folder / "scores.pt")
    return torch.load(folder / "scores.pt")


def loss_of(tokens: list[torch.Tensor]) -> float:
    """verl's, where the policy has not moved: every ratio is 1."""
    mask = pad_sequence([torch.ones(len(row)) for row in tokens], batch_first=True)
    same = torch.full_like(mask, -1.0)
    config = ActorConfig(strategy="fsdp2", rollout_n=4, ppo_micro_batch_size_per_gpu=1)
    return float(
        compute_policy_loss_vanilla(same, same, pad_sequence(tokens, batch_first=True), mask, config=config)[0]
    )


@pytest.mark.parametrize("method", METHODS)
def test_scores_advantages_and_loss(
    trainer_kit, new_tiny_qwen2, tiny_tokenizer, rows, scores, tmp_path, read_rollouts, method
):
    kit, tokenizer, options = trainer_kit, tiny_tokenizer, METHODS[method]
    model = kit.sharpen(new_tiny_qwen2())
    trainer = kit.make_trainer(model, tokenizer, tmp_path / "trl", responses=kit.MIXED, data=kit.problems(2), **options)
    seen = kit.spy(trainer)
    trainer.train()
    theirs = {(r["group"], r["index"]): r for r in read_rollouts(tmp_path / "trl", "train-000001")}

    ledger = ledger_of(tmp_path / "verl", tokenizer, kit.HEADS, **options)
    ledger.locate(rows)
    tokens = ledger.advantages(rows, step=1, scores=scores if ledger.heads else None)
    ledger.metrics()
    ours = {(r["group"], r["index"]): r for r in read_rollouts(tmp_path / "verl", "train-000001")}

    found = {"scores": 0.0, "outcome": 0.0, "tokens": 0.0, "loss": abs(loss_of(tokens) - sum(seen.losses))}
    scored = 0
    for (group, index), record in theirs.items():
        mine = ours[1 - group, index]  # groups are numbered as they come; the first row is of the second problem
        found["outcome"] = max(found["outcome"], abs(mine["advantage"] - record["advantage"]))
        for here, there in zip(mine["steps"], record["steps"], strict=True):
            assert (here["score"] is None) == (there["score"] is None)
            if there["score"] is not None:
                scored += 1
                found["scores"] = max(found["scores"], abs(here["score"] - there["score"]))
    expected = seen.rows()
    for prompt, ids, row in zip(rows.prompts, rows.responses, tokens, strict=True):
        found["tokens"] = max(found["tokens"], float((row - expected[tuple(prompt + ids)]).abs().max()))
    print(f"\n| {method} | " + " | ".join(f"{value:.1e}" for value in found.values()) + " |")
    assert (scored > 0) == (ledger.heads is not None)
    assert abs(sum(seen.losses)) > 1e-4
    assert all(value < 1e-6 for value in found.values()), found
