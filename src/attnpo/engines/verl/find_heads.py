"""`heads: auto` on verl: the head search of `attnpo train`, in a separate process before Ray starts.

The process ends before Ray starts, so that the accelerator's memory is free again. The model must fit on one device.
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
    """Write the head file of a run, and next to it the responses on which the heads were found.

    If an earlier start in this folder found heads for the same model but did not get further, they are reused.

    Raises:
        InputError: several problem files (the search reads one); the folder has heads of another model; the search
            refused its input and printed the reason.
        RunError: the search found no heads; its messages are printed above.
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
        raise InputError("heads: auto: the search before the run could not begin; the reason is printed above")
    if code:
        raise RunError("heads: auto: the search before the run found no heads; give a head file with --heads")
    for name in (HEADS, HEADS_TRACES):
        shutil.move(where / name, file.parent / name)
    shutil.rmtree(where)


def _run(line: list[str]) -> int:
    """Run a process and return its exit code. The process ends with this one, whose end closes the pipe to it."""
    with subprocess.Popen(line, stdin=subprocess.PIPE) as process:
        try:
            return process.wait()
        except BaseException:
            process.kill()
            raise


def arguments(config: Any, options: VerlOptions, folder: Path) -> list[str]:
    """Return the options of `attnpo train` for the search."""
    problems = config.data.train_files
    if not isinstance(problems, str):
        raise InputError(
            "option heads: auto reads the problems of one file; data.train_files has several: give a head file"
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
    """Search for heads with TRL's trainer, without a training step; return the exit code."""
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
                # Quiet: the launcher has reported the problems already.
                trainer, _ = build_trainer(data, args, model_config, pool, Console(quiet=True))
                begun = True
                trainer.find_heads(say=console.print)
    except (InputError, RunError) as error:
        print(error, file=sys.stderr)
        return 1 if begun else REFUSED
    return 0


def end_with(parent: int) -> None:
    """Wait until the process at the other end of the pipe `parent` has ended, then end this one."""
    while os.read(parent, 1):  # not sys.stdin, whose lock would still be held when this process ends normally
        pass
    os._exit(1)


if __name__ == "__main__":
    Thread(target=end_with, args=(sys.stdin.fileno(),), daemon=True).start()
    sys.exit(main(sys.argv[1:]))
