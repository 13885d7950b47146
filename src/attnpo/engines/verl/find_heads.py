"""`heads: auto` before a run on verl: the search of `attnpo train`, on one worker, in a process of its own.

A process of its own, so that the memory of the accelerator is free again when Ray starts. The model must fit on one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from attnpo.attention.heads import HEADS
from attnpo.engines.verl.options import VerlOptions
from attnpo.errors import InputError, RunError
from attnpo.training.records import HEADS_TRACES

SEARCH = "heads-search"


def find(config: Any, options: VerlOptions, file: Path) -> None:
    """Write the head file of a run, and beside it the responses that the heads were found on.

    Raises:
        InputError: several files of problems, of which the search takes one.
        RunError: the search found none; what it said stands above.
    """
    where = file.parent / SEARCH
    line = [sys.executable, "-m", __name__, *arguments(config, options, where)]
    done = subprocess.run(line, check=False)
    if done.returncode:
        raise RunError("heads: auto: the search before the run found no heads; give a head file with --heads")
    for name in (HEADS, HEADS_TRACES):
        shutil.move(where / name, file.parent / name)
    shutil.rmtree(where)


def arguments(config: Any, options: VerlOptions, folder: Path) -> list[str]:
    """The options of `attnpo train` for the search."""
    problems = config.data.train_files
    if not isinstance(problems, str):
        raise InputError(
            "option heads: auto takes the problems of one file; data.train_files has several, give a head file"
        )
    rollout, data = config.actor_rollout_ref.rollout, config.data
    given = {
        "model_name_or_path": config.actor_rollout_ref.model.path,
        "dataset_name": problems,
        "output_dir": folder,
        "overwrite_run": "true",
        "heads": "auto",
        "heads_count": options.heads_count,
        "heads_traces": options.heads_traces,
        "lexicon": options.lexicon,
        "thinking_format": options.thinking_format,
        "num_generations": rollout.n,
        "temperature": rollout.temperature,
        "max_prompt_length": data.max_prompt_length,
        "max_completion_length": data.max_response_length,
        "per_device_train_batch_size": rollout.n,
        "per_device_eval_batch_size": 64,
        "gradient_accumulation_steps": 1,
        "max_steps": 1,
        "seed": config.data.seed or 0,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": str(config.trainer.device == "cpu").lower(),
    }
    if config.trainer.device != "cpu":
        given["dtype"] = "bfloat16"
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def main(argv: list[str]) -> int:
    """The search itself, with TRL's trainer, which takes no step."""
    from rich.console import Console

    from attnpo.rewards.pool import VerifierPool
    from attnpo.training.options import parse
    from attnpo.training.run import build_trainer

    data, args, model_config = parse(argv)
    console = Console()
    try:
        with VerifierPool(args.verifier_workers, timeout=args.verifier_timeout) as pool:
            trainer, _ = build_trainer(data, args, model_config, pool, console)
            trainer.find_heads(say=console.print)
    except (InputError, RunError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
