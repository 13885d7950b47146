"""One process of `tests/invariant/test_two_find_heads.py`: `heads: auto` where one or both fail, or one knows more.

torchrun --nproc-per-node 2 tests/two_find_heads.py MODEL OUTPUT
OUTPUT/0.json and OUTPUT/1.json have the result of each case on that process: the heads, or the error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import trainer_kit as kit
from attnpo.errors import InputError
from attnpo.training import own_heads

RANK = int(os.environ.get("RANK", "0"))


def fail_on(ranks: set[int], error: Exception, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """`otherwise`, which raises the error on some processes."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if RANK in ranks:
            raise error
        return otherwise(*args, **kwargs)

    call.__name__ = "accuracy"
    return call


def folder_of_main_only(output: Path) -> None:
    if RANK == 0:
        output.mkdir(parents=True)
        (output / "heads.json").write_text('{"heads": [[0, 3]]}')


def folder_not_writable(output: Path) -> None:
    """A folder where the file of labelled responses should be, on both processes."""
    (output / "heads-traces.jsonl.gz").mkdir(parents=True, exist_ok=True)


def find(model: str, output: Path, case: str) -> list[Any]:
    """The heads found in one case."""
    failing = {"reward": {1}, "both": {0, 1}}.get(case, set())
    reward = fail_on(failing, ValueError(f"no verdict on {RANK}"), kit.says_42)
    labels = kit.gold_labels
    if case == "labels":
        labels = fail_on({0}, InputError("prepared[3]: bad"), labels)
    own_heads.causal_labels = labels
    if case == "resumed":
        folder_of_main_only(output := output.with_name(f"resumed-{RANK}"))
    if case == "writing":
        folder_not_writable(output)
    trainer = kit.make_trainer(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), AutoTokenizer.from_pretrained(model), output,
        responses=[kit.FALSE] if case == "harder" and RANK == 1 else [kit.USUAL, kit.LONG],
        reward=reward, data=kit.problems(24 if case == "harder" else 12), heads=None, heads_traces=16,
        per_device_eval_batch_size=8,
    )  # fmt: skip
    if case == "generation":
        trainer._generate_single_turn = fail_on({1}, MemoryError("too long"), trainer._generate_single_turn)
    trainer.find_heads(resumed=case == "resumed", say=lambda text: None)
    assert trainer.heads is not None
    return trainer.heads


def main(model: str, output: Path) -> None:
    cases = ("found", "harder", "reward", "both", "generation", "labels", "writing", "resumed")
    ends: dict[str, Any] = {}
    for case in cases:
        try:
            ends[case] = find(model, output / case, case)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            ends[case] = [type(error).__name__, str(error)]
    (output / f"{RANK}.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    torch.distributed.destroy_process_group()  # one that ends with it open may abort on the way out
