"""One trainer whose rollouts come from vLLM in this process, on a CPU, shared by the tests of this folder.

The model is the shipped one with wider heads (scripts/wider_heads.py: vLLM's attention on CPUs knows none of 16). An
engine takes a minute to start, and a process can have one; runs of the command are processes of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from wider_heads import write_wider

SEED = 7
LENGTH = 400  # tokens of a response at most: most end before


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory) -> Path:
    return write_wider("overthinker", tmp_path_factory.mktemp("wide"))


@dataclass(frozen=True)
class Started:
    trainer: Any
    seed: int  # of torch's random state, once the engine was there


@pytest.fixture(scope="session")
def started(wide_model, tmp_path_factory) -> Iterator[Started]:
    """As `attnpo train` builds it: AttnPO on the built-in task, 4 problems with 4 responses each."""
    from rich.console import Console

    from attnpo.rewards.pool import VerifierPool
    from attnpo.training.options import parse
    from attnpo.training.run import build_trainer

    given = {
        "model_name_or_path": wide_model,
        "dataset_name": "task",
        "train_problems": 64,
        "eval_problems": 8,
        "output_dir": tmp_path_factory.mktemp("run"),
        "use_vllm": "true",
        "vllm_max_model_length": 512,
        "max_completion_length": LENGTH,
        "num_generations": 4,
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "max_steps": 1,
        "credit_delay": 0,
        "gradient_checkpointing": "false",
        "use_cpu": "true",
        "bf16": "false",
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "seed": SEED,
    }
    data, args, model_config = parse([word for name, value in given.items() for word in (f"--{name}", str(value))])
    with VerifierPool(1) as pool, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TRL currently supports vLLM versions")
        trainer = build_trainer(data, args, model_config, pool, Console(quiet=True))[0]
        yield Started(trainer, torch.initial_seed())


@pytest.fixture(scope="session")
def trainer(started) -> Any:
    return started.trainer
