"""One process of `tests/invariant/test_two_repairing.py`: repairs one of two groups, or both.

torchrun --nproc-per-node 2 tests/iop_of_two.py MODEL OUTPUT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import trainer_kit as kit

FIX = kit.Canned((kit.ADD, kit.CHECK), kit.RIGHT)
# The first group has two wrong responses, the second one none: without filler the processes would differ in rows.
RESPONSES = [kit.SHORT, kit.FALSE, kit.USUAL, kit.FALSE, kit.SHORT, kit.LONG, kit.SHORT, kit.USUAL]


def run(model: str, output: Path, processes: int = 1, rank: int = 0) -> None:
    """Two steps on two groups of four; the weights go to OUTPUT/weights.pt, a run folder beside them."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    size = len(RESPONSES) // processes
    trainer = kit.make_trainer(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        tokenizer,
        output,
        responses=RESPONSES[rank * size : (rank + 1) * size],
        per_device_train_batch_size=size,
        max_steps=2,
        num_iterations=2,
        optim="sgd",
        learning_rate=0.1,
        credit="iop",
        credit_kwargs={"candidates": 2, "prompt": "brief"},
        length_reward="none",
        importance_sampling_level="sequence",
        loss_type="grpo",
    )
    canned = trainer._generate_single_turn

    def generate(prompt_ids, *args, **kwargs):
        if "Repair:" not in tokenizer.decode(prompt_ids[0]):
            return canned(prompt_ids, *args, **kwargs)
        return [(FIX, kit.FALSE)[i % 2].ids(tokenizer) for i in range(len(prompt_ids))], None

    trainer._generate_single_turn = generate
    trainer.train()
    if rank == 0:
        torch.save(trainer.model.state_dict(), output / "weights.pt")


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"]))
    torch.distributed.destroy_process_group()  # one that ends with it open may abort on the way out
