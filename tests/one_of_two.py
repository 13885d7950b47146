"""One process of `tests/invariant/test_two_*.py` (not find_heads, sharded): half of a batch, or all of it.

torchrun --nproc-per-node 2 tests/one_of_two.py METHOD MODEL OUTPUT
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

import spread_on_cpus  # noqa: F401 - has an effect where the environment asks for FSDP or DeepSpeed
import trainer_kit as kit

FIX = kit.Canned((kit.ADD, kit.CHECK), kit.RIGHT)
CLOSING = "</think>\nThe answer is \\boxed{"
# One group of eight, all right: long ones have a negative advantage. The two halves differ.
GROUP = [kit.LONG, kit.SHORT, kit.USUAL, kit.SHORT, kit.USUAL, kit.SHORT, kit.LONG, kit.USUAL]
# Two groups. The first has two wrong responses and nine steps, the second one none and ten: the processes differ in
# work.
GROUPS = [kit.SHORT, kit.FALSE, kit.USUAL, kit.FALSE, kit.SHORT, kit.LONG, kit.SHORT, kit.USUAL]
SAVED = {"save_strategy": "steps", "save_steps": 2}
METHODS: dict[str, dict[str, Any]] = {
    "attnpo": {"eval_data": kit.problems(5), "num_generations": 8, "per_device_eval_batch_size": 2, **SAVED},
    "iop": {
        "num_iterations": 2,
        "length_reward": "none",
        "credit_kwargs": {"candidates": 2, "max_new_tokens": 100, "prompt": "brief"},
        "importance_sampling_level": "sequence",
        "loss_type": "grpo",
    },
    "outcome": {"num_iterations": 2, "advantage": "grpo", **SAVED},
    # Problems of which every other one has four wrong responses (`alive`), which are replaced.
    "resampled": {"credit": "outcome", "length_reward": "none", "dynamic_sampling": 2, "seed": 3, **SAVED},
    "first_correct": {"length_reward": "none", "max_grad_norm": 1.0, **SAVED},
    "mrt": {
        "num_iterations": 2,
        "length_reward": "none",
        "advantage": "grpo",
        "credit_kwargs": {"rollouts": 2, "closing": CLOSING, "share_prefixes": False},
        **SAVED,
    },
    "shape": {
        "num_iterations": 2,
        "length_reward": "none",
        "advantage": "grpo",
        "credit_kwargs": {"cuts": "steps", "rollouts": 2, "closing": CLOSING, "share_prefixes": False},
    },
}


def alive(prompt: str) -> bool:
    """Of the problems 12 + 30, 13 + 29, …: whether the first number is odd."""
    return int(re.findall(r"\d+", prompt)[0]) % 2 == 1


class Dies(TrainerCallback):
    """Killed, as the kernel does it when memory is short, after the first step."""

    def on_step_end(self, args, state, control, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)


def run(method: str, model: str, output: Path, processes: int = 1, rank: int = 0) -> None:
    """Two steps on the same responses; the weights go to OUTPUT/weights.pt, a run folder next to them."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    responses = GROUP if method == "attnpo" else GROUPS
    size = len(responses) // processes

    def reward(completions: list[Any], **kwargs: Any) -> list[float]:
        # In a stage, which asks about more continuations than there are responses; or in the second step.
        due = len(completions) != size if "IN_STAGE" in os.environ else trainer.state.global_step == 1
        if os.environ.get("FAILS") == str(rank) and due:
            if os.environ.get("FAULT") == "short":
                return [1.0]
            raise ConnectionError("the judge is away")
        return kit.says_42(completions)

    reward.__name__ = "accuracy"
    trainer = kit.make_trainer(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        tokenizer,
        output,
        reward=reward,
        responses=responses[rank * size : (rank + 1) * size],
        per_device_train_batch_size=size,
        max_steps=2,
        optim="sgd",
        learning_rate=0.1,
        **{"credit": method, **METHODS[method]},
    )
    canned = trainer._generate_single_turn

    def generate(prompt_ids, *args, **kwargs):
        texts = [tokenizer.decode(ids) for ids in prompt_ids]
        if method == "resampled":
            return [
                (kit.SHORT if alive(text) and i % 2 else kit.FALSE).ids(tokenizer) for i, text in enumerate(texts)
            ], None
        if "Repair:" in texts[0]:
            return [(FIX, kit.FALSE)[i % 2].ids(tokenizer) for i in range(len(prompt_ids))], None
        if texts[0].endswith(CLOSING):  # right where the response has found the sum already
            answers = ["42}." if "42" in text.rpartition("?")[2] else "41}." for text in texts]
            return [
                [*tokenizer(a, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for a in answers
            ], None
        return canned(prompt_ids, *args, **kwargs)

    trainer._generate_single_turn = generate
    if os.environ.get("NOT_FINITE") == str(rank):
        inner = trainer._compute_loss
        trainer._compute_loss = lambda model, inputs: (
            inner(model, inputs) * (torch.nan if trainer.state.global_step == 1 else 1.0)
        )
    if os.environ.get("DIES") == str(rank):
        trainer.add_callback(Dies())
    trainer.train()
    if trainer.eval_dataset is not None:
        trainer.evaluate()
    if trainer.is_fsdp_enabled:
        from torch.distributed.fsdp import FSDPModule

        assert isinstance(trainer.model, FSDPModule)  # whose checkpoint is looked at
    elif rank == 0:
        torch.save(trainer.model.state_dict(), output / "weights.pt")


if __name__ == "__main__":
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), processes, int(os.environ.get("RANK", "0")))
    if processes > 1 or torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # one that ends with it open may abort on the way out
        # On a busy machine one has aborted even so ("terminate called without an active exception"). All is written by
        # now, and what failed has raised: so no destructors are run.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
