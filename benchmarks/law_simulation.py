"""When does credit per step pay? A policy of a few logits, trained by a length penalty and by credit per step.

A response has 4 essential steps and M redundant ones (about 0.7 M of them written at the start) that share R logits;
law_policies.py has the two kinds of policy. Groups of 8; the reward is TLMRE's, the advantage RLOO's, the optimiser
Adam at a constant rate. The arms (law_arms.py) differ in the scale of the advantage on the steps of right
responses.

Prints the remaining share of redundancy after 20, 40 and 60 updates (the largest standard error over seeds) and the
signal to noise ratio of the first update; with --curves, the updates until half of the redundancy is removed, the
speed-up over the penalty, and in brackets the speed-up predicted from the first update. -o writes a list of
{"model", "problems", "redundant", "parameters", "arm", "seed", "left": [share after every update], "accuracy":
[expected, after every update]}; --summary the speed-ups alone, in the form that law_figure.py reads. One thread.

    python benchmarks/law_simulation.py
    python benchmarks/law_simulation.py --model choice --arms penalty stepwise shuffled wrong:0.2
    python benchmarks/law_simulation.py --model choice --curves --summary benchmarks/law_simulation.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from law_arms import arm_name, kept_steps
from law_policies import MODELS, SKIPPED, Setting, policy_of
from numpy import ndarray

from attnpo.credit.advantages import outcome_advantages
from attnpo.rewards.length.tlmre import tlmre_rewards

TABLE = ((16, 4, 4), (16, 32, 32), (16, 64, 64), (16, 32, 4), (2, 4, 4), (2, 32, 32), (2, 32, 4), (2, 32, 1))
"""(problems per update, M, R)"""
SHOWN = (20, 40, 60)
FEW = 4
"""Kinds of redundant steps if they are few; if they are many, every step is of a different kind."""
REDUNDANT = (4, 8, 16, 32, 64)
PROBLEMS = (2, 4, 16)
CURVES = tuple((p, m, r) for p in PROBLEMS for m in REDUNDANT for r in dict.fromkeys((min(m, FEW), m)))
Row = dict[str, Any]


def update_gradient(
    setting: Setting, arm: str, logits: Float[ndarray, "S L"], rng: np.random.Generator
) -> Float[ndarray, "S L"]:
    """Return the gradient of one update: responses, rewards, advantages, scales."""
    policy = policy_of(setting)
    counts, right = policy.sample(logits, rng)
    groups = (-1, setting.group)
    lengths, correct = torch.from_numpy(counts.sum(axis=-1).reshape(groups)), torch.from_numpy(right.reshape(groups))
    rewards = tlmre_rewards(lengths, correct, alpha=setting.alpha).double()
    advantages = outcome_advantages(rewards).numpy().reshape(right.shape)
    kept = kept_steps(arm, counts, policy.essential, advantages, right, rng)
    return policy.gradient(logits, counts, kept, advantages)


def signal_to_noise(setting: Setting, arm: str, draws: int = 300) -> float:
    """Return −mean / standard deviation of the first update's gradient of a redundant logit (mean over the logits)."""
    policy = policy_of(setting)
    logits = np.tile(policy.start(), (draws, 1))
    drawn = update_gradient(setting, arm, logits, np.random.default_rng(0))[:, policy.logits_of_redundant]
    return float(-drawn.mean() / drawn.std(axis=0).mean())


def predicted_speed_up(setting: Setting, arm: str) -> float:
    """Predict the speed-up from the first update. Adam moves a logit by the rate times mean / root mean square of its
    gradient, which is 1 / sqrt(1 + 1/s²) for a signal to noise ratio s; the speed-up is the ratio of the moves."""
    slow, fast = (signal_to_noise(setting, name) for name in ("penalty", arm))
    return float(((1 + slow**-2) / (1 + fast**-2)) ** 0.5)


class Adam:
    """Kingma & Ba (arXiv 1412.6980) with torch's defaults; ascends."""

    def __init__(self, rate: float) -> None:
        self.rate, self.number, self.mean, self.square = rate, 0, 0.0, 0.0

    def step(self, gradient: Float[ndarray, "S L"]) -> Float[ndarray, "S L"]:
        """Return the change of the logits."""
        self.number += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean, square = self.mean / (1 - 0.9**self.number), self.square / (1 - 0.999**self.number)
        return self.rate * mean / (np.sqrt(square) + 1e-8)


def simulate(setting: Setting, arm: str, seeds: int, updates: int, until: float = 0.0) -> list[Row]:
    """Simulate parallel training runs until at most the share `until` of the redundancy remains in each.

    All draw from one generator: the same number of seeds gives the same runs.
    """
    policy, rng, optimizer = policy_of(setting), np.random.default_rng(0), Adam(setting.learning_rate)
    logits = np.tile(policy.start(), (seeds, 1))
    left, accuracy = [np.ones(seeds)], []
    while len(accuracy) < updates and not (np.min(left, axis=0) <= until).all():
        logits = logits + optimizer.step(update_gradient(setting, arm, logits, rng))
        left.append(policy.left(logits))
        accuracy.append(policy.accuracy(logits))
    names = {"problems": setting.problems, "redundant": setting.redundant, "parameters": setting.parameters}
    curves = zip(np.round(left[1:], 5).T.tolist(), np.round(accuracy, 5).T.tolist(), strict=True)
    return [
        {"model": setting.model, **names, "arm": arm, "seed": seed, "left": one, "accuracy": other}
        for seed, (one, other) in enumerate(curves)
    ]


def updates_to(left: Sequence[float], share: float = 0.5) -> float | None:
    """Return the updates until `share` of the redundancy remains, interpolated linearly; None if it is not reached."""
    before = 1.0
    for number, after in enumerate(left):
        if after <= share:
            return number + (before - share) / (before - after)
        before = after
    return None


