"""Table and frontier of the runs of `compare_methods.py`, at equal updates and at equal training time.

Intervals are 95 % bootstrap intervals over seeds and problems (both resampled). AES is against the start of the same
seeds. Equal time: every arm at its last evaluation within the time that plain RLOO took for all its updates. Seconds of
an update are medians over all updates of an arm, which other work on the machine moves less than means.
"""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from attnpo.evaluation.aes import aes

START = "start"
PLAIN = "RLOO"
MINE = "AttnPO"
# Colours tell apart (by a palette for the colour-blind): accuracy alone, process supervision, AttnPO; the rest: length.
COLOURS = {START: "black", MINE: "#d55e00"}
COLOURS |= dict.fromkeys((PLAIN, "GRPO", "Dr.GRPO"), "#777777")
COLOURS |= dict.fromkeys(("First-correct", "MRT", "SHAPE", "IOP", "IOP-sixth-rate"), "#009e73")
COLUMNS = ("arm", "seeds", "accuracy", "low", "high", "tokens", "tokens_low", "tokens_high", "aes")


@dataclass(frozen=True)
class Arm:
    """Right answers and tokens, [seeds, problems], after `step` updates; seconds (median) and tokens of an update."""

    name: str
    right: np.ndarray
    tokens: np.ndarray
    step: float
    seconds: float = 0.0
    rollout_tokens: float = 0.0
    forward_tokens: float = 0.0

    @cached_property
    def accuracy(self) -> tuple[float, float, float]:
        """Mean and its interval; so `length`."""
        return interval(self.right)

    @cached_property
    def length(self) -> tuple[float, float, float]:
        return interval(self.tokens)

    def aes(self, start: Arm) -> float:
        return aes(self.accuracy[0], self.length[0], start.accuracy[0], start.length[0])


def write_tables(folder: Path, arms: list[str], seeds: int, steps: int) -> str:
    """table.md, table.csv, frontier.png; returns the text of the first. Arms without a finished run are left out."""
    start = load(folder, PLAIN, seeds, 0, label=START)
    found = [arm for name in arms if (arm := load(folder, name, seeds, steps)) is not None]
    if start is None or not found:
        return f"{folder}: no finished runs yet"
    text = table([start, *found], start, f"After {steps} updates")
    if plain := next((arm for arm in found if arm.name == PLAIN), None):
        limit = plain.seconds * steps
        within = [load(folder, arm.name, seeds, last_within(folder, arm, seeds, limit)) for arm in found]
        text += "\n\n" + table([a for a in within if a], start, f"Within {limit:.0f} s of training, plain RL's time")
    text += "\n\n" + differences([start, *found])
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "seconds", "rollout_tokens", "forward_tokens"])
        for arm in [start, *found]:
            measured = [arm.name, len(arm.right), *arm.accuracy, *arm.length, arm.aes(start)]
            writer.writerow([*measured, arm.seconds, arm.rollout_tokens, arm.forward_tokens])
    frontier([start, *found], folder / "frontier.png", steps)
    return text


def load(folder: Path, name: str, seeds: int, step: int, label: str | None = None) -> Arm | None:
    """The runs of an arm that have this evaluation; None where there is none."""
    right, tokens, costs = [], [], []
    for seed in range(seeds):
        run = folder / f"{name.lower()}-{seed}"
        file = run / "rollouts" / f"eval-{step:06d}.jsonl.gz"
        if not file.exists():
            continue
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows = sorted((json.loads(line) for line in lines), key=lambda row: row["id"])
        right.append([float(row["correct"]) for row in rows])
        tokens.append([float(row["tokens"]["completion"]) for row in rows])
        costs += [costs_of(line) for line in metrics(run)]
    if not right:
        return None
    seconds, rollout, forward = np.array(costs).T
    return Arm(
        label or name, np.array(right), np.array(tokens), step, np.median(seconds), rollout.mean(), forward.mean()
    )


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def costs_of(line: dict[str, float]) -> tuple[float, float, float]:
    """Seconds of an update without evaluations, and what it sampled and read beyond plain RL, in tokens."""
    seconds = sum(value for name, value in line.items() if name.startswith("seconds/"))
    return seconds, line.get("extra/rollout_tokens", 0.0), line.get("extra/forward_tokens", 0.0)


def last_within(folder: Path, arm: Arm, seeds: int, limit: float) -> int:
    """The last step at which every run of the arm was evaluated and that it reaches in `limit` seconds; 0: none."""
    runs = [folder / f"{arm.name.lower()}-{seed}" / "rollouts" for seed in range(seeds)]
    evaluated = [{int(file.name[5:11]) for file in run.glob("eval-*.jsonl.gz")} for run in runs if run.exists()]
    # A quarter of grace: arms of equal cost differ by the machine's mood.
    return max((s for s in set.intersection(*evaluated) if s * arm.seconds <= 1.25 * limit), default=0)


