"""Results of the runs of `compare_methods.py`, read from their folders, and the cost of a step of each method."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from attnpo.evaluation.aes import aes

START = "start"
PLAIN = "RLOO"
MINE = "AttnPO"


@dataclass(frozen=True)
class Arm:
    """Right answers and tokens, [seeds, problems], after `step` updates."""

    name: str
    seeds: tuple[int, ...]
    right: np.ndarray
    tokens: np.ndarray
    step: int

    @cached_property
    def accuracy(self) -> tuple[float, float, float]:
        """Mean and its interval; the same for `length`."""
        return interval(self.right)

    @cached_property
    def length(self) -> tuple[float, float, float]:
        return interval(self.tokens)

    def aes(self, start: Arm) -> float:
        """AES relative to the start of the same seeds."""
        held = np.isin(start.seeds, self.seeds)
        return aes(self.accuracy[0], self.length[0], start.right[held].mean(), start.tokens[held].mean())


@dataclass(frozen=True)
class Cost:
    """A step of a method: seconds, ratio to plain RLOO on the same rollouts, and tokens in addition to plain RL's."""

    seconds: float
    ratio: float
    sampled: float
    read: float


def load(folder: Path, name: str, seeds: int, step: int, label: str | None = None) -> Arm | None:
    """Load the runs of an arm that have this evaluation; None if there are none."""
    found: dict[int, list[dict]] = {}
    for seed in range(seeds):
        file = run_folder(folder, name, seed) / "rollouts" / f"eval-{step:06d}.jsonl.gz"
        if file.exists():
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                found[seed] = sorted((json.loads(line) for line in lines), key=lambda row: row["id"])
    if not found:
        return None
    right = [[float(row["correct"]) for row in rows] for rows in found.values()]
    tokens = [[float(row["tokens"]["completion"]) for row in rows] for rows in found.values()]
    return Arm(label or name, tuple(found), np.array(right), np.array(tokens), step)


def run_folder(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name.lower()}-{seed}"


def steps_evaluated(folder: Path, name: str, seeds: int) -> set[int]:
    """Return the updates after which every run of the arm was evaluated."""
    runs = [run_folder(folder, name, seed) / "rollouts" for seed in range(seeds)]
    return set.intersection(
        *({int(file.name[5:11]) for file in run.glob("eval-*.jsonl.gz")} for run in runs if run.exists())
    )


def costs_of(steps: dict[str, list[dict[str, float]]]) -> dict[str, Cost]:
    """Return costs by method, from the figures of every step of `method_cost.py`."""
    plain = column(steps[PLAIN], "seconds")
    costs = {}
    for name, rounds in steps.items():
        seconds = column(rounds, "seconds")
        sampled, read, prefixes = (
            column(rounds, f"extra/{kind}_tokens").mean() for kind in ("rollout", "forward", "prefix")
        )
        costs[name] = Cost(float(np.median(seconds)), float(np.median(seconds / plain)), sampled, read + prefixes)
    return costs


def load_costs(file: Path) -> dict[str, Cost]:
    """Load the costs that `method_cost.py -o FILE` wrote; empty without the file."""
    return costs_of(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def cost_of(costs: dict[str, Cost], name: str) -> Cost | None:
    """Return the cost of an arm; an ablation has that of its method."""
    return costs.get(name) or costs.get(name.partition("-")[0])


def column(rounds: list[dict[str, float]], name: str) -> np.ndarray:
    return np.array([figures.get(name, 0.0) for figures in rounds])


def interval(values: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """Return the mean of a [seeds, problems] table and its 95 % bootstrap interval, both resampled."""
    rng = np.random.default_rng(0)
    seeds, problems = values.shape
    means = [
        values[rng.integers(seeds, size=seeds)][:, rng.integers(problems, size=problems)].mean() for _ in range(draws)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def paired(arm: Arm, other: Arm, what: Literal["right", "tokens"]) -> np.ndarray:
    """Return `arm` minus `other`, [seeds, problems], of the seeds that both have."""
    both = sorted(set(arm.seeds) & set(other.seeds))
    mine, theirs = (getattr(x, what)[[x.seeds.index(seed) for seed in both]] for x in (arm, other))
    return mine - theirs