def speed_up(
    rows: Iterable[Row], regime: tuple[int, int, int], arm: str = "stepwise", share: float = 0.5
) -> tuple[float, float] | None:
    """Return penalty's updates / `arm`'s updates, means over the seeds that both have, and the standard error.

    `regime`: problems per update, M, R. None if a seed does not reach it, or if there are fewer than two seeds.
    """
    needed: dict[str, dict[int, float | None]] = {"penalty": {}, arm: {}}
    for row in rows:
        if (row["problems"], row["redundant"], row["parameters"]) == regime and row["arm"] in needed:
            needed[row["arm"]][row["seed"]] = updates_to(row["left"], share)
    pairs = [(needed["penalty"][seed], needed[arm][seed]) for seed in needed[arm] if seed in needed["penalty"]]
    numbers = np.array([pair for pair in pairs if None not in pair], dtype=float)
    if len(numbers) < max(len(pairs), 2):
        return None
    slow, fast = numbers.mean(axis=0)
    ratio = slow / fast
    residual = (numbers[:, 0] - ratio * numbers[:, 1]) / fast  # the ratio of two means, to first order
    return float(ratio), float(residual.std(ddof=1) / len(numbers) ** 0.5)


def summary(rows: list[Row], arms: Sequence[str], base: Setting) -> list[dict[str, Any]]:
    """Return a curve per arm, problems per update and number of kinds: speed-up over redundant steps per response."""
    curves = []
    for arm, problems, kinds in itertools.product(arms, PROBLEMS, ("few", "many")):
        regimes = [(problems, steps, steps if kinds == "many" else min(steps, FEW)) for steps in REDUNDANT]
        found = [(regime[1], ratio) for regime in regimes if (ratio := speed_up(rows, regime, arm)) is not None]
        if arm != "penalty" and found:
            names = {"model": base.model, "arm": arm, "problems": problems, "kinds": kinds}
            points = {
                "redundant": [round(base.start * steps, 3) for steps, _ in found],
                "speed_up": [round(ratio, 3) for _, (ratio, _) in found],
                "standard_error": [round(error, 3) for _, (_, error) in found],
            }
            curves.append({**names, **points})
    return curves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="written", help="the kind of policy")
    parser.add_argument("--skipped", choices=SKIPPED, default="outcome", help="what a step not written carries")
    parser.add_argument("--arms", nargs="+", type=arm_name, default=["penalty", "stepwise"], metavar="ARM")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--alpha", type=float, default=0.4, help="weight of the length reward")
    parser.add_argument("--learning_rate", type=float, default=0.05)
    parser.add_argument("--curves", action="store_true", help="speed-ups over a grid, in the place of the table")
    parser.add_argument("--max_updates", type=int, default=2000, help="of a run of --curves")
    parser.add_argument("--summary", type=Path, help="with --curves: write the speed-ups to this JSON file")
    parser.add_argument("-o", "--output", type=Path, help="write every run to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.curves and "penalty" not in args.arms:
        parser.error(f"--arms: found {' '.join(args.arms)}, expected penalty among them (--curves compares with it)")
    if args.summary is not None and not args.curves:
        parser.error("--summary: found without --curves, expected with it")
    base = Setting(1, 1, 1, args.model, args.skipped, alpha=args.alpha, learning_rate=args.learning_rate)
    rows: list[Row] = []
    print(f"| problems, M, R | {' | '.join(args.arms)} |\n|---|{'---|' * len(args.arms)}")
    for regime in CURVES if args.curves else TABLE:
        setting = replace(base, problems=regime[0], redundant=regime[1], parameters=regime[2])
        limits = (args.max_updates, 0.5) if args.curves else (max(SHOWN), 0.0)
        cells = []
        for arm in args.arms:
            runs = simulate(setting, arm, args.seeds, *limits)
            rows.extend(runs)
            cells.append(curve_cell(rows, setting, arm, runs) if args.curves else table_cell(setting, arm, runs))
        print(f"| {', '.join(map(str, regime))} | {' | '.join(cells)} |", flush=True)
    if args.summary is not None:
        args.summary.write_text(json.dumps(summary(rows, args.arms, base), indent=1) + "\n")
    if args.output is not None:
        args.output.write_text(json.dumps(rows) + "\n")
        print(f"{len(rows)} runs in {args.output}", file=sys.stderr)


def table_cell(setting: Setting, arm: str, runs: list[Row]) -> str:
    left = np.array([row["left"] for row in runs])[:, [number - 1 for number in SHOWN]]
    error = (left.std(axis=0, ddof=1) / len(runs) ** 0.5).max()
    shares = " ".join(f"{mean:.2f}" for mean in left.mean(axis=0))
    return f"{shares} (±{error:.3f}); s/n {signal_to_noise(setting, arm):.2f}"


def curve_cell(rows: list[Row], setting: Setting, arm: str, runs: list[Row]) -> str:
    regime = (setting.problems, setting.redundant, setting.parameters)
    needed = [number for row in runs if (number := updates_to(row["left"])) is not None]
    updates = f"{np.mean(needed):.0f} updates" if len(needed) == len(runs) else f"{len(needed)} of {len(runs)} seeds"
    ratio = None if arm == "penalty" else speed_up(rows, regime, arm)
    if ratio is None:
        return updates
    # The prediction does not include the logit of continuing, which has most of the effect if there is one.
    predicted = "" if setting.model == "choice_end" else f" ({predicted_speed_up(setting, arm):.2f})"
    return f"{updates}, ×{ratio[0]:.2f}±{ratio[1]:.2f}{predicted}"


if __name__ == "__main__":
    main()