def interval(values: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """Mean of a [seeds, problems] table and its bootstrap interval."""
    rng = np.random.default_rng(0)
    seeds, problems = values.shape
    means = [
        values[rng.integers(seeds, size=seeds)][:, rng.integers(problems, size=problems)].mean() for _ in range(draws)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def table(arms: list[Arm], start: Arm, title: str) -> str:
    lines = [
        f"{title}, {start.right.shape[1]} held-out problems, sampled at temperature 1.",
        "",
        "| method | seeds | updates | accuracy | 95 % | tokens | 95 % | AES | s / update | sampled more | read more |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in arms:
        (a, a_low, a_high), (t, t_low, t_high) = arm.accuracy, arm.length
        cells = [arm.name, f"{len(arm.right)}", f"{arm.step}", f"{a:.3f}", f"{a_low:.3f} – {a_high:.3f}"]
        cells += [f"{t:.0f}", f"{t_low:.0f} – {t_high:.0f}"]
        cells.append(f"{arm.aes(start):+.2f}")
        costs = [f"{arm.seconds:.1f}", f"{arm.rollout_tokens:,.0f}", f"{arm.forward_tokens:,.0f}"]
        lines.append(f"| {' | '.join(cells + ([''] * 3 if arm is start else costs))} |")
    return "\n".join(lines)


def differences(arms: list[Arm]) -> str:
    """AttnPO minus every other arm, paired by seed and problem; empty without that arm."""
    mine = next((arm for arm in arms if arm.name == MINE), None)
    if mine is None:
        return ""
    lines = [f"{MINE} minus others, paired by seed and problem:", "", "| | accuracy | tokens |", "|---|---|---|"]
    for other in arms:
        if other is not mine:
            seeds = min(len(mine.right), len(other.right))
            a = interval(mine.right[:seeds] - other.right[:seeds])
            t = interval(mine.tokens[:seeds] - other.tokens[:seeds])
            accuracy = f"{a[0]:+.3f} ({a[1]:+.3f} to {a[2]:+.3f})"
            lines.append(f"| {other.name} | {accuracy} | {t[0]:+.0f} ({t[1]:+.0f} to {t[2]:+.0f}) |")
    return "\n".join(lines)


def frontier(arms: list[Arm], file: Path, steps: int) -> None:
    """Left: accuracy over tokens, one numbered point per method. Right: AttnPO's ablations minus AttnPO, paired."""
    ablations = [arm for arm in arms if arm.name.startswith(f"{MINE}-")]
    methods = [arm for arm in arms if arm not in ablations]
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 6), layout="constrained", width_ratios=(3, 2))
    # A method that fell far below the others is put on the edge, with its accuracy in the legend.
    floor = float(np.median([arm.accuracy[0] for arm in methods])) - 0.3
    for number, arm in enumerate(methods):
        (a, a_low, a_high), (t, t_low, t_high) = arm.accuracy, arm.length
        colour = COLOURS.get(arm.name, "#0072b2")
        label = f"{number}  {arm.name}" + ("" if a > floor else f" ({a:.2f})")
        at = max(a, floor)
        left.plot([t_low, t_high], [at, at], color=colour, linewidth=0.8, zorder=1)
        left.plot([t, t], [max(a_low, floor), max(a_high, floor)], color=colour, linewidth=0.8, zorder=1)
        left.scatter([t], [at], s=170, color=colour, edgecolor="white", label=label, zorder=2)
        left.annotate(str(number), (t, at), ha="center", va="center", fontsize=7, color="white", zorder=3)
    left.set(xlabel="tokens of a response", ylabel="accuracy")
    title = f"after {steps} updates; bars: 95 % over seeds and problems\ngrey: accuracy alone, blue: length rewards, "
    left.set_title(title + "green: process supervision, orange: AttnPO", fontsize=9)
    left.legend(fontsize=8, markerscale=0.6, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    whole = next((arm for arm in arms if arm.name == MINE), None)
    for place, arm in enumerate(ablations if whole else []):
        seeds = min(len(whole.right), len(arm.right))
        middle, low, high = interval(arm.right[:seeds] - whole.right[:seeds])
        tokens = interval(arm.tokens[:seeds] - whole.tokens[:seeds])[0]
        right.plot([low, high], [-place, -place], color="#555555", linewidth=1)
        right.plot([middle], [-place], "o", color="#555555")
        right.annotate(
            f"{arm.name.removeprefix(f'{MINE}-')}, {tokens:+.0f} tokens", (0, -place), (0, 9),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
    right.axvline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    right.set(yticks=[], xlabel="accuracy minus AttnPO's", ylim=(-len(ablations) + 0.4, 0.7))
    right.set_title(f"ablations of {MINE}, paired by seed and problem", fontsize=10)
    figure.savefig(file, dpi=110)
    plt.close(figure)
