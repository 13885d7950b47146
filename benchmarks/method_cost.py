"""Cost of a step of every method: all in one process, on the same problems and rollouts, in turn.

    python benchmarks/method_cost.py                                    # every method of method_arms.py
    python benchmarks/method_cost.py --arms RLOO AttnPO SHAPE IOP --rounds 11

A step is complete: generation, finding steps, verifying, a method's own continuations or repairs, credit, loss,
backward, optimiser, records. The learning rate is 0 and every method starts a round with the same random numbers, so
that all of them get the same responses (except L1, whose prompts contain a length); the order changes from round to
round. The ratios to RLOO are paired by round.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from method_arms import METHODS, options_of
from method_runs import PLAIN, column, costs_of
from rich.console import Console
from step_overhead import median_with_interval
from transformers import TrainerCallback
from transformers.utils import logging

from attnpo.rewards.pool import VerifierPool
from attnpo.training.options import parse
from attnpo.training.run import build_trainer, quiet_screen
from attnpo.training.trainer import AttnPOTrainer

PHASES = ("rollout", "stages", "credit", "update")


class Logged(TrainerCallback):
    """Keeps what the trainer logged last."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        self.values = dict(logs or {})


class Method:
    """One method with its own model and optimiser."""

    def __init__(self, arm: str, responses: int, folder: Path, pool: VerifierPool) -> None:
        folder.mkdir()
        options = ["--config", "configs/short.yaml", *options_of(arm, 0, folder), "--output_dir", str(folder)]
        options += ["--learning_rate", "0", "--max_steps", "1000", "--eval_strategy", "no", "--credit_delay", "0"]
        with quiet_screen():
            data, args, model = parse([*options, "--per_device_train_batch_size", str(responses)])
            self.trainer: AttnPOTrainer
            self.trainer, _ = build_trainer(data, args, model, pool, Console(quiet=True))
        self.logged = Logged()
        self.trainer.callback_handler.callbacks = [self.logged]
        self.trainer.current_gradient_accumulation_steps = 1
        self.trainer.create_optimizer()
        self.trainer.model.train()
        self.batches = iter(self.trainer.get_train_dataloader())

    def step(self, seed: int) -> dict[str, float]:
        """Do a step; return its duration (`seconds`) and the metrics that the trainer logged."""
        batch = next(self.batches)
        torch.manual_seed(seed)
        started = time.perf_counter()
        self.trainer.training_step(self.trainer.model, batch, None)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()
        self.trainer.state.global_step += 1
        self.trainer.log({"loss": 0.0})
        return {"seconds": time.perf_counter() - started, **self.logged.values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--arms", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="ARM", help=", ".join(METHODS)
    )
    parser.add_argument("--responses", type=int, default=32, help="responses of a step, 8 for a problem")
    parser.add_argument("--rounds", type=int, default=7, help="3 or more, for an interval")
    parser.add_argument("-o", "--output", help="write every figure of every step as JSON")
    args = parser.parse_args()
    arms = list(dict.fromkeys([PLAIN, *args.arms]))
    logging.disable_progress_bar()
    steps: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, VerifierPool(2) as pool:
        methods = {arm: Method(arm, args.responses, Path(folder) / arm.lower(), pool) for arm in arms}
        for number in range(args.rounds + 1):
            for arm in random.Random(number).sample(arms, len(arms)):
                figures = methods[arm].step(seed=number)
                if number:  # after the warm-up round
                    steps[arm].append(figures)
            if number:
                print(
                    f"round {number}: " + ", ".join(f"{arm} {steps[arm][-1]['seconds']:.1f}" for arm in arms),
                    flush=True,
                )
    if args.output:
        Path(args.output).write_text(json.dumps(steps), encoding="utf-8")
    print("\n" + table(steps))


def table(steps: dict[str, list[dict[str, float]]]) -> str:
    lines = [
        "| method | s / step | / RLOO's | 95 % | " + " | ".join(PHASES) + " | additional tokens sampled | … read |",
        "|---" * (6 + len(PHASES)) + "|",
    ]
    costs = costs_of(steps)
    for arm, rounds in steps.items():
        cost = costs[arm]
        ratio = median_with_interval(column(rounds, "seconds") / column(steps[PLAIN], "seconds"))
        cells = [arm, f"{cost.seconds:.1f}", f"{cost.ratio:.2f}"]
        cells.append(f"{ratio['low']:.2f} – {ratio['high']:.2f}")
        cells += [f"{np.median(column(rounds, f'seconds/{phase}')):.2f}" for phase in PHASES]
        cells += [f"{cost.sampled:,.0f}", f"{cost.read:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
