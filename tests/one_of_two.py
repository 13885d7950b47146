"""One process of `tests/invariant/test_two_processes.py`: trains the model of a folder on half of a batch.

torchrun --nproc-per-node 2 tests/one_of_two.py MODEL OUTPUT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import trainer_kit as kit

# One group of eight, all right: long ones have a negative advantage. The two halves differ.
RESPONSES = [kit.LONG, kit.SHORT, kit.USUAL, kit.SHORT, kit.USUAL, kit.SHORT, kit.LONG, kit.USUAL]


def run(model: str, output: Path, processes: int = 1, rank: int = 0) -> None:
    """Two steps on a group of eight; the weights go to OUTPUT/weights.pt, a run folder beside them."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    size = len(RESPONSES) // processes
    trainer = kit.make_trainer(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        tokenizer,
        output,
        responses=RESPONSES[rank * size : (rank + 1) * size],
        eval_data=kit.problems(5),
        num_generations=8,
        per_device_train_batch_size=size,
        per_device_eval_batch_size=2,
        max_steps=2,
        optim="sgd",
        learning_rate=0.1,
    )
    trainer.train()
    trainer.evaluate()
    if rank == 0:
        torch.save(trainer.model.state_dict(), output / "weights.pt")


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"]))
    torch.distributed.destroy_process_group()  # one that ends with it open may abort on the way out
