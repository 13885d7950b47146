"""`heads: auto` before a run on verl: the search of `attnpo train`, on one worker, in a process of its own.

A process of its own, so that the memory of the accelerator is free again when Ray starts. The model must fit on one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

from attnpo.attention.heads import HEADS, load_heads, recorded_model, same_model
from attnpo.engines.verl.options import VerlOptions
from attnpo.errors import InputError, RunError
from attnpo.training.known_heads import found_already, found_before
from attnpo.training.records import HEADS_TRACES, RunFolder

SEARCH = "heads-search"
REFUSED = 2
"""The exit code of a search whose options, problems or model were refused."""


def find(config: Any, options: VerlOptions, file: Path) -> None:
    """Write the head file of a run, and beside it the responses that the heads were found on.

    Those that a run has found for this model which got no further are taken as they are.

    Raises:
        InputError: several files of problems, of which the search takes one; heads of another model are there; what
            else the search refuses, which it says itself.
        RunError: the search found none; what it said stands above.
    """
    known = RunFolder(file.parent).heads_of_a_start
    if known is not None:
        if not same_model(recorded_model(known), str(config.actor_rollout_ref.model.path)):
            raise found_already(known)
        print(found_before(known, load_heads(known)))
        return
    where = file.parent / SEARCH
    shutil.rmtree(where, ignore_errors=True)
    line = [sys.executable, "-m", __name__, *arguments(config, options, where)]
    code = _run(line)
    if code == REFUSED:
        raise InputError("heads: auto: the search before the run could not begin; the reason stands above")
    if code:
        raise RunError("heads: auto: the search before the run found no heads; give a head file with --heads")
    for name in (HEADS, HEADS_TRACES):
        shutil.move(where / name, file.parent / name)
    shutil.rmtree(where)


def _run(line: list[str]) -> int:
    """The exit code of a process that does not outlive this one: the pipe to it closes, however this one ends."""
    with subprocess.Popen(line, stdin=subprocess.PIPE) as process:
        try:
            return process.wait()
        except BaseException:
            process.kill()
            raise


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
    from attnpo.training.run import build_trainer, quiet_screen

    console = Console(highlight=False, soft_wrap=True)
    begun = False
    try:
        with quiet_screen():
            data, args, model_config = parse(argv)
            with VerifierPool(args.verifier_workers, timeout=args.verifier_timeout) as pool:
                # The launcher has said which problems there are.
                trainer, _ = build_trainer(data, args, model_config, pool, Console(quiet=True))
                begun = True
                trainer.find_heads(say=console.print)
    except (InputError, RunError) as error:
        print(error, file=sys.stderr)
        return 1 if begun else REFUSED
    return 0


def end_with(parent: int) -> None:
    """End this process when the one that holds the other end of the pipe `parent` has ended."""
    while os.read(parent, 1):  # not by sys.stdin, whose lock would be held when this process ends by itself
        pass
    os._exit(1)


if __name__ == "__main__":
    Thread(target=end_with, args=(sys.stdin.fileno(),), daemon=True).start()
    sys.exit(main(sys.argv[1:]))
